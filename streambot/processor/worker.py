"""The part of an engine runner that runs in a thread: records to outputs.

Frames are worked off one after the other: decode, guard, wait for the agents outside, step. Nothing
here waits for anybody or writes; the runner moves what comes out. A frame whose agents have not
answered stays where it is, and so does everything behind it.
"""

from __future__ import annotations

import time
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import DecodeError, StreamError
from streambot.processor.core_state import CoreState
from streambot.processor.outside import Given, Inside, Orders, OutsideState, needed_answer
from streambot.processor.step_output import StepOutput
from streambot.streams.frame import Frame, FrameKind, decode_frame
from streambot.streams.ports import Record
from streambot.streams.sequence import ChainState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.processor.task import TaskCore
    from streambot.streams.sequence import SequenceGuard

STATUS_EVERY_NS = 200_000_000
MAX_WAITING = 64
"""Frames that may wait for an answer before no more are read."""


class TaskIdentity(NamedTuple):
    """Whose frames a runner takes: run by name and as the 16 bytes in frames, partition, width."""

    run: str
    run_id: bytes
    partition: int
    n_instruments: int


class Keep(Enum):
    """When a snapshot is taken."""

    NEVER = auto()
    AT_STOP = auto()
    """Where the work ends at a closed barrier."""
    AT_BARRIER = auto()
    """At the next closed barrier."""


class TakenSnapshot(NamedTuple):
    """State between two frames, before it is written.

    Attributes:
        core: None where a strategy cannot tell its state.
        offset: of the next record of the ticks.
        orders_offset: of the next record of the orders.
    """

    core: CoreState | None
    chain: ChainState
    outside: OutsideState
    offset: int
    orders_offset: int
    repeats: int
    ended: bool


class Step(NamedTuple):
    """What one record led to. `accepted`: see `outside.Given`."""

    record: Record
    frame: Frame | None = None
    output: StepOutput | None = None
    dead: DecodeError | None = None
    snapshot: TakenSnapshot | None = None
    accepted: bytes | None = None


class Waits(NamedTuple):
    """Who is waited for, and the barrier that they have not answered."""

    agents: tuple[str, ...]
    barrier: int


class _Waiting(NamedTuple):
    """A record whose turn has not come: a frame, or what is wrong with it; neither: a repeat."""

    record: Record
    frame: Frame | None = None
    dead: DecodeError | None = None
    wrong: StreamError | None = None


