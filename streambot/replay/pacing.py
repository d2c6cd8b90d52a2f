"""When an event is due: an absolute schedule, in integers, without a clock.

    due(e) = anchor + (c(e) - c0) / speed

`c` maps event time to schedule time by taking closed hours out (`GapClock`), `anchor` is a wall
time and `c0` the schedule time that falls on it. Nothing is ever computed from the last emission,
so a late emission does not shift the ones behind it and a paced replay cannot drift. A new
schedule is made at the start, at a change of speed, after a pause and after a seek, never else.
Speed is a ratio of integers: market nanoseconds per nanosecond of wall time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]

FRAME_WALL_NS = 20_000_000
"""What is due within this much wall time travels in one frame."""


class Ratio(NamedTuple):
    """Market nanoseconds per nanosecond of wall time, as a positive fraction."""

    numerator: int
    denominator: int

    def market(self, wall_ns: int) -> int:
        """Market time that passes in `wall_ns` of wall time, rounded down."""
        return wall_ns * self.numerator // self.denominator

    def wall(self, market_ns: int) -> int:
        """Wall time that `market_ns` of market time takes, rounded up: never too early."""
        return -(-market_ns * self.denominator // self.numerator)


class Schedule(NamedTuple):
    """Wall times of schedule times.

    Attributes:
        anchor: a wall time (monotonic clock), nanoseconds.
        origin: the schedule time that is due at `anchor`, nanoseconds.
        speed: market time per wall time.
    """

    anchor: int
    origin: int
    speed: Ratio

    def due(self, schedule_time: int) -> int:
        """Wall time at which what stands at `schedule_time` is due."""
        return self.anchor + self.speed.wall(schedule_time - self.origin)

    def reached(self, now: int) -> int:
        """Schedule time that is due at wall time `now`."""
        return self.origin + self.speed.market(now - self.anchor)


class GapClock:
    """Maps event time to schedule time: closed hours are kept, removed, or cut to a length.

    Spans arrive in order, window by window, and are looked up by times that are not earlier than
    the windows before: so only the spans of the last window are held, and memory does not grow.

    Args:
        kept_ns: market nanoseconds that remain of a closed span; None keeps all of it, 0 nothing.
    """

    def __init__(self, kept_ns: int | None) -> None:
        self._kept_ns = kept_ns
        self._removed_before = 0
        self._starts = np.empty(0, np.int64)
        self._ends = np.empty(0, np.int64)

    def extend(self, closed_spans: Int64Array) -> None:
        """Add the closed spans, [from, to) [g, 2], that the next window brings."""
        if self._kept_ns is None:
            return
        self._removed_before += int(self._removed_by(self._ends - self._starts).sum())
        self._starts = np.ascontiguousarray(closed_spans[:, 0], np.int64)
        self._ends = np.ascontiguousarray(closed_spans[:, 1], np.int64)

    def at(self, ts: Int64Array) -> Int64Array:
        """Schedule times of event times, both nanoseconds [n]; never decreasing where `ts` is not."""
        if self._kept_ns is None or (self._removed_before == 0 and len(self._starts) == 0):
            return ts
        whole = self._removed_by(self._ends - self._starts)
        removed = np.concatenate((np.zeros(1, np.int64), np.cumsum(whole)))
        passed = np.searchsorted(self._ends, ts, side="right")
        out = ts - (self._removed_before + removed[passed])
        # A tick inside a closed span (extended hours): only the part of the span before it counts.
        inside = passed < len(self._starts)
        within = ts[inside] - self._starts[passed[inside]]
        out[inside] -= self._removed_by(np.maximum(within, 0))
        return out

    def _removed_by(self, lengths: Int64Array) -> Int64Array:
        kept: int = self._kept_ns or 0
        return np.maximum(lengths - kept, 0)


def kept_of_gap(gaps_wall_ns: int | None, speed: Ratio) -> int | None:
    """Market time that remains of a closed span when at most `gaps_wall_ns` of wall time may pass."""
    return None if gaps_wall_ns is None else speed.market(gaps_wall_ns)


class Durations(NamedTuple):
    """Wall time that a paced replay takes, nanoseconds.

    Attributes:
        skip: with closed hours removed.
        keep: with closed hours kept.
    """

    skip: int
    keep: int


def durations(open_ns: int, closed_ns: int, speed: Ratio) -> Durations:
    """How long a replay of `open_ns` and `closed_ns` of market time takes, both ways."""
    return Durations(speed.wall(open_ns), speed.wall(open_ns + closed_ns))
