"""The tick size and the volume step that a sample of bars shows."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streambot.domain.units import MAX_MONEY_DECIMALS

if TYPE_CHECKING:
    from streambot.data.rows import RawBars

_TOLERANCE = 1e-5
_FLOAT_NOISE = 1e-14
_TICKS = tuple(
    Decimal(digits).scaleb(-decimals)
    for decimals in range(MAX_MONEY_DECIMALS + 1)
    for digits in ((1,) if decimals == 0 else (5, 1) if decimals == 1 else (25, 5, 1))
)
"""Ticks that exchanges use, the coarsest first: 1, 0.5, 0.1, 0.25, 0.05, 0.01, ..."""
_STEPS = tuple(Decimal(1).scaleb(-decimals) for decimals in range(MAX_MONEY_DECIMALS + 1))


def _on_grid(values: npt.NDArray[np.float64], step: Decimal) -> bool:
    numerator, denominator = step.as_integer_ratio()
    counts = values * float(denominator) / float(numerator)
    nearest = np.rint(counts)
    # The tolerance of a declared grid would take 0.001 for zero steps of 1.
    near = np.abs(counts - nearest) <= np.maximum(_TOLERANCE, _FLOAT_NOISE * nearest)
    return bool((near & (nearest > 0)).all())


class StepSearch:
    """Narrows down the coarsest step on which all values lie, chunk after chunk."""

    def __init__(self, candidates: tuple[Decimal, ...]) -> None:
        self._left = sorted(candidates, reverse=True)

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Drop the candidates that a positive one of `values` is not a multiple of."""
        values = values[np.isfinite(values) & (values > 0)]
        self._left = [step for step in self._left if _on_grid(values, step)]

    @property
    def step(self) -> Decimal | None:
        """The coarsest step left; None where even 1e-8 is too coarse."""
        return self._left[0] if self._left else None


def tick_search() -> StepSearch:
    """Search for a tick size."""
    return StepSearch(_TICKS)


def volume_search() -> StepSearch:
    """Search for a volume step."""
    return StepSearch(_STEPS)


def suggested_tick(bars: RawBars) -> Decimal | None:
    """The coarsest tick size that all prices of `bars` are multiples of; None without one."""
    search = tick_search()
    for column in (bars.open, bars.high, bars.low, bars.close):
        search.add(column)
    return search.step
