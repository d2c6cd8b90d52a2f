"""What opening an engine task asks of its log, and what it does about the answers.

The pieces of `exactly_once`: where nobody but the task writes, what its outputs end with, whether it
still owns its name, whether a successor has taken it over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from streambot.domain.errors import BrokerError, FencedError, StreamError
from streambot.processor.core_state import CoreState
from streambot.processor.outputs import DEAD_LETTER, WRITTEN, series_of
from streambot.processor.outside import Orders, OutsideState
from streambot.processor.task import TaskCore
from streambot.processor.task_head import decode_head, last_task_record
from streambot.processor.worker import TaskIdentity, Worker
from streambot.streams.finishing import include, may_lag
from streambot.streams.ports import Start, TopicPartition
from streambot.streams.reading import read_last
from streambot.streams.sequence import ChainState, SequenceGuard

if TYPE_CHECKING:
    from streambot.processor.snapshot import TaskSnapshot
    from streambot.streams.ports import Log, Source, Transactions

MOST_REOPENS = 8
"""Failures in a row, without a commit between them, after which the log is given up."""
SUCCESSOR_OPENS_S = 10.0
"""Whoever took over has opened the task within that time."""
REOPEN_PAUSE_S = 0.05


class TaskPlan(NamedTuple):
    """What a task is, whatever process runs it.

    Attributes:
        who: whose frames it takes.
        owner: name of its transactions: the same in every process, so that one fences the other.
        group: under which its offsets are committed, for tools that show lag.
        topics: full name of every stream.
        make_core: the machine at a state, or new.
        make_orders: the agents outside at a state, or at the start; None: an agent inside.
        answer_timeout_s: how long agents outside are waited for.
    """

    who: TaskIdentity
    owner: str
    group: str
    topics: Mapping[str, str]
    make_core: Callable[[CoreState | None], TaskCore]
    make_orders: Callable[[OutsideState | None], Orders] | None = None
    answer_timeout_s: float = 30.0


class TaskOpening:
    """The part of a runner that opens its task.

    Args:
        plan: the task.
        log: with transactions.
    """

    def __init__(self, plan: TaskPlan, log: Log) -> None:
        self._plan = plan
        self._log = log
        self._stopping = False
        self._opens = 0
        self._opening_at: int | None = None
        self._failures = 0

    @property
    def partition(self) -> int:
        """Its partition."""
        return self._plan.who.partition

    def _worker(self, core: TaskCore, restored: TaskSnapshot | None) -> Worker:
        plan = self._plan
        who = plan.who
        kept = restored if restored is not None and restored.core is not None else None
        state = ChainState.start(who.run_id, who.partition) if kept is None else kept.chain
        guard = SequenceGuard(plan.topics["ticks"], who.run_id, who.partition, state=state)
        outside = None if kept is None else kept.outside
        worker = Worker(
            who,
            core,
            guard,
            0 if kept is None else kept.offset,
            None if plan.make_orders is None else plan.make_orders(outside),
            0 if kept is None else kept.orders_offset,
        )
        worker.stopping, worker.stops_anywhere = self._stopping, True
        worker.stopped = kept is not None and kept.ended
        worker.ended = worker.stopped
        return worker

    async def _source(self, stream: str, offset: int) -> Source:
        topic, partition = self._plan.topics[stream], self._plan.who.partition
        start: Start = offset if offset > 0 else "beginning"
        return await self._log.source({TopicPartition(topic, partition): start})

    async def _tail(
        self, transactions: Transactions, restored: TaskSnapshot | None
    ) -> dict[str, int]:
        """Numbers of the last output records by series, which must be those that the state knows.

        Of dead letters only the last one is looked at, whichever stream it came from.

        Raises:
            StreamError: they are not: somebody else wrote, or something was written outside a
                transaction.
        """
        plan = self._plan
        partition = plan.who.partition
        streams = [s for s in WRITTEN if s in plan.topics and self._writes(s)]
        lasts = await asyncio.gather(
            *(read_last(self._log, plan.topics[stream], partition) for stream in streams)
        )
        found = {}
        for stream, last in zip(streams, lasts, strict=True):
            if last is not None:
                name = "offset" if stream == DEAD_LETTER else "frame_seq"
                found[series_of(stream, last.headers)] = int(dict(last.headers)[name])
        known = {} if restored is None else restored.written
        agree = {s.split()[0] for s in known} == {s.split()[0] for s in found}
        place = TopicPartition(plan.topics["ticks"], partition)
        committed = await self._log.committed(plan.group, [place])
        at = None if restored is None or restored.core is None else restored.offset
        agree = agree and all(known.get(series) == number for series, number in found.items())
        group = committed.get(place, -1)
        if at is not None:
            agree = agree and (group == at or (group < at and may_lag(transactions)))
        if not agree:
            raise StreamError(
                f"outputs end at {found} and the group at {committed.get(place)}, "
                f"but the state says {known} and {at}",
                where=plan.owner,
                hint="somebody else wrote to the topics of the run: start it again",
            )
        return dict(known)

    def _places(self) -> list[TopicPartition]:
        """Where nobody but the task writes."""
        plan = self._plan
        streams = [s for s in WRITTEN if s in plan.topics and self._writes(s)]
        return [
            TopicPartition(plan.topics[stream], self.partition) for stream in (*streams, "state")
        ]

    async def _end(
        self, transactions: Transactions, left: list[TopicPartition], *, visible: bool
    ) -> NoReturn:
        """End what a predecessor left without an end, see `finishing`; then the task opens again.

        Where state and outputs agree without it, it goes: the work is done again. Where they do not,
        the rest of its transaction is visible, and so it becomes.
        """
        place = TopicPartition(self._plan.topics["ticks"], self.partition)
        await transactions.begin()
        await include(transactions, left)
        if visible:
            await transactions.commit()
        else:
            await transactions.offsets(self._plan.group, {place: 0})  # go with it
        names = ", ".join(sorted(one.stream for one in left))
        raise BrokerError(f"records without an end in {names}", where=self._plan.owner)

    async def _check_owner(self, transactions: Transactions) -> None:
        """Raise `FencedError` where a successor wrote while this one read: then nothing is wrong.

        Only a request of a transaction tells; it is never committed.
        """
        place = TopicPartition(self._plan.topics["ticks"], self._plan.who.partition)
        await transactions.begin()
        await transactions.offsets(self._plan.group, {place: 0})

    def _writes(self, stream: str) -> bool:
        """False for the orders of agents outside, which are theirs."""
        return stream != "orders" or self._plan.make_orders is None

    async def _check_overtaken(self, fenced: FencedError) -> None:
        """Raise `fenced` where a successor is there.

        A transaction that timed out has none, nor has who was fenced by a process that is gone. A
        successor has opened the task once more than it was when this one last owned it; between its
        fence and that it restores and reads, so it is given time: who fenced it meanwhile would
        take the task back from it. An opening of its own may stand there though it was said to have
        failed: nobody takes himself for his successor.
        """
        topic = self._plan.topics["state"]
        loop = asyncio.get_running_loop()
        limit, pause = loop.time() + SUCCESSOR_OPENS_S, REOPEN_PAUSE_S
        while True:
            if self._failures > MOST_REOPENS:
                raise fenced
            try:
                task = await last_task_record(self._log, topic, self.partition)
            except BrokerError:  # not to know is no reason to fence a successor
                self._failures += 1
                await asyncio.sleep(REOPEN_PAUSE_S * self._failures)
                continue
            another = task is not None and task.offset != self._opening_at
            if task is not None and another and decode_head(task).opens > self._opens:
                raise fenced
            if loop.time() >= limit:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)
