"""Several writers at once on the embedded broker: who reads meanwhile sees every record, in order.

The broker may give a later batch before the one in front of it is there, and then never gives that one to whoever
read on. Under three writers that happens about once in a thousand batches, so the rule itself is
tested with a consumer that is given what such a broker gives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition as KafkaPartition

from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.kafka import EMBEDDED, KafkaLog
from streambot.adapters.kafka import source as kafka_source
from streambot.adapters.kafka.profile import APACHE
from streambot.adapters.kafka.source import KafkaSource
from streambot.domain.errors import StreamError
from streambot.streams.ports import StreamSpec, TopicPartition

WRITERS, BATCHES, RECORDS = 4, 120, 32
PLACE = TopicPartition("t", 0)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with EmbeddedBroker() as broker:
        yield broker.address


@pytest.mark.integration
async def test_every_record_of_every_writer(address: str) -> None:
    async with await KafkaLog.open(address, profile=EMBEDDED) as log:
        await log.create([StreamSpec(name="t")])
        source = await log.source({PLACE: "beginning"}, rest_ms=30)
        writing = asyncio.gather(*(_write(address, number) for number in range(WRITERS)))
        offsets, seen = [], {number: [] for number in range(WRITERS)}
        while len(offsets) < WRITERS * BATCHES * RECORDS:
            for record in await source.read(max_records=256, timeout_s=5):
                assert record.offset == len(offsets), "in order, and none is missing"
                offsets.append(record.offset)
                writer, _, rest = record.value.partition(b":")
                seen[int(writer)].append(int(rest.partition(b":")[0]))
        await writing
        assert all(numbers == list(range(BATCHES * RECORDS)) for numbers in seen.values())


async def _write(address: str, writer: int) -> None:
    async with await KafkaLog.open(address, profile=EMBEDDED) as log:
        sink = await log.sink()
        for batch in range(BATCHES):
            for number in range(batch * RECORDS, (batch + 1) * RECORDS):
                value = b"%d:%d:" % (writer, number) + bytes(10_000)
                await sink.append("t", 0, value, timestamp_ms=0)
            await sink.flush()


class Overtaken:
    """A consumer of aiokafka's that gives what it is told to, and can be sent back."""

    def __init__(self, *fetches: list[int]) -> None:
        self.fetches, self.sought = deque(fetches), []
        state = SimpleNamespace(has_valid_position=False, position=0)
        assignment = SimpleNamespace(state_value=lambda _: state)
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))

    async def getmany(self, timeout_ms: int) -> dict:
        del timeout_ms
        offsets = self.fetches.popleft() if len(self.fetches) > 1 else self.fetches[0]
        records = [
            SimpleNamespace(offset=o, timestamp=0, key=None, value=b"v", headers=())
            for o in offsets
        ]
        return {KafkaPartition(*PLACE): records} if records else {}

    def seek(self, place: KafkaPartition, offset: int) -> None:
        self.sought.append((place, offset))

    def partitions_for_topic(self, stream: str) -> set[int]:
        del stream
        return {0}


def reading(consumer: Overtaken, profile=EMBEDDED) -> KafkaSource:
    async def bounded(waiting, limit_s: float, what: str):
        del limit_s, what
        return await waiting

    connection = SimpleNamespace(profile=profile, bounded=bounded, check=lambda: None)
    source = KafkaSource(connection, None, None, consumer, lambda _: None)  # type: ignore[arg-type]
    source._positions = {PLACE: 3}
    return source


async def test_a_batch_that_was_overtaken_is_waited_for():
    consumer = Overtaken([3, 4, 8, 9], [8, 9], [8, 9], [5, 6, 7, 8, 9], [10], [])
    source = reading(consumer)
    read = [[r.offset for r in await source.read(timeout_s=0.5)] for _ in range(4)]
    assert read == [[3, 4], [5, 6, 7, 8, 9], [10], []]
    assert consumer.sought == [(KafkaPartition(*PLACE), 5)] * 3
    assert source.positions() == {PLACE: 11}


async def test_one_that_never_comes_is_an_error(monkeypatch):
    monkeypatch.setattr(kafka_source, "_HOLE_S", 0.05)
    source = reading(Overtaken([4, 5]))
    with pytest.raises(StreamError, match="record at offset 4 where that at 3 is next"):
        await source.read(timeout_s=5)


async def test_a_reader_that_rested_does_not_believe_what_was_fetched_before(monkeypatch):
    """The client has asked again at once, and kept an answer that is old by now."""
    monkeypatch.setattr(kafka_source, "_HOLE_S", 0.1)
    monkeypatch.setattr(kafka_source, "_HOLE_REST_S", 0.05)
    source = reading(Overtaken([3, 6], [6], [4, 5, 6], []))
    assert [r.offset for r in await source.read(timeout_s=0)] == [3]
    await asyncio.sleep(0.2)
    assert [r.offset for r in await source.read(timeout_s=0.5)] == [4, 5, 6]


async def test_on_apache_kafka_marks_of_transactions_are_no_holes():
    source = reading(Overtaken([3, 5, 6], []), profile=APACHE)
    assert [r.offset for r in await source.read(timeout_s=0.1)] == [3, 5, 6]
