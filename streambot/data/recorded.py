"""Ticks of a recorded run, as the timeline of another one.

The frames of all partitions are put back together into windows that hold whole intervals of all
instruments, in the order in which they were sequenced: interval, time, instrument, source. So
whatever is done with them, at whatever speed and cut into whatever frames, is what was done with
the bars that they were made from.

A recording is looked through once before anything is replayed: every frame is checked, rows are
counted, and the hashes at its ends become its fingerprint. One that has no end counts up to the
last barrier that every partition has closed. Memory does not grow with its length: the partition
that lags is always the next to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.data.feed import FeedReport
from streambot.data.recorded_look import NO_LIMIT, Look, Looked
from streambot.data.recorded_rows import NO_TIME, merged_order
from streambot.data.spans import gaps_within, union
from streambot.data.timeline import BYTES_PER_TICK, WINDOW_TICKS, Plan, Window
from streambot.domain.errors import DataError, DecodeError, StreamError
from streambot.domain.instruments import Instrument
from streambot.domain.ticks import TickBlock
from streambot.streams.frame import Frame, decode_frame
from streambot.streams.sequence import SequenceGuard

Int64Array = npt.NDArray[np.int64]
Values = Sequence[Iterator[bytes]]
"""Record values of each partition, in order, from the first one on."""
_DIGEST_BYTES = 16


class RecordedRun(NamedTuple):
    """What a recording is.

    Attributes:
        name: of the run.
        run_id: 16 bytes that name it in its frames.
        instruments: sorted by symbol, as in its frames.
        partitions: of its ticks.
        decision_ns: decision timeframe.
        sessions: distinct trading dates, where somebody knows; None: counted by instrument.
        open: opens the values of all partitions, as often as it is asked; closed by whoever asked.
    """

    name: str
    run_id: bytes
    instruments: tuple[Instrument, ...]
    partitions: int
    decision_ns: int
    sessions: int | None
    open: Callable[[], AbstractContextManager[Values]]

    def frames(self, partition: int, values: Iterator[bytes]) -> Iterator[Frame]:
        """The frames of a partition, checked; what is none is left out, as the engine does.

        Raises:
            StreamError: one is missing, or was altered.
        """
        guard = SequenceGuard(f"{self.name} ticks", self.run_id, partition)
        for value in values:
            try:
                frame = decode_frame(value, self.run_id, partition, len(self.instruments))
            except DecodeError:
                continue  # had it stood in the place of a good one, the next would be a gap
            if guard.accept(frame):
                yield frame


class RecordedTimeline:
    """A recording as `data.timeline.Timeline` is one of bars.

    Args:
        recording: the run.
        limit: barriers that count, at most; None: all that every partition has closed.
        window_ticks: about how many ticks a window has; more where one interval has more.

    Attributes:
        instruments: by number.
    """

    def __init__(
        self,
        recording: RecordedRun,
        *,
        limit: int | None = None,
        window_ticks: int = WINDOW_TICKS,
    ) -> None:
        self.instruments = recording.instruments
        self._run = recording
        self._limit = limit
        self._window_ticks = max(1, window_ticks)
        self._plan: Plan | None = None
        self._looked: Looked | None = None
        self._open_hours: Int64Array = np.empty((0, 2), np.int64)

    @property
    def through(self) -> int:
        """Barriers that are replayed."""
        return min(self._seen.barriers)

    @property
    def complete(self) -> bool:
        """The recording has its end, and all of it is replayed."""
        return self._seen.complete

    @property
    def source(self) -> str:
        """Name and fingerprint, as a manifest lists them among its sources."""
        seen = self._seen
        digest = blake2b(b"".join(seen.chains), digest_size=_DIGEST_BYTES).hexdigest()
        until = "END" if seen.complete else f"barrier {self.through}"
        return f"run {self._run.name}, {until} {digest}"

    def plan(self) -> Plan:
        """Look through the recording, once, and say what the replay will be.

        Raises:
            StreamError: frames are missing, damaged or altered.
            DataError: there is nothing to replay.
        """
        if self._plan is None:
            looked = self._look(NO_LIMIT if self._limit is None else self._limit)
            through = min(looked.barriers)
            if self._limit is None and not looked.complete:
                looked = self._look(through)  # what lies behind does not count
            self._looked = looked
            self._plan = self._planned(looked)
        return self._plan

    def windows(self, from_barrier: int = 0) -> Iterator[Window]:
        """The windows in order, from the interval `from_barrier` on.

        Frames before are read as well, for the running hash. The recording stays open until the
        last window is drawn or the iterator is closed.
        """
        plan = self.plan()
        through = self.through
        with self._run.open() as values:
            parts = [_Part(self._run.frames(p, values[p])) for p in range(self._run.partitions)]
            barrier, covered = 0, plan.first_ns
            while barrier < through:
                until = self._draw(parts, barrier, through)
                skipped = barrier < from_barrier
                if skipped:
                    until = min(until, from_barrier)
                closes = _common(parts, until, self._run.name)
                ticks = _joined([part.take(until) for part in parts], barrier, keep=not skipped)
                last = int(closes[-1])
                if not skipped:
                    spans = gaps_within(self._open_hours, covered, last)
                    yield Window(barrier, closes, ticks, spans)
                barrier, covered = until, last

    @property
    def _seen(self) -> Looked:
        self.plan()
        assert self._looked is not None  # noqa: S101  # `plan` has looked
        return self._looked

    def _draw(self, parts: list[_Part], barrier: int, through: int) -> int:
        """Read until a window is full; the barrier behind it."""
        while True:
            slowest = min(parts, key=lambda part: part.closed)
            common = min(slowest.closed, through)
            full = sum(part.count for part in parts) >= self._window_ticks
            if common == through or (full and common > barrier):
                return common
            if not slowest.pull():
                raise StreamError(
                    f"run {self._run.name} has fewer frames than a moment ago",
                    hint="the recording was altered",
                )

    def _look(self, limit: int) -> Looked:
        run, n = self._run, len(self._run.instruments)
        counts, last = np.zeros((n, 2), np.int64), np.zeros(n, np.int64)
        first = np.full(n, NO_TIME, np.int64)
        barriers, chains, spans = [], [], []
        sessions = np.zeros(n, np.int64)
        complete, rows, last_close = True, 0, 0
        with run.open() as values:
            for partition in range(run.partitions):
                look = Look(n, limit, counts, first, last, sessions)
                for frame in run.frames(partition, values[partition]):
                    look.add(frame)
                barriers.append(min(look.barriers, limit))
                chains.append(look.chain)
                spans.append(look.spans())
                rows += look.rows
                last_close = max(last_close, look.last_close)
                complete = complete and look.ended and limit == NO_LIMIT
        return Looked(
            tuple(barriers), complete, tuple(chains), rows, counts, first, last, union(spans),
            int(sessions.max(initial=0)), last_close,
        )  # fmt: skip

    def _planned(self, looked: Looked) -> Plan:
        run = self._run
        if not min(looked.barriers) or not looked.rows:
            raise DataError(
                f"run {run.name} has recorded no whole bar",
                where="--from-run",
                hint="wait until it has, or replay another one",
            )
        first, last = int(looked.first[looked.first != NO_TIME].min()), looked.last_close
        self._open_hours = looked.spans
        closed = gaps_within(looked.spans, first, last)
        closed_ns = int((closed[:, 1] - closed[:, 0]).sum())
        sessions = run.sessions if looked.complete and run.sessions else looked.sessions
        return Plan(
            symbols=tuple(instrument.symbol for instrument in run.instruments),
            bars=int(looked.counts[:, 0].sum()),
            ticks=looked.rows,
            sessions=max(1, sessions),
            decision_ns=run.decision_ns,
            first_ns=first,
            last_ns=last,
            open_ns=last - first - closed_ns,
            closed_ns=closed_ns,
            estimated_bytes=looked.rows * BYTES_PER_TICK,
            instruments=tuple(
                self._report(looked, number, instrument.symbol)
                for number, instrument in enumerate(run.instruments)
            ),
        )

    def _report(self, looked: Looked, number: int, symbol: str) -> FeedReport:
        """Of the decision bars: those of the source were looked at when it was recorded."""
        return FeedReport(
            symbol=symbol,
            source=f"run {self._run.name}",
            bars=int(looked.counts[number, 1]),
            first_ns=int(looked.first[number]) if looked.counts[number, 0] else 0,
            last_ns=int(looked.last[number]),
            timeframe_ns=self._run.decision_ns,
            timeframe_inferred=False,
            sessions=looked.sessions,
            rounded=0,
            volume_rounded=0,
            newest_first=False,
            outside_session=0,
            unknown_dates=0,
            unknown_date_bars=0,
            missing_sessions=0,
            zero_volume=0,
            no_volume=0,
            overlapping=0,
            crossed=0,
            jumps=0,
            rejected={},
        )


class _Part:
    """Rows of one partition that no window holds yet."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self._rows: list[TickBlock] = []
        self._intervals: list[Int64Array] = []
        self._closes = np.empty(0, np.int64)
        self.count = self.closed = 0

    def pull(self) -> bool:
        """Read the next frame; False: there is none."""
        frame = next(self._frames, None)
        if frame is None:
            return False
        if len(frame.closes):
            self._closes = np.concatenate([self._closes, frame.closes])
            self.closed += len(frame.closes)
        if len(frame.ticks):
            self._rows.append(frame.ticks)
            self._intervals.append(frame.ticks.bar.astype(np.int64) + frame.barrier_lo)
            self.count += len(frame.ticks)
        return True

    def closes_until(self, barrier: int) -> Int64Array:
        """Take the close times before `barrier`."""
        left = max(0, self.closed - barrier)
        taken = self._closes[: len(self._closes) - left]
        self._closes = self._closes[len(taken) :]
        return taken

    def take(self, until: int) -> tuple[TickBlock, Int64Array]:
        """Take the rows of the intervals before `until`, and their intervals."""
        rows, intervals = [], []
        while self._rows and (self._intervals[0][0] < until):
            block, numbers = self._rows[0], self._intervals[0]
            cut = int(np.searchsorted(numbers, until))
            rows.append(block if cut == len(numbers) else _slice(block, 0, cut))
            intervals.append(numbers[:cut])
            self.count -= cut
            if cut < len(numbers):
                self._rows[0], self._intervals[0] = (
                    _slice(block, cut, len(numbers)), numbers[cut:],
                )  # fmt: skip
                break
            del self._rows[0], self._intervals[0]
        if not rows:
            return _NO_ROWS, np.empty(0, np.int64)
        return _concatenated(rows), np.concatenate(intervals)


