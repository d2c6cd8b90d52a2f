"""Cuts windows of ticks into the frames of a partition.

A window holds whole intervals of all instruments. Every partition closes every barrier, so a frame
carries, besides the rows of its partition, the close times of the barriers it closes: run-wide
ones, also where the partition has no row. Rules (`docs/market-rules.md` and the ADR on frames):

- at full speed a frame holds whole intervals, up to `MAX_ROWS` rows and `MAX_BARRIERS` barriers;
  an interval with more rows is split, and its close travels in the frame that completes it;
- at pace a frame holds what is due within 20 ms: whole intervals, or a part of one;
- a run of barriers without rows is one frame.

However the cuts fall, the rows and closes of a partition, put one after the other, are the same:
what the engine does depends on that sequence only (property-tested).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streambot.domain.ticks import TickBlock
from streambot.jit import njit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streambot.replay.pacing import GapClock

Int64Array = npt.NDArray[np.int64]

MAX_ROWS = 8_192
MAX_BARRIERS = 65_535
"""A row's interval is a uint16 in a frame. With `MAX_ROWS` this also keeps a frame below 900 KB:
8,192 rows x 29 bytes + 65,535 closes x 8 bytes = 762 KB."""


class WindowLike(Protocol):
    """What framing reads of `data.timeline.Window`."""

    @property
    def barrier_lo(self) -> int:
        """First interval of the window."""

    @property
    def closes(self) -> Int64Array:
        """Close times of its barriers, int64 [m]."""

    @property
    def ticks(self) -> TickBlock:
        """Rows of all instruments; `bar` is uint32, interval minus `barrier_lo`."""

    @property
    def closed_spans(self) -> Int64Array:
        """Closed hours in it and before its first tick, [from, to) int64 [g, 2]."""


class Position(NamedTuple):
    """Where the stream of a partition goes on: `rows` rows of interval `barrier` are behind it."""

    barrier: int = 0
    rows: int = 0


class Draft(NamedTuple):
    """A frame of one partition before it is numbered and hashed.

    Attributes:
        barrier_lo: first interval of the frame: the first that the partition has not closed yet.
        barrier_hi: last interval with content (rows, or its close).
        t_lo, t_hi: event times, UTC ns, of its first and last row or close.
        closes: int64 [m], close times of barriers `barrier_lo` .. `barrier_lo + m - 1`.
        ticks: rows; `bar` is uint16, interval minus `barrier_lo`.
        after: where the partition stands behind it.
    """

    partition: int
    barrier_lo: int
    barrier_hi: int
    t_lo: int
    t_hi: int
    closes: Int64Array
    ticks: TickBlock
    after: Position


class Batch(NamedTuple):
    """Frames that are published together.

    Attributes:
        release: schedule time of the last thing in them.
        drafts: by partition; the frames of one partition in their order.
    """

    release: int
    drafts: list[Draft]


class Framing:
    """Splits windows by partition.

    Args:
        partition_of: partition of every instrument number, [n].
        partitions: count of partitions.
        start: where each partition goes on, for a resumed run; None: at the beginning.
        max_rows: rows in a frame, at most.
        max_barriers: barriers that a frame closes, at most.
    """

    def __init__(
        self,
        partition_of: Sequence[int],
        partitions: int,
        *,
        start: Sequence[Position] | None = None,
        max_rows: int = MAX_ROWS,
        max_barriers: int = MAX_BARRIERS,
    ) -> None:
        self.start = tuple(start) if start else (Position(),) * partitions
        self._partition_of = np.asarray(partition_of, np.uint16)
        self._partitions = partitions
        self._limits = _Limits(max_rows, max_barriers)

    def open(self, window: WindowLike) -> WindowFrames:
        """The next window, split and ready to be cut."""
        blocks = self._blocks(window.ticks)
        parts = [
            _Part(number, block, window, start, self._limits)
            for number, (block, start) in enumerate(zip(blocks, self.start, strict=True))
        ]
        return WindowFrames(parts, window)

    def _blocks(self, ticks: TickBlock) -> list[TickBlock]:
        if self._partitions == 1:
            return [ticks]
        count = len(ticks)
        out = TickBlock(
            instrument=np.empty(count, np.uint16),
            bar=np.empty(count, ticks.bar.dtype),
            flags=np.empty(count, np.uint8),
            ts=np.empty(count, np.int64),
            price=np.empty(count, np.int64),
            size=np.empty(count, np.int64),
        )
        ends = np.zeros(self._partitions, np.int64)
        _scatter(self._partition_of, ticks, out, ends)
        starts = [0, *ends.tolist()[:-1]]
        return [
            TickBlock(*(column[start:end] for column in out))  # type: ignore[arg-type]
            for start, end in zip(starts, ends.tolist(), strict=True)
        ]


@njit
def _scatter(
    partition_of: npt.NDArray[np.uint16], ticks: TickBlock, out: TickBlock, ends: Int64Array
) -> None:
    """Copy the rows of each partition behind one another; `ends` gets where each partition ends."""
    for row in range(len(ticks.instrument)):
        ends[partition_of[ticks.instrument[row]]] += 1
    total = 0
    for partition in range(len(ends)):
        total += ends[partition]
        ends[partition] = total - ends[partition]
    # Locals, because each attribute of a tuple of arrays counts references in the loop.
    instrument, bar, flags = ticks.instrument, ticks.bar, ticks.flags
    ts, price, size = ticks.ts, ticks.price, ticks.size
    out_instrument, out_bar, out_flags = out.instrument, out.bar, out.flags
    out_ts, out_price, out_size = out.ts, out.price, out.size
    for row in range(len(ts)):
        number = instrument[row]
        partition = partition_of[number]
        at = ends[partition]
        ends[partition] = at + 1
        out_instrument[at] = number
        out_bar[at] = bar[row]
        out_flags[at] = flags[row]
        out_ts[at] = ts[row]
        out_price[at] = price[row]
        out_size[at] = size[row]


class WindowFrames:
    """One window on its way out: frames are cut off its front.

    What was cut and not published can be taken back with `rewind`, and be cut another way.
    """

    def __init__(self, parts: list[_Part], window: WindowLike) -> None:
        self._parts = parts
        self._window = window
        self._row_times: list[Int64Array] = []
        self._close_times = np.empty(0, np.int64)

    @property
    def exhausted(self) -> bool:
        """Nothing is left of it."""
        return all(part.exhausted for part in self._parts)

    def rewind(self, positions: Sequence[Position]) -> None:
        """Stand where the partitions stand: at `positions`, or at the window's edge next to it."""
        for part, position in zip(self._parts, positions, strict=True):
            part.stand_at(position)

    def all(self) -> list[Draft]:
        """All that is left, in whole intervals, the slowest partition first."""
        return self.until(self._window.barrier_lo + len(self._window.closes))

    def until(self, barrier: int) -> list[Draft]:
        """All that is left before interval `barrier`, the slowest partition first."""
        closes = min(max(barrier - self._window.barrier_lo, 0), len(self._window.closes))
        drafts = [
            draft
            for part in self._parts
            if closes > part.close
            for draft in part.cut(int(part.offsets[closes]), closes)
        ]
        drafts.sort(key=lambda draft: (draft.barrier_hi, draft.partition))
        return drafts

    def schedule(self, clock: GapClock) -> None:
        """Give every row and close its schedule time: before the first call of `due`."""
        clock.extend(self._window.closed_spans)
        self._close_times = clock.at(self._window.closes)
        self._row_times = [clock.at(part.ticks.ts) for part in self._parts]

    def scheduled_close(self, barrier: int) -> int | None:
        """Schedule time at which interval `barrier` begins; None: before this window's first close."""
        closed = barrier - self._window.barrier_lo - 1
        return int(self._close_times[closed]) if closed >= 0 else None

    def due(self, span_ns: int) -> Batch | None:
        """What falls into the next `span_ns` of schedule time; None when nothing is left."""
        first = [
            int(times[part.row])
            for part, times in zip(self._parts, self._row_times, strict=True)
            if part.row < len(times)
        ] + [
            int(self._close_times[part.close])
            for part in self._parts
            if part.close < len(self._close_times)
        ]
        if not first:
            return None
        release = min(first)
        until = release + span_ns
        closes = int(np.searchsorted(self._close_times, until, side="right"))
        drafts: list[Draft] = []
        for part, times in zip(self._parts, self._row_times, strict=True):
            rows = max(part.row, int(np.searchsorted(times, until, side="right")))
            if rows > part.row:
                release = max(release, int(times[rows - 1]))
            if closes > part.close:
                release = max(release, int(self._close_times[closes - 1]))
                # A frame of its own up to the close: state can be kept there, and not behind the
                # open of the next bar, which falls on the same instant.
                drafts.extend(part.cut(int(part.offsets[closes]), closes))
            drafts.extend(part.cut(rows, part.close))
        return Batch(release, drafts)

    def rest_of_interval(self) -> list[Draft]:
        """The frames after which no partition is inside an interval: where a replay may stop."""
        drafts: list[Draft] = []
        for part in self._parts:
            if part.inside_interval:
                drafts.extend(part.cut(int(part.offsets[part.close + 1]), part.close + 1))
        return drafts


