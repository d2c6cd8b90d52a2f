"""Runs the mirror of one partition: ticks in, answers out, the engine's fills held against its own.

    fence -> what was answered -> ticks from the start, through the mirror -> answers -> END -> fills

Nothing is kept between two lives: a restarted actor mirrors the run from its first frame, finds its
answers on the log, and goes on where they end. A policy that changes is told them, and gives them again. The name of its transactions is fenced first, so that
what the log says by then is all that was ever answered under the agent's name. The engine's fills are
compared whenever they come, and waited for at the end only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import StreamError
from streambot.processor.answers import Answers, Found, encode_answer, lines_of
from streambot.processor.comparison import Comparison
from streambot.processor.intake import Several
from streambot.processor.mirror import Mirror, Mirrored
from streambot.processor.mirror_orders import Sent, sent_of
from streambot.processor.state_log import read_task
from streambot.processor.worker import TaskIdentity
from streambot.streams.committing import CommittingSink
from streambot.streams.ports import TopicPartition, event_time_ms
from streambot.streams.reading import read_last, read_to_end

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from streambot.processor.tally import SlotStatus
    from streambot.streams.ports import Log, Record, Sink, Source

READ_RECORDS = 16
READ_TIMEOUT_S = 0.25
LOOK_S = 5.0
"""How often the engine's position is looked at while fills are compared."""
END_LOOK_S = 0.25


class ActorPlan(NamedTuple):
    """What an actor does in one partition.

    Attributes:
        who: whose frames it takes.
        agent: name that it answers under.
        owner: name of its transactions, so that one process fences the other; None: the log has none.
        topics: full name of every stream.
        make_mirror: the mirror at the start; told what was sent before, in a free run, or where it
            recalls.
        acts_on: stream that the mirror needs beside the ticks: `orders`, `accepted`; None: none.
        recalls: what decides may have changed since: it gives the answers on the log again.
    """

    who: TaskIdentity
    agent: str
    owner: str | None
    topics: Mapping[str, str]
    make_mirror: Callable[[Sent], Mirror]
    acts_on: str | None = None
    recalls: bool = False


class Sending(NamedTuple):
    """What was sent so far: records, and orders in them."""

    answers: int = 0
    orders: int = 0


def _nowhere(point: str) -> None:
    del point


def _nothing() -> None: ...


class _Open:
    """An actor's partition between fence and failure: everything that is thrown away together."""

    def __init__(
        self, sink: Sink, mirror: Mirror, found: Found | None, sources: dict[str, Source]
    ) -> None:
        self.sink = sink
        self.mirror = mirror
        self.found = found
        self.sources = sources
        self.incoming = Several(sources, max_records=READ_RECORDS)

    async def close(self) -> None:
        await self.incoming.close()
        if self.found is not None:
            await self.found.close()
        await asyncio.gather(
            self.sink.close(), *(source.close() for source in self.sources.values()),
            return_exceptions=True,
        )  # fmt: skip


class _Engine(NamedTuple):
    """How far the engine is: its next frame, whether it has ended, its last record of fills."""

    frame_seq: int
    ended: bool
    last_fills: int


