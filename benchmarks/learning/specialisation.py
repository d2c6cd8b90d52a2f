"""How far a gate and its experts have shared the regimes out among themselves.

    NMI = I(E; R) / min(H(E), H(R)),   p(e, r) = mean of g_e over the decisions in regime r

with soft counts; its null shifts the regimes against the gate in a circle, which keeps how long both
last and breaks only what binds them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.learning.decisions import pays
from benchmarks.learning.regimes import Decisions
from streambot.agents.naming import REGIMES, named, usage_by_regime

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
_TINY = 1e-300


class Views(NamedTuple):
    """What a mixture says of decisions.

    Attributes:
        gate: weights, [n, experts].
        experts: probabilities of each expert, [n, experts, positions].
    """

    gate: Floats
    experts: Floats

    def under(self, gate: Floats) -> Floats:
        """Probabilities of the mixture with another gate, [n, positions]."""
        mixed: Floats = (gate[:, :, None] * self.experts).sum(1)
        return mixed


def _entropy(p: Floats) -> float:
    return float(-(p * np.log(p + _TINY)).sum())


def nmi(gate: Floats, regime: Labels) -> float:
    """Normalised mutual information of soft gate and regime: 0 nothing, 1 all that can be known."""
    joint = np.stack([gate[regime == r].sum(0) for r in range(len(REGIMES))])
    joint /= joint.sum()
    of_regime, of_expert = joint.sum(1), joint.sum(0)
    shared = _entropy(of_regime) + _entropy(of_expert) - _entropy(joint)
    least = min(_entropy(of_regime), _entropy(of_expert))
    return shared / least if least > 1e-9 else 0.0


def shift_null(
    gate: Floats, regime: Labels, rng: np.random.Generator, *, shifts: int = 200, least: int = 100
) -> Floats:
    """NMI with the regimes shifted against the gate by `least` decisions or more, [shifts]."""
    by = rng.integers(least, len(regime) - least, size=shifts)
    return np.array([nmi(gate, np.roll(regime, n)) for n in by])


def gates(views: Views, rng: np.random.Generator) -> dict[str, Floats]:
    """The gate as it was trained, and what it is compared with."""
    count = views.gate.shape[1]
    return {
        "trained": views.gate,
        "uniform": np.full_like(views.gate, 1.0 / count),
        "shuffled in time": views.gate[rng.permutation(len(views.gate))],
        "argmax": np.eye(count)[views.gate.argmax(1)],
    }


class Matrices(NamedTuple):
    """Rewards by expert and regime; experts in the order of the regimes that they are named after.

    Attributes:
        order: numbers of the experts, by regime.
        usage: mean gate, [experts, regimes].
        alone: mean reward of each expert by itself, [experts, regimes].
        loss: mean reward that is lost when an expert is taken out and the gate made whole again.
    """

    order: tuple[int, ...]
    usage: Floats
    alone: Floats
    loss: Floats


def matrices(views: Views, on: Decisions) -> Matrices:
    """What each expert is worth in each regime; named by `agents.naming`."""
    regimes = range(len(REGIMES))
    whole = pays(views.under(views.gate).astype(np.float32), on)
    usage = usage_by_regime(views.gate, on.regime)
    names = named(usage)
    order = tuple(names.index(kind) for kind in REGIMES)
    alone, loss = np.empty((len(order), len(regimes))), np.empty((len(order), len(regimes)))
    for row, expert in enumerate(order):
        by_itself = pays(views.experts[:, expert].astype(np.float32), on)
        rest = views.gate.copy()
        rest[:, expert] = 0.0
        rest /= rest.sum(1, keepdims=True).clip(1e-12)
        without = pays(views.under(rest).astype(np.float32), on)
        for r in regimes:
            here = on.regime == r
            alone[row, r] = by_itself[here].mean()
            loss[row, r] = (whole - without)[here].mean()
    return Matrices(order, usage[list(order)], alone, loss)


def diagonal_advantage(matrix: Floats) -> float:
    """Mean of the diagonal less the mean of all else: what is matched against what is not."""
    size = len(matrix)
    inside = np.trace(matrix)
    return float(inside / size - (matrix.sum() - inside) / (size * (size - 1)))
