"""Networks of experts, gate and critic, and the mixture of them, as functions of named parameters.

    pi(a | s) = sum_k g_k(s) pi_k(a | s)        over joint actions

computed as logsumexp_k(log g_k + log pi_k). The gate sees the slow regime features alone: on all of
them it follows the last return, and the experts stay alike (the largest single effect measured).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

ILLEGAL = -1e9
"""Stands for log 0: finite, so that 0 x log 0 is 0 and no gradient is NaN."""


def _layers(sizes: tuple[int, ...], out_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Tanh layers, orthogonal, of a seed; the last one small, so that answers begin near uniform."""
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for k, (wide, narrow) in enumerate(pairwise(sizes)):
        linear = nn.Linear(wide, narrow)
        with torch.no_grad():
            gain = out_gain if k == last else 2**0.5
            nn.init.orthogonal_(linear.weight, gain, generator=generator)
            linear.bias.zero_()
        layers.append(linear)
        if k != last:
            layers.append(nn.Tanh())
    return nn.Sequential(*layers)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, on the CPU, where parameters are drawn."""
    return torch.Generator().manual_seed(seed)


def masked_log_softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Log-probabilities over the legal actions; illegal ones get `ILLEGAL` or less.

    Args:
        logits: [..., A].
        mask: [..., A], not 0 where legal; None: everything is.
    """
    if mask is not None:
        logits = logits.masked_fill(mask == 0, ILLEGAL)
    return logits.log_softmax(-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of distributions given by log-probabilities [..., A], in nats [...]."""
    return -(log_probs.exp() * log_probs).sum(-1)


class PolicyNetwork(nn.Module):
    """Logits of joint actions.

    Args:
        features: numbers of an observation.
        actions: joint actions.
        hidden: widths of the layers between.
        seed: of its parameters.
    """

    def __init__(
        self, features: int, actions: int, *, hidden: tuple[int, ...] = (64, 64), seed: int = 0
    ) -> None:
        super().__init__()
        self.layers = _layers((features, *hidden, actions), 0.01, seeded(seed))

    def forward(self, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-probabilities [..., A] at observations [..., features]."""
        return masked_log_softmax(self.layers(obs), mask)


class ValueNetwork(nn.Module):
    """Value of observations; `PolicyNetwork` has the meaning of the arguments."""

    def __init__(self, features: int, *, hidden: tuple[int, ...] = (64, 64), seed: int = 0) -> None:
        super().__init__()
        self.layers = _layers((features, *hidden, 1), 1.0, seeded(seed))

    def forward(self, obs: Tensor) -> Tensor:
        """Values [...] of observations [..., features]."""
        value: Tensor = self.layers(obs).squeeze(-1)
        return value


class GatingNetwork(nn.Module):
    """Weights of the experts, from the slow regime features alone.

    Args:
        regimes: positions of the regime features in an observation.
        experts: how many.
        hidden: widths of the layers between.
        seed: of its parameters.
    """

    regimes: Tensor

    def __init__(
        self,
        regimes: tuple[int, ...],
        experts: int = 4,
        *,
        hidden: tuple[int, ...] = (32,),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.register_buffer("regimes", torch.tensor(regimes, dtype=torch.long), persistent=False)
        self.layers = _layers((len(regimes), *hidden, experts), 0.01, seeded(seed))

    def forward(self, obs: Tensor) -> Tensor:
        """Log-weights [..., experts] at observations [..., features]."""
        log_weights: Tensor = self.layers(obs[..., self.regimes]).log_softmax(-1)
        return log_weights


class Mixed(NamedTuple):
    """What a mixture says of observations [...].

    Attributes:
        log_probs: of the mixture, [..., A].
        log_gate: [..., experts].
        log_experts: [..., experts, A].
    """

    log_probs: Tensor
    log_gate: Tensor
    log_experts: Tensor


def mix(log_gate: Tensor, log_experts: Tensor) -> Mixed:
    """The weighted average of the experts' joint probabilities.

    Args:
        log_gate: [..., experts].
        log_experts: [..., experts, A].
    """
    return Mixed(torch.logsumexp(log_gate.unsqueeze(-1) + log_experts, -2), log_gate, log_experts)


class MixtureNetwork(nn.Module):
    """Experts and the gate over them.

    Args:
        features: numbers of an observation.
        actions: joint actions.
        regimes: positions of the regime features in an observation.
        experts: how many.
        hidden, gate_hidden: widths of the layers between.
        seed: of the parameters; every expert has its own.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        regimes: tuple[int, ...],
        *,
        experts: int = 4,
        hidden: tuple[int, ...] = (64, 64),
        gate_hidden: tuple[int, ...] = (32,),
        seed: int = 0,
    ) -> None:
        super().__init__()
        # Equal parameters would stay equal: the gradient of a mixture is symmetric in its experts.
        self.experts = nn.ModuleList(
            PolicyNetwork(features, actions, hidden=hidden, seed=seed * 1_000 + 1 + k)
            for k in range(experts)
        )
        self.gate = GatingNetwork(regimes, experts, hidden=gate_hidden, seed=seed * 1_000)

    def forward(self, obs: Tensor, mask: Tensor | None = None) -> Mixed:
        """The mixture at observations [..., features]; mask [..., A]."""
        log_experts = torch.stack([expert(obs, mask) for expert in self.experts], -2)
        return mix(self.gate(obs), log_experts)
