"""The floor of everything that goes through a broker: aiokafka moving the same bytes, nothing else.

Producer and consumer share one process and one event loop, as they do in `simulate`, and talk to
the embedded broker. The clients have the settings that streambot's own have; the records are not
looked at. What streambot reaches is told as a share of this.

    python -m benchmarks.raw_log FRAMES OUT_BYTES     # prints the seconds

FRAMES is a file of `write_frames`; OUT_BYTES are written in as many records as there are frames, as
the results of a run are.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.kafka.profile import EMBEDDED, consumer_settings, producer_settings

if TYPE_CHECKING:
    from streambot.adapters.kafka.profile import BrokerProfile

_TOPIC, _RESULTS = "raw.floor.ticks", "raw.floor.results"
_HEAD = struct.Struct("<HI")
_LIMIT_S = 600.0


def write_frames(path: Path, frames: list[list[bytes]]) -> None:
    """Keep the frames of every partition in a file."""
    with path.open("wb") as file:
        for partition, mine in enumerate(frames):
            for value in mine:
                file.write(_HEAD.pack(partition, len(value)) + value)


def read_frames(path: Path) -> list[list[bytes]]:
    """What `write_frames` kept."""
    data = path.read_bytes()
    frames: list[list[bytes]] = []
    at = 0
    while at < len(data):
        partition, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        while len(frames) <= partition:
            frames.append([])
        frames[partition].append(data[at : at + size])
        at += size
    return frames


async def raw_floor(frames: list[list[bytes]], out_bytes: int = 0) -> float:
    """Seconds to write and read `frames` (one list a partition) through the embedded broker.

    Counted from the first send until the last record was read and the last result was stored;
    starting is not.
    """
    async with EmbeddedBroker() as broker:
        return await raw_clients(broker.address, EMBEDDED, frames, out_bytes)


async def raw_clients(
    servers: str, profile: BrokerProfile, frames: list[list[bytes]], out_bytes: int = 0
) -> float:
    """The same through a broker that is there already."""
    common: dict[str, Any] = {"bootstrap_servers": servers}
    admin = AIOKafkaAdminClient(**common)
    await admin.start()
    topics = [
        NewTopic(name, len(frames), 1, topic_configs={"retention.ms": "-1"})
        for name in (_TOPIC, _RESULTS)
    ]
    await admin.create_topics(topics)
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
                tasks.create_task(_consume(consumer, producer, sum(map(len, frames)), out_bytes))
            await producer.flush()
            return time.perf_counter() - start
    finally:
        await producer.stop()
        await consumer.stop()
        await admin.delete_topics([_TOPIC, _RESULTS])
        await admin.close()


async def _produce(producer: AIOKafkaProducer, frames: list[list[bytes]]) -> None:
    for row in range(max(map(len, frames))):
        for partition, mine in enumerate(frames):
            if row < len(mine):
                await producer.send(_TOPIC, mine[row], partition=partition, timestamp_ms=row)
    await producer.flush()


async def _consume(
    consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, count: int, out_bytes: int
) -> None:
    share = bytes(out_bytes // count)
    while count > 0:
        for place, records in (await consumer.getmany(timeout_ms=1_000)).items():
            count -= len(records)
            for record in records if share else ():
                await producer.send(
                    _RESULTS, share, partition=place.partition, timestamp_ms=record.timestamp
                )


if __name__ == "__main__":
    print(asyncio.run(raw_floor(read_frames(Path(sys.argv[1])), int(sys.argv[2]))))
