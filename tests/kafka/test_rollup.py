"""Roll-ups on Apache Kafka: transactions, aborted ones among them, and a worker killed in the middle."""

from __future__ import annotations

import asyncio
import signal
import time

import msgspec
import pytest

from streambot.adapters.broker import ApacheBroker
from streambot.adapters.faust_app import RollupSettings, alerts_running
from streambot.adapters.kafka import KafkaLog
from streambot.processor.run_state import RunState
from streambot.processor.task_head import TASK_KEY
from streambot.streams.ports import StreamSpec
from tests.rollup_world import STOP_S, World, by_series, ended, start_worker, until
from tests.rollups import mark

pytestmark = pytest.mark.kafka


async def write(world: World, records) -> None:
    """In transactions of some records; every few of them one is thrown away, with wrong marks in it."""
    for k in range(0, len(records), 16):
        transactions = await world.log.transactions(f"streambot.{world.run.run}.engine")
        if k % 64 == 0:
            await transactions.begin()
            for p, n in ((0, 0), (1, 1), (2, 2)):
                value = mark(n, 5_000 + k, 5_000, 1)
                await transactions.append(world.topics["pnl"], p, value, timestamp_ms=0)
            await transactions.flush()
            await transactions.close()
            transactions = await world.log.transactions(f"streambot.{world.run.run}.engine")
        await transactions.begin()
        for stream, p, value, headers, ms in records[k : k + 16]:
            await transactions.append(
                world.topics[stream], p, value, timestamp_ms=ms, headers=headers
            )
            world.expect(stream, p, value, headers, ms)
        await transactions.flush()
        await transactions.commit()
        await transactions.close()


async def test_killed_in_the_middle_of_transactions(kafka_home, tmp_path):
    """Aborted marks are never counted; holes in the offsets hold nobody up; nothing comes twice."""
    async with (
        ApacheBroker(kafka_home, tmp_path / "broker") as broker,
        await KafkaLog.open(broker.address) as log,
    ):
        world = World(log, tmp_path / "runs" / "k", "k", barriers=90, seed=11)
        await world.create()
        records = world.records()
        half = len(records) // 2
        worker = start_worker(world, tmp_path / "cwd")
        writing = asyncio.create_task(write(world, records[:half]))

        async def goes_on() -> bool:
            return await world.rolled() > 5

        await until(goes_on, "the roll-up does not go on")
        worker.kill()
        await ended(worker)
        await writing
        worker = start_worker(world, tmp_path / "cwd")
        await write(world, records[half:])
        world.expect_end()
        world.write_record(RunState.COMPLETE)
        await until(world.is_complete, "the roll-up is not what it would be undisturbed")
        start = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        said = await ended(worker)
        assert time.monotonic() - start < STOP_S, said
        assert worker.returncode == 0, said
        raw = await world.raw()
        assert by_series(raw) == world.expected
        before = len(raw)
        settings = RollupSettings(broker.address, world.run)
        async with alerts_running(settings) as alerts:
            assert await alerts.finish()
        raw = await world.raw()
        assert by_series(raw) == world.expected
        assert len(raw) == before, "a start after the end writes nothing"


async def test_the_states_of_the_tasks_tell_the_end(kafka_home, tmp_path):
    """Where a run's engine keeps its state on the broker, nobody else need say that it is over."""
    async with (
        ApacheBroker(kafka_home, tmp_path / "broker") as broker,
        await KafkaLog.open(broker.address) as log,
    ):
        world = World(log, tmp_path / "runs" / "s", "s", barriers=8, seed=3)
        await world.create()
        await log.create([StreamSpec(name="streambot.s.state", partitions=3)])
        async with alerts_running(RollupSettings(broker.address, world.run)) as alerts:
            await write(world, world.records())
            assert await alerts.catch_up()
            sink = await log.sink()
            for p in range(3):
                head = {"chain": {"barrier": 8}, "ended": True}
                value = msgspec.msgpack.encode(head)
                await sink.append("streambot.s.state", p, value, timestamp_ms=0, key=TASK_KEY)
                await sink.append("streambot.s.state", p, b"x", timestamp_ms=0, key=b"AAA")
            await sink.flush()
            world.expect_end()
            await until(world.is_complete, "the end is not noticed")


async def test_the_end_waits_for_what_is_committed_and_not_yet_visible(kafka_home, tmp_path):
    """A commit is answered before its records can be read: the last barrier counts all of them."""
    async with (
        ApacheBroker(kafka_home, tmp_path / "broker") as broker,
        await KafkaLog.open(broker.address) as log,
    ):
        for k in range(3):
            world = World(log, tmp_path / "runs" / f"v{k}", f"v{k}", barriers=8, seed=k)
            await world.create()
            async with alerts_running(RollupSettings(broker.address, world.run)) as alerts:
                await write(world, world.records())
                world.expect_end()
                assert await alerts.finish()
            assert by_series(await world.raw()) == world.expected
