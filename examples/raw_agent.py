"""An agent without streambot: Kafka, JSON and the first bytes of a frame, in any language.

    streambot replay --run mine --agent raw
    streambot worker --run mine
    python examples/raw_agent.py 127.0.0.1:9092 mine raw

It buys one lot of every stock at the first barrier and holds. The wire format is in
`docs/operations.md`, Agents in other processes.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

DATA, END = 0, 1


async def read_from_start(servers: str, topic: str, partitions: int) -> AIOKafkaConsumer:
    """A reader without a group, which sees what is committed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
    await consumer.start()
    consumer.assign([TopicPartition(topic, p) for p in range(partitions)])
    await consumer.seek_to_beginning()
    return consumer


async def declaration_of(servers: str, run: str) -> dict[str, Any]:
    """What the run is: instruments, partitions, names of its topics."""
    consumer = await read_from_start(servers, f"streambot.{run}.runs", 1)
    async for record in consumer:
        if record.key == b"run":
            break
    await consumer.stop()
    return json.loads(record.value)  # type: ignore[no-any-return]


def buy(symbol: str, barrier: int) -> dict[str, Any]:
    """One lot at the first tick of the next bar. Of options, premium and expiry are needed too."""
    return {
        "instrument": symbol, "barrier": barrier, "action": "BUY_LONG", "quantity": 1,
        "trail_width_ticks": 100,
    }  # fmt: skip


async def main(servers: str, run: str, agent: str) -> None:
    """Answer every frame of the run, to its end."""
    declared = await declaration_of(servers, run)
    manifest, topics = declared["manifest"], declared["topics"]
    stocks = [
        (instrument["symbol"], partition)
        for instrument, partition in zip(
            manifest["instruments"], manifest["partition_of"], strict=True
        )
        if instrument["type"] == "STOCK"
    ]
    ticks = await read_from_start(servers, topics["ticks"], manifest["partitions"])
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    going = set(range(manifest["partitions"]))
    async for record in ticks:
        kind, partition, closes = struct.unpack_from("<HHI", record.value, 28)
        (first,) = struct.unpack_from("<q", record.value, 72)
        if kind == DATA and closes:
            orders = [buy(s, 0) for s, p in stocks if p == partition and first == 0]
            answer = {
                "agent": agent, "partition": partition, "through_barrier": first + closes - 1,
                "orders": orders,
            }  # fmt: skip
            value = json.dumps(answer).encode() + b"\n"
            await producer.send_and_wait(topics["orders"], value, partition=partition)
        if kind == END:
            going.discard(partition)
        if not going:
            break
    await producer.stop()
    await ticks.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
