"""Bars as columns, raw and processed, and the checks that stand between the two."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.domain.errors import DataError
from streambot.jit import njit

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

GRID_TOLERANCE = 1e-3
"""A price this near to the grid, in ticks, is on it: the rest is the noise of binary floats."""
_HALF_NOISE = 1e-6
_MAX_COUNT = float(2**53)  # beyond it a float64 cannot hold every integer

# What can be wrong with a row, in the order of the tests.
_PROBLEMS = (
    "",
    "unsorted",
    "duplicate",
    "price_not_finite",
    "price_not_positive",
    "high_below_low",
    "high_not_highest",
    "low_not_lowest",
    "volume_negative",
)


class RawBars(NamedTuple):
    """Bars of one instrument as their file has them.

    Attributes:
        ts: int64 [n], open of the bar, UTC ns, strictly increasing.
        open, high, low, close: float64 [n], in the currency.
        volume: float64 [n], NaN where the file has none.
    """

    ts: Int64Array
    open: Float64Array
    high: Float64Array
    low: Float64Array
    close: Float64Array
    volume: Float64Array

    def __len__(self) -> int:
        return len(self.ts)


class Bars(NamedTuple):
    """Bars of one instrument as the engine counts.

    Attributes:
        ts: int64 [n], open of the bar, UTC ns, strictly increasing.
        open, high, low, close: int64 [n], ticks.
        volume: int64 [n], volume steps; -1 where the file has none.
    """

    ts: Int64Array
    open: Int64Array
    high: Int64Array
    low: Int64Array
    close: Int64Array
    volume: Int64Array

    def __len__(self) -> int:
        return len(self.ts)


@njit
def _first_problem(
    ts: Int64Array,
    open_: Float64Array,
    high: Float64Array,
    low: Float64Array,
    close: Float64Array,
    volume: Float64Array,
    previous: int,
) -> tuple[int, int]:
    """Row and kind (index in `_PROBLEMS`) of the first row that is no bar; (-1, 0) where all are."""
    for row in range(len(ts)):
        if ts[row] <= previous:
            return row, 2 if ts[row] == previous else 1
        previous = ts[row]
        o, h, l, c = open_[row], high[row], low[row], close[row]  # noqa: E741
        if not (np.isfinite(o) and np.isfinite(h) and np.isfinite(l) and np.isfinite(c)):
            return row, 3
        if o <= 0.0 or h <= 0.0 or l <= 0.0 or c <= 0.0:
            return row, 4
        noise = 1e-9 * h
        if h < l - noise:
            return row, 5
        if h < o - noise or h < c - noise:
            return row, 6
        if l > o + noise or l > c + noise:
            return row, 7
        if volume[row] < 0.0 or np.isinf(volume[row]):
            return row, 8
    return -1, 0


def check_rows(bars: RawBars, previous: int, place: Callable[[int], str], symbol: str) -> None:
    """Refuse rows that are no bars.

    Args:
        bars: rows in time order.
        previous: stamp of the row before, or the smallest int64.
        place: names a row of `bars` for the message.
        symbol: whose rows they are, for the message.

    Raises:
        DataError: at the first row that goes back in time, repeats a stamp, has a price that is
            empty, infinite, zero or negative, prices that no bar can have, or a negative volume.
    """
    row, kind = _first_problem(*bars, previous)
    if row >= 0:
        raise _problem(bars, row, _PROBLEMS[kind], previous, place, symbol)


def _problem(
    bars: RawBars, row: int, problem: str, previous: int, place: Callable[[int], str], symbol: str
) -> DataError:
    stamp = _stamp(bars.ts[row])
    before = _stamp(bars.ts[row - 1] if row else previous)
    prices = {name: float(getattr(bars, name)[row]) for name in ("open", "high", "low", "close")}
    shown = " ".join(f"{name} {value:g}" for name, value in prices.items())
    column = ""
    if problem == "unsorted":
        text, hint = f"{stamp} comes after {before}", "sort the rows by time"
    elif problem == "duplicate":
        text, hint = f"{stamp} is there twice", "keep one row for every bar"
    elif problem in {"price_not_finite", "price_not_positive"}:
        finite = problem == "price_not_finite"
        column = next(n for n, p in prices.items() if (not np.isfinite(p) if finite else p <= 0))
        value = prices[column]
        what = (
            ("is empty or not a number" if np.isnan(value) else "is infinite")
            if finite
            else f"is {value:g}"
        )
        text, hint = (
            f"{column} {what} at {stamp}",
            "a bar needs four positive prices: leave the row out",
        )
    elif problem == "volume_negative":
        column = "volume"
        text, hint = (
            f"volume is {bars.volume[row]:g} at {stamp}",
            "leave the cell empty where it is unknown",
        )
    else:
        column = "low" if problem == "low_not_lowest" else "high"
        what = {
            "high_below_low": "high is below low",
            "high_not_highest": "high is not the highest price",
            "low_not_lowest": "low is not the lowest price",
        }[problem]
        text, hint = f"{what} at {stamp} ({shown})", "are the columns mapped to the right names?"
    where = place(row) + (f":{column}" if column else "")
    return DataError(f"{symbol}: {text}" if symbol else text, where=where, hint=hint)


def _stamp(ns: int) -> str:
    text = str(np.datetime64(int(ns), "ns"))
    return (text[:19] if text.endswith("000000000") else text) + "Z"


def stamp_text(ns: int) -> str:
    """A UTC time for a message."""
    return _stamp(ns)


class Grid(NamedTuple):
    """Size of a step as a fraction of whole numbers, so that no step is lost to a binary float."""

    numerator: float
    denominator: float

    @classmethod
    def of(cls, step: Decimal) -> Grid:
        """The grid of `step`, for example 0.05 = 1 / 20."""
        numerator, denominator = step.as_integer_ratio()
        return cls(float(numerator), float(denominator))


@njit
def _snap(value: float, numerator: float, denominator: float) -> tuple[float, bool]:
    """Nearest count of steps, half up, and whether `value` was on the grid."""
    count = value * denominator / numerator
    nearest = np.floor(count + 0.5)
    if abs(count - nearest) <= GRID_TOLERANCE:
        return nearest, True
    return np.floor(count + 0.5 + _HALF_NOISE), False


@njit
def _onto_grid(
    open_: Float64Array,
    high: Float64Array,
    low: Float64Array,
    close: Float64Array,
    volume: Float64Array,
    tick: tuple[float, float],
    step: tuple[float, float],
    out_open: Int64Array,
    out_high: Int64Array,
    out_low: Int64Array,
    out_close: Int64Array,
    out_volume: Int64Array,
) -> tuple[int, int, int]:
    """Fill the outputs; rows with a rounded price, with a rounded volume, first row out of range."""
    rounded = 0
    rounded_volume = 0
    for row in range(len(open_)):
        o, on_o = _snap(open_[row], tick[0], tick[1])
        h, on_h = _snap(high[row], tick[0], tick[1])
        l, on_l = _snap(low[row], tick[0], tick[1])  # noqa: E741
        c, on_c = _snap(close[row], tick[0], tick[1])
        if not (on_o and on_h and on_l and on_c):
            rounded += 1
        # Prices that differ by float noise may land on two sides of a half: the range encloses them.
        h = max(h, o, c)
        l = min(l, o, c)  # noqa: E741
        if not (l >= 1.0 and h < _MAX_COUNT):
            return rounded, rounded_volume, row
        out_open[row] = np.int64(o)
        out_high[row] = np.int64(h)
        out_low[row] = np.int64(l)
        out_close[row] = np.int64(c)
        v = volume[row]
        if np.isnan(v):
            out_volume[row] = -1
        else:
            count, on = _snap(v, step[0], step[1])
            if not on:
                rounded_volume += 1
            if count >= _MAX_COUNT:
                return rounded, rounded_volume, row
            out_volume[row] = np.int64(count)
    return rounded, rounded_volume, -1


def onto_grid(
    bars: RawBars, tick: Grid, step: Grid, place: Callable[[int], str], symbol: str
) -> tuple[Bars, int, int]:
    """Prices in ticks and volume in steps; rows with a rounded price; rows with a rounded volume.

    A price within 1e-3 of a tick is on the grid; others go to the nearest tick, half away from zero.

    Raises:
        DataError: a price below one tick, or a number too large to count exactly.
    """
    columns = [np.empty(len(bars), dtype=np.int64) for _ in range(5)]
    rounded, rounded_volume, bad = _onto_grid(*bars[1:], tick, step, *columns)
    if bad >= 0:
        least = min(float(column[bad]) for column in bars[1:5])
        small = least * tick.denominator / tick.numerator < 0.5
        raise DataError(
            f"{symbol}: {'price ' + format(least, 'g') + ' is less than one tick' if small else 'a number is too large'}"
            f" at {stamp_text(int(bars.ts[bad]))}",
            where=place(bad),
            hint="declare a finer `tick_size`"
            if small
            else "is this a price, and `volume_step` right?",
        )
    return Bars(bars.ts, *columns), int(rounded), int(rounded_volume)
