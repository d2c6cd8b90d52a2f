"""Runs the engine task of one partition: ticks in, orders, fills and P&L out, snapshots on the side.

    read -> decode -> guard (sequence, chain) -> core.step -> append outputs, write files -> snapshot

Decoding and stepping happen in a worker thread, record by record, in one place (`Worker`); the
event loop only moves bytes. There is at most one output record per input frame and stream, numbered
with the input's `frame_seq`, and its bytes depend on the frames alone. A frame that cannot be
decoded goes to the dead letters, once; if it stood in the place of a good one, the sequence guard
stops the run at the next frame. The task ends at an END frame whose totals match, never because
nothing came.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streambot.processor.snapshot import TaskSnapshot, save_snapshot
from streambot.processor.worker import Step, TakenSnapshot, TaskIdentity, Worker
from streambot.streams.dead_letter import dead_letter, dead_letter_line
from streambot.streams.ports import Record, event_time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from streambot.domain.errors import DecodeError
    from streambot.processor.stream_files import StreamFiles
    from streambot.processor.tally import SlotStatus
    from streambot.processor.task import TaskCore
    from streambot.streams.frame import Frame
    from streambot.streams.ports import Headers, Sink
    from streambot.streams.sequence import SequenceGuard

OUTPUTS = ("orders", "fills", "pnl")
DEAD_LETTER = "dead-letter"
SNAPSHOT_EVERY_NS = 10_000_000_000
MAX_UNACKNOWLEDGED = 256
_READ_RECORDS = 16
_READ_TIMEOUT_S = 0.5


class Reader(Protocol):
    """Where the ticks of one partition come from: a `Source` of it, or its share of an `Intake`."""

    async def read(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """The next records in order; empty after `timeout_s` without any."""


class Processed(NamedTuple):
    """One frame that the engine is through with.

    Attributes:
        size: bytes of the frame.
        closed: barriers that the partition has closed with it.
        recorded: bytes of `orders`, `fills` and `pnl` that it caused, by stream.
        equity: barrier, instrument number and equity of each mark, int64 [3, n]; None: no marks.
    """

    partition: int
    frame_seq: int
    size: int
    closed: int
    recorded: dict[str, bytes]
    equity: npt.NDArray[np.int64] | None


class EngineRunner:
    """Engine task of one partition.

    Args:
        who: run and partition.
        core: the state machine, new or restored.
        guard: reader's side of the sequence, at the position of `core`.
        source: ticks of the partition, from the position of `core` on.
        offset: of the first record that `source` may give.
        sink: where output records go; None: to the files only (nobody outside this process could
            read them).
        topics: full topic name of every stream.
        files: files of the run.
        folder: of the run, for snapshots.
        executor: threads for decoding and stepping.
        on_processed: told about every frame once its outputs are handed over.
        on_stored: told (partition, frame_seq, wall ns) once the fills of a frame are acknowledged.
        written: number of the last input that each output topic has a record of already (for dead
            letters its offset): those are not written to the topic again, only to the files.
        duplicates, dead_letters: counted before a resume.
    """

    def __init__(
        self,
        *,
        who: TaskIdentity,
        core: TaskCore,
        guard: SequenceGuard,
        source: Reader,
        offset: int = 0,
        sink: Sink | None,
        topics: Mapping[str, str],
        files: StreamFiles,
        folder: Path,
        executor: Executor,
        on_processed: Callable[[Processed], None],
        on_stored: Callable[[int, int, int], None],
        written: Mapping[str, int] | None = None,
        duplicates: int = 0,
        dead_letters: int = 0,
    ) -> None:
        self._who = who
        self._worker = Worker(who, core, guard, offset)
        self._source = source
        self._sink = sink
        self._topics = topics
        self._files = files
        self._folder = folder
        self._executor = executor
        self._on_processed = on_processed
        self._on_stored = on_stored
        self._written = written or {}
        self._duplicates_before = duplicates
        self._stored: deque[asyncio.Future[int]] = deque()
        self._next_snapshot = time.monotonic_ns() + SNAPSHOT_EVERY_NS
        self.dead_letters = dead_letters

    @property
    def core(self) -> TaskCore:
        """The state machine. Look at it only while the runner does not run."""
        return self._worker.core

    @property
    def status(self) -> list[SlotStatus]:
        """How the slots stood a moment ago; exact once the runner has ended."""
        return self._worker.status

    @property
    def duplicates(self) -> int:
        """Frames that had been seen before, and were dropped."""
        return self._duplicates_before + self._worker.guard.repeats

    @property
    def barriers(self) -> int:
        """Barriers closed so far."""
        return self._worker.guard.state.barrier

    @property
    def watermark(self) -> int | None:
        """Event time up to which the task has seen everything, UTC ns; None at the start."""
        return self._worker.guard.state.t_hi

    def stop(self) -> None:
        """End at the next closed barrier."""
        self._worker.stopping = True

    async def run(self) -> bool:
        """Work until END (True) or a stop (False); state and outputs are safe when this returns.

        Raises:
            StreambotError: the log is wrong or gone, the disk refuses, a strategy raised.
        """
        loop = asyncio.get_running_loop()
        while not self._worker.stopped:
            if self._worker.stopping and self._worker.at_barrier:
                break
            records = await self._source.read(max_records=_READ_RECORDS, timeout_s=_READ_TIMEOUT_S)
            if not records:
                continue
            due = time.monotonic_ns() >= self._next_snapshot
            steps, failure = await loop.run_in_executor(
                self._executor, partial(self._worker.work, records, snapshot=due)
            )
            for step in steps:
                await self._write(step)
            if failure is not None:
                raise failure
        if not self._worker.stopped:
            taken = self._worker.snapshot(self._worker.offset)
            if taken is not None:
                await self._keep(taken)
        while self._stored:
            await self._stored.popleft()
        self._worker.status = self._worker.core.status()
        return self._worker.guard.ended

    async def _write(self, step: Step) -> None:
        if step.dead is not None:
            await self._bury(step.record, step.dead)
        frame = step.frame
        if frame is None:
            return
        recorded: dict[str, bytes] = {}
        if step.output is not None:
            output = step.output
            for stream, value, lines in (
                ("orders", output.orders, 1),
                ("fills", output.fills, output.events),
                ("pnl", output.pnl, output.marks),
            ):
                if value:
                    recorded[stream] = value
                    await self._record(stream, frame, value, lines)
        self._on_processed(
            Processed(
                partition=self._who.partition,
                frame_seq=frame.frame_seq,
                size=len(step.record.value),
                closed=frame.barrier_lo + len(frame.closes),
                recorded=recorded,
                equity=None if step.output is None else step.output.equity,
            )
        )
        if step.snapshot is not None:
            await self._keep(step.snapshot)

    async def _record(self, stream: str, frame: Frame, value: bytes, lines: int) -> None:
        partition = self._who.partition
        self._files.append(stream, partition, value, lines)
        if self._sink is None or frame.frame_seq <= self._written.get(stream, -1):
            if stream == "fills":
                self._on_stored(partition, frame.frame_seq, time.monotonic_ns())
            return
        stored = await self._append(
            stream,
            value,
            timestamp_ms=event_time_ms(frame.t_hi),
            headers=(("frame_seq", str(frame.frame_seq).encode()),),
        )
        if stream == "fills":
            stored.add_done_callback(partial(self._fills_stored, frame.frame_seq))

    def _fills_stored(self, frame_seq: int, _: asyncio.Future[int]) -> None:
        self._on_stored(self._who.partition, frame_seq, time.monotonic_ns())

    async def _bury(self, record: Record, cause: DecodeError) -> None:
        self.dead_letters += 1
        line = dead_letter_line(record, cause)
        self._files.append(DEAD_LETTER, self._who.partition, line, 1)
        if self._sink is not None and record.offset > self._written.get(DEAD_LETTER, -1):
            letter = dead_letter(record, cause)
            await self._append(
                DEAD_LETTER,
                letter.value,
                timestamp_ms=letter.timestamp_ms,
                headers=letter.headers,
            )

    async def _append(
        self,
        stream: str,
        value: bytes,
        *,
        timestamp_ms: int,
        headers: Headers,
    ) -> asyncio.Future[int]:
        assert self._sink is not None  # noqa: S101  # the callers' condition, for the checker
        stored = await self._sink.append(
            self._topics[stream], self._who.partition, value,
            timestamp_ms=timestamp_ms, headers=headers,
        )  # fmt: skip
        self._stored.append(stored)
        while self._stored and (self._stored[0].done() or len(self._stored) > MAX_UNACKNOWLEDGED):
            await self._stored.popleft()
        return stored

    async def _keep(self, taken: TakenSnapshot) -> None:
        """Outputs first, then the files' lines, then the snapshot that counts on both."""
        snapshot = TaskSnapshot(
            run=self._who.run,
            partition=self._who.partition,
            barrier=taken.chain.barrier,
            core=taken.core,
            chain=taken.chain,
            offset=taken.offset,
            lines=self._files.lines_of(self._who.partition),
            duplicates=self._duplicates_before + taken.repeats,
            dead_letters=self.dead_letters,
            ended=taken.ended,
        )
        while self._stored:
            await self._stored.popleft()
        self._files.flush()
        await asyncio.to_thread(self._files.sync)
        await asyncio.to_thread(save_snapshot, self._folder, snapshot)
        self._next_snapshot = time.monotonic_ns() + SNAPSHOT_EVERY_NS
