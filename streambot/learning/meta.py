"""The outer loop over tasks of a market: play, adapt, play again, and learn from what that earned.

    support_i ~ pi(theta)            every task's support, with the meta-parameters
    theta_i   = adapt(theta, support_i)
    query_i   ~ pi(theta_i)          its query, with the adapted ones
    theta    -= Adam(grad_theta mean_i loss(theta_i, query_i))

The loss of the query is the one that `learn` moves a policy by. The critic is shared by all tasks and
no part of the meta-gradient: it learns from both sets of every batch. Update u is a function of the
seed, u and the state before it, so a training goes on exactly where it was left.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import nn

from streambot.agents.adaptation import Parameters, adapted, as_parameters, for_each, taken
from streambot.agents.advantages import normalised
from streambot.agents.batch import Batch, check_batch
from streambot.agents.maml import MetaConfig, meta_gradient
from streambot.agents.memory import memory_of, part_of, remember
from streambot.agents.ppo import chosen
from streambot.agents.updates import adam, value_update
from streambot.domain.errors import DataError
from streambot.learning.tasks import Arena, TaskConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from streambot.agents.ppo import PPOAgent
    from streambot.learning.experience import Acts, Experience
    from streambot.learning.scaling import RewardScale
    from streambot.learning.tasks import Task, TaskPool

Count = Annotated[int, Meta(ge=1, le=2**31)]
_TRAIN, _CURVE = 2, 3
"""Streams of chance: what is drawn for the one never meets the other."""


class MetaTrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy is meta-trained.

    Attributes:
        updates: of the meta-parameters.
        tasks: of a batch.
        task: what a task is.
        meta: the outer loop.
        epochs: gradients that are taken from one batch; behind the first, the clip holds them back.
        curve_every: updates between two looks at how held-out tasks are adapted to; 0: never.
        curve_tasks: tasks of a look.
        curve_steps: most gradient steps of a look.
        checkpoint_every: updates between two checkpoints.
        seed: of tasks and actions.
    """

    updates: Count = 400
    tasks: Count = 16
    task: TaskConfig = TaskConfig()
    meta: MetaConfig = MetaConfig()
    epochs: Count = 1
    curve_every: Annotated[int, Meta(ge=0)] = 50
    curve_tasks: Count = 32
    curve_steps: Annotated[int, Meta(ge=0, le=32)] = 5
    checkpoint_every: Count = 25
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0


class MetaStats(NamedTuple):
    """What a meta-update did.

    Attributes:
        loss: mean outer loss over the tasks, before the first gradient.
        before, after: mean reward of a step on the supports, and on the queries after adaptation.
        value_loss: of the critic.
        gate_entropy: of the mean gate over the supports, nats; 0 without a gate.
        rate: mean inner rate.
        steps: environment steps.
    """

    loss: float
    before: float
    after: float
    value_loss: float
    gate_entropy: float
    rate: float
    steps: int


