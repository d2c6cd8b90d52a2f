"""Publishes a replay: windows become frames, frames go to the log, paced or as fast as it takes them.

The heavy part (reading, expanding, cutting, hashing) runs in one worker thread, one window ahead of
what is published, so that the event loop stays free for the engine and for people. Nothing is ever
dropped: a late frame is published at once, and the ones behind it keep their own due times.

A stop ends the stream of every partition at a closed barrier, without END: the run can go on from
there. A replay that comes to its end writes an END frame with the totals into every partition.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from streambot.replay.pacing import FRAME_WALL_NS, GapClock, Ratio, Schedule
from streambot.streams.ports import event_time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from streambot.replay.backlog import Backlog
    from streambot.replay.framing import Draft, Framing, WindowFrames, WindowLike
    from streambot.streams.ports import Sink
    from streambot.streams.sequence import FrameChain

MAX_UNACKNOWLEDGED = 256

_T = TypeVar("_T")


class Clock(Protocol):
    """Wall time of a process: it only ever goes forward."""

    def now(self) -> int:
        """Nanoseconds since some moment."""

    async def wait_until(self, due: int, wake: asyncio.Event) -> None:
        """Return at `due`, or as soon as `wake` is set."""


class MonotonicClock:
    """The clock of the machine: steps of the calendar time do not touch it."""

    def now(self) -> int:
        """Nanoseconds since some moment."""
        return time.monotonic_ns()

    async def wait_until(self, due: int, wake: asyncio.Event) -> None:
        """Return at `due`, or as soon as `wake` is set."""
        left = due - time.monotonic_ns()
        if left <= 0 or wake.is_set():
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(left / 1e9):
                await wake.wait()
        except TimeoutError:
            return


class Pace(NamedTuple):
    """How fast a paced replay goes.

    Attributes:
        speed: market time per wall time.
        kept_ns: market nanoseconds that remain of a closed span; None: all of it.
    """

    speed: Ratio
    kept_ns: int | None


class Published(NamedTuple):
    """A frame that was handed to the log.

    Attributes:
        at: clock time of the emission, ns.
        late_ns: emission minus schedule, ns; None at full speed.
        t_hi: the frame's watermark, event time.
    """

    partition: int
    frame_seq: int
    rows: int
    size: int
    t_hi: int
    at: int
    late_ns: int | None


class Outcome(NamedTuple):
    """How a replay ended: at its END frames, or stopped at a closed barrier of every partition."""

    complete: bool


class _Encoded(NamedTuple):
    partition: int
    frame_seq: int
    rows: int
    t_hi: int
    value: bytes
    inside_interval: bool


class ReplayService:
    """Publishes the windows of one run into its stream of ticks.

    Args:
        windows: of the run, in order; drawn from in a worker thread.
        framing: cuts them.
        chains: one per partition, in order: number, hash and encode.
        sink: where the frames go.
        stream: the topic of the ticks.
        pace: None: as fast as the log and the engine take it.
        backlog: how far the engine is behind.
        clock: wall time.
        on_published: told about every frame.
        complete: partitions whose stream has its END already (of a resumed run).
    """

    def __init__(
        self,
        *,
        windows: Iterator[WindowLike],
        framing: Framing,
        chains: Sequence[FrameChain],
        sink: Sink,
        stream: str,
        pace: Pace | None,
        backlog: Backlog,
        clock: Clock,
        on_published: Callable[[Published], None],
        complete: Container[int] = (),
    ) -> None:
        self._windows = windows
        self._framing = framing
        self._chains = chains
        self._sink = sink
        self._stream = stream
        self._pace = pace
        self._backlog = backlog
        self._clock = clock
        self._on_published = on_published
        self._complete = complete
        self._stop = asyncio.Event()
        self._stored: deque[asyncio.Future[int]] = deque()
        self._schedule: Schedule | None = None
        self._gaps = GapClock(pace.kept_ns if pace else None)
        self._inside = [False] * len(chains)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self._ahead: asyncio.Future[Any] | None = None

    def stop(self) -> None:
        """Publish what completes the open interval, and nothing behind it."""
        self._stop.set()

    async def run(self) -> Outcome:
        """Publish everything, or up to a stop; returns when all of it is stored.

        Raises:
            StreambotError: bars that cannot be trusted, or a log that is gone.
        """
        try:
            publish = self._at_pace if self._pace else self._at_full_speed
            complete = await publish()
            if complete:
                for chain in self._chains:
                    if chain.partition not in self._complete:
                        await self._append(_encode_end(chain), due=None)
            while self._stored:
                await self._stored.popleft()
            return Outcome(complete)
        finally:
            if self._ahead is not None:
                self._ahead.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _at_full_speed(self) -> bool:
        ahead = self._in_thread(self._encode_window)
        while (frames := await ahead) is not None:
            ahead = self._in_thread(self._encode_window)
            for frame in frames:
                # After a stop only partitions inside an interval go on, up to its close.
                if not self._stop.is_set() or self._inside[frame.partition]:
                    await self._append(frame, due=None)
            if self._stop.is_set():
                return False
        return not self._stop.is_set()

    async def _at_pace(self) -> bool:
        ahead = self._in_thread(self._open_window)
        while (frames := await ahead) is not None:
            ahead = self._in_thread(self._open_window)
            if not await self._pace_window(frames):
                return False
        return not self._stop.is_set()

    async def _pace_window(self, frames: WindowFrames) -> bool:
        """Publish one window on schedule; False: stopped."""
        pace = self._pace
        assert pace is not None  # noqa: S101  # the caller's condition, for the checker
        span = max(1, pace.speed.market(FRAME_WALL_NS))
        while (batch := frames.due(span)) is not None:
            encoded = [self._encode(draft) for draft in batch.drafts]
            if self._schedule is None:
                self._schedule = Schedule(self._clock.now(), batch.release, pace.speed)
            due = self._schedule.due(batch.release)
            await self._clock.wait_until(due, self._stop)
            if self._stop.is_set() and not any(self._inside):
                return False
            for frame in encoded:
                await self._append(frame, due=due)
            if self._stop.is_set():
                for draft in frames.rest_of_interval():
                    await self._append(self._encode(draft), due=due)
                return False
        return True

    async def _append(self, frame: _Encoded, *, due: int | None) -> None:
        await self._backlog.room()
        at = self._clock.now()
        self._on_published(
            Published(
                partition=frame.partition,
                frame_seq=frame.frame_seq,
                rows=frame.rows,
                size=len(frame.value),
                t_hi=frame.t_hi,
                at=at,
                late_ns=None if due is None else at - due,
            )
        )
        self._backlog.published(len(frame.value))
        self._inside[frame.partition] = frame.inside_interval
        stored = await self._sink.append(
            self._stream, frame.partition, frame.value, timestamp_ms=event_time_ms(frame.t_hi)
        )
        self._stored.append(stored)
        while self._stored and (self._stored[0].done() or len(self._stored) > MAX_UNACKNOWLEDGED):
            await self._stored.popleft()

    def _in_thread(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        self._ahead = asyncio.get_running_loop().run_in_executor(self._thread, work)
        return self._ahead

    def _open_window(self) -> WindowFrames | None:
        window = next(self._windows, None)
        if window is None:
            return None
        frames = self._framing.open(window)
        frames.schedule(self._gaps)
        return frames

    def _encode_window(self) -> list[_Encoded] | None:
        window = next(self._windows, None)
        if window is None:
            return None
        return [self._encode(draft) for draft in self._framing.open(window).all()]

    def _encode(self, draft: Draft) -> _Encoded:
        chain = self._chains[draft.partition]
        frame_seq = chain.state.frame_seq
        value = chain.data(draft.closes, draft.ticks, t_lo=draft.t_lo, t_hi=draft.t_hi)
        inside = draft.barrier_hi >= draft.barrier_lo + len(draft.closes)
        return _Encoded(draft.partition, frame_seq, len(draft.ticks), draft.t_hi, value, inside)


def _encode_end(chain: FrameChain) -> _Encoded:
    at = chain.state.t_hi or 0
    return _Encoded(chain.partition, chain.state.frame_seq, 0, at, chain.end(), False)
