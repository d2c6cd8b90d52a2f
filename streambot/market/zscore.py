"""Running z-scores over a fixed window, whose error does not grow with the length of the stream.

    z = (x - mean) / sd,    mean and sd (population) of the last `window` values, x among them

Sums are kept of distances to a pivot near the values: s1 = sum(x - p), s2 = sum((x - p)^2). Adding
and removing rounds a little each time, so both are computed anew from the window, around its mean,
every `window` values, and whenever s2 has fallen far below its peak since then: that is what a
large value leaving the window would otherwise leave behind. Both happen once per window or per
such value, so the cost of a value stays constant on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streambot.jit import njit
from streambot.market.packed import pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from typing import Any

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

STATE = np.dtype([
    ("seen", np.int64),  # values so far
    ("pivot", np.float64),
    ("s1", np.float64),
    ("s2", np.float64),
    ("peak", np.float64),  # of s2 since it was computed anew
])  # fmt: skip

_COLLAPSE = 1e-3  # s2 below this share of its peak has lost too many digits
_NOISE = 4.0 * float(np.finfo(np.float64).eps)  # spread of equal values, relative to their size


@njit
def _refresh(state: Any, window: Float64Array, count: int) -> None:
    """Pivot and sums anew from the values themselves, in two passes."""
    total = 0.0
    for j in range(count):
        total += window[j] - state.pivot
    state.pivot += total / count
    s1 = 0.0
    s2 = 0.0
    for j in range(count):
        distance = window[j] - state.pivot
        s1 += distance
        s2 += distance * distance
    state.s1 = s1
    state.s2 = s2
    state.peak = s2


@njit
def push_zscore(state: Any, window: Float64Array, x: float) -> float:
    """Take the next value of one row; its z-score among the last `len(window)` values.

    0 while there are fewer than two values or all are equal. A value that is not finite gives NaN
    and is not taken.
    """
    if not np.isfinite(x):
        return np.nan
    size = len(window)
    at = state.seen % size
    if state.seen == 0:
        state.pivot = x
    distance = x - state.pivot
    if state.seen >= size:
        gone = window[at] - state.pivot
        state.s1 += distance - gone
        state.s2 += distance * distance - gone * gone
    else:
        state.s1 += distance
        state.s2 += distance * distance
    window[at] = x
    state.seen += 1
    count = min(state.seen, size)
    state.peak = max(state.peak, state.s2, distance * distance)
    # s2 measures spread plus distance of the pivot: only the spread matters, and it may be small.
    offset = state.s1 / count
    if at == size - 1 or state.s2 - count * offset * offset < _COLLAPSE * state.peak:
        _refresh(state, window, count)
        offset = state.s1 / count
    variance = state.s2 / count - offset * offset
    if count < 2 or variance <= (_NOISE * state.pivot) ** 2:
        return 0.0
    # not x - (pivot + offset): that sum would round to the last place of a large value
    return float(((x - state.pivot) - offset) / np.sqrt(variance))


@njit
def _push_all(
    state: Any, windows: Float64Array, rows: Int64Array, values: Float64Array, out: Float64Array
) -> None:
    for n in range(len(rows)):
        out[n] = push_zscore(state[rows[n]], windows[rows[n]], values[n])


class RollingZScore:
    """Running z-scores of any number of independent rows.

    Args:
        rows: how many series.
        window: values of the window, at least 2.
    """

    def __init__(self, rows: int, window: int) -> None:
        if rows < 1 or window < 2:
            raise ValueError(f"at least one row and a window of two, not {rows} and {window}")
        self._state = np.zeros(rows, dtype=STATE)
        self._windows = np.zeros((rows, window), dtype=np.float64)

    def update(self, rows: Int64Array, values: Float64Array) -> Float64Array:
        """Take `values` [n] of the series `rows` [n], one after the other; their z-scores [n]."""
        out = np.empty(len(rows), dtype=np.float64)
        _push_all(self._state, self._windows, rows, values, out)
        return out

    def snapshot(self) -> bytes:
        """The state as bytes."""
        return pack_arrays((self._state, self._windows))

    def restore(self, snapshot: bytes) -> None:
        """Go on from a `snapshot` of the same rows and window.

        Raises:
            DecodeError: of other ones, or damaged.
        """
        unpack_arrays(snapshot, (self._state, self._windows))