class MetaLearner:
    """Meta-trains an agent.

    Args:
        agent: its parameters are the meta-parameters.
        pool: tasks to learn from.
        config: see `MetaTrainConfig`.
        scale: of the rewards.

    Attributes:
        rates: inner rate of every parameter of the policy.
    """

    def __init__(
        self, agent: PPOAgent, pool: TaskPool, config: MetaTrainConfig, scale: RewardScale
    ) -> None:
        self.agent, self.config = agent, config
        self._pool, self._scale = pool, scale
        self._arena = Arena(pool, config.tasks, seed=config.seed)
        self.rates = first_rates(agent)
        learnt = [*agent.network.parameters(), *self.rates.values()]
        self._optimizer = adam(learnt, config.meta.lr)
        self._critic_optimizer = adam(list(agent.critic.parameters()), agent.config.learn.lr)

    def update(self, number: int) -> tuple[MetaStats, Tensor]:
        """One batch of tasks.

        Args:
            number: of the update, from 0.

        Returns:
            What it did, and the observations of the supports [tasks, accounts, T, F].

        Raises:
            DataError: a loss or a gradient is no number: nothing was changed by it.
        """
        agent, config = self.agent, self.config
        draws = np.random.default_rng([config.seed, _TRAIN, number])
        tasks = self._pool.draw(config.tasks, draws)
        before = self._arena.play(
            tasks, agent.select_action, draws, query=False, device=agent.device
        )
        support = task_batch(agent, before, config.task.accounts, self._scale)
        after = adapted_all(agent, support, config.meta.steps, self.rates)
        played = self._arena.play(
            tasks, acting(agent, after), draws, query=True, device=agent.device
        )
        query = task_batch(agent, played, config.task.accounts, self._scale)
        progress = number / config.updates
        losses = [self._step(support, query, progress) for _ in range(config.epochs)]
        value_loss = value_update(
            agent.critic, self._critic_optimizer,
            torch.cat([support.obs.flatten(0, 2), query.obs.flatten(0, 2)]),
            torch.cat([support.target.flatten(), query.target.flatten()]),
            agent.config.learn, progress=progress, generator=agent.generator,
        )  # fmt: skip
        rates = torch.cat([rate.detach().flatten() for rate in self.rates.values()])
        stats = MetaStats(
            loss=losses[0],
            before=float(before.reward.mean()),
            after=float(played.reward.mean()),
            value_loss=value_loss,
            gate_entropy=agent.gate_entropy(support.obs),
            rate=float(rates.mean()),
            steps=before.reward.size + played.reward.size,
        )
        return stats, support.obs

    def _step(self, support: Batch, query: Batch, progress: float) -> float:
        agent, meta, learn = self.agent, self.config.meta, self.agent.config.learn
        left = learn.left(progress)
        for group in self._optimizer.param_groups:
            group["lr"] = meta.lr * left
        outer = partial(agent.outer_loss, clip=meta.clip, balance=learn.balanced(progress))
        found = meta_gradient(
            agent.policy, as_parameters(agent.network), self.rates, support, query, meta,
            agent.config.adapt, outer,
        )  # fmt: skip
        parameters = [*agent.network.parameters(), *self.rates.values()]
        slopes = [found.parameters[name] for name, _ in agent.network.named_parameters()]
        slopes += [
            found.rates[name] if meta.learn_rates else torch.zeros_like(rate)
            for name, rate in self.rates.items()
        ]
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope.detach()
        norm = nn.utils.clip_grad_norm_(parameters, meta.max_grad_norm)
        if not bool(torch.isfinite(found.loss) & torch.isfinite(norm)):
            raise DataError(
                "the meta-loss or its gradient is no number any more: the update was left",
                hint="a smaller inner or outer learning rate; the last checkpoint is from before",
            )
        self._optimizer.step()
        return float(found.loss.detach())

    def curve(self, held_out: TaskPool, arena: Arena | None = None) -> np.ndarray:
        """How held-out tasks are adapted to, see `adaptation_curve`; always the same tasks."""
        config = self.config
        return adaptation_curve(
            self.agent, held_out, config.curve_tasks, self.rates, steps=config.curve_steps,
            seed=config.seed, arena=arena, scale=self._scale,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """Rates and memories, as tensors by name."""
        return {
            **{f"rate.{name}": rate.detach().cpu().clone() for name, rate in self.rates.items()},
            **{f"outer-adam.{n}": v.clone() for n, v in memory_of(self._optimizer).items()},
            **{f"critic-adam.{n}": v.clone() for n, v in memory_of(self._critic_optimizer).items()},
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        with torch.no_grad():
            for name, rate in part_of(state, "rate.").items():
                self.rates[name].copy_(rate)
        remember(self._optimizer, part_of(state, "outer-adam."))
        remember(self._critic_optimizer, part_of(state, "critic-adam."))


def task_batch(
    agent: PPOAgent, played: Experience, accounts: int, scale: RewardScale | None = None
) -> Batch:
    """What was played, of every task a set of its own, [tasks, accounts, T, ...].

    Raises:
        DataError: it is empty, or has numbers that are none.
    """
    flat = played.batch(agent.values, agent.config.learn, agent.device, scale)
    check_batch(flat)
    batch = Batch(*(part.view(-1, accounts, *part.shape[1:]) for part in flat))
    # By task: what is much on a quiet instrument is little on a wild one.
    return batch._replace(advantage=torch.stack([normalised(a) for a in batch.advantage]))


def first_rates(agent: PPOAgent) -> Parameters:
    """Inner rates before any was learnt: that of the settings, for every number."""
    return {
        name: torch.full_like(value, agent.config.adapt.lr).requires_grad_()
        for name, value in agent.network.named_parameters()
    }


def adapted_all(
    agent: PPOAgent, supports: Batch, steps: int, rates: Parameters | None
) -> Parameters:
    """Parameters adapted to each of several supports [K, N, T, ...]: [K, ...] each, without history."""
    parameters = for_each(as_parameters(agent.network), len(supports.action))
    with torch.no_grad():
        after = adapted(agent.policy, parameters, supports, steps, agent.config.adapt, rates)
    return {name: value.detach() for name, value in after.items()}


def acting(agent: PPOAgent, parameters: Parameters) -> Acts:
    """Acts in every task with parameters of its own.

    Args:
        agent: whose policy it is.
        parameters: [K, ...] each.
    """

    def act(obs: Tensor, mask: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            log_probs = agent.policy(parameters, obs, mask)
            action = chosen(log_probs, uniform)
            return action, taken(log_probs, action)

    return act


def adaptation_curve(
    agent: PPOAgent,
    pool: TaskPool,
    count: int,
    rates: Parameters | None,
    *,
    steps: int,
    seed: int,
    arena: Arena | None = None,
    scale: RewardScale | None = None,
) -> np.ndarray:
    """Mean reward of a step on the queries of tasks after 0, 1, ..., `steps` steps on their supports.

    All are played with the same chance on the same tasks.

    Args:
        agent: the policy.
        pool: tasks that it did not learn from.
        count: how many of them.
        rates: learnt inner rates; None: that of the settings.
        steps: most gradient steps.
        seed: of tasks and actions.
        arena: of `pool` and `count`, where there is one already.
        scale: of the rewards that the critic values; it stays as it is.

    Returns:
        [steps + 1, count].
    """
    arena = arena or Arena(pool, count, seed=seed)
    draws = np.random.default_rng([seed, _CURVE])
    tasks: Sequence[Task] = pool.draw(count, draws)
    accounts = pool.tasks.accounts
    before = arena.play(tasks, agent.select_action, draws, query=False, device=agent.device)
    support = task_batch(agent, before, accounts, None if scale is None else scale.copy())
    rewards = np.empty((steps + 1, count))
    for k in range(steps + 1):
        after = adapted_all(agent, support, k, rates)
        again = np.random.default_rng([seed, _CURVE, 1])
        played = arena.play(tasks, acting(agent, after), again, query=True, device=agent.device)
        rewards[k] = played.reward.mean(0).reshape(count, accounts).mean(1)
    return rewards
