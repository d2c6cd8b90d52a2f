"""Apache Kafka started by streambot: comes up, keeps its data, and its loss is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from streambot.adapters.broker import ApacheBroker
from streambot.adapters.broker.loopback import PORTS
from streambot.adapters.kafka import APACHE, KafkaLog
from streambot.domain.errors import BrokerError, StreamError, TopicError
from streambot.domain.topics import bundled_topics
from streambot.streams.ports import StreamSpec, TopicPartition
from streambot.streams.reading import read_to_end

# tests look at files as they are

pytestmark = pytest.mark.kafka

PLACE = TopicPartition("t.apache.ticks", 0)
T0 = 1_606_833_000_000


def specs() -> list[StreamSpec]:
    """Every bundled stream, as a run would create it."""
    return [
        StreamSpec(
            name=template.topic("t", "apache"),
            partitions=template.partition_count(2),
            config=template.kafka_settings(),
        )
        for template in bundled_topics().values()
    ]


async def test_data_outlive_a_stop_and_a_crash(kafka_home, tmp_path):
    broker = ApacheBroker(kafka_home, tmp_path)
    async with broker:
        assert broker.port in PORTS
        async with await KafkaLog.open(broker.address) as log:
            assert len(await log.create(specs())) == len(specs()), "templates that Kafka accepts"
            sink = await log.sink()
            for k in range(10):
                await sink.append(*PLACE, b"%d" % k, timestamp_ms=T0 + k)
    port = broker.port
    async with broker:
        assert broker.port == port
        async with await KafkaLog.open(broker.address) as log:
            source = await log.source({PLACE: "beginning"})
            records = []
            while len(records) < 10:
                records += await source.read()
            assert [r.value for r in records] == [b"%d" % k for k in range(10)]
            assert [r.timestamp_ms for r in records] == [T0 + k for k in range(10)]
            with pytest.raises(TopicError, match="2 partitions"):
                await log.create([StreamSpec(name=PLACE.stream, partitions=3)])
            with pytest.raises(TopicError, match="cannot be created"):
                await log.create([StreamSpec(name="t.apache.odd", config={"no.such.key": "1"})])
        await broker.kill()
        await broker.start()
        async with await KafkaLog.open(broker.address) as log:
            assert await log.end_offsets(PLACE.stream) == [10, 0]


async def test_a_client_rides_out_a_restart(kafka_home, tmp_path):
    """Killed and started again under load: writers and readers go on, and nothing is lost.

    What was under way at the kill may be stored twice, although the producer is idempotent: Kafka
    forgets, when it starts, producers whose last record is older than a day, and these records are
    of 2020. So records that matter are numbered, and readers drop what they have seen.
    """
    patient = msgspec.structs.replace(APACHE, unreachable_s=60.0)
    async with (
        ApacheBroker(kafka_home, tmp_path) as broker,
        await KafkaLog.open(broker.address, profile=patient) as log,
    ):
        await log.create([StreamSpec(name=PLACE.stream, config={"retention.ms": "-1"})])
        sink, source = await log.sink(), await log.source({PLACE: "beginning"})
        count = 200

        async def produce() -> None:
            for k in range(count):
                await sink.append(*PLACE, b"%d" % k, timestamp_ms=T0 + k)
                await asyncio.sleep(0.01)
            await sink.flush()

        async def consume() -> list[bytes]:
            values: list[bytes] = []
            while len(set(values)) < count:
                values += [r.value for r in await source.read()]
            return values

        async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
            tasks.create_task(produce())
            consuming = tasks.create_task(consume())
            await asyncio.sleep(0.5)
            await broker.kill()
            await broker.start()
        first_time = list(dict.fromkeys(consuming.result()))
        assert first_time == [b"%d" % k for k in range(count)]


async def test_a_broker_that_stays_away(kafka_home, tmp_path):
    """No process of ours tells: the log's own watch does, once, and soon."""
    hasty = msgspec.structs.replace(APACHE, unreachable_s=3.0)
    broker = ApacheBroker(kafka_home, tmp_path)
    async with broker, await KafkaLog.open(broker.address, profile=hasty) as log:
        await log.create([StreamSpec(name=PLACE.stream)])
        sink, source = await log.sink(), await log.source({PLACE: "beginning"})
        await broker.kill()
        start = time.monotonic()
        with pytest.raises(BrokerError, match="has not answered for"):
            await read_on(source)
        assert time.monotonic() - start < 10
        with pytest.raises(BrokerError, match="has not answered for"):
            await sink.append(*PLACE, b"x", timestamp_ms=0)
        await log.close()
        assert time.monotonic() - start < 20


