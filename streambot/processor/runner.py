"""Runs the engine task of one partition: ticks in, orders, fills and P&L out, snapshots on the side.

    read -> decode -> guard (sequence, chain) -> core.step -> append outputs, write files -> snapshot

This is the runner for logs without transactions, which live and die with their process; on Apache
Kafka it is `exactly_once`.

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

from streambot.domain.errors import AgentTimeoutError
from streambot.processor.intake import Pair, Reader
from streambot.processor.outputs import OUTPUTS, OutputRecord, outputs_of
from streambot.processor.snapshot import TaskSnapshot, save_snapshot
from streambot.processor.worker import Keep, Step, TakenSnapshot, TaskIdentity, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from streambot.processor.outside import Orders
    from streambot.processor.stream_files import StreamFiles
    from streambot.processor.tally import SlotStatus
    from streambot.processor.task import TaskCore
    from streambot.streams.ports import Sink
    from streambot.streams.sequence import SequenceGuard

SNAPSHOT_EVERY_NS = 10_000_000_000
MAX_UNACKNOWLEDGED = 256
READ_RECORDS = 16
READ_TIMEOUT_S = 0.5


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


class TaskRunner(Protocol):
    """The engine task of one partition, whatever log it works on."""

    @property
    def core(self) -> TaskCore:
        """The state machine. Look at it only while the runner does not run."""

    @property
    def status(self) -> list[SlotStatus]:
        """How the slots stood a moment ago; exact once the runner has ended."""

    @property
    def duplicates(self) -> int:
        """Frames that had been seen before, and were dropped."""

    @property
    def dead_letters(self) -> int:
        """Records that could not be read."""

    @property
    def barriers(self) -> int:
        """Barriers closed so far."""

    @property
    def watermark(self) -> int | None:
        """Event time up to which the task has seen everything, UTC ns; None at the start."""

    def stop(self) -> None:
        """End at the next closed barrier."""

    async def run(self) -> bool:
        """Work until END (True) or a stop (False); everything is safe when this returns."""


def processed_of(step: Step, partition: int, records: list[OutputRecord]) -> Processed | None:
    """What a step did, for who watches; None where it was no frame."""
    frame = step.frame
    if frame is None:
        return None
    return Processed(
        partition=partition,
        frame_seq=frame.frame_seq,
        size=len(step.record.value),
        closed=frame.barrier_lo + len(frame.closes),
        recorded={record.stream: record.value for record in records if record.stream in OUTPUTS},
        equity=None if step.output is None else step.output.equity,
    )


class AnswerClock:
    """How long the agents outside have been waited for.

    Args:
        limit_s: seconds after which the run stops.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._waiting: tuple[object, float] | None = None

    def check(self, worker: Worker) -> None:
        """Look at whom the worker waits for.

        Raises:
            AgentTimeoutError: for too long.
        """
        waits = worker.waits
        if waits is None:
            self._waiting = None
            return
        now = time.monotonic()
        if self._waiting is None or self._waiting[0] != waits:
            self._waiting = (waits, now)
        elif now - self._waiting[1] > self._limit_s:
            raise AgentTimeoutError(
                f"no answer to barrier {waits.barrier} from {', '.join(waits.agents)} "
                f"within {self._limit_s:g} s",
                where=f"orders/{worker.core.partition}",
                hint="is `streambot actor` running? an agent outside answers whole frames of ticks",
            )


