"""Runs the engine task of one partition on a log with transactions: exactly once, through any crash.

    open:    fence -> restore -> look at the tail of the own outputs -> seek to the position restored
    commit:  begin -> outputs, stored -> changed state -> offsets -> commit

The order matters. Fencing comes first: only when the predecessor can commit nothing more is what the
log says final. The position in the ticks comes out of the state, which was committed together with
the outputs, so the three cannot disagree; that they do not is checked all the same. After any doubt
(an exception, a commit slower than a request may be) producer and state are thrown away and the task
is opened again: recovery and start are one path.

Steps go on while a transaction is on its way; what they bring waits for the next one. A commit is
made when the input is drained, at most every `COMMIT_EVERY_S`, and at `COMMIT_BYTES` of input.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from streambot.domain.errors import (
    BrokerError,
    DataError,
    FencedError,
    RefusedError,
    StreamError,
)
from streambot.processor.open_task import Batch, Committed, OpenTask, Pending
from streambot.processor.outputs import DEAD_LETTER, OutputRecord, outputs_of
from streambot.processor.runner import (
    READ_RECORDS,
    READ_TIMEOUT_S,
    AnswerClock,
    Processed,
    processed_of,
)
from streambot.processor.snapshot import TaskSnapshot
from streambot.processor.state_log import restore_state
from streambot.processor.task_opening import (
    MOST_REOPENS,
    REOPEN_PAUSE_S,
    TaskOpening,
    TaskPlan,
)
from streambot.streams.finishing import ensure_visible, unfinished
from streambot.streams.ports import TopicPartition, event_time_ms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor

    from streambot.processor.tally import SlotStatus
    from streambot.processor.task import TaskCore
    from streambot.processor.worker import Step
    from streambot.streams.ports import Log, Source

COMMIT_EVERY_S = 0.1
COMMIT_BYTES = 8 << 20
DRAINED_S = 0.002
"""Nothing new for that long: the input is drained."""


def _nowhere(point: str) -> None:
    del point


async def _nothing(core: TaskCore, restored: TaskSnapshot | None) -> None:
    del core, restored


class ExactlyOnceRunner(TaskOpening):
    """Engine task of one partition, exactly once.

    Args:
        plan: the task.
        log: with transactions.
        executor: threads for decoding and stepping.
        on_opened: told of every new core and the state it came from, before anything is read.
        on_committed: told what became visible.
        reached: told the name of every point on the way; tests crash there.
    """

    def __init__(
        self,
        plan: TaskPlan,
        log: Log,
        executor: Executor,
        *,
        on_committed: Callable[[Committed], None],
        on_opened: Callable[[TaskCore, TaskSnapshot | None], Awaitable[None]] = _nothing,
        reached: Callable[[str], None] = _nowhere,
    ) -> None:
        super().__init__(plan, log)
        self._executor = executor
        self._on_opened = on_opened
        self._on_committed = on_committed
        self._reached = reached
        self._open: OpenTask | None = None
        self._answers = AnswerClock(plan.answer_timeout_s)
        self._status: list[SlotStatus] = []
        self.reopened = 0

    @property
    def core(self) -> TaskCore:
        """The state machine. Look at it only once the runner has ended."""
        return self._now.worker.core

    @property
    def status(self) -> list[SlotStatus]:
        """How the slots stood a moment ago; exact once the runner has ended."""
        return self._status if self._open is None else self._open.worker.status

    @property
    def duplicates(self) -> int:
        """Frames that had been seen before, and were dropped."""
        return self._open.duplicates + self._open.worker.repeats if self._open else 0

    @property
    def dead_letters(self) -> int:
        """Records that could not be read."""
        return self._open.dead_letters if self._open else 0

    @property
    def barriers(self) -> int:
        """Barriers closed so far."""
        return self._open.worker.chain.barrier if self._open else 0

    @property
    def watermark(self) -> int | None:
        """Event time up to which the task has seen everything, UTC ns; None at the start."""
        return self._open.worker.chain.t_hi if self._open else None

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Agents outside that the next frame waits for."""
        waits = None if self._open is None else self._open.worker.waits
        return () if waits is None else waits.agents

    @property
    def _now(self) -> OpenTask:
        if self._open is None:
            raise BrokerError("the task is not open", where=self._plan.owner)
        return self._open

    def stop(self) -> None:
        """End behind the next frame: the state inside an interval is kept like any other."""
        self._stopping = True
        if self._open is not None:
            self._open.worker.stopping = True

    async def run(self) -> bool:
        """Work until END (True) or a stop (False); everything is committed when this returns.

        Raises:
            FencedError: another process has taken over.
            StreambotError: the log is wrong or gone, a strategy raised.
        """
        while True:
            fenced: FencedError | None = None
            try:
                opened = await self._reopen()
                try:
                    ended = await self._work(opened)
                    await ensure_visible(opened.transactions, self._places())
                finally:
                    self._status = opened.worker.status
                    await opened.close()
            except FencedError as failure:
                fenced = failure
                self._failures += 1
            except RefusedError:
                raise
            except BrokerError:
                self._failures += 1
                if self._failures > MOST_REOPENS:
                    raise
            else:
                return ended
            self.reopened += 1
            await asyncio.sleep(REOPEN_PAUSE_S * self._failures)
            if fenced is not None:  # asked behind the pause: by now a successor has opened
                await self._check_overtaken(fenced)

    async def _reopen(self) -> OpenTask:
        plan, log = self._plan, self._log
        partition = plan.who.partition
        transactions = await log.transactions(plan.owner)
        sources: list[Source] = []
        try:
            self._reached("fenced")
            left = await unfinished(transactions, self._places())
            try:
                end = (await log.end_offsets(plan.topics["state"]))[partition]
                restored = await restore_state(log, plan.topics["state"], partition, end)
                self._opens = max(self._opens, 0 if restored is None else restored.opens)
                self._reached("restored")
                written = await self._tail(transactions, restored)
            except (DataError, StreamError) as wrong:
                if left and isinstance(wrong, StreamError):
                    await self._end(transactions, left, visible=True)
                await self._check_owner(transactions)
                if isinstance(wrong, StreamError) and self._failures < MOST_REOPENS:
                    # A broker that is out of date may have said so: it is asked again.
                    raise BrokerError(f"is looked at again: {wrong}", where=plan.owner) from wrong
                raise
            if left:
                await self._end(transactions, left, visible=False)
            self._reached("tail-read")
            core = plan.make_core(None if restored is None else restored.core)
            await self._on_opened(core, restored)
            worker = self._worker(core, restored)
            # The position comes out of the state, never from the group.
            sources.append(await self._source("ticks", worker.offset))
            if plan.make_orders is not None:
                sources.append(await self._source("orders", worker.orders_offset))
            opened = OpenTask(transactions, worker, sources, restored, written, READ_RECORDS)
            # Says that it is open, so that a predecessor who wakes up knows: committed at once.
            await self._commit(opened, self._batch(opened, []), state_at=end)
        except BaseException:
            await asyncio.gather(
                transactions.close(),
                *(source.close() for source in sources),
                return_exceptions=True,
            )
            raise
        self._open, self._opens = opened, opened.opens
        self._reached("opened")
        return opened

    async def _work(self, opened: OpenTask) -> bool:
        worker = opened.worker
        pending = Pending(COMMIT_EVERY_S, COMMIT_BYTES)
        commit: asyncio.Task[None] | None = None
        try:
            while not worker.stopped or pending.steps or commit is not None:
                idle, failure = await self._advance(opened, pending, commit)
                if commit is not None and (commit.done() or failure is not None):
                    await commit
                    commit = None
                if commit is None and pending.due(at_once=idle or failure is not None):
                    batch = self._batch(opened, pending.take())
                    commit = asyncio.ensure_future(self._commit(opened, batch))
                if failure is not None:
                    if commit is not None:
                        await commit
                    raise failure
        finally:
            if commit is not None:
                commit.cancel()
                await asyncio.gather(commit, return_exceptions=True)
        worker.status = worker.core.status()
        return worker.ended

    async def _advance(
        self, opened: OpenTask, pending: Pending, commit: asyncio.Task[None] | None
    ) -> tuple[bool, StreamError | None]:
        """Read and step once, or wait for the transaction where there is nothing else to do.

        Returns:
            Whether the input is drained; and what is wrong with the log behind the steps made.
        """
        worker = opened.worker
        if worker.stopped or pending.full:
            if commit is not None:
                await asyncio.wait({commit})
            return True, None
        ticks, orders = await opened.incoming.read(
            ticks=worker.room,
            timeout_s=DRAINED_S if pending.steps and commit is None else READ_TIMEOUT_S,
            also=commit,
        )
        self._answers.check(worker)
        if not ticks and not orders:
            worker.stopped = worker.stopping
            return True, None
        steps, failure = await asyncio.get_running_loop().run_in_executor(
            self._executor, partial(worker.work, ticks, orders)
        )
        pending.add(steps)
        if failure is not None and not isinstance(failure, StreamError):
            raise failure
        return False, failure

    def _batch(self, opened: OpenTask, steps: list[Step]) -> Batch:
        """What a transaction will hold. The state is taken now, so that steps may go on meanwhile."""
        frames: list[Processed] = []
        new: list[OutputRecord] = []
        for step in steps:
            records = [r for r in outputs_of(step) if r.number > opened.written.get(r.series, -1)]
            opened.written |= {record.series: record.number for record in records}
            opened.dead_letters += step.dead is not None
            new += records
            processed = processed_of(step, self.partition, records)
            if processed is not None:
                frames.append(processed)
        return Batch(frames, new, self._snapshot(opened))

    async def _commit(self, opened: OpenTask, batch: Batch, *, state_at: int | None = None) -> None:
        """One transaction: outputs, the state behind them, and how far the input was read.

        Args:
            opened: the task.
            batch: what to commit.
            state_at: where the state that was restored ended. Nobody has written to it since, so
                that is where its next record must come to stand: else a broker that is out of date
                has told a state that is.
        """
        reached, plan, transactions = self._reached, self._plan, opened.transactions
        frames, records, snapshot = batch
        await transactions.begin()
        reached("begun")
        for record in records:
            await transactions.append(
                plan.topics[record.stream], self.partition, record.value,
                timestamp_ms=record.timestamp_ms, key=record.key, headers=record.headers,
            )  # fmt: skip
            reached("dead-letter-sent" if record.stream == DEAD_LETTER else "output-sent")
        await transactions.flush()
        reached("outputs-stored")
        at = event_time_ms(snapshot.chain.t_hi or 0)
        stored = [
            await transactions.append(
                plan.topics["state"], self.partition, state.value,
                timestamp_ms=at, key=state.key, headers=state.headers,
            )
            for state in opened.writer.records(snapshot)
        ]  # fmt: skip
        if state_at is not None:
            first, self._opening_at = await stored[0], await stored[-1]
            if first != state_at:
                raise BrokerError(
                    f"the state was read up to {state_at}, but the log goes on at {first}",
                    where=plan.owner,
                )
        reached("state-sent")
        places = {TopicPartition(plan.topics["ticks"], self.partition): snapshot.offset}
        if plan.make_orders is not None:
            places[TopicPartition(plan.topics["orders"], self.partition)] = snapshot.orders_offset
        await transactions.offsets(plan.group, places)
        reached("offsets-sent")
        reached("committing")
        await transactions.commit()
        reached("committed")
        if frames:  # to be open is no progress: what comes next may fail every time
            self._failures = 0
        self._on_committed(Committed(self.partition, frames, records))

    def _snapshot(self, opened: OpenTask) -> TaskSnapshot:
        taken = opened.worker.snapshot()
        return TaskSnapshot(
            run=self._plan.who.run,
            partition=self._plan.who.partition,
            core=taken.core,
            chain=taken.chain,
            outside=taken.outside,
            offset=taken.offset,
            orders_offset=taken.orders_offset,
            lines={},  # of the run's files, which are no part of this
            written=dict(opened.written),
            duplicates=opened.duplicates + taken.repeats,
            dead_letters=opened.dead_letters,
            ended=taken.ended,
            opens=opened.opens,
        )