class ActorRunner:
    """The mirror of one partition, once: after a failure a new one begins anew.

    Args:
        plan: what it does.
        log: where the streams are.
        executor: threads for decoding and stepping.
        on_moved: told whenever an answer was stored or a new record was read.
        reached: told the name of every point on the way; tests crash there.
    """

    def __init__(
        self,
        plan: ActorPlan,
        log: Log,
        executor: Executor,
        *,
        on_moved: Callable[[], None] = _nothing,
        reached: Callable[[str], None] = _nowhere,
    ) -> None:
        self._plan = plan
        self._log = log
        self._executor = executor
        self._on_moved = on_moved
        self._reached = reached
        self._stopping = False
        self._open: _Open | None = None
        self._status: list[SlotStatus] = []
        partition = plan.who.partition
        self._orders_place = f"{plan.topics['orders']}/{partition}"
        self._answers = Answers(plan.agent, self._orders_place)
        self._fills_seen = -1
        self._looked = 0.0
        self.comparison = Comparison(f"{plan.topics['fills']}/{partition}")
        self.sending = Sending()

    @property
    def partition(self) -> int:
        """Its partition."""
        return self._plan.who.partition

    @property
    def status(self) -> list[SlotStatus]:
        """How the mirror's slots stood a moment ago; exact once the runner has ended."""
        return self._status if self._open is None else self._open.mirror.status

    @property
    def watermark(self) -> int | None:
        """Event time up to which the mirror has seen everything, UTC ns; None at the start."""
        return None if self._open is None else self._open.mirror.watermark

    @property
    def waits(self) -> bool:
        """True while the next frame needs what others have not said."""
        return self._open is not None and self._open.mirror.waits

    @property
    def mirrored(self) -> bool:
        """True once every frame was answered: only fills are still to be compared."""
        return self._open is not None and self._open.mirror.ended

    @property
    def unsent(self) -> dict[str, int]:
        """Orders of the policy that are not sent, by reason."""
        return {} if self._open is None else self._open.mirror.unsent

    @property
    def mirror(self) -> Mirror | None:
        """The mirror, once it is there. Look at it only once the runner has ended."""
        return None if self._open is None else self._open.mirror

    def stop(self) -> None:
        """End behind the records at hand, their answers sent."""
        self._stopping = True

    async def run(self) -> bool:
        """Answer until END, and compare until the engine is there too (True); or to a stop (False).

        Raises:
            FencedError: another actor of this name has taken over.
            DivergenceError: the engine's fills are not those of the mirror.
            VerificationError: the policy answers otherwise than it had.
            StreambotError: the log is wrong or gone, the policy raised.
        """
        opened = self._open = await self._begin()
        try:
            self._reached("opened")
            while not opened.mirror.ended and not self._stopping:
                await self._advance(opened)
            await opened.sink.flush()
            self._reached("flushed")
            if opened.mirror.ended:
                await self._compare_the_rest(opened)
            self._status = opened.mirror.core.status()
        finally:
            await opened.close()
        return opened.mirror.ended and not self._stopping

    async def _begin(self) -> _Open:
        plan, log, partition = self._plan, self._log, self._plan.who.partition
        sink = await self._sink()
        self._reached("fenced")
        sources: dict[str, Source] = {}
        try:
            end = (await log.end_offsets(plan.topics["orders"]))[partition]
            on_arrival = plan.acts_on == "accepted"
            sent = await self._sent(end) if on_arrival or plan.recalls else Sent()
            found = (
                None if on_arrival else
                Found(log, plan.topics["orders"], partition, end, plan.agent)
            )  # fmt: skip
            mirror = plan.make_mirror(sent)
            for name in ("ticks", "fills", *((plan.acts_on,) if plan.acts_on else ())):
                place = TopicPartition(plan.topics[name], partition)
                sources[name] = await log.source({place: "beginning"})
        except BaseException:
            await asyncio.gather(
                sink.close(), *(source.close() for source in sources.values()),
                return_exceptions=True,
            )  # fmt: skip
            raise
        return _Open(sink, mirror, found, sources)

    async def _sink(self) -> Sink:
        if self._plan.owner is None:
            return await self._log.sink()
        return CommittingSink(await self._log.transactions(self._plan.owner))

    async def _sent(self, end: int) -> Sent:
        """What was sent; and in a free run, how far the engine is now."""
        plan, log, partition = self._plan, self._log, self._plan.who.partition
        lines = [
            line
            async for batch in read_to_end(
                log, plan.topics["orders"], {partition: "beginning"}, {partition: end}
            )
            for line in lines_of(batch, plan.agent, partition)
        ]
        last = None
        if plan.acts_on == "accepted":
            last = await read_last(log, plan.topics["accepted"], partition)
        return sent_of(lines, 0 if last is None else _frame_seq(last) + 1)

    async def _advance(self, opened: _Open) -> None:
        """Read once, and work off what came."""
        mirror, acts_on = opened.mirror, self._plan.acts_on
        wanted = {"fills"} if self.comparison.their_room else set()
        if mirror.room and self.comparison.own_room:
            wanted.add("ticks")
        if acts_on is not None and (mirror.waits or not mirror.many):
            wanted.add(acts_on)
        found = await opened.incoming.read(wanted, timeout_s=READ_TIMEOUT_S)
        self._compare(found.get("fills", []))
        ticks, orders = found.get("ticks", []), found.get(acts_on or "", [])
        while ticks or orders or (mirror.more and not self._stopping):
            steps, failure = await asyncio.get_running_loop().run_in_executor(
                self._executor, partial(mirror.work, ticks, orders)
            )
            for step in steps:
                await self._take(opened, step)
            if failure is not None:
                raise failure
            ticks = orders = []
        if not self.comparison.agrees and self._plan.owner is not None:
            await self._look(LOOK_S)

    async def _take(self, opened: _Open, step: Mirrored) -> None:
        """Send an answer, and keep the events for the comparison."""
        line = step.answer
        if line is not None and opened.found is not None:
            await opened.found.tell(self._answers, line.through_barrier)
            line = self._answers.rest(line)
        if line is not None:
            stored = await opened.sink.append(
                self._plan.topics["orders"], self.partition, encode_answer(line),
                timestamp_ms=event_time_ms(step.t_hi),
                headers=(("frame_seq", str(step.frame_seq).encode()),),
            )  # fmt: skip
            stored.add_done_callback(self._stored)
            self.sending = Sending(self.sending.answers + 1, self.sending.orders + len(line.orders))
            self._reached("answered")
        if step.whole:
            self.comparison.own(step.frame_seq, step.fills)

    def _stored(self, stored: asyncio.Future[int]) -> None:
        if not stored.cancelled() and stored.exception() is None:
            self._on_moved()

    def _compare(self, records: list[Record]) -> None:
        for record in records:
            self.comparison.theirs(_frame_seq(record), record.value)
            self._fills_seen = record.offset

    async def _look(self, every_s: float) -> _Engine | None:
        """Where the engine is, at most every so often; what it should have said by then is asked."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < every_s:
            return None
        self._looked = now
        topics, partition = self._plan.topics, self.partition
        task = await read_task(self._log, topics["state"], partition)
        if task is None or task.core is None:
            return None
        last = await read_last(self._log, topics["fills"], partition)
        engine = _Engine(task.chain.frame_seq, task.ended, -1 if last is None else last.offset)
        if self._fills_seen >= engine.last_fills:
            self.comparison.passed(engine.frame_seq)
        return engine

    async def _compare_the_rest(self, opened: _Open) -> None:
        """Wait for the engine to reach END, and compare what is left."""
        while not self._stopping:
            if self._plan.owner is None:
                if self.comparison.agrees:
                    return
            else:
                engine = await self._look(END_LOOK_S)
                if engine and engine.ended and self._fills_seen >= engine.last_fills:
                    return
            found = await opened.incoming.read({"fills"}, timeout_s=READ_TIMEOUT_S)
            self._compare(found.get("fills", []))


def _frame_seq(record: Record) -> int:
    """Number of the frame that a record of the engine belongs to."""
    try:
        return int(dict(record.headers)["frame_seq"])
    except (KeyError, ValueError) as cause:
        raise StreamError(
            "the record has no number of a frame",
            where=f"{record.stream}/{record.partition}/{record.offset}",
            hint="somebody else wrote to the topics of the run: start it again",
        ) from cause
