"""Writer to Kafka: pipelined, in order, never silent about a record that was not stored."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.errors import KafkaError

from streambot.adapters.kafka.failures import told
from streambot.adapters.kafka.stopping import stopped, to_the_end
from streambot.domain.errors import BrokerError, RefusedError, StreambotError
from streambot.streams.ports import MAX_RECORD_BYTES, Headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import AIOKafkaProducer
    from aiokafka.structs import RecordMetadata

    from streambot.adapters.kafka.connection import Connection
    from streambot.adapters.kafka.topics import Topics

FLUSH_LIMIT_S = 60.0
CONFIRM_S = 2.0
"""What has not been stored for that long may be meant for a stream that is no longer there."""


class _UnderWay(NamedTuple):
    """A record that was handed to aiokafka.

    Attributes:
        stored: what the caller has; it may cancel it, and the record goes on all the same.
        where: the record goes.
    """

    stored: asyncio.Future[int]
    where: str


class KafkaSink:
    """`streams.ports.Sink` on one producer. Made by `KafkaLog.sink`.

    aiokafka holds one batch per partition under way and one waiting; `append` waits while both are
    full. Nobody awaits single records: what fails comes out of the next call, and of the future.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        producer: AIOKafkaProducer,
        on_close: Callable[[KafkaSink], None],
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._producer = producer
        self._on_close = on_close
        self._pending: dict[asyncio.Future[RecordMetadata], _UnderWay] = {}
        self._failure: StreambotError | None = None
        self._closed = False

    async def append(
        self, stream: str, partition: int, value: bytes, *, timestamp_ms: int,
        key: bytes | None = None, headers: Headers = (),
    ) -> asyncio.Future[int]:  # fmt: skip
        """See `Sink.append`."""
        self._check()
        where = f"{stream}/{partition}"
        if len(value) > MAX_RECORD_BYTES:
            raise RefusedError(
                f"a record of {len(value)} bytes is too large: the limit is {MAX_RECORD_BYTES}",
                where=where,
            )
        await self._topics.require(stream, partition)
        client = self._producer.client
        if client.cluster.partitions_for_topic(stream) is None:
            await self._connection.learn(client, stream)
        try:
            # `fail` ends this wait too, so that a record costs no task of its own.
            async with asyncio.timeout(FLUSH_LIMIT_S):
                sent = await self._producer.send(
                    stream, value, key=key, partition=partition, timestamp_ms=timestamp_ms,
                    headers=list(headers),
                )  # fmt: skip
        except (KafkaError, OSError, TimeoutError) as cause:
            self._check()
            raise told(self._reason(cause), self._connection.servers, where) from cause
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending[sent] = _UnderWay(stored, where)
        sent.add_done_callback(self._settle)
        return stored

    async def flush(self) -> None:
        """See `Sink.flush`."""
        self._check()
        await self._flush()

    async def close(self) -> None:
        """See `Sink.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._failure is None:
                await self._flush()
        finally:
            await to_the_end(self._stop())
            self._on_close(self)

    def fail(self, failure: StreambotError) -> None:
        """The log is lost: nothing under way will be stored, as far as anybody knows."""
        self._failure = self._failure or failure
        pending, self._pending = self._pending, {}
        for record in pending.values():
            _refuse(record, failure)
        # Lets go of everybody who waits inside aiokafka; it has no public way to say so.
        accumulator = self._producer._message_accumulator  # noqa: SLF001
        batches = [*accumulator._pending_batches, *chain(*accumulator._batches.values())]  # noqa: SLF001
        accumulator.fail_all(failure)
        for batch in batches:
            waiter = batch._drain_waiter  # noqa: SLF001
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # perhaps nobody waits: then asyncio would complain about it

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        limit = loop.time() + FLUSH_LIMIT_S
        while self._pending and self._failure is None:
            left = limit - loop.time()
            if left <= 0:
                raise BrokerError(
                    f"{len(self._pending)} records were not stored within {FLUSH_LIMIT_S:g} s",
                    where=next(iter(self._pending.values())).where,
                )
            done, _ = await asyncio.wait(self._pending, timeout=min(left, CONFIRM_S))
            if not done and self._failure is None:
                await self._confirm()
        if self._failure is not None:
            raise self._failure

    async def _confirm(self) -> None:
        """Raise `TopicError` where a stream was deleted: its records would wait for ever."""
        with contextlib.suppress(BrokerError):  # a broker that is away says nothing of its streams
            for stream in {record.where.rpartition("/")[0] for record in self._pending.values()}:
                await self._topics.confirm(stream)

    async def _stop(self) -> None:
        """End the producer; where it waits for a broker that is gone, end its connections."""
        if not await stopped(self._producer.stop()):
            await stopped(self._producer.client.close())

    def _settle(self, sent: asyncio.Future[RecordMetadata]) -> None:
        cause = None if sent.cancelled() else sent.exception()
        record = self._pending.pop(sent, None)
        if record is None:  # refused already
            return
        if cause is None and not sent.cancelled():
            if not record.stored.done():
                record.stored.set_result(sent.result().offset)
            return
        reason = self._reason(cause or ConnectionAbortedError("cancelled"))
        failure = told(reason, self._connection.servers, record.where)
        self._failure = self._failure or failure
        _refuse(record, failure)

    def _reason(self, cause: Any) -> Exception:  # noqa: ANN401  # futures give any exception
        """What ended aiokafka's sender, where that is why: a record gets a copy of it, which has lost its cause."""
        sender = self._producer._sender.sender_task  # noqa: SLF001
        ended = type(cause) is KafkaError and sender is not None and sender.done()
        if ended and not sender.cancelled() and isinstance(why := sender.exception(), Exception):
            return why
        return cause  # type: ignore[no-any-return]

    def _check(self) -> None:
        self._connection.check()
        if self._closed:
            raise BrokerError("the sink is closed")
        if self._failure is not None:
            raise self._failure


def _refuse(record: _UnderWay, failure: StreambotError) -> None:
    if not record.stored.done():
        record.stored.set_exception(failure)
        record.stored.exception()  # told by the next call as well: nobody need look here
