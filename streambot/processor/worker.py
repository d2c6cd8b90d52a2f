"""The part of an engine runner that runs in a thread: bytes of frames to outputs.

Records are worked off one after the other: decode, guard, step. Nothing here waits or writes; the
runner moves what comes out.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import DecodeError
from streambot.processor.step_output import StepOutput
from streambot.streams.frame import Frame, FrameKind, decode_frame
from streambot.streams.ports import Record
from streambot.streams.sequence import ChainState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.processor.task import TaskCore
    from streambot.streams.sequence import SequenceGuard

STATUS_EVERY_NS = 200_000_000


class TaskIdentity(NamedTuple):
    """Whose frames a runner takes: run by name and as the 16 bytes in frames, partition, width."""

    run: str
    run_id: bytes
    partition: int
    n_instruments: int


class TakenSnapshot(NamedTuple):
    """State at a closed barrier, before it is written."""

    core: bytes
    chain: ChainState
    offset: int
    repeats: int
    ended: bool


class Step(NamedTuple):
    """What one record led to."""

    record: Record
    frame: Frame | None
    output: StepOutput | None
    dead: DecodeError | None
    snapshot: TakenSnapshot | None


class Worker:
    """The part that runs in a thread: bytes to outputs, one record after the other."""

    def __init__(
        self, who: TaskIdentity, core: TaskCore, guard: SequenceGuard, offset: int
    ) -> None:
        self.core = core
        self.offset = offset
        self.guard = guard
        self.stopping = False
        self.stopped = False
        self.at_barrier = True
        self.status = core.status()
        self._next_status = 0
        self._who = who

    def work(
        self, records: Sequence[Record], *, snapshot: bool
    ) -> tuple[list[Step], Exception | None]:
        """Steps of the records, up to a stop or a failure, which is returned beside them.

        Args:
            records: the next ones of the partition.
            snapshot: take a snapshot at the next closed barrier.
        """
        steps: list[Step] = []
        failure: Exception | None = None
        for record in records:
            try:
                step = self._one(record)
                self.offset = record.offset + 1
                last = self.guard.ended or (self.stopping and self.at_barrier)
                if self.at_barrier and (last or snapshot) and step.frame is not None:
                    step = step._replace(snapshot=self.snapshot(self.offset))
                    snapshot = False
            except Exception as cause:  # noqa: BLE001  # handed over, not hidden
                failure = cause
                break
            steps.append(step)
            if last:
                self.stopped = True
                break
        now = time.monotonic_ns()
        if self.stopped or failure is not None or now >= self._next_status:
            self.status = self.core.status()
            self._next_status = now + STATUS_EVERY_NS
        return steps, failure

    def snapshot(self, offset: int) -> TakenSnapshot | None:
        """State at the closed barrier where the core stands; None where a strategy has no state."""
        if not self.core.resumable:
            return None
        guard = self.guard
        return TakenSnapshot(self.core.snapshot(), guard.state, offset, guard.repeats, guard.ended)

    def _one(self, record: Record) -> Step:
        who = self._who
        try:
            frame = decode_frame(record.value, who.run_id, who.partition, who.n_instruments)
        except DecodeError as cause:
            return Step(record, None, None, cause, None)
        if not self.guard.accept(frame):
            return Step(record, None, None, None, None)
        output = None
        if frame.kind is FrameKind.END:
            output = self.core.finish()
        elif frame.kind is FrameKind.DATA:
            output = self.core.step(frame)
            if len(frame.ticks):
                self.at_barrier = int(frame.ticks.bar[-1]) < len(frame.closes)
            elif len(frame.closes):
                self.at_barrier = True
        return Step(record, frame, output, None, None)
