"""Which regime a bar stands in, by the slow features that the gate sees too.

    trend            |drift t-statistic| is large
    mean-reversion   the autocorrelation of returns is negative
    volatility       returns spread more than usual
    consolidation    returns spread less than usual, and get nowhere

Each has a score, standardised over all bars looked at; the largest wins. It serves to measure what a
gate has found, and to name experts after training. Nothing is ever trained on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streambot.agents.naming import REGIMES, named, usage_by_regime

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from streambot.env.fields import ObservationField

_KINDS = ("drift", "autocorrelation", "volatility", "efficiency")
EVERY_REGIME = 8
"""Observations of each regime that names are given on, at least."""
NEWEST = 0.1
"""What the newest observations weigh in the running mean."""


def regimes_of(
    obs: npt.NDArray[np.float32], fields: Sequence[ObservationField]
) -> npt.NDArray[np.int64]:
    """Number of the regime of each observation, in the order of `agents.naming.REGIMES`.

    Args:
        obs: [n, F].
        fields: what the numbers of an observation are.

    Returns:
        [n].
    """
    drift, autocorrelation, volatility, efficiency = (
        obs[:, [f.position for f in fields if _is(f, kind)]].astype(np.float64).mean(axis=1)
        for kind in _KINDS
    )
    spread, going = _standard(volatility), _standard(np.abs(drift)) + _standard(efficiency)
    scores = {
        "trend": going,
        "mean-reversion": -autocorrelation,
        "volatility": spread,
        "consolidation": -spread - going,
    }
    best: npt.NDArray[np.int64] = np.stack([_standard(scores[n]) for n in REGIMES]).argmax(axis=0)
    return best


def _is(field: ObservationField, kind: str) -> bool:
    return field.group == "regime" and field.name.rsplit("_", 1)[0] == kind


def _standard(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    deviation = values.std()
    centred: npt.NDArray[np.float64] = values - values.mean()
    return centred / deviation if deviation > 0 else centred


def names_of(
    gate: npt.NDArray[np.floating],
    obs: npt.NDArray[np.float32],
    fields: Sequence[ObservationField],
) -> tuple[str, ...]:
    """Names of the experts from the regimes that they serve; none where that cannot be told.

    Args:
        gate: weights of the experts, [n, experts].
        obs: where they were weighed, [n, F].
        fields: what the numbers of an observation are.
    """
    usage = usage_of(gate, obs, fields)
    return () if usage is None else named(usage)


def usage_of(
    gate: npt.NDArray[np.floating],
    obs: npt.NDArray[np.float32],
    fields: Sequence[ObservationField],
) -> npt.NDArray[np.float64] | None:
    """Mean weight of each expert in each regime, [experts, regimes]; None where it cannot be told.

    Args:
        gate, obs, fields: see `names_of`.
    """
    if gate.shape[1] != len(REGIMES) or sum(_is(f, k) for f in fields for k in _KINDS) < len(
        _KINDS
    ):
        return None
    regime = regimes_of(obs, fields)
    if np.bincount(regime, minlength=len(REGIMES)).min() < EVERY_REGIME:
        return None
    return usage_by_regime(gate, regime)


class Usage:
    """What the gate turned to of late: names that follow one rollout would change with every one.

    A rollout sees some hours of some instruments, and what is calm among these is wild among others.

    Attributes:
        mean: running mean of `usage_of`, [experts, regimes]; None: nothing was told yet.
    """

    def __init__(self) -> None:
        self.mean: npt.NDArray[np.float64] | None = None

    def see(
        self,
        gate: npt.NDArray[np.floating],
        obs: npt.NDArray[np.float32],
        fields: Sequence[ObservationField],
    ) -> None:
        """Count the newest observations in; see `names_of`."""
        usage = usage_of(gate, obs, fields)
        if usage is not None:
            self.mean = usage if self.mean is None else self.mean + NEWEST * (usage - self.mean)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the experts; none where nothing was told yet."""
        return () if self.mean is None else named(self.mean)
