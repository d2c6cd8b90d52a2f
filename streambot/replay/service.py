"""Publishes a replay: windows become frames, frames go to the log, paced or as fast as it takes them.

The heavy part (reading, expanding, cutting, hashing) runs in one worker thread, one window ahead of
what is published (`ahead`), so that the event loop stays free for the engine and for people. Nothing
is ever dropped: a late frame is published at once, and those behind it keep their own due times.

There are three ways to publish: at full speed, at pace, and *at once up to a barrier*. The last one
is for steps, and for commands: what is left of the open interval goes out at once, so that all
partitions meet at one closed barrier, and there the command is done (`desk`). Whenever the way
changes, what was cut or encoded ahead is taken back and made again from what was published, so
numbers and running hashes have no gap. The schedule is anchored anew then, and never else.

A stop ends the stream of every partition at a closed barrier, without END: the run can go on from
there. A replay that comes to its end, or to a seek, writes an END frame with the totals of what was
published into every partition.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.replay_settings import Gaps, Moment, Speed
from streambot.replay.ahead import Ahead, Ready, Treatment
from streambot.replay.clock import Clock, MonotonicClock, utc_now
from streambot.replay.control import Trigger
from streambot.replay.desk import CommandDesk
from streambot.replay.emission import Emission, Published, encode
from streambot.replay.pacing import FRAME_WALL_NS, GapClock, Ratio, Schedule, kept_of_gap
from streambot.streams.control import ReplayStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Iterator, Sequence

    from streambot.replay.backlog import Backlog
    from streambot.replay.framing import Batch, Framing, WindowLike
    from streambot.streams.control import Acknowledgement, Command
    from streambot.streams.ports import Sink
    from streambot.streams.sequence import FrameChain

__all__ = ["Clock", "MonotonicClock", "Outcome", "Published", "ReplayService"]


class Outcome(NamedTuple):
    """How a replay ended.

    Attributes:
        complete: at its END frames; else stopped at a closed barrier of every partition.
        seek: where another run is to go on; None: nowhere.
    """

    complete: bool
    seek: Moment | None = None


class _Way(StrEnum):
    AT_ONCE = "at once"
    FULL_SPEED = "full speed"
    PACED = "paced"


class ReplayService:
    """Publishes the windows of one run into its stream of ticks.

    Args:
        windows: of the run, in order; drawn from in a worker thread.
        framing: cuts them.
        chains: one per partition, in order: where their numbers and hashes start.
        sink: where the frames go.
        stream: the topic of the ticks.
        speed: at the start.
        gaps: what becomes of closed hours at pace.
        backlog: how far the engine is behind.
        clock: wall time.
        on_published: told about every frame.
        complete: partitions whose stream has its END already (of a resumed run).
        successor: names the run that a seek would go on with, or raises why none can; None: this
            replay cannot seek.
        before_end: awaited with the target of a seek before END is written: who reads END may
            rely on what it did.
        wall: calendar time, UTC ns, for acknowledgements only.
    """

    def __init__(
        self,
        *,
        windows: Iterator[WindowLike],
        framing: Framing,
        chains: Sequence[FrameChain],
        sink: Sink,
        stream: str,
        speed: Speed,
        gaps: Gaps = Gaps(0),  # noqa: B008  # frozen
        backlog: Backlog,
        clock: Clock,
        on_published: Callable[[Published], None],
        complete: Container[int] = (),
        successor: Callable[[Moment], str] | None = None,
        before_end: Callable[[Moment], Awaitable[None]] | None = None,
        wall: Callable[[], int] = utc_now,
    ) -> None:
        self._before_end = before_end
        self._gaps = gaps
        self._clock = clock
        self._wake = asyncio.Event()
        self._stopping = False
        self._ahead = Ahead(windows, framing)
        self._emission = Emission(
            chains,
            framing.start,
            sink=sink,
            stream=stream,
            backlog=backlog,
            clock=clock,
            on_published=on_published,
            complete=complete,
        )
        self._desk = CommandDesk(speed, self._emission, self._wake, successor=successor, wall=wall)
        self._way: _Way | None = None
        self._chains: Sequence[FrameChain] = chains
        self._current: Ready | None = None
        self._schedule: Schedule | None = None
        self._released = 0
        self._waited: int | None = None
        self._paused_at: int | None = None
        self._stood_ns = 0

    @property
    def status(self) -> ReplayStatus:
        """Where the replay stands."""
        return self._desk.control.status

    @property
    def speed(self) -> Speed:
        """The speed asked for at the moment."""
        return self._desk.control.speed

    @property
    def seek(self) -> Moment | None:
        """Where another run is to go on, after a seek."""
        return self._desk.control.target

    def apply(self, command: Command) -> asyncio.Future[Acknowledgement]:
        """Do what `command` asks at the next barrier; a second one with the same id is the first."""
        return self._desk.take(command)

    def refuse(self, command: Command, reason: str) -> asyncio.Future[Acknowledgement]:
        """Answer a command that must not be done."""
        return self._desk.refuse(command, reason)

    @property
    def stood_ns(self) -> int:
        """How long the replay has been paused, all in all, nanoseconds of its clock."""
        since = 0 if self._paused_at is None else self._clock.now() - self._paused_at
        return self._stood_ns + since

    def stop(self) -> None:
        """Publish what completes the open interval, and nothing behind it."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> Outcome:
        """Publish everything, or up to a stop or a seek; returns when all of it is stored.

        Raises:
            StreambotError: bars that cannot be trusted, or a log that is gone.
        """
        try:
            while self._desk.control.living:
                await self._go_on()
            if self.status is not ReplayStatus.STOPPED:
                if self.seek is not None and self._before_end is not None:
                    await self._before_end(self.seek)
                await self._emission.end()
            await self._emission.stored()
            return Outcome(self.status is not ReplayStatus.STOPPED, self.seek)
        finally:
            self._desk.close()
            self._ahead.close()

    async def _go_on(self) -> None:
        """Publish until the way changes or the window ends."""
        self._wake.clear()
        if self._stopping:
            await self._complete_intervals()
            self._desk.end(Trigger.STOP)
            return
        if self._emission.aligned:
            self._desk.at_barrier()
        if not self._desk.control.living:
            return
        goal = self._desk.goal
        if goal is None and self.status is ReplayStatus.PAUSED:
            self._paused_at = self._clock.now()
            await self._wake.wait()
            self._stood_ns, self._paused_at = self.stood_ns, None
            return
        self._choose_way(goal)
        ready = await self._window()
        if ready is None:
            self._desk.end(Trigger.END)
        elif goal is not None:
            await self._at_once(ready, goal)
        elif self._way is _Way.PACED:
            await self._at_pace(ready)
        else:
            await self._at_full_speed(ready)

    def _choose_way(self, goal: int | None) -> None:
        """Go on from what was published, on the way that is asked for now."""
        if goal is not None:
            way = _Way.AT_ONCE
        else:
            way = _Way.FULL_SPEED if self.speed.is_max else _Way.PACED
        if way is self._way:
            return
        self._way = way
        self._schedule = None
        self._chains = self._emission.chains()
        if way is _Way.AT_ONCE:
            self._ahead.treatment = Treatment()
        elif way is _Way.FULL_SPEED:
            self._ahead.treatment = Treatment(chains=self._chains)
        else:
            kept = kept_of_gap(self._gaps.wall_ns, self._ratio)
            self._ahead.treatment = Treatment(gaps=GapClock(kept))

    @property
    def _ratio(self) -> Ratio:
        return Ratio(self.speed.numerator, self.speed.denominator)

    async def _window(self) -> Ready | None:
        """The window at which publishing stands; None behind the last one."""
        positions = self._emission.positions
        if self._current is not None and not self._current.frames.exhausted:
            self._current = await self._ahead.again(self._current, positions)
        else:
            self._current = await self._ahead.next(positions)
        return self._current

    def _interrupt(self, ready: Ready) -> None:
        """Take back what was cut and not published; the next way starts from there."""
        ready.frames.rewind(self._emission.positions)
        self._waited = 0
        if self._schedule is not None:
            self._waited = max(0, self._schedule.reached(self._clock.now()) - self._released)
        self._way = None

    async def _at_full_speed(self, ready: Ready) -> None:
        for frame in ready.encoded:
            if self._wake.is_set():
                self._interrupt(ready)
                return
            await self._emission.append(frame, due=None)

    async def _at_once(self, ready: Ready, goal: int) -> None:
        stepping = not self._desk.waiting
        for draft in ready.frames.until(goal):
            # The way to a barrier where a command waits is short; steps may be long.
            if self._wake.is_set() and (stepping or self._stopping):
                self._interrupt(ready)
                return
            await self._emission.append(encode(self._chains[draft.partition], draft), due=None)
        self._waited = 0

    async def _at_pace(self, ready: Ready) -> None:
        span = max(1, self._ratio.market(FRAME_WALL_NS))
        while (batch := ready.frames.due(span)) is not None:
            encoded = [encode(self._chains[draft.partition], draft) for draft in batch.drafts]
            if self._schedule is None:
                self._schedule = self._anchored(ready, batch)
            due = self._schedule.due(batch.release)
            await self._clock.wait_until(due, self._wake)
            if not self._wake.is_set():
                for frame in encoded:
                    await self._emission.append(frame, due=due)
                self._released = batch.release
            if self._wake.is_set():
                self._interrupt(ready)
                return

    def _anchored(self, ready: Ready, batch: Batch) -> Schedule:
        """A new schedule, in which the market goes on from where it stands.

        At the start that is the first thing to publish. After a pause or a change of speed it is
        the close of the barrier reached, and what had been waited since: a night that was half
        waited out does not begin again.
        """
        reached = ready.frames.scheduled_close(self._emission.frontier)
        if reached is None:
            reached = (
                self._emission.event_time
            )  # nothing is removed before a schedule's first window
        if reached is None or self._waited is None:
            reached, waited = batch.release, 0
        else:
            waited = self._waited
        self._released = reached
        origin = min(batch.release, reached + waited)
        return Schedule(self._clock.now(), origin, self._ratio)

    async def _complete_intervals(self) -> None:
        """Publish what is left of open intervals, each partition for itself."""
        if self._current is None:
            return
        self._current.frames.rewind(self._emission.positions)
        chains = self._emission.chains()
        for draft in self._current.frames.rest_of_interval():
            await self._emission.append(encode(chains[draft.partition], draft), due=None)
