"""Experience from environments in this process: N of them, T steps each, as a batch to learn from.

The end of an episode is two things: a termination has no future, a truncation has one that was not
seen, so its last observation is valued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from streambot.agents.advantages import gae
from streambot.agents.batch import Batch
from streambot.domain.errors import UsageError
from streambot.env.world import RESET_IN_STEP

if TYPE_CHECKING:
    from streambot.agents.ppo import PPOAgent
    from streambot.env.vector_env import VectorTradingEnv


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

    Raises:
        UsageError: an environment with another autoreset.
    """

    def __init__(self, env: VectorTradingEnv, steps: int, *, seed: int) -> None:
        if int(env.core.autoreset) != RESET_IN_STEP:
            raise UsageError(
                "rollouts need environments that begin again in the step that ends an episode",
                hint='autoreset_mode="SameStep"',
            )
        self._env, self._steps = env, steps
        self._draws = np.random.default_rng([seed, 1])
        self._obs, infos = env.reset(seed=seed)
        self._mask = infos["action_mask"]
        self._episode = np.arange(env.num_envs)
        self._totals = np.zeros(env.num_envs)

    def collect(self, agent: PPOAgent) -> Collected:
        """One rollout.

        Args:
            agent: whose policy acts; its critic values what was reached.
        """
        env, count, steps = self._env, self._env.num_envs, self._steps
        shape = (steps, count)
        obs = np.empty((*shape, self._obs.shape[1]), np.float32)
        reached = np.empty_like(obs)
        mask = np.empty((*shape, self._mask.shape[1]), np.uint8)
        action, log_prob = np.empty(shape, np.int64), np.empty(shape, np.float32)
        reward, over = np.empty(shape, np.float32), np.empty(shape, np.bool_)
        terminated, episode = np.empty(shape, np.bool_), np.empty(shape, np.int64)
        returns: list[float] = []
        for t in range(steps):
            obs[t], mask[t], episode[t] = self._obs, self._mask, self._episode
            uniform = torch.from_numpy(self._draws.random(count, np.float32))
            chosen, log = agent.select_action(
                torch.from_numpy(obs[t]).to(agent.device),
                torch.from_numpy(mask[t]).to(agent.device),
                uniform.to(agent.device),
            )
            action[t], log_prob[t] = chosen.cpu().numpy(), log.cpu().numpy()
            self._obs, reward[t], terminated[t], truncated, infos = env.step(action[t])
            self._mask = infos["action_mask"]
            over[t] = terminated[t] | truncated
            reached[t] = self._obs
            self._totals += reward[t]
            for i in np.flatnonzero(over[t]).tolist():
                reached[t, i] = infos["final_obs"][i]
                returns.append(float(self._totals[i]))
            self._totals[over[t]] = 0.0
            self._episode = self._episode + count * over[t]
        batch = self._batch(
            agent, obs, reached, mask, action, log_prob, reward, terminated, over, episode
        )
        return Collected(batch, float(reward.mean()), tuple(returns), steps * count)

    def _batch(
        self,
        agent: PPOAgent,
        obs: np.ndarray,
        reached: np.ndarray,
        mask: np.ndarray,
        action: np.ndarray,
        log_prob: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        over: np.ndarray,
        episode: np.ndarray,
    ) -> Batch:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(agent.device)

        config = agent.config.learn
        value, value_reached = agent.values(tensor(obs)), agent.values(tensor(reached))
        discount = tensor(np.where(terminated, 0.0, config.gamma).astype(np.float32))
        cut = tensor(over.astype(np.float32))
        advantage = gae(tensor(reward), value, value_reached, discount, cut, config.lam)
        parts = (
            tensor(obs), tensor(mask), tensor(action), tensor(log_prob), advantage,
            advantage + value, tensor(episode),
        )  # fmt: skip
        # Learning wants environments first: [N, T, ...].
        return Batch(*(part.transpose(0, 1).contiguous() for part in parts))
