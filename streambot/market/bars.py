"""Bars of several timeframes from ticks, at once and incrementally.

Theory of operation (`docs/market-rules.md`, Time and ticks). Ticks come marked: `BAR_OPEN` on the
first one of every bar of the source. A tick without the mark belongs to the bar before it, so a
source bar is never torn, whatever the timeframe. At a mark the time decides, per timeframe, which
bucket the source bar falls into: buckets are anchored at the open of the session of its trading
date and end at the session's close; what lies before the open or after the close has buckets of
its own on the same grid. `SOURCE` (0) gives the bars of the source back, `DAY` one bar a trading date.

A bar is complete when a tick of a later bucket arrives, or by time: `close(t)` completes what ends
at or before t, which is what the close of a barrier means. State is one record per instrument and
timeframe; its bytes are the snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.domain.ticks import TickFlag
from streambot.domain.units import NANOS_PER_DAY
from streambot.jit import njit
from streambot.market.packed import pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.domain.ticks import TickBlock

Int64Array = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]

SOURCE = 0
"""The timeframe of the source, whatever it is: a bar from one `BAR_OPEN` to the next."""
DAY = NANOS_PER_DAY

BAR = np.dtype([
    ("instrument", np.int64),  # number in the run
    ("timeframe", np.int64),  # ns
    ("start", np.int64),  # of its bucket, UTC ns
    ("end", np.int64),  # of its bucket, exclusive; of a SOURCE bar unknown: the last tick's ts + 1
    ("first_ts", np.int64),  # of its first tick
    ("last_ts", np.int64),  # of its last tick
    ("open", np.int64),  # ticks, as the next three
    ("high", np.int64),
    ("low", np.int64),
    ("close", np.int64),
    ("volume", np.int64),  # volume steps; -1: that of some tick is unknown
    ("count", np.int64),  # of ticks; 0: no bar
])  # fmt: skip
"""A bar that was built. All fields are int64."""

_OPEN = int(TickFlag.BAR_OPEN)


class TradingDates(NamedTuple):
    """Trading dates of one instrument, in order: what anchors its buckets.

    Attributes:
        starts: int64 [n], UTC ns from which on a tick belongs to the date (ticks before the first
            one belong to the first). Where dates change at midnight: midnight.
        opens, closes: int64 [n], bounds of the date's session, UTC ns.
    """

    starts: Int64Array
    opens: Int64Array
    closes: Int64Array


@njit
def bucket(t: int, timeframe: int, opened: int, closed: int) -> tuple[int, int]:
    """Start and end of the bucket of `timeframe` that a bar opening at `t` falls into."""
    if timeframe == DAY:
        return opened, closed
    start = opened + (t - opened) // timeframe * timeframe
    end = start + timeframe
    if t < opened:
        end = min(end, opened)
    elif t < closed:
        end = min(end, closed)
    else:
        start = max(start, closed)
    return start, end


@njit
def _begin(bar: Any, t: int, price: int, size: int, start: int, end: int) -> None:
    bar.start = start
    bar.end = end
    bar.first_ts = t
    bar.last_ts = t
    bar.open = price
    bar.high = price
    bar.low = price
    bar.close = price
    bar.volume = size
    bar.count = 1


@njit
def _extend(bar: Any, t: int, price: int, size: int) -> None:  # a record
    bar.last_ts = t
    bar.high = max(bar.high, price)
    bar.low = min(bar.low, price)
    bar.close = price
    bar.volume = bar.volume + size if bar.volume >= 0 and size >= 0 else -1
    bar.count += 1


@njit
def _find(starts: Int64Array, low: int, high: int, t: int) -> int:
    """Last row of [low, high) whose start is at or before `t`; `low` where there is none."""
    while high - low > 1:
        middle = (low + high) // 2
        if starts[middle] <= t:
            low = middle
        else:
            high = middle
    return low


@njit
def _build(
    instrument: npt.NDArray[np.uint16],
    flags: npt.NDArray[np.uint8],
    ts: Int64Array,
    price: Int64Array,
    size: Int64Array,
    row: int,
    timeframes: Int64Array,
    starts: Int64Array,
    opens: Int64Array,
    closes: Int64Array,
    first: Int64Array,
    cursor: Int64Array,
    bars: Any,  # records [instruments, timeframes]
    out: Any,  # records
) -> tuple[int, int]:
    """Take ticks from `row` on; stops where `out` has no room left. Returns (next row, bars in out)."""
    built = 0
    room = len(out) - len(timeframes)
    while row < len(ts) and built <= room:
        i = instrument[row]
        t = ts[row]
        p = price[row]
        v = size[row]
        if flags[row] & _OPEN:
            day = cursor[i]
            last = first[i + 1]
            if day < 0:
                day = _find(starts, first[i], last, t)
            while day + 1 < last and starts[day + 1] <= t:
                day += 1
            cursor[i] = day
            for k in range(len(timeframes)):
                bar = bars[i, k]
                if timeframes[k] == SOURCE:
                    start, end = t, t + 1
                else:
                    start, end = bucket(t, timeframes[k], opens[day], closes[day])
                if bar.count and timeframes[k] != SOURCE and bar.start == start:
                    _extend(bar, t, p, v)
                    continue
                if bar.count:
                    out[built] = bar
                    built += 1
                _begin(bar, t, p, v, start, end)
        else:
            for k in range(len(timeframes)):
                bar = bars[i, k]
                if bar.count:
                    _extend(bar, t, p, v)
                    if timeframes[k] == SOURCE:
                        bar.end = t + 1
        row += 1
    return row, built


@njit
def _close(bars: Any, t: int, out: Any) -> int:  # records
    """Move bars that end at or before `t` to `out`; how many."""
    built = 0
    for i in range(bars.shape[0]):
        for k in range(bars.shape[1]):
            bar = bars[i, k]
            if bar.count and bar.end <= t:
                out[built] = bar
                bar.count = 0
                built += 1
    return built


class BarBuilder:
    """Builds bars of several timeframes for the instruments of a run.

    Args:
        timeframes: nanoseconds; `SOURCE` and `DAY` are allowed. Any of them at least the source's.
        dates: trading dates of every instrument, in the order of their numbers.
    """

    def __init__(self, timeframes: Sequence[int], dates: Sequence[TradingDates]) -> None:
        if (
            not timeframes
            or any(t < 0 for t in timeframes)
            or len(set(timeframes)) != len(timeframes)
        ):
            raise ValueError(f"timeframes must be different and not negative: {list(timeframes)}")
        if any(len(table.starts) == 0 for table in dates):
            raise ValueError("an instrument without a trading date")
        self.timeframes = tuple(timeframes)
        self._timeframes = np.array(timeframes, dtype=np.int64)
        self._first = np.cumsum([0, *(len(table.starts) for table in dates)], dtype=np.int64)
        self._starts, self._opens, self._closes = (
            np.ascontiguousarray(np.concatenate([table[column] for table in dates]), dtype=np.int64)
            for column in range(3)
        )
        self._cursor = np.full(len(dates), -1, dtype=np.int64)
        self._bars = np.zeros((len(dates), len(timeframes)), dtype=BAR)
        self._bars["instrument"] = np.arange(len(dates))[:, None]
        self._bars["timeframe"] = self._timeframes

    def update(self, ticks: TickBlock) -> Records:
        """Take ticks, in order; the bars that they completed.

        An instrument's ticks before its first `BAR_OPEN` belong to no bar.

        Returns:
            `BAR` records, in the order of the ticks that completed them, then of `timeframes`.
        """
        room = max(1024, len(self.timeframes) * (2 + len(ticks) // 4))
        row = 0
        parts: list[Records] = []
        while row < len(ticks):
            out = np.empty(room, dtype=BAR)
            row, built = _build(
                ticks.instrument, ticks.flags, ticks.ts, ticks.price, ticks.size, row, self._timeframes,
                self._starts, self._opens, self._closes, self._first, self._cursor, self._bars, out,
            )  # fmt: skip
            parts.append(out[:built])
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, BAR), *parts])

    def close(self, ts: int) -> Records:
        """Complete the bars that end at or before `ts`; ordered by instrument, then by `timeframes`.

        A bar that is completed by time before its last tick came would be begun anew by the next
        `BAR_OPEN` in its bucket: call it with the close of a barrier, behind which no tick of the
        interval remains.
        """
        out = np.empty(self._bars.size, dtype=BAR)
        return out[: _close(self._bars, ts, out)]

    def flush(self) -> Records:
        """Complete all bars, as they are: the data ended."""
        return self.close(np.iinfo(np.int64).max)

    def open_bars(self) -> Records:
        """A copy of the bars that are not complete, [instruments, timeframes]; `count` 0: none."""
        return self._bars.copy()

    def snapshot(self) -> bytes:
        """The state as bytes."""
        return pack_arrays((self._cursor, self._bars))

    def restore(self, snapshot: bytes) -> None:
        """Go on from a `snapshot` of a builder with the same timeframes and instruments.

        Raises:
            DecodeError: of another builder, or damaged.
        """
        unpack_arrays(snapshot, (self._cursor, self._bars))
