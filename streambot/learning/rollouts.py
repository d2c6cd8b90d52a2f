"""Experience from environments in this process: N of them, T steps each, as a batch to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from streambot.agents.batch import Batch
from streambot.domain.errors import DataError, DecodeError, UsageError
from streambot.env.world import RESET_IN_STEP
from streambot.learning.experience import Experience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from streambot.agents.ppo import PPOAgent
    from streambot.env.vector_env import VectorTradingEnv
    from streambot.learning.experience import Acts
    from streambot.learning.scaling import RewardScale


class Collected(NamedTuple):
    """What a rollout brought.

    Attributes:
        batch: [N, T].
        reward: mean reward of a step.
        returns: total reward of every episode that ended.
        steps: environment steps, N x T.
    """

    batch: Batch
    reward: float
    returns: tuple[float, ...]
    steps: int


class Rollouts:
    """Steps environments with a policy; goes on where the last rollout ended.

    Args:
        env: with autoreset in the same step.
        steps: T, of one rollout.
        seed: of episodes and actions.
        scale: of the rewards that are learnt from; None: as they are.

    Raises:
        UsageError: an environment with another autoreset.
    """

    def __init__(
        self, env: VectorTradingEnv, steps: int, *, seed: int, scale: RewardScale | None = None
    ) -> None:
        if int(env.core.autoreset) != RESET_IN_STEP:
            raise UsageError(
                "rollouts need environments that begin again in the step that ends an episode",
                hint='autoreset_mode="SameStep"',
            )
        self._env, self._steps = env, steps
        self._seed, self._scale, self._count = seed, scale, 0
        self._obs, infos = env.reset(seed=seed)
        self._mask = infos["action_mask"]
        self._episode = np.arange(env.num_envs)
        self._totals = np.zeros(env.num_envs)

    def state(self) -> dict[str, Tensor]:
        """Where it stands, as tensors by name; `restore` goes on from there."""
        return {
            "envs": torch.frombuffer(bytearray(self._env.core.snapshot()), dtype=torch.uint8),
            "episode": torch.from_numpy(self._episode.copy()),
            "totals": torch.from_numpy(self._totals.copy()),
            "count": torch.tensor(self._count),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of rollouts with the same data, settings and seed.

        Raises:
            DataError: it is another one's.
        """
        core = self._env.core
        try:
            core.restore(state["envs"].numpy().tobytes())
            self._episode[...], self._totals[...] = (
                state["episode"].numpy(), state["totals"].numpy(),
            )  # fmt: skip
        except (DecodeError, KeyError, ValueError) as cause:
            raise DataError(
                "the environments of the training were others",
                hint="go on with the data and the settings that it was begun with",
            ) from cause
        self._obs, self._mask = core.observations.copy(), core.masks.copy()
        self._count = int(state["count"])

    def collect(self, agent: PPOAgent) -> Collected:
        """One rollout.

        Args:
            agent: whose policy acts; its critic values what was reached.
        """
        kept, returns = self.play(agent.select_action, agent.device)
        batch = kept.batch(agent.values, agent.config.learn, agent.device, self._scale)
        return Collected(batch, float(kept.reward.mean()), returns, kept.reward.size)

    def play(self, act: Acts, device: torch.device) -> tuple[Experience, tuple[float, ...]]:
        """One rollout, as it was.

        Args:
            act: actions and their log-probabilities [N], of observations [N, F], masks [N, A] and
                numbers in [0, 1) that draw them [N].
            device: where observations are looked at.

        Returns:
            The steps [T, N], and the total reward of every episode that ended.
        """
        env, count, steps = self._env, self._env.num_envs, self._steps
        kept = Experience(steps, count, self._obs.shape[1], self._mask.shape[1])
        returns: list[float] = []
        draws = np.random.default_rng([self._seed, 1, self._count])
        self._count += 1
        for t in range(steps):
            kept.obs[t], kept.mask[t], kept.episode[t] = self._obs, self._mask, self._episode
            chosen, log = act(
                torch.from_numpy(kept.obs[t]).to(device),
                torch.from_numpy(kept.mask[t]).to(device),
                torch.from_numpy(draws.random(count, np.float32)).to(device),
            )
            kept.action[t], kept.log_prob[t] = chosen.cpu().numpy(), log.cpu().numpy()
            self._obs, kept.reward[t], terminated, truncated, infos = env.step(kept.action[t])
            self._mask = infos["action_mask"]
            over = terminated | truncated
            kept.terminated[t], kept.over[t], kept.reached[t] = terminated, over, self._obs
            self._totals += kept.reward[t]
            for i in np.flatnonzero(over).tolist():
                kept.reached[t, i] = infos["final_obs"][i]
                returns.append(float(self._totals[i]))
            self._totals[over] = 0.0
            self._episode = self._episode + count * over
        return kept, tuple(returns)