class Worker:
    """Works off the records of one partition.

    Args:
        who: whose frames they are.
        core: the state machine, new or restored.
        guard: reader's side of the sequence, at the position of `core`.
        offset: of the first record of the ticks.
        orders: of the agents outside.
        orders_offset: of the first record of the orders.

    Attributes:
        stopping: end at the next closed barrier.
        stops_anywhere: end behind the next frame instead.
        stopped: it did, or everything was worked off.
        at_barrier: no interval is half done.
        waits: whom the next frame waits for.
        ended: the END frame was worked off.
        repeats: frames that had been seen before, and were dropped.
    """

    def __init__(
        self,
        who: TaskIdentity,
        core: TaskCore,
        guard: SequenceGuard,
        offset: int,
        orders: Orders | None = None,
        orders_offset: int = 0,
    ) -> None:
        self.core = core
        self.guard = guard
        self.offset = offset
        self.orders_offset = orders_offset
        self.stopping = False
        self.stops_anywhere = False
        self.stopped = False
        self.at_barrier = True
        self.waits: Waits | None = None
        self.status = core.status()
        self._chain = guard.state
        self.ended = False
        self._next_status = 0
        self._who = who
        self._orders = orders or Inside()
        self._queue: deque[_Waiting] = deque()
        self._keep = Keep.NEVER
        self.repeats = 0

    @property
    def room(self) -> bool:
        """False while so many frames wait for answers that no more should be read."""
        return len(self._queue) < MAX_WAITING

    @property
    def chain(self) -> ChainState:
        """Where the core stands, behind the last frame that ran."""
        return self._chain

    def work(
        self, ticks: Sequence[Record], orders: Sequence[Record] = (), *, keep: Keep = Keep.NEVER
    ) -> tuple[list[Step], Exception | None]:
        """Steps of the records, up to a stop or a failure, which is returned beside them.

        Args:
            ticks: the next records of the partition.
            orders: the next records of the agents outside.
            keep: when to take a snapshot; it stands in the step that it follows.
        """
        steps: list[Step] = []
        failure: Exception | None = None
        self._keep = keep
        try:
            self._take_orders(orders, steps)
            self._run(steps)
            for record in ticks:
                if self.stopped:
                    break
                self._queue.append(self._read(record))
                self._run(steps)
        except Exception as cause:  # noqa: BLE001  # handed over, not hidden
            failure = cause
        now = time.monotonic_ns()
        if self.stopped or failure is not None or now >= self._next_status:
            self.status = self.core.status()
            self._next_status = now + STATUS_EVERY_NS
        return steps, failure

    def snapshot(self) -> TakenSnapshot:
        """State where the core stands."""
        return TakenSnapshot(
            core=self.core.state() if self.core.resumable else None,
            chain=self._chain,
            outside=self._orders.state(),
            offset=self.offset,
            orders_offset=self.orders_offset,
            repeats=self.repeats,
            ended=self.ended,
        )

    def _take_orders(self, records: Sequence[Record], steps: list[Step]) -> None:
        for record in records:
            try:
                self._orders.add(record.value)
            except DecodeError as cause:
                steps.append(Step(record, dead=cause))
            self.orders_offset = record.offset + 1

    def _read(self, record: Record) -> _Waiting:
        who = self._who
        try:
            frame = decode_frame(record.value, who.run_id, who.partition, who.n_instruments)
        except DecodeError as cause:
            return _Waiting(record, dead=cause)
        try:
            return _Waiting(record, frame if self.guard.accept(frame) else None)
        except StreamError as cause:
            return _Waiting(record, wrong=cause)

    def _run(self, steps: list[Step]) -> None:
        """Work off the records in front, as far as the agents have answered."""
        self.waits = None
        while self._queue and not self.stopped:
            record, frame, dead, wrong = self._queue[0]
            if wrong is not None:
                raise wrong
            if frame is None:
                self.repeats += dead is None
                steps.append(Step(record, dead=dead))
            else:
                barrier = needed_answer(frame)
                missing = self._orders.missing(barrier)
                if missing:
                    self.waits = Waits(tuple(missing), barrier)
                    return
                steps.append(self._step(record, frame))
            self._queue.popleft()
            self.offset = record.offset + 1
            if frame is not None:
                self._keep_now(steps)

    def _keep_now(self, steps: list[Step]) -> None:
        """Behind a frame: is this the end, and is a snapshot due?"""
        self.stopped = self.ended or (self.stopping and (self.at_barrier or self.stops_anywhere))
        due = self._keep is Keep.AT_BARRIER or (self.stopped and self._keep is Keep.AT_STOP)
        if due and self.at_barrier and self.core.resumable:
            steps[-1] = steps[-1]._replace(snapshot=self.snapshot())
            self._keep = Keep.NEVER

    def _step(self, record: Record, frame: Frame) -> Step:
        # Orders in front of a CONTROL frame act in the frame behind it.
        acts = frame.kind is not FrameKind.CONTROL
        given = self._orders.take(frame, self.core) if acts else Given()
        output = None
        if frame.kind is FrameKind.END:
            output = self.core.finish(given.orders)
            self.ended = True
        elif frame.kind is FrameKind.DATA:
            output = self.core.step(frame, given.orders)
            if len(frame.ticks):
                self.at_barrier = int(frame.ticks.bar[-1]) < len(frame.closes)
            elif len(frame.closes):
                self.at_barrier = True
        self._chain = self._chain.after(frame)
        return Step(record, frame, output, accepted=given.accepted)