class EngineRunner:
    """Engine task of one partition.

    Args:
        who: run and partition.
        core: the state machine, new or restored.
        guard: reader's side of the sequence, at the position of `core`.
        source: ticks of the partition, from the position of `core` on.
        orders: agents outside, with where their orders come from; None: an agent inside.
        answer_timeout_s: how long they are waited for.
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
        orders: tuple[Orders, Reader] | None = None,
        answer_timeout_s: float = 30.0,
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
        book, reader = orders or (None, None)
        self._worker = Worker(who, core, guard, offset, book)
        self._incoming = Pair(source, reader, max_records=READ_RECORDS)
        self._answers = AnswerClock(answer_timeout_s)
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
        self._dead_letters = dead_letters

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
        return self._duplicates_before + self._worker.repeats

    @property
    def dead_letters(self) -> int:
        """Records that could not be read."""
        return self._dead_letters

    @property
    def barriers(self) -> int:
        """Barriers closed so far."""
        return self._worker.chain.barrier

    @property
    def watermark(self) -> int | None:
        """Event time up to which the task has seen everything, UTC ns; None at the start."""
        return self._worker.chain.t_hi

    def stop(self) -> None:
        """End at the next closed barrier."""
        self._worker.stopping = True

    async def run(self) -> bool:
        """Work until END (True) or a stop (False); state and outputs are safe when this returns.

        Raises:
            StreambotError: the log is wrong or gone, the disk refuses, a strategy raised.
        """
        try:
            await self._work_until_stopped()
        finally:
            await self._incoming.close()
        if not self._worker.stopped:
            taken = self._worker.snapshot()
            if taken.core is not None:
                await self._keep(taken)
        while self._stored:
            await self._stored.popleft()
        self._worker.status = self._worker.core.status()
        return self._worker.ended

    async def _work_until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._worker.stopped:
            if self._worker.stopping and self._worker.at_barrier:
                break
            ticks, orders = await self._incoming.read(
                ticks=self._worker.room, timeout_s=READ_TIMEOUT_S
            )
            self._answers.check(self._worker)
            if not ticks and not orders:
                continue
            due = time.monotonic_ns() >= self._next_snapshot
            keep = Keep.AT_BARRIER if due else Keep.AT_STOP
            steps, failure = await loop.run_in_executor(
                self._executor, partial(self._worker.work, ticks, orders, keep=keep)
            )
            for step in steps:
                await self._write(step)
            if failure is not None:
                raise failure

    async def _write(self, step: Step) -> None:
        self._dead_letters += step.dead is not None
        records = outputs_of(step)
        for record in records:
            await self._record(record)
        processed = processed_of(step, self._who.partition, records)
        if processed is not None:
            self._on_processed(processed)
        if step.snapshot is not None:
            await self._keep(step.snapshot)

    async def _record(self, record: OutputRecord) -> None:
        partition = self._who.partition
        self._files.append(record.stream, partition, record.line, record.lines)
        is_fills = record.stream == "fills"
        if self._sink is None or record.number <= self._written.get(record.stream, -1):
            if is_fills:
                self._on_stored(partition, record.number, time.monotonic_ns())
            return
        stored = await self._sink.append(
            self._topics[record.stream], partition, record.value,
            timestamp_ms=record.timestamp_ms, key=record.key, headers=record.headers,
        )  # fmt: skip
        self._stored.append(stored)
        if is_fills:
            stored.add_done_callback(partial(self._fills_stored, record.number))
        while self._stored and (self._stored[0].done() or len(self._stored) > MAX_UNACKNOWLEDGED):
            await self._stored.popleft()

    def _fills_stored(self, frame_seq: int, _: asyncio.Future[int]) -> None:
        self._on_stored(self._who.partition, frame_seq, time.monotonic_ns())

    async def _keep(self, taken: TakenSnapshot) -> None:
        """Outputs first, then the files' lines, then the snapshot that counts on both."""
        snapshot = TaskSnapshot(
            run=self._who.run,
            partition=self._who.partition,
            core=taken.core,
            chain=taken.chain,
            outside=taken.outside,
            offset=taken.offset,
            orders_offset=taken.orders_offset,
            lines=self._files.lines_of(self._who.partition),
            duplicates=self._duplicates_before + taken.repeats,
            dead_letters=self._dead_letters,
            ended=taken.ended,
        )
        while self._stored:
            await self._stored.popleft()
        self._files.flush()
        await asyncio.to_thread(self._files.sync)
        await asyncio.to_thread(save_snapshot, self._folder, snapshot)
        self._next_snapshot = time.monotonic_ns() + SNAPSHOT_EVERY_NS
