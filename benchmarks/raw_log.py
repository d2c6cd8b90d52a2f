"""The floor of everything that goes through a broker: aiokafka moving the same bytes, nothing else.

Producer and consumer share one process and one event loop, as they do in `simulate`, and talk to
the embedded broker. The clients have the settings that streambot's own have; the records are not
looked at. What streambot reaches is told as a share of this.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.kafka.profile import EMBEDDED, consumer_settings, producer_settings

if TYPE_CHECKING:
    from streambot.adapters.kafka.profile import BrokerProfile

_TOPIC = "raw.floor.ticks"
_LIMIT_S = 600.0


async def raw_floor(frames: list[list[bytes]]) -> float:
    """Seconds to write and read `frames` (one list a partition) through the embedded broker.

    Counted from the first send until the last record was read; starting is not.
    """
    async with EmbeddedBroker() as broker:
        return await raw_clients(broker.address, EMBEDDED, frames)


async def raw_clients(servers: str, profile: BrokerProfile, frames: list[list[bytes]]) -> float:
    """The same through a broker that is there already."""
    common: dict[str, Any] = {"bootstrap_servers": servers}
    admin = AIOKafkaAdminClient(**common)
    await admin.start()
    await admin.create_topics([NewTopic(_TOPIC, len(frames), 1, topic_configs={"retention.ms": "-1"})])
    producer = AIOKafkaProducer(**common, **producer_settings(profile))
    consumer = AIOKafkaConsumer(**common, **consumer_settings(profile))
    await producer.start()
    await consumer.start()
    places = [TopicPartition(_TOPIC, partition) for partition in range(len(frames))]
    consumer.assign(places)
    for place in places:
        consumer.seek(place, 0)
    try:
        async with asyncio.timeout(_LIMIT_S):
            start = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_produce(producer, frames))
                tasks.create_task(_consume(consumer, sum(map(len, frames))))
            return time.perf_counter() - start
    finally:
        await producer.stop()
        await consumer.stop()
        await admin.delete_topics([_TOPIC])
        await admin.close()


async def _produce(producer: AIOKafkaProducer, frames: list[list[bytes]]) -> None:
    for row in range(max(map(len, frames))):
        for partition, mine in enumerate(frames):
            if row < len(mine):
                await producer.send(_TOPIC, mine[row], partition=partition, timestamp_ms=row)
    await producer.flush()


async def _consume(consumer: AIOKafkaConsumer, count: int) -> None:
    while count > 0:
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            count -= len(records)
