"""The limit of a run through a broker: the bare Kafka client moving the same bytes, and nothing else.

One process, as in a run: a producer sends the frames to their partitions, a consumer reads them back, and for every
frame a record of the size of its share of the results goes out again. No frame is looked at.

    python -m benchmarks.floor_kafka FRAMES OUT_BYTES     # prints seconds from the first send to the last receipt
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streambot.adapters.broker.embedded import EmbeddedBroker
from streambot.adapters.kafka import KafkaLog
from streambot.adapters.kafka.profile import EMBEDDED, consumer_settings, producer_settings
from streambot.streams.ports import StreamSpec

Frames = list[tuple[int, bytes]]
_HEAD = struct.Struct("<HI")
TICKS, RESULTS = "floor.ticks", "floor.results"


def write_frames(path: Path, frames: Frames) -> None:
    """Keep (partition, value) pairs in a file."""
    with path.open("wb") as file:
        for partition, value in frames:
            file.write(_HEAD.pack(partition, len(value)) + value)


def read_frames(path: Path) -> Frames:
    """The pairs of `write_frames`."""
    data = path.read_bytes()
    frames, at = [], 0
    while at < len(data):
        partition, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        frames.append((partition, data[at : at + size]))
        at += size
    return frames


async def move(frames: Frames, out_bytes: int, servers: str) -> float:
    """Seconds from the first send to the last acknowledged result."""
    partitions = max(partition for partition, _ in frames) + 1
    share = bytes(max(1, out_bytes // len(frames)))
    producer = AIOKafkaProducer(bootstrap_servers=servers, **producer_settings(EMBEDDED))
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, **consumer_settings(EMBEDDED))
    await producer.start()
    await consumer.start()
    try:
        places = [TopicPartition(TICKS, partition) for partition in range(partitions)]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, 0)
        began = time.perf_counter()

        async def send() -> None:
            for partition, value in frames:
                await producer.send(TICKS, value, partition=partition, timestamp_ms=0)

        sending = asyncio.create_task(send())
        left = len(frames)
        while left:
            batches = await consumer.getmany(timeout_ms=1_000, max_records=64)
            for place, records in batches.items():
                left -= len(records)
                for _record in records:
                    await producer.send(RESULTS, share, partition=place.partition, timestamp_ms=0)
        await sending
        await producer.flush()
        return time.perf_counter() - began
    finally:
        await consumer.stop()
        await producer.stop()


async def measure(frames: Frames, out_bytes: int) -> float:
    """Start the embedded broker, make the topics, move the bytes."""
    partitions = max(partition for partition, _ in frames) + 1
    async with EmbeddedBroker() as broker:
        log = await KafkaLog.open(broker.address, profile=EMBEDDED)
        await log.create(
            [StreamSpec(name=name, partitions=partitions) for name in (TICKS, RESULTS)]
        )
        await log.close()
        return await move(frames, out_bytes, broker.address)


if __name__ == "__main__":
    print(asyncio.run(measure(read_frames(Path(sys.argv[1])), int(sys.argv[2]))))
