"""The update of PPO on a batch: the same for one expert, for a single network and for the mixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn

from streambot.agents.adaptation import taken
from streambot.agents.advantages import normalised
from streambot.agents.batch import Batch, LearnConfig, Stats, check_batch
from streambot.agents.losses import divergence, policy_loss, value_loss
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


class _Means:
    """Means of an update; read at its end, because reading waits for the device."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Tensor]] = {}
        self.count = 0

    def add(self, **values: Tensor) -> None:
        self.count += 1
        for name, value in values.items():
            self._kept.setdefault(name, []).append(value.detach())

    def of(self, name: str) -> float:
        kept = self._kept.get(name)
        return float(torch.stack(kept).mean()) if kept else 0.0


def adam(parameters: Sequence[Tensor], lr: float) -> torch.optim.Adam:
    """Adam over parameters of one device: all of them in one operation, where the device has it."""
    fused = {p.device.type for p in parameters} <= {"cpu", "cuda"}
    optimizer = torch.optim.Adam(parameters, lr=lr, eps=1e-5, fused=fused)
    optimizer.register_step_pre_hook(_in_order)
    return optimizer


def _in_order(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Fused, Adam reads a gradient as it lies in memory, whatever its strides say."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not parameter.grad.is_contiguous():
                parameter.grad = parameter.grad.contiguous()


def _move(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], loss: Tensor, most: float
) -> None:
    """One step against the gradient of a loss, cut to the norm `most`."""
    slopes = torch.autograd.grad(loss, parameters, materialize_grads=True)
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.grad = slope
    nn.utils.clip_grad_norm_(parameters, most)
    optimizer.step()


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
    means, stopped = _Means(), False
    for _ in range(config.epochs):
        for some in _minibatches(steps, config.minibatch, generator):
            said = speaks(some.obs, some.mask)
            policy = policy_loss(
                said.log_probs, said.log_gate, some, clip=clip, entropy=config.entropy,
                balance=balance,
            )  # fmt: skip
            values = value_loss(said.value, some.target)
            loss = policy.loss + config.value * values
            log_prob = taken(said.log_probs.detach(), some.action)
            kl = divergence(log_prob, some.log_prob).mean()
            gain = (log_prob - some.log_prob).exp() - 1.0
            clipped = (gain.abs() > clip).to(gain.dtype).mean()
            amount, distance = torch.stack([loss.detach(), kl]).tolist()  # one wait for the device
            if not isfinite(amount):
                raise DataError(
                    "the loss is no number any more: the update was left",
                    hint="a smaller learning rate; the last checkpoint is from before",
                )
            _move(optimizer, parameters, loss, config.max_grad_norm)
            means.add(
                policy=policy.surrogate, value=values, entropy=policy.entropy, kl=kl,
                clipped=clipped, gate=policy.gate,
            )  # fmt: skip
            stopped = distance > config.target_kl
            if stopped:
                break
        if stopped:
            break
    return Stats(
        policy_loss=means.of("policy"),
        value_loss=means.of("value"),
        entropy=means.of("entropy"),
        kl=means.of("kl"),
        clipped=means.of("clipped"),
        gate_entropy=means.of("gate"),
        gradients=means.count,
        stopped=stopped,
    )


def _minibatches(steps: Batch, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Parts of a flat batch, in an order of chance."""
    order = torch.randperm(len(steps.action), generator=generator).to(steps.action.device)
    mixed = steps.rows(order)  # once: what is cut out of it is a view
    for parts in zip(*(torch.split(part, size) for part in mixed), strict=True):
        yield Batch(*parts)


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
    parameters, means = list(critic.parameters()), _Means()
    for _ in range(config.epochs):
        order = torch.randperm(len(obs), generator=generator).to(obs.device)
        for some in torch.split(order, config.minibatch):
            loss = value_loss(critic(obs.index_select(0, some)), target.index_select(0, some))
            _move(optimizer, parameters, loss, config.max_grad_norm)
            means.add(value=loss)
    mean = means.of("value")
    if not isfinite(mean):
        raise DataError(
            "the loss of the values is no number any more",
            hint="a smaller learning rate; the last checkpoint is from before",
        )
    return mean