_NO_ROWS = TickBlock(
    np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.uint8),
    np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64),
)  # fmt: skip


def _slice(block: TickBlock, low: int, high: int) -> TickBlock:
    return TickBlock(*(column[low:high] for column in block))  # type: ignore[arg-type]


def _concatenated(blocks: list[TickBlock]) -> TickBlock:
    if len(blocks) == 1:
        return blocks[0]
    return TickBlock(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))


def _common(parts: list[_Part], until: int, run: str) -> Int64Array:
    """Close times that all partitions agree about."""
    closes, *others = (part.closes_until(until) for part in parts)
    if not all(np.array_equal(closes, other) for other in others):
        raise StreamError(
            f"the partitions of run {run} do not close the same barriers",
            hint="the recording was altered",
        )
    return closes


def _joined(taken: list[tuple[TickBlock, Int64Array]], barrier: int, *, keep: bool) -> TickBlock:
    """One block of the partitions' rows, in the order in which they were sequenced."""
    blocks = [block for block, _ in taken] if keep else [_NO_ROWS]
    rows = _concatenated(blocks)
    intervals = np.concatenate([numbers for _, numbers in taken]) if keep else np.empty(0, np.int64)
    if len(blocks) > 1:
        edges = np.cumsum([0, *(len(block) for block in blocks)])
        order = merged_order(intervals, rows.ts, rows.instrument, edges)
        rows = TickBlock(*(column[order] for column in rows))  # type: ignore[arg-type]
        intervals = intervals[order]
    return TickBlock(
        rows.instrument, (intervals - barrier).astype(np.uint32), rows.flags, rows.ts, rows.price,
        rows.size,
    )  # fmt: skip
