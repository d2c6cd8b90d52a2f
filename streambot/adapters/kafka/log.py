"""`streams.ports.Log` on Kafka: the facade over connection, topics and offsets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streambot.adapters.kafka.connection import OPEN_LIMIT_S, Connection
from streambot.adapters.kafka.offsets import Offsets
from streambot.adapters.kafka.profile import (
    APACHE,
    BrokerProfile,
    client_settings,
    consumer_settings,
    producer_settings,
    transaction_settings,
)
from streambot.adapters.kafka.sink import KafkaSink
from streambot.adapters.kafka.source import KafkaSource
from streambot.adapters.kafka.topic_settings import TopicSettings
from streambot.adapters.kafka.topics import Topics
from streambot.adapters.kafka.transactions import KafkaTransactions
from streambot.domain.errors import BrokerError, StreambotError, TopicError
from streambot.domain.kafka_settings import KafkaSecurity
from streambot.streams.ports import Start, StreamSpec, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streambot.domain.topic_plan import FoundSetting

FENCE_LIMIT_S = 30.0
"""Opening a name waits until what its predecessor left is aborted."""


class KafkaLog:
    """Streams on a Kafka broker. Made by `KafkaLog.open`; an async context manager.

    Attributes:
        servers: `host:port[,host:port]`.
        profile: kind of broker.
    """

    def __init__(
        self, servers: str, profile: BrokerProfile, settings: dict[str, Any], replication: int
    ) -> None:
        self.servers = servers
        self.profile = profile
        self._connection = Connection(servers, profile, settings, self._tell)
        self._topics = Topics(self._connection, replication)
        self._offsets = Offsets(self._connection, self._topics)
        self._open: set[KafkaSink | KafkaSource | KafkaTransactions] = set()
        self._closed = False

    @classmethod
    async def open(
        cls,
        servers: str,
        *,
        profile: BrokerProfile = APACHE,
        security: KafkaSecurity | None = None,
        replication: int = 1,
    ) -> Self:
        """Connect.

        Args:
            servers: `host:port[,host:port]`.
            profile: kind of broker.
            security: how to talk to it; None: plain text, as on loopback.
            replication: copies of each partition of the streams that are created.

        Raises:
            BrokerError: nobody answers there within `OPEN_LIMIT_S`, or aiokafka is not whole.
            ConfigError: certificates cannot be used.
        """  # fmt: skip
        settings = client_settings(servers, security or KafkaSecurity())
        log = cls(servers, profile, settings, replication)
        await log._connection.open()
        return log

    def fail(self, failure: BrokerError) -> None:
        """The broker is lost: everything that waits, and every later call, gets this error.

        For who started the broker and sees it die: `broker.on_failure(log.fail)`.
        """
        self._connection.fail(failure)

    def check(self) -> None:
        """Raise `BrokerError` where the broker is lost, or the log closed. Asks nobody."""
        self._connection.check()

    async def create(self, streams: Sequence[StreamSpec]) -> list[str]:
        """See `Log.create`."""
        return await self._topics.create(streams)

    async def delete(self, streams: Sequence[str]) -> None:
        """See `Log.delete`."""
        await self._topics.delete(streams)

    async def streams(self) -> dict[str, int]:
        """See `Log.streams`."""
        return await self._topics.all()

    async def sink(self) -> KafkaSink:
        """See `Log.sink`."""
        self._connection.check()
        producer = AIOKafkaProducer(**self._connection.settings, **producer_settings(self.profile))
        sink = KafkaSink(self._connection, self._topics, producer, self._open.discard)
        self._open.add(sink)
        try:
            await self._connection.start(producer.start(), OPEN_LIMIT_S, "starting a producer")
        except BaseException:
            await sink.close()
            raise
        return sink

    async def transactions(self, name: str) -> KafkaTransactions:
        """See `Log.transactions`."""
        self._connection.check()
        if not self.profile.transactional:
            raise BrokerError(f"{self.profile.name} has no transactions", where=self.servers)
        producer = AIOKafkaProducer(
            **(self._connection.settings | transaction_settings(name, self.profile))
        )
        made = KafkaTransactions(name, self._connection, self._topics, producer, self._open.discard)
        self._open.add(made)
        try:
            await self._connection.start(
                producer.start(), FENCE_LIMIT_S, f"opening the transactions of {name}"
            )
        except BaseException:
            await made.close()
            raise
        return made

    async def committed(
        self, group: str, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """See `Log.committed`."""
        return await self._offsets.committed(group, places)

    async def source(
        self, starts: Mapping[TopicPartition, Start], *, rest_ms: int = 0
    ) -> KafkaSource:
        """See `Log.source`."""
        self._connection.check()
        if not starts:
            raise TopicError("a source needs at least one partition")
        offsets = await self._offsets.resolve(
            {TopicPartition(*place): start for place, start in starts.items()}
        )
        settings = consumer_settings(self.profile, rest_ms=rest_ms)
        consumer = AIOKafkaConsumer(**self._connection.settings, **settings)
        source = KafkaSource(
            self._connection, self._topics, self._offsets, consumer, self._open.discard
        )
        self._open.add(source)
        try:
            await source.begin(offsets)
        except BaseException:
            await source.close()
            raise
        return source

    async def beginning_offsets(self, stream: str) -> list[int]:
        """See `Log.beginning_offsets`."""
        return await self._offsets.beginning(stream)

    async def end_offsets(self, stream: str) -> list[int]:
        """See `Log.end_offsets`."""
        return await self._offsets.end(stream)

    async def stored_ends(self, stream: str) -> list[int]:
        """Ends behind everything stored: beyond `end_offsets` where a transaction is open."""
        return await self._offsets.stored(stream)

    async def offset_at(self, stream: str, partition: int, timestamp_ms: int) -> int:
        """See `Log.offset_at`."""
        return await self._offsets.at(stream, partition, timestamp_ms)

    async def close(self) -> None:
        """See `Log.close`. What was not stored by then was told to who appended it."""
        if self._closed:
            return
        self._closed = True
        ends = await asyncio.gather(
            *(user.close() for user in list(self._open)), return_exceptions=True
        )
        await self._connection.close()
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, StreambotError):
                raise end

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _tell(self, failure: BrokerError) -> None:
        for user in list(self._open):
            if isinstance(user, (KafkaSink, KafkaTransactions)):
                user.fail(failure)

    async def settings(self, streams: Sequence[str]) -> dict[str, dict[str, FoundSetting]]:
        """Settings of streams that exist, see `TopicSettings.describe`."""
        return await TopicSettings(self._connection).describe(streams)

    async def alter(self, stream: str, settings: Mapping[str, str]) -> None:
        """Set some settings of a stream, see `TopicSettings.alter`."""
        await TopicSettings(self._connection).alter(stream, settings)
