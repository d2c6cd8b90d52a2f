"""Networks of experts, gate and critic, and the mixture of them, as functions of named parameters.

    pi(a | s) = sum_k g_k(s) pi_k(a | s)        over joint actions

computed as logsumexp_k(log g_k + log pi_k). The gate sees the slow regime features alone: on all of
them it follows the last return, and the experts stay alike (the largest single effect measured).

Parameters may have one axis more in front, of K tasks: [K, ...] each, with observations [K, ..., F].
Every task is answered with its own parameters, and all of them in the same few operations.

Distributions are computed with the actions in rows, [A, observations]: along columns of a few
actions a softmax of torch's takes 20 times as long.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

ILLEGAL = -1e9
"""Stands for log 0: finite, so that 0 x log 0 is 0 and no gradient is NaN."""


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, on the CPU, where parameters are drawn."""
    return torch.Generator().manual_seed(seed)


class _Tanh(torch.autograd.Function):
    """tanh x = 2 sigmoid(2 x) - 1, to 2e-7 in single precision; its slopes are those of torch's tanh.

    On a CPU torch takes 2.1 ns for a tanh, and 0.25 ns for a sigmoid.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        y = x.add(x).sigmoid_()
        return y.add_(y).sub_(1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
        del inputs
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:  # noqa: ANN401
        (output,) = ctx.saved_tensors
        slope: Tensor = torch.ops.aten.tanh_backward(slopes[0], output)
        return slope


class Tanh(nn.Module):
    """tanh of every number of what nobody else needs: without gradients it is computed in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Shaped as `x`."""
        if x.device.type != "cpu":
            return torch.tanh(x)
        if not torch.is_grad_enabled():
            x = x.add_(x).sigmoid_()
            return x.add_(x).sub_(1.0)
        y: Tensor = _Tanh.apply(x)  # type: ignore[no-untyped-call]
        return y


class Affine(nn.Module):
    """x W^T + b; of several networks at once where the parameters have axes in front.

    Attributes:
        weight: [..., out, in]. bias: [..., out].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., rows, out] of [..., rows, in], with the axes in front that the parameters have."""
        weight, bias = self.weight, self.bias
        if weight.dim() == 2:
            return functional.linear(x, weight, bias)
        y = torch.baddbmm(
            bias.flatten(0, -2).unsqueeze(-2), x.flatten(0, -3), weight.flatten(0, -3).mT
        )
        return y.view(*weight.shape[:-2], *y.shape[1:])

    def in_rows(self, x: Tensor) -> Tensor:
        """The same with what comes out in rows, [..., out, rows]."""
        weight, bias = self.weight, self.bias.unsqueeze(-1)
        if weight.dim() == 2:
            return torch.addmm(bias, weight, x.mT)
        y = torch.baddbmm(bias.flatten(0, -3), weight.flatten(0, -3), x.flatten(0, -3).mT)
        return y.view(*weight.shape[:-2], *y.shape[1:])


class _Layers(nn.Sequential):
    """Affine layers with tanh between them."""

    @property
    def front(self) -> torch.Size:
        """Axes that its parameters have in front."""
        return self._affine(0).weight.shape[:-2]

    def in_rows(self, x: Tensor) -> Tensor:
        """What comes out in rows, [..., out, rows] of [..., rows, in]."""
        *body, _ = self
        for layer in body:
            x = layer(x)
        return self._affine(-1).in_rows(x)

    def _affine(self, at: int) -> Affine:
        layer = self[at]
        assert isinstance(layer, Affine)  # noqa: S101  # `_layers` has made it
        return layer


def _layers(sizes: tuple[int, ...], out_gain: float, seeds: int | tuple[int, ...]) -> _Layers:
    """Layers, orthogonal, of a seed; the last one small, so that answers begin near uniform.

    Args:
        sizes: of what goes in, lies between, and comes out.
        out_gain: of the last layer.
        seeds: of one network, or of several side by side.
    """
    drawn = [
        _drawn(sizes, out_gain, seed) for seed in ((seeds,) if isinstance(seeds, int) else seeds)
    ]
    layers: list[nn.Module] = []
    for same in zip(*drawn, strict=True):
        weight = same[0] if isinstance(seeds, int) else torch.stack(same)
        layers += [Affine(weight, torch.zeros(weight.shape[:-1])), Tanh()]
    return _Layers(*layers[:-1])


def _drawn(sizes: tuple[int, ...], out_gain: float, seed: int) -> list[Tensor]:
    generator, last = seeded(seed), len(sizes) - 2
    return [
        nn.init.orthogonal_(
            torch.empty(narrow, wide), out_gain if k == last else 2**0.5, generator=generator
        )
        for k, (wide, narrow) in enumerate(pairwise(sizes))
    ]


def _rows(x: Tensor, tasks: int) -> Tensor:
    """[rows, n] of [..., n]; with tasks [K, rows, n] of [K, ..., n]."""
    return x.reshape(*x.shape[:tasks], -1, x.shape[-1])


def _as_rows_of(obs: Tensor, said: Tensor, axes: int) -> Tensor:
    """What was said in rows, [K?, ..., observations], as [*of obs, ...]: a view.

    Args:
        axes: that stand for what was said of one observation.
    """
    tasks = said.dim() - 1 - axes
    return said.movedim(-1, tasks).view(*obs.shape[:-1], *said.shape[tasks:-1])


def masked_log_softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Log-probabilities over the legal actions; illegal ones get `ILLEGAL` or less.

    Args:
        logits: [..., A, rows].
        mask: [..., A, rows], not 0 where legal; None: everything is.
    """
    if mask is not None:
        logits = logits.masked_fill(mask.contiguous() == 0, ILLEGAL)
    return logits.log_softmax(-2)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of distributions given by log-probabilities [..., A], in nats [...]."""
    return -(log_probs.exp() * log_probs).sum(-1)


class PolicyNetwork(nn.Module):
    """Distributions over joint actions; of one network, or of several that see the same.

    Args:
        features: numbers of an observation.
        actions: joint actions.
        hidden: widths of the layers between.
        seeds: of its parameters; several: as many networks, whose parameters lie side by side.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        *,
        hidden: tuple[int, ...] = (64, 64),
        seeds: int | tuple[int, ...] = 0,
    ) -> None:
        super().__init__()
        self.layers = _layers((features, *hidden, actions), 0.01, seeds)
        self._several = not isinstance(seeds, int)

    def forward(self, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-probabilities at observations [..., features].

        Args:
            mask: [..., A], not 0 where legal; None: everything is.

        Returns:
            [..., A]; of several networks [..., networks, A].
        """
        return _as_rows_of(obs, self.in_rows(obs, mask), 1 + self._several)

    def in_rows(self, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same, [A, observations]; of several networks [networks, A, observations]."""
        front = self.layers.front
        tasks = len(front) - self._several
        rows = _rows(obs, tasks)
        legal = None if mask is None else _rows(mask, tasks).mT
        if self._several:
            rows = rows.unsqueeze(-3).expand(*front, *rows.shape[-2:])
            legal = None if legal is None else legal.unsqueeze(-3)
        return masked_log_softmax(self.layers.in_rows(rows), legal)


class ValueNetwork(nn.Module):
    """Value of observations.

    Args:
        features: numbers of an observation.
        hidden: widths of the layers between.
        seed: of its parameters.
    """

    def __init__(self, features: int, *, hidden: tuple[int, ...] = (64, 64), seed: int = 0) -> None:
        super().__init__()
        self.layers = _layers((features, *hidden, 1), 1.0, seed)

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
        self.layers = _layers((len(regimes), *hidden, experts), 0.01, seed)

    def forward(self, obs: Tensor) -> Tensor:
        """Log-weights [..., experts] at observations [..., features]."""
        return _as_rows_of(obs, self.in_rows(obs), 1)

    def in_rows(self, obs: Tensor) -> Tensor:
        """The same, [experts, observations]."""
        rows = _rows(obs, len(self.layers.front)).index_select(-1, self.regimes)
        return self.layers.in_rows(rows).log_softmax(-2)


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


def mix(log_gate: Tensor, log_experts: Tensor) -> Tensor:
    """The weighted average of the experts' joint probabilities, [..., A, rows].

    Args:
        log_gate: [..., experts, rows].
        log_experts: [..., experts, A, rows].
    """
    return torch.logsumexp(log_gate.unsqueeze(-2) + log_experts, -3)


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
        self.experts = PolicyNetwork(
            features, actions, hidden=hidden,
            seeds=tuple(seed * 1_000 + 1 + k for k in range(experts)),
        )  # fmt: skip
        self.gate = GatingNetwork(regimes, experts, hidden=gate_hidden, seed=seed * 1_000)

    def forward(self, obs: Tensor, mask: Tensor | None = None) -> Mixed:
        """The mixture at observations [..., features]; mask [..., A]."""
        log_gate, log_experts = self.gate.in_rows(obs), self.experts.in_rows(obs, mask)
        return Mixed(
            _as_rows_of(obs, mix(log_gate, log_experts), 1),
            _as_rows_of(obs, log_gate, 1),
            _as_rows_of(obs, log_experts, 2),
        )
