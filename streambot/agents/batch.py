"""Experience as tensors, and the settings of learning from it."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from streambot.domain.errors import DataError

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]


class Batch(NamedTuple):
    """Steps of N environments, in order of time.

    Attributes:
        obs: observations that were answered, [N, T, F].
        mask: legal actions, [N, T, A].
        action: joint indices, int64 [N, T].
        log_prob: of the actions when they were taken, [N, T].
        advantage: [N, T].
        target: returns that values should say, [N, T].
        episode: number of the episode, int64 [N, T]; equal within one, and different between them.
    """

    obs: Tensor
    mask: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor
    episode: Tensor

    def flat(self) -> Batch:
        """The same as one row of steps: [N T, ...]."""
        return Batch(*(part.flatten(0, 1) for part in self))

    def rows(self, index: Tensor) -> Batch:
        """Some steps of a flat batch."""
        return Batch(*(part.index_select(0, index) for part in self))

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(part.to(device) for part in self))


def check_batch(batch: Batch) -> None:
    """Refuse what nobody can learn from.

    Raises:
        DataError: no steps, or numbers that are none.
    """
    if batch.action.numel() == 0:
        raise DataError("an empty batch: there is nothing to learn from")
    for name in ("obs", "log_prob", "advantage", "target"):
        if not bool(torch.isfinite(getattr(batch, name)).all()):
            raise DataError(
                f"`{name}` of a batch has numbers that are none (NaN or infinite)",
                hint="what made them? an observation, a reward or a policy that has diverged",
            )


class LearnConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy learns (PPO, Schulman et al. 2017).

    Attributes:
        lr: learning rate of Adam.
        schedule: what becomes of learning rate and clip as training goes on: `linear`, to 0, or
            `constant`.
        clip: epsilon of the surrogate.
        epochs: passes over a batch.
        minibatch: steps of a gradient.
        gamma, lam: discount and λ of the advantages.
        entropy: weight of the entropy bonus.
        value: weight of the value loss.
        max_grad_norm: gradients are cut to this norm.
        target_kl: an update stops where the policy has moved this far, nats; infinity: never.
        balance, balance_end: weight of the gate's balance at the start and at the end of training.
    """

    lr: Positive = 3e-4
    schedule: Literal["linear", "constant"] = "linear"
    clip: Positive = 0.2
    epochs: Annotated[int, Meta(ge=1)] = 4
    minibatch: Annotated[int, Meta(ge=1)] = 512
    gamma: Share = 0.99
    lam: Share = 0.95
    entropy: NonNegative = 0.01
    value: NonNegative = 0.5
    max_grad_norm: Positive = 0.5
    target_kl: Positive = 0.03
    balance: NonNegative = 0.05
    balance_end: NonNegative = 0.01

    def balanced(self, progress: float) -> float:
        """Weight of the gate's balance when `progress` of the training is done."""
        return self.balance + progress * (self.balance_end - self.balance)

    def left(self, progress: float) -> float:
        """Factor of learning rate and clip when `progress` (0 to 1) of the training is done."""
        return max(0.0, 1.0 - progress) if self.schedule == "linear" else 1.0


class AdaptConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy adapts to a task: the inner loop.

    Attributes:
        lr: of the gradient steps, where no learnt rates are given.
        lam: λ of Loaded DiCE.
        first_order: gradients of the steps are constants (FOMAML).
    """

    lr: Positive = 0.1
    lam: Share = 0.5
    first_order: bool = False


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What an update did, means over its gradients.

    Attributes:
        policy_loss, value_loss: of the surrogate and of the values.
        entropy: of the policy, nats.
        kl: from the policy before, nats.
        clipped: share of steps at which the surrogate was clipped.
        gate_entropy: of the mean gate, nats; 0 without a gate.
        gradients: how many were taken.
        stopped: the policy had moved far enough.
    """

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clipped: float
    gate_entropy: float
    gradients: int
    stopped: bool
