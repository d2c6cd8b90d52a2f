"""The update of PPO on a batch: the same for one expert, for a single network and for the mixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn

from streambot.agents.adaptation import taken
from streambot.agents.advantages import normalised
from streambot.agents.batch import Batch, LearnConfig, Stats, check_batch
from streambot.agents.losses import policy_loss, value_loss
from streambot.domain.errors import DataError


class Said(NamedTuple):
    """What a policy says of a batch of observations.

    Attributes:
        log_probs: [B, A].
        value: [B].
        log_gate: [B, experts]; None without a gate.
    """

    log_probs: Tensor
    value: Tensor
    log_gate: Tensor | None = None


Speaks = Callable[[Tensor, Tensor], Said]


class _Sums:
    """Means of an update, without a wait for the device at every gradient."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, **values: Tensor) -> None:
        self.count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()

    def mean(self, name: str) -> float:
        return float(self._sums[name]) / max(1, self.count) if name in self._sums else 0.0


def ppo_update(
    speaks: Speaks,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: LearnConfig,
    *,
    progress: float,
    generator: torch.Generator,
) -> Stats:
    """Some epochs of minibatches; the optimizer moves `parameters`.

    A parameter that no observation reaches gets a gradient of zero, not none: an expert whose gate
    is shut is held where it is by Adam's memory alone, as every other parameter without a slope.

    Args:
        speaks: the policy, of observations [B, F] and masks [B, A].
        parameters: what moves.
        optimizer: over them; its rate follows the schedule.
        batch: [N, T].
        config: see `LearnConfig`.
        progress: share of the training that is done, 0 to 1.
        generator: of the order of the steps, on the CPU.

    Raises:
        DataError: the batch is empty or not finite, or the loss is not: nothing was changed by the
            gradient that was not.
    """
    check_batch(batch)
    steps = batch.flat()
    steps = steps._replace(advantage=normalised(steps.advantage))
    left = config.left(progress)
    for group in optimizer.param_groups:
        group["lr"] = config.lr * left
    clip = config.clip * (0.1 + 0.9 * left)  # a clip of nothing would stop learning before its end
    balance = config.balanced(progress)
    sums, stopped = _Sums(), False
    count = len(steps.action)
    for _ in range(config.epochs):
        order = torch.randperm(count, generator=generator).to(steps.action.device)
        for low in range(0, count, config.minibatch):
            some = steps.rows(order[low : low + config.minibatch])
            said = speaks(some.obs, some.mask)
            policy = policy_loss(
                said.log_probs, said.log_gate, some, clip=clip, entropy=config.entropy,
                balance=balance,
            )  # fmt: skip
            values = value_loss(said.value, some.target)
            loss = policy.loss + config.value * values
            if not bool(torch.isfinite(loss)):
                raise DataError(
                    "the loss is no number any more: the update was left",
                    hint="a smaller learning rate; the last checkpoint is from before",
                )
            slopes = torch.autograd.grad(loss, parameters, materialize_grads=True)
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.grad = slope
            nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            change = taken(said.log_probs.detach(), some.action) - some.log_prob
            kl = (change.exp() - 1.0 - change).mean()  # Schulman 2020: low variance, never negative
            clipped = ((change.exp() - 1.0).abs() > clip).to(change.dtype).mean()
            sums.add(
                policy=policy.surrogate, value=values, entropy=policy.entropy, kl=kl,
                clipped=clipped, gate=policy.gate,
            )  # fmt: skip
            if float(kl) > config.target_kl:
                stopped = True
                break
        if stopped:
            break
    return Stats(
        policy_loss=sums.mean("policy"),
        value_loss=sums.mean("value"),
        entropy=sums.mean("entropy"),
        kl=sums.mean("kl"),
        clipped=sums.mean("clipped"),
        gate_entropy=sums.mean("gate"),
        gradients=sums.count,
        stopped=stopped,
    )


def value_update(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    obs: Tensor,
    target: Tensor,
    config: LearnConfig,
    *,
    progress: float,
    generator: torch.Generator,
) -> float:
    """Some epochs of minibatches for a critic by itself.

    Args:
        critic: values [B] of observations [B, F].
        optimizer: over its parameters; its rate follows the schedule.
        obs: [B, F].
        target: returns that values should say, [B].
        config: see `LearnConfig`.
        progress: share of the training that is done, 0 to 1.
        generator: of the order of the steps, on the CPU.

    Returns:
        Mean loss.

    Raises:
        DataError: the loss is no number.
    """
    for group in optimizer.param_groups:
        group["lr"] = config.lr * config.left(progress)
    parameters, sums = list(critic.parameters()), _Sums()
    for _ in range(config.epochs):
        order = torch.randperm(len(obs), generator=generator).to(obs.device)
        for low in range(0, len(obs), config.minibatch):
            some = order[low : low + config.minibatch]
            loss = value_loss(critic(obs[some]), target[some])
            slopes = torch.autograd.grad(loss, parameters)
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.grad = slope
            nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            sums.add(value=loss)
    mean = sums.mean("value")
    if not isfinite(mean):
        raise DataError(
            "the loss of the values is no number any more",
            hint="a smaller learning rate; the last checkpoint is from before",
        )
    return mean
