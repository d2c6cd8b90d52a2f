"""Transactional writer to Kafka: records that become visible together, under a name with one owner.

aiokafka speaks the first version of the transaction protocol. The broker then cannot tell a request
of this transaction from a late one of the transaction before, and the client repeats requests
without a word. So whatever takes longer than a request may take counts as failed, and after any
failure the producer is thrown away: a new one with the same name fences whatever it left behind.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition as KafkaPartition
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.transaction import EndTxnRequest

from streambot.adapters.kafka.offsets import Offsets
from streambot.adapters.kafka.profile import REQUEST_TIMEOUT_S
from streambot.adapters.kafka.sink import KafkaSink
from streambot.adapters.kafka.stopping import stopped, to_the_end
from streambot.domain.errors import BrokerError, FencedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping

    from aiokafka import AIOKafkaProducer

    from streambot.adapters.kafka.connection import Connection
    from streambot.adapters.kafka.topics import Topics
    from streambot.streams.ports import Headers, TopicPartition

ABORT_LIMIT_S = 2.0
_LOOK_S = 0.005
_ASK_S = 0.1
_ANSWER_S = 5.0
"""A broker that fences somebody has done so by then."""


class KafkaTransactions:
    """`streams.ports.Transactions` on one producer. Made by `KafkaLog.transactions`."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        topics: Topics,
        producer: AIOKafkaProducer,
        on_close: Callable[[KafkaTransactions], None],
    ) -> None:
        self._name = name
        self._connection = connection
        self._producer = producer
        self._on_close = on_close
        self._sink = KafkaSink(connection, topics, producer, lambda _: None)
        self._offsets = Offsets(connection, topics)
        self._began: float | None = None
        self._void: BaseException | None = None
        self._closed = False

    async def begin(self) -> None:
        """See `Transactions.begin`."""
        self._check()
        if self._began is not None:
            raise BrokerError("a transaction is open already", where=self._name)
        self._began = asyncio.get_running_loop().time()
        await self._bounded(self._producer.begin_transaction(), "beginning a transaction")

    async def append(
        self, stream: str, partition: int, value: bytes, *, timestamp_ms: int,
        key: bytes | None = None, headers: Headers = (),
    ) -> asyncio.Future[int]:  # fmt: skip
        """See `Transactions.append`."""
        self._check_begun()
        try:
            return await self._sink.append(
                stream, partition, value, timestamp_ms=timestamp_ms, key=key, headers=headers
            )
        except FencedError:
            self._void = fenced = _overtaken(self._name)
            raise fenced from None
        except BaseException as failure:
            self._void = failure
            raise

    async def flush(self) -> None:
        """See `Transactions.flush`."""
        self._check_begun()
        await self._bounded(self._sink.flush(), "storing records")

    async def offsets(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """See `Transactions.offsets`."""
        self._check_begun()
        places = {KafkaPartition(*place): offset for place, offset in positions.items()}
        await self._bounded(
            self._producer.send_offsets_to_transaction(places, group), "committing offsets"
        )

    async def unfinished(self, places: Collection[TopicPartition]) -> list[TopicPartition]:
        """See `finishing.Finishing.unfinished`."""
        found: list[TopicPartition] = []
        for stream in sorted({place.stream for place in places}):
            # In this order: what readers see may grow up to what was stored meanwhile.
            stored = await self._offsets.stored(stream)
            seen = await self._offsets.end(stream)
            found += [
                place
                for place in places
                if place.stream == stream and seen[place.partition] < stored[place.partition]
            ]
        return found

    async def include(self, places: Collection[TopicPartition]) -> None:
        """See `finishing.Finishing.include`."""
        self._check_begun()
        manager = self._producer._txn_manager  # noqa: SLF001  # its public way needs a record

        async def added() -> None:
            for place in places:
                manager.maybe_add_partition_to_txn(KafkaPartition(*place))
            while manager.partitions_to_add():  # noqa: ASYNC110  # nothing of it can be waited for
                await asyncio.sleep(_LOOK_S)

        await self._bounded(added(), "ending what was left")

    async def commit(self) -> None:
        """See `Transactions.commit`."""
        began = self._check_begun()
        try:
            await self._bounded(self._producer.commit_transaction(), "committing a transaction")
        except BrokerError as error:
            if _says_nothing(error) and await self._is_fenced():
                self._void = fenced = _overtaken(self._name)
                raise fenced from None
            raise
        took = asyncio.get_running_loop().time() - began
        self._began = None
        if took > REQUEST_TIMEOUT_S:
            failure = BrokerError(
                f"a transaction took {took:.0f} s, longer than a request may take", where=self._name
            )
            self._void = failure
            raise failure

    def fail(self, failure: BrokerError) -> None:
        """The log is lost."""
        self._void = self._void or failure
        self._sink.fail(failure)

    async def close(self) -> None:
        """See `Transactions.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            await to_the_end(self._end())
        finally:
            self._on_close(self)

    async def _end(self) -> None:
        if self._began is not None and self._void is None:
            # A courtesy to readers, who would wait for the successor or the time-out.
            await stopped(self._producer.abort_transaction(), ABORT_LIMIT_S)
        if not await stopped(self._producer.stop(), ABORT_LIMIT_S):
            await stopped(self._producer.client.close())

    async def _is_fenced(self) -> bool:
        """Ask the broker again to commit: while another one is taking over, its answer is no answer.

        Apache Kafka (4.4.0 at least) fails on a commit that comes while it fences the writer
        (`IllegalStateException`, told as an unknown error). Whoever took that for an outage would open the
        name again, and take over from its successor.
        """
        producer = self._producer
        sender, manager = producer._sender, producer._txn_manager  # noqa: SLF001
        request = EndTxnRequest(
            transactional_id=manager.transactional_id, producer_id=manager.producer_id,
            producer_epoch=manager.producer_epoch, transaction_result=True,
        )  # fmt: skip

        async def answered() -> bool:
            while True:
                await asyncio.sleep(_ASK_S)
                node = await sender._find_coordinator(  # noqa: SLF001
                    CoordinationType.TRANSACTION, manager.transactional_id
                )
                answer = await producer.client.send(
                    node, request, group=ConnectionGroup.COORDINATION
                )
                error = kafka.for_code(answer.error_code)
                if error not in (kafka.UnknownError, kafka.ConcurrentTransactions):
                    return error in (kafka.InvalidProducerEpoch, kafka.ProducerFenced)

        try:
            return await self._connection.bounded(answered(), _ANSWER_S, "asking again")
        except BrokerError:
            return False

    async def _bounded(self, work: Coroutine[Any, Any, None], doing: str) -> None:
        try:
            await self._connection.bounded(work, REQUEST_TIMEOUT_S, f"{self._name}: {doing}")
        except FencedError:
            self._void = fenced = _overtaken(self._name)
            raise fenced from None
        except BaseException as failure:
            self._void = failure
            raise

    def _check_begun(self) -> float:
        self._check()
        if self._began is None:
            raise BrokerError("no transaction is open", where=self._name)
        return self._began

    def _check(self) -> None:
        if self._void is not None:
            if isinstance(self._void, FencedError):
                raise _overtaken(self._name)
            raise BrokerError(f"void since: {self._void}", where=self._name)
        if self._closed:
            raise BrokerError("the transactions are closed", where=self._name)
        self._connection.check()


def _says_nothing(failure: BaseException | None) -> bool:
    """Is what failed an unknown error?"""
    while failure is not None and not isinstance(failure, kafka.UnknownError):
        failure = failure.__cause__
    return failure is not None


def _overtaken(name: str) -> FencedError:
    return FencedError(
        "another process has taken over these transactions",
        where=name,
        hint="it goes on with the work; of several workers each needs its own --worker i/N",
    )