class _Limits(NamedTuple):
    rows: int
    barriers: int


class _Part:
    """The rows of one partition in a window, and how far they were cut.

    `row` and `close` count what is gone already; `offsets[k]` is the first row of interval k.
    """

    def __init__(
        self, number: int, ticks: TickBlock, window: WindowLike, start: Position, limits: _Limits
    ) -> None:
        barriers = len(window.closes)
        self.number = number
        self.ticks = ticks
        intervals = np.arange(barriers + 1, dtype=ticks.bar.dtype)
        self.offsets = np.searchsorted(ticks.bar, intervals, side="left")
        self._barrier_lo = window.barrier_lo
        self._closes = window.closes
        self._limits = limits
        self.close = self.row = 0
        self.stand_at(start)

    def stand_at(self, position: Position) -> None:
        """Go to `position`, or to the edge of the window that is next to it."""
        barriers = len(self._closes)
        self.close = min(max(position.barrier - self._barrier_lo, 0), barriers)
        self.row = int(self.offsets[self.close])
        if position.barrier - self._barrier_lo == self.close < barriers:
            self.row += position.rows

    @property
    def exhausted(self) -> bool:
        """Nothing is left."""
        return self.close == len(self._closes) and self.row == len(self.ticks)

    @property
    def inside_interval(self) -> bool:
        """Some rows of the open interval are gone, others or its close are not."""
        return self.row > int(self.offsets[self.close])

    def cut(self, row_end: int, close_end: int) -> Iterator[Draft]:
        """Frames up to row `row_end` and close `close_end`.

        Rows before `row_end` lie in intervals up to `close_end`; those of an interval before
        `close_end` are all there.
        """
        while self.row < row_end or self.close < close_end:
            rows = min(row_end, self.row + self._limits.rows)
            complete = int(np.searchsorted(self.offsets, rows, side="right")) - 1
            closes = min(complete, close_end, self.close + self._limits.barriers)
            if closes > self.close and (rows < row_end or closes < close_end):
                rows = int(self.offsets[closes])
            yield self._draft(rows, closes)
            self.row = rows
            self.close = closes

    def _draft(self, rows: int, closes: int) -> Draft:
        ticks = self.ticks
        ts = ticks.ts[self.row : rows]
        times = self._closes[self.close : closes]
        first = [int(column[0]) for column in (ts, times) if len(column)]
        last = [int(column[-1]) for column in (ts, times) if len(column)]
        partial = len(ts) > 0 and rows > self.offsets[closes]
        return Draft(
            partition=self.number,
            barrier_lo=self._barrier_lo + self.close,
            barrier_hi=self._barrier_lo + (closes if partial else closes - 1),
            t_lo=min(first),
            t_hi=max(last),
            closes=times,
            ticks=TickBlock(
                instrument=ticks.instrument[self.row : rows],
                bar=(ticks.bar[self.row : rows] - self.close).astype(np.uint16),
                flags=ticks.flags[self.row : rows],
                ts=ts,
                price=ticks.price[self.row : rows],
                size=ticks.size[self.row : rows],
            ),
            after=Position(self._barrier_lo + closes, rows - int(self.offsets[closes])),
        )
