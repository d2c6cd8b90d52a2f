"""What an actor does between two looks at the weights: steps environments, and cuts what came of it.

Everything that a learner needs of a step is what the policy said when it acted: log-probabilities of
all actions and the gate come from the forward pass that chose. A fragment ends where its episode ends,
or with the rollout; the next one of that environment goes on where it ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from streambot.agents.adaptation import taken
from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import chosen
from streambot.domain.durations import format_duration
from streambot.env.fields import layout_digest
from streambot.learning.rollouts import Rollouts
from streambot.streams.fragment import Fragment, FragmentHead

if TYPE_CHECKING:
    from torch import Tensor

    from streambot.agents.ppo import PPOAgent
    from streambot.env.vector_env import VectorTradingEnv
    from streambot.learning.experience import Experience


_SEGMENT = ("instrument", "first_bar", "last_bar")
"""Fields of `env.world.ENV` that say what an episode plays."""


class Collecting(NamedTuple):
    """One rollout of an actor.

    Attributes:
        fragments: in the order of their environments, and of time within each.
        returns: total reward of every episode that ended.
    """

    fragments: list[Fragment]
    returns: tuple[float, ...]


class Collector:
    """Steps environments with a policy, in one life of an actor.

    Args:
        env: with autoreset in the same step.
        steps: T, of a rollout, and of a fragment at most.
        training: whose experience it is.
        actor: its name. incarnation: number of its life.
        seed: of episodes and actions; every life of an actor draws its own.
    """

    def __init__(
        self,
        env: VectorTradingEnv,
        steps: int,
        *,
        training: str,
        actor: str,
        incarnation: int,
        seed: int,
    ) -> None:
        self._env, self._steps = env, steps
        self._rollouts = Rollouts(env, steps, seed=seed)
        self._training, self._actor, self._incarnation = training, actor, incarnation
        self._layout = layout_digest(env.config)
        self._sequence = 0
        self._episodes = np.zeros(env.num_envs, np.int64)
        self._at = np.zeros(env.num_envs, np.int64)

    def collect(self, agent: PPOAgent, weights: int) -> Collecting:
        """One rollout, as fragments.

        Args:
            agent: whose policy acts.
            weights: sequence number of its weights.
        """
        count, actions = self._env.num_envs, agent.config.actions
        said = np.empty((self._steps, count, actions), np.float32)
        gate = np.zeros((self._steps, count, _experts(agent)), np.float32)
        played = np.empty((self._steps, count, len(_SEGMENT)), np.int64)
        at = 0

        def act(obs: Tensor, mask: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal at
            envs = self._env.core.envs
            played[at] = np.stack([envs[name] for name in _SEGMENT], -1)
            with torch.no_grad():
                if isinstance(agent, MoEAgent):
                    mixed = agent.mixed(obs, mask)
                    log_probs = mixed.log_probs
                    gate[at] = mixed.log_gate.exp().cpu().numpy()
                else:
                    log_probs = agent.log_probs(obs, mask)
                action = chosen(log_probs, uniform)
                said[at] = log_probs.cpu().numpy()
            at += 1
            return action, taken(log_probs, action)

        kept, returns = self._rollouts.play(act, agent.device)
        fragments = []
        for i in range(count):
            ends = {*(np.flatnonzero(kept.over[:, i]) + 1).tolist(), self._steps}
            low = 0
            for high in sorted(ends):
                instrument, task = self._task(*played[low, i].tolist())
                head = self._head(kept, i, low, high, weights, gate.shape[2], instrument, task)
                span = slice(low, high)
                # Of the observation reached nobody says what is legal: nobody answers it.
                after = np.ones((1, actions), np.uint8)
                fragments.append(
                    Fragment(
                        head,
                        np.concatenate([kept.obs[span, i], kept.reached[high - 1 : high, i]]),
                        np.concatenate([kept.mask[span, i], after]),
                        kept.action[span, i].astype(np.int32), kept.log_prob[span, i],
                        said[span, i], gate[span, i], kept.reward[span, i],
                    )
                )  # fmt: skip
                low = high
        return Collecting(fragments, returns)

    def _task(self, number: int, first: int, last: int) -> tuple[str, str]:
        """Symbol and task, see `FragmentHead`, of an episode of bars `first` to `last`."""
        about = self._env.core.segments.head
        symbol = about.instruments[number].symbol
        return symbol, f"{symbol}/{format_duration(about.decision_ns)}/{first}+{last - first}"

    def _head(
        self,
        kept: Experience,
        i: int,
        low: int,
        high: int,
        weights: int,
        experts: int,
        instrument: str,
        task: str,
    ) -> FragmentHead:
        """Of the steps `low` to `high` of environment i, which are the next ones of its episode."""
        terminated, over = bool(kept.terminated[high - 1, i]), bool(kept.over[high - 1, i])
        head = FragmentHead(
            training=self._training, actor=self._actor, incarnation=self._incarnation,
            sequence=self._sequence, layout=self._layout, env=i, episode=int(self._episodes[i]),
            t_started=int(self._at[i]), steps=high - low, features=kept.obs.shape[2],
            actions=kept.mask.shape[2], experts=experts, weights=weights, terminated=terminated,
            truncated=over and not terminated, instrument=instrument, task=task,
        )  # fmt: skip
        self._sequence += 1
        self._at[i] = 0 if over else self._at[i] + high - low
        self._episodes[i] += over
        return head


def _experts(agent: PPOAgent) -> int:
    return agent.config.experts if isinstance(agent, MoEAgent) else 0
