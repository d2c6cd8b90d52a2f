"""What several seeds say: interquartile means and stratified bootstrap intervals.

Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice": the mean
of the middle half of all runs, with a percentile bootstrap that draws runs anew within each stratum
(here: each market). Arms that meet the same data with the same seed are compared by their
differences, seed by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DRAWS = 10_000


class Interval(NamedTuple):
    """A figure with its 95 % interval.

    Attributes:
        value: of all seeds.
        low, high: 2.5 % and 97.5 % of the bootstrap.
        seeds: runs behind it, in each stratum.
    """

    value: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


def number(value: float) -> str:
    """Three decimals; of what is large none."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def iqm(values: Floats) -> Floats:
    """Interquartile mean over the last axis: a quarter of the runs is left out at either end.

    Where a quarter is no whole number of runs, the run at the edge counts in part.
    """
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    cut = count / 4
    weight = np.clip(np.arange(1, count + 1) - cut, 0, 1) - np.clip(
        np.arange(1, count + 1) - (count - cut), 0, 1
    )
    mean: Floats = (ordered * weight).sum(-1) / weight.sum()
    return mean


def interval(
    runs: Sequence[float] | Sequence[Sequence[float]] | Floats,
    statistic: Callable[[Floats], Floats] = iqm,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """A statistic over all runs of all strata, with its bootstrap interval.

    Args:
        runs: of one stratum [seeds], or of several [strata, seeds].
        statistic: over the last axis.
        draws, seed: of the bootstrap.
    """
    table = np.atleast_2d(np.asarray(runs, np.float64))
    strata, seeds = table.shape
    chosen = np.random.default_rng(seed).integers(seeds, size=(draws, strata, seeds))
    again = np.take_along_axis(table[None], chosen, axis=2).reshape(draws, -1)
    low, high = np.quantile(statistic(again), [0.025, 0.975])
    return Interval(float(statistic(table.reshape(-1))), float(low), float(high), seeds)
