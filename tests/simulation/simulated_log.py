"""`streams.ports.Log` of one process on a simulated broker: slow, lossy, and at times out of date.

Every call is a request that travels, is worked off, and is answered. What may happen to it is drawn
from the seed of the schedule (`Weather`): it takes long; it is lost on the way there, or its answer
on the way back, so that the caller gets the same error whether it took effect or not; it is sent
again by the client; it arrives long after the caller gave up. The process may crash or be stopped
for a while at any of these moments (`Process`); what it had sent by then may arrive all the same.

Not simulated: a client that sends a request to end a transaction twice by itself, is answered in
time, and whose first copy overtakes nothing but arrives in the next transaction. The adapter to
Kafka cannot see that; `test_a_copy_of_a_commit_that_comes_late_is_noticed` shows what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, NamedTuple

from streambot.domain.errors import BrokerError, FencedError, StreamError, TopicError
from streambot.streams.memory import _NAME
from streambot.streams.ports import (
    MAX_RECORD_BYTES,
    Headers,
    Record,
    Start,
    StreamSpec,
    TopicPartition,
)
from tests.simulation.simulated_broker import Partition, Produced, SimulatedBroker

REQUEST_TIMEOUT_S = 1.0
FENCE_TIMEOUT_S = 2.0
MOST_IN_A_BATCH = 4


class Crash(BaseException):
    """The process is gone: nothing is caught, and nothing it still does has an effect."""


class Chances(NamedTuple):
    """What may go wrong, as probabilities of a single request.

    Attributes:
        trouble: a request is slow, lost, repeated or late.
        stale: a reader sees nothing new for a while.
        behind: a leader of the past answers some of those who ask where partitions end, for a while.
        compact: keys written again are forgotten when somebody asks for ends.
        latency_s: most a request usually takes.
        mark_s: most a mark of a transaction usually takes.
    """

    trouble: float = 0.0
    stale: float = 0.0
    behind: float = 0.0
    compact: float = 0.0
    latency_s: float = 0.0
    mark_s: float = 0.0


class Fate(NamedTuple):
    """What becomes of a request.

    Attributes:
        arrives: after so many seconds; twice where it is sent again; never where it is lost.
        answered: the last copy's answer comes back; False: it is lost.
        back: seconds the answer takes.
        breaks: the caller gets an error after so many seconds, whatever happens; None: it does not.
    """

    arrives: tuple[float, ...]
    answered: bool = True
    back: float = 0.0
    breaks: float | None = None


class Weather:
    """Draws what happens, from the seed of a schedule."""

    def __init__(self, chances: Chances | None = None, random: Random | None = None) -> None:
        self.chances = chances or Chances()
        self.random = random or Random(0)
        self._past: dict[TopicPartition, int] = {}
        self._past_until = 0.0

    def ends(self, parts: list[Partition]) -> list[int]:
        """Where partitions end, as who is asked knows."""
        random, now = self.random, asyncio.get_running_loop().time()
        if now >= self._past_until:
            self._past = {}
            if random.random() < self.chances.behind:
                self._past_until = now + random.random() * 1.5
        if now < self._past_until:
            for part in parts:
                self._past.setdefault(part.place, part.stable)
        if random.random() < self.chances.compact and parts[0].place.stream.endswith("state"):
            for part in parts:
                part.compact()
            self._past = {}  # a leader of the past has not forgotten what its successor has
        asked = self._past if random.random() < 0.7 else {}
        return [asked.get(part.place, part.stable) for part in parts]

    def latency(self) -> float:
        """Seconds that a message usually takes."""
        return self.random.random() * self.chances.latency_s

    def mark(self) -> float:
        """Seconds that a mark of a transaction takes."""
        random = self.random
        if random.random() < self.chances.trouble * 3:
            return random.random() * 0.8
        return random.random() * self.chances.mark_s

    def fate(self) -> Fate:
        """What becomes of the next request."""
        random = self.random
        there, back = self.latency(), self.latency()
        if random.random() >= self.chances.trouble:
            return Fate((there,), back=back)
        kind = random.randrange(5)
        soon = random.random() * 0.2
        if kind == 0:  # lost on the way there
            return Fate((), breaks=soon)
        if kind == 1:  # took effect, but nobody hears of it
            return Fate((there,), answered=False, breaks=there + soon)
        if kind == 2:  # late: the caller has given up long ago, or nearly
            late = random.random() * random.choice((0.1, 0.5, 3.0))
            return Fate((late,), back=back, breaks=random.choice((None, soon)))
        if kind == 3:  # sent again by the client
            return Fate((there, there + soon), back=back)
        return Fate((random.random() * REQUEST_TIMEOUT_S * 0.9,), back=back)  # slow


class Plan(NamedTuple):
    """When a process crashes, or is stopped for a while.

    Attributes:
        crash_at: number of the await point at which it crashes.
        crash_point: name, and the how manieth time, at which it does.
        stop_at: number of the await point at which it is stopped.
        stop_s: for how long.
        drops: what it had sent and did not arrive by the crash never will.
    """

    crash_at: int | None = None
    crash_point: tuple[str, int] | None = None
    stop_at: int | None = None
    stop_s: float = 0.0
    drops: bool = False


class Process:
    """A process of an engine task, as the broker and the operating system see it.

    Attributes:
        name: for the trace.
        dead: it crashed.
        moments: await points so far.
    """

    def __init__(
        self,
        name: str,
        plan: Plan | None = None,
        trace: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.plan = plan or Plan()
        self.trace = trace
        self.dead = False
        self.moments = 0
        self.stopped_until = 0.0
        self._points: dict[str, int] = {}
        self.pending: dict[asyncio.Future[Any], None] = {}

    def moment(self, what: str) -> None:
        """The process is somewhere: it may crash or be stopped there."""
        if self.dead:
            raise Crash
        self.moments += 1
        if self.moments == self.plan.stop_at:
            self.trace(f"{self.name} is stopped for {self.plan.stop_s:.3f} s: {what}")
            self.stopped_until = asyncio.get_running_loop().time() + self.plan.stop_s
        if self.moments == self.plan.crash_at:
            self._crash(what)

    def reached(self, point: str) -> None:
        """The runner says where it is."""
        if self.dead:
            raise Crash
        self._points[point] = self._points.get(point, 0) + 1
        if self.plan.crash_point == (point, self._points[point]):
            self._crash(point)

    async def awake(self) -> None:
        """Wait while the process is stopped."""
        left = self.stopped_until - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)
        if self.dead:
            raise Crash

    def _crash(self, what: str) -> None:
        self.trace(f"{self.name} crashes: {what}")
        self.kill()
        raise Crash(what)

    def kill(self) -> None:
        """Everything that waits for an answer in it ends, and does no more harm."""
        self.dead = True
        for answer in list(self.pending):
            if not answer.done():
                answer.set_exception(Crash())
                answer.exception()  # perhaps nobody waits for it any more
        self.pending.clear()


class SimulatedLog:
    """The log as one process has it."""

    def __init__(
        self,
        broker: SimulatedBroker,
        weather: Weather | None = None,
        process: Process | None = None,
    ) -> None:
        self.broker = broker
        self.weather = weather or Weather()
        self.process = process or Process("somebody")
        self._open: dict[SimulatedSink | SimulatedSource | SimulatedTransactions, None] = {}
        self.closed = False

    # Requests -----------------------------------------------------------------------------------

    async def call(
        self, what: str, request: Callable[[Callable[[Any], None]], None],
        limit_s: float = REQUEST_TIMEOUT_S,
    ) -> Any:  # fmt: skip
        """Send a request, and wait for the answer as long as it may take.

        Raises:
            BrokerError: no answer came: it may have taken effect, or not, or may still do so.
        """
        process, loop = self.process, asyncio.get_running_loop()
        process.moment(what)
        await process.awake()
        fate = self.weather.fate()
        answer: asyncio.Future[Any] = loop.create_future()
        process.pending[answer] = None
        for copy, after in enumerate(fate.arrives, 1):
            last = fate.answered and copy == len(fate.arrives)
            reply = partial(self._reply, what, answer, fate.back) if last else self._unheard
            loop.call_later(after, self._arrives, what, request, reply)
        breaks = limit_s if fate.breaks is None else min(fate.breaks, limit_s)
        timer = loop.call_later(breaks, self._give_up, what, answer)
        try:
            found = await answer
        finally:
            timer.cancel()
            process.pending.pop(answer, None)
        await process.awake()
        process.moment(f"{what} answered")
        if isinstance(found, Exception):
            raise found
        return found

    async def pause(self, what: str) -> None:
        """An await point without a request."""
        self.process.moment(what)
        await self.process.awake()
        await asyncio.sleep(self.weather.latency() * 0.1)
        await self.process.awake()

    def _arrives(self, what: str, request: Callable, reply: Callable) -> None:
        if self.process.dead and self.process.plan.drops:
            return
        self.process.trace(f"{self.process.name}: {what} arrives")
        try:
            request(reply)
        except (BrokerError, StreamError, TopicError) as refused:
            reply(refused)

    def _reply(self, what: str, answer: asyncio.Future[Any], back: float, found: Any) -> None:
        asyncio.get_running_loop().call_later(back, self._answered, what, answer, found)

    def _answered(self, what: str, answer: asyncio.Future[Any], found: Any) -> None:
        if not answer.done():
            if isinstance(found, Exception):
                self.process.trace(f"{self.process.name}: {what}: {found}")
            answer.set_result(found)

    def _give_up(self, what: str, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            self.process.trace(f"{self.process.name}: {what}: no answer")
            answer.set_result(BrokerError(f"no answer: {what}"))

    @staticmethod
    def _unheard(found: Any) -> None:
        del found

    # Log ----------------------------------------------------------------------------------------

    async def create(self, streams: Sequence[StreamSpec]) -> list[str]:
        self.check_open()
        created = []
        for spec in streams:
            if not _NAME.fullmatch(spec.name) or spec.partitions < 1:
                raise TopicError(f"cannot create stream {spec.name!r}")
            known = self.broker.partitions.get(spec.name)
            if known is None:
                self.broker.partitions[spec.name] = [
                    Partition(TopicPartition(spec.name, p)) for p in range(spec.partitions)
                ]
                created.append(spec.name)
            elif len(known) != spec.partitions:
                raise TopicError(f"has {len(known)} partitions", where=spec.name)
        return created

    async def delete(self, streams: Sequence[str]) -> None:
        self.check_open()
        for name in streams:
            for part in self.broker.partitions.pop(name, ()):
                part.wake()

    async def streams(self) -> dict[str, int]:
        self.check_open()
        return {name: len(parts) for name, parts in sorted(self.broker.partitions.items())}

    async def sink(self) -> SimulatedSink:
        self.check_open()
        sink = SimulatedSink(self)
        self._open[sink] = None
        return sink

    async def transactions(self, name: str) -> SimulatedTransactions:
        self.check_open()
        epoch = await self.call("fence", partial(self.broker.fence, name), FENCE_TIMEOUT_S)
        made = SimulatedTransactions(self, name, epoch)
        self._open[made] = None
        return made

    async def committed(
        self, group: str, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        self.check_open()
        wanted = list(places)

        def look(reply) -> None:
            known = self.broker.groups.get(group, {})
            reply({place: known[place] for place in wanted if place in known})

        return await self.call("committed", look)

    async def source(self, starts: Mapping[TopicPartition, Start]) -> SimulatedSource:
        self.check_open()
        if not starts:
            raise TopicError("a source needs at least one partition")

        def resolve(reply) -> None:
            reply({TopicPartition(*p): self.resolve(p, start) for p, start in starts.items()})

        source = SimulatedSource(self, await self.call("source", resolve))
        self._open[source] = None
        return source

    def resolve(self, place: TopicPartition, start: Start) -> int:
        """Offset of a start, at the broker."""
        part = self.broker.partition(TopicPartition(*place))
        if start == "end":
            return part.stable
        offset = part.base if start == "beginning" else int(start)
        if not part.base <= offset <= part.stable:
            raise StreamError(
                f"offset {offset} is not kept: it holds {part.base} to {part.stable}",
                where=f"{part.place.stream}/{part.place.partition}",
            )
        return offset

    async def beginning_offsets(self, stream: str) -> list[int]:
        self.check_open()
        return await self.call(
            f"beginning of {stream}", lambda reply: reply([p.base for p in self._parts(stream)])
        )

    async def end_offsets(self, stream: str) -> list[int]:
        self.check_open()

        return await self.call(
            f"end of {stream}", lambda reply: reply(self.weather.ends(self._parts(stream)))
        )

    async def offset_at(self, stream: str, partition: int, timestamp_ms: int) -> int:
        self.check_open()
        part = self.broker.partition(TopicPartition(stream, partition))
        records, _ = part.visible(part.base, part.stable, len(part.entries))
        return next((r.offset for r in records if r.timestamp_ms >= timestamp_ms), part.stable)

    async def close(self) -> None:
        if self.closed:
            return
        for user in list(self._open):
            await user.close()
        self.closed = True

    def check_open(self) -> None:
        """Raise behind `close`."""
        if self.closed:
            raise BrokerError("the log is closed")

    def forget(self, user: object) -> None:
        """A user was closed."""
        self._open.pop(user, None)  # type: ignore[call-overload]

    def _parts(self, stream: str) -> list[Partition]:
        self.broker.partition(TopicPartition(stream, 0))
        return self.broker.partitions[stream]


class _Writer:
    """Hands records over in order, a few at a time, like a producer of Kafka."""

    def __init__(self, log: SimulatedLog) -> None:
        self._log = log
        self._queue: list[tuple[Produced, asyncio.Future[int]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._closed = False

    async def append(
        self, stream: str, partition: int, value: bytes, *, timestamp_ms: int,
        key: bytes | None = None, headers: Headers = (),
    ) -> asyncio.Future[int]:  # fmt: skip
        self._check()
        place = TopicPartition(stream, partition)
        self._log.broker.partition(place)
        if len(value) > MAX_RECORD_BYTES:
            raise BrokerError(f"a record of {len(value)} bytes is too large")
        await self._log.pause("append")
        self._check()
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[int] = loop.create_future()
        produced = Produced(
            place, self._number(place), bytes(value), timestamp_ms, key, tuple(headers)
        )
        self._queue.append((produced, stored))
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        return stored

    async def flush(self) -> None:
        self._check()
        while self._sending is not None:
            await asyncio.wait({self._sending})
        if self._failure is not None:
            raise self._failure

    async def _send(self) -> None:
        try:
            while self._queue:
                batch = self._queue[:MOST_IN_A_BATCH]
                offsets = await self._log.call(
                    f"store {len(batch)}", partial(self._request, [p for p, _ in batch])
                )
                del self._queue[: len(batch)]
                for (_, stored), offset in zip(batch, offsets, strict=True):
                    stored.set_result(offset)
        except BaseException as failure:  # noqa: BLE001  # told by the next call, as in aiokafka
            self.fail(failure)
        finally:
            self._sending = None

    def fail(self, failure: BaseException) -> None:
        """Nothing under way will be stored, as far as anybody knows."""
        self._failure = self._failure or failure
        for _, stored in self._queue:
            if not stored.done():
                stored.set_exception(failure)
                stored.exception()
        self._queue.clear()

    def stop(self) -> None:
        """Send nothing more."""
        if self._sending is not None:
            self._sending.cancel()

    def _request(self, batch: list[Produced], reply) -> None:
        raise NotImplementedError

    def _number(self, place: TopicPartition) -> int:
        raise NotImplementedError

    def _check(self) -> None:
        self._log.check_open()
        if self._closed:
            raise BrokerError("the writer is closed")
        if self._failure is not None:
            raise self._failure


class SimulatedSink(_Writer):
    """Writer without transactions."""

    async def close(self) -> None:
        if self._closed:
            return
        try:
            if self._failure is None:
                await self.flush()
        finally:
            self._closed = True
            self._log.forget(self)

    def _request(self, batch: list[Produced], reply) -> None:
        self._log.broker.store(batch, reply)

    def _number(self, place: TopicPartition) -> int:
        del place
        return -1


class SimulatedTransactions(_Writer):
    """Writer of transactions under a name, at an epoch. Behaves as the adapter to Kafka does."""

    def __init__(self, log: SimulatedLog, name: str, epoch: int) -> None:
        super().__init__(log)
        self._name = name
        self._epoch = epoch
        self._numbers: dict[TopicPartition, int] = {}
        self._began: float | None = None
        self._touched = False

    async def begin(self) -> None:
        self._check()
        if self._began is not None:
            raise BrokerError("a transaction is open already", where=self._name)
        self._began, self._touched = asyncio.get_running_loop().time(), False
        await self._log.pause("begin")

    async def append(
        self, stream: str, partition: int, value: bytes, *, timestamp_ms: int,
        key: bytes | None = None, headers: Headers = (),
    ) -> asyncio.Future[int]:  # fmt: skip
        self._check_begun()
        self._touched = True
        return await self._or_void(
            super().append(
                stream, partition, value, timestamp_ms=timestamp_ms, key=key, headers=headers
            )
        )

    async def flush(self) -> None:
        self._check_begun()
        await self._or_void(super().flush())

    async def offsets(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        self._check_begun()
        self._touched = True
        broker, who = self._log.broker, self._log.process
        request = partial(broker.offsets, self._name, self._epoch, who, group, dict(positions))
        await self._or_void(self._log.call("offsets", request))

    async def commit(self) -> None:
        began = self._check_begun()
        await self._or_void(super().flush())
        if self._touched:
            await self._or_void(self._log.call("commit", partial(self._end, True)))
        self._began = None
        took = asyncio.get_running_loop().time() - began
        if took > REQUEST_TIMEOUT_S:
            failure = BrokerError(f"a transaction took {took:.1f} s")
            self.fail(failure)
            raise failure

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.stop()
        self._log.forget(self)
        if self._began is not None and self._failure is None and self._touched:
            await self._log.call("abort", partial(self._end, False))

    def _end(self, commit: bool, reply) -> None:
        self._log.broker.end(self._name, self._epoch, commit, reply)

    def _request(self, batch: list[Produced], reply) -> None:
        self._log.broker.produce(self._name, self._epoch, self._log.process, batch, reply)

    def _number(self, place: TopicPartition) -> int:
        number = self._numbers.get(place, 0)
        self._numbers[place] = number + 1
        return number

    async def _or_void(self, work) -> Any:
        try:
            return await work
        except BaseException as failure:
            self.fail(failure)
            raise

    def _check_begun(self) -> float:
        self._check()
        if self._began is None:
            raise BrokerError("no transaction is open", where=self._name)
        return self._began

    def _check(self) -> None:
        failure = self._failure
        if failure is not None and not isinstance(failure, (Crash, FencedError)):
            raise BrokerError(f"void since: {failure}", where=self._name)
        super()._check()


class SimulatedSource:
    """Reader of committed records."""

    def __init__(self, log: SimulatedLog, positions: dict[TopicPartition, int]) -> None:
        self._log = log
        self._positions = positions
        self._parts = {place: log.broker.partition(place) for place in positions}
        self._turn = list(positions)
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._stale: dict[TopicPartition, int] = {}
        self._stale_until = 0.0
        for part in self._parts.values():
            part.watchers[self] = self._wake

    async def read(self, *, max_records: int = 64, timeout_s: float = 1.0) -> list[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._check()
        await self._log.call("read", lambda reply: reply(None))
        weather = self._log.weather
        if weather.random.random() < weather.chances.stale and loop.time() >= self._stale_until:
            self._stale = {place: part.stable for place, part in self._parts.items()}
            self._stale_until = loop.time() + weather.random.random()
        while True:
            self._check()
            found = self._take(max_records)
            if found or loop.time() >= deadline:
                return found
            self._waiter = loop.create_future()
            timer = loop.call_at(self._next(deadline), self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            await self._log.process.awake()

    def positions(self) -> dict[TopicPartition, int]:
        return dict(self._positions)

    async def seek(self, stream: str, partition: int, start: Start) -> None:
        self._check()
        place = TopicPartition(stream, partition)
        if place not in self._positions:
            raise TopicError("this source does not read it", where=f"{stream}/{partition}")
        self._positions[place] = self._log.resolve(place, start)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for part in self._parts.values():
            part.watchers.pop(self, None)
        self._log.forget(self)
        self._wake()

    def _next(self, deadline: float) -> float:
        now = asyncio.get_running_loop().time()
        return min(deadline, self._stale_until) if self._stale_until > now else deadline

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self, most: int) -> list[Record]:
        found: list[Record] = []
        stale = asyncio.get_running_loop().time() < self._stale_until
        for place in self._turn:
            part, at = self._parts[place], self._positions[place]
            if at < part.base:
                raise StreamError(
                    f"offset {at} is not kept: it holds {part.base} to {part.stable}",
                    where=f"{place.stream}/{place.partition}",
                )
            end = min(part.stable, self._stale[place]) if stale else part.stable
            records, self._positions[place] = part.visible(at, end, most - len(found))
            found += records
        self._turn.append(self._turn.pop(0))
        return found

    def _check(self) -> None:
        self._log.check_open()
        if self._closed:
            raise BrokerError("the source is closed")
        for place, part in self._parts.items():
            if self._log.broker.partition(place) is not part:
                raise TopicError("the stream was deleted", where=place.stream)