async def read_on(source) -> None:
    while True:
        await source.read(timeout_s=1)


async def test_its_death_is_told(kafka_home, tmp_path):
    told: list[BrokerError] = []
    async with ApacheBroker(kafka_home, tmp_path) as broker:
        broker.on_failure(told.append)
        os.kill(broker.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
    assert "killed by signal 9" in told[0].message
    assert str(tmp_path / "broker.log") in told[0].hint


async def test_records_that_are_no_longer_kept(kafka_home, tmp_path):
    """A topic that was cut under a reader is an error, never a silent jump."""
    async with (
        ApacheBroker(kafka_home, tmp_path) as broker,
        await KafkaLog.open(broker.address) as log,
    ):
        await log.create([StreamSpec(name=PLACE.stream)])
        sink, source = await log.sink(), await log.source({PLACE: "beginning"})
        for k in range(10):
            await sink.append(*PLACE, b"%d" % k, timestamp_ms=T0 + k)
        await sink.flush()
        assert await source.read()
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await admin.start()
        await admin.delete_records({KafkaPartition(*PLACE): RecordsToDelete(before_offset=8)})
        await admin.close()
        with pytest.raises(StreamError, match="is not kept"):
            await source.seek(*PLACE, 3)
        # Behind the back of the check: the position was fine when it was taken.
        source._consumer.seek(KafkaPartition(*PLACE), 3)
        with pytest.raises(StreamError, match="no longer kept"):
            await read_on(source)


async def test_what_is_missing(tmp_path):
    with pytest.raises(BrokerError, match="no libs"):
        await ApacheBroker(tmp_path, tmp_path / "broker").start()


async def test_no_java(kafka_home, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BrokerError, match="needs Java"):
        await ApacheBroker(kafka_home, tmp_path).start()


async def test_a_program_that_is_no_java(kafka_home, tmp_path):
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho no such class >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(BrokerError, match="no such class"):
        await ApacheBroker(kafka_home, tmp_path / "broker", java=Path(program)).start()


async def test_records_of_long_ago_are_kept_also_where_nobody_said_so(kafka_home, tmp_path):
    """Kafka counts retention from the timestamp, which is the market's: its default would delete them."""
    often = {"log.initial.task.delay.ms": "100", "log.retention.check.interval.ms": "300"}
    async with (
        ApacheBroker(kafka_home, tmp_path, settings=often) as broker,
        await KafkaLog.open(broker.address) as log,
    ):
        await log.create(
            [StreamSpec(name="kept"), StreamSpec(name="cut", config={"retention.ms": "604800000"})]
        )
        sink = await log.sink()
        for stream in ("kept", "cut"):
            await sink.append(stream, 0, b"1", timestamp_ms=T0)
        await sink.flush()

        async def records(stream: str) -> list[bytes]:
            read = read_to_end(log, stream, {0: "beginning"})
            return [record.value async for batch in read for record in batch]

        limit = time.monotonic() + 30
        while True:
            with contextlib.suppress(StreamError):  # it was cut between two questions
                if not await records("cut"):
                    break
            assert time.monotonic() < limit, "Kafka deletes nothing by its timestamp any more"
        assert await records("kept") == [b"1"]
