"""Stretches of market time, as sorted arrays of [from, to) in UTC nanoseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streambot.data.days import DayTable

Int64Array = npt.NDArray[np.int64]


def open_hours(days: DayTable, timeframe: int, *, has_calendar: bool) -> Int64Array:
    """When an instrument is open: its sessions on dates with bars, and as far as bars lie outside.

    Without a calendar a date is open from its first bar to its last: nothing else says when the
    market closes.
    """
    ends = days.last + timeframe
    if has_calendar:
        low = np.minimum(days.open, days.first)
        high = np.maximum(days.close, np.where(days.cut, days.close, ends))
    else:
        low, high = days.first, ends
    return np.stack([low, high], axis=1)


def union(parts: Iterable[Int64Array]) -> Int64Array:
    """Everything that lies in one of `parts`, int64 [n, 2], apart and in order."""
    spans = np.concatenate([np.empty((0, 2), dtype=np.int64), *parts])
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    if not len(spans):
        return spans
    reach = np.maximum.accumulate(spans[:, 1])
    begins = np.flatnonzero(np.concatenate([[True], spans[1:, 0] > reach[:-1]]))
    ends = np.concatenate([begins[1:] - 1, [len(spans) - 1]])
    return np.stack([spans[begins, 0], reach[ends]], axis=1)


def gaps_within(spans: Int64Array, low: int, high: int) -> Int64Array:
    """The parts of [low, high) that lie in none of `spans` (apart and in order), int64 [g, 2]."""
    if not len(spans) or high <= low:
        return np.empty((0, 2), dtype=np.int64)
    first = int(np.searchsorted(spans[:, 1], low, side="left"))
    last = int(np.searchsorted(spans[:, 0], high, side="right"))
    inner = spans[first:last]
    begins = np.concatenate([[low], inner[:, 1]])
    ends = np.concatenate([inner[:, 0], [high]])
    begins, ends = np.maximum(begins, low), np.minimum(ends, high)
    kept = ends > begins
    return np.stack([begins[kept], ends[kept]], axis=1).astype(np.int64)
