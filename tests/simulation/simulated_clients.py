"""Writers and readers of a simulated log: what they promise stands in `streams.ports`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from streambot.domain.errors import BrokerError, FencedError, StreamError, TopicError
from streambot.streams.ports import MAX_RECORD_BYTES, Headers, Record, Start, TopicPartition
from tests.simulation.simulated_broker import Produced
from tests.simulation.simulated_process import REQUEST_TIMEOUT_S, Crash

if TYPE_CHECKING:
    from tests.simulation.simulated_log import SimulatedLog

MOST_IN_A_BATCH = 4


class _Writer(ABC):
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
                    if not stored.done():  # whoever waited for it may have been cancelled
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

    @abstractmethod
    def _request(self, batch: list[Produced], reply) -> None:
        """Ask the broker to store a few records."""

    @abstractmethod
    def _number(self, place: TopicPartition) -> int:
        """Number of the next record of this writer in a partition."""

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
