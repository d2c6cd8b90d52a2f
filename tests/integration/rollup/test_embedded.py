"""Roll-ups and alerts through Faust on the embedded broker: hosted, alone, killed, stopped."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import msgspec
import psutil
import pytest

from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.faust_app import RollupSettings, alerts_running, transport
from streambot.adapters.kafka import EMBEDDED, KafkaLog
from streambot.domain.errors import BrokerError, StreamError, TopicError
from streambot.processor.run_state import RunState
from streambot.streams.ports import StreamSpec
from tests.rollup_world import STOP_S, World, by_series, ended, start_worker, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
async def world(broker, tmp_path) -> AsyncIterator[World]:
    async with await KafkaLog.open(broker.address, profile=EMBEDDED) as log:
        world = World(log, tmp_path / "runs" / "r", "r", barriers=120, seed=7)
        await world.create()
        yield world


def settings(world: World, **more) -> RollupSettings:
    return RollupSettings(world.log.servers, world.run, **more)


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def tailed(world: World, stream: str) -> list[dict]:
    """What `streambot tail` prints of a run whose process is gone."""
    command = [
        Path(sys.executable).parent / "streambot",
        "tail",
        stream,
        "--json",
        "--from",
        "beginning",
    ]
    command += ["--run", world.run.run, "--runs-dir", world.folder.parent]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    return [msgspec.json.decode(line) for line in done.stdout.splitlines()]


async def write(world: World, records, *, repeat: bool = False) -> None:
    sink = await world.log.sink()
    for stream, p, value, headers, ms in records:
        for _ in range(2 if repeat and ms % 3 == 0 else 1):
            await sink.append(world.topics[stream], p, value, timestamp_ms=ms, headers=headers)
        world.expect(stream, p, value, headers, ms)
    await sink.close()


async def test_hosted_beside_a_run(world, tmp_path):
    """It says what the core says, each line once, in the streams and in the run's files."""
    folder = tmp_path / "files"
    folder.mkdir()
    async with alerts_running(settings(world, folder=folder)) as alerts:
        assert not alerts.active, "the body does not wait for the group"
        await write(world, world.records(), repeat=True)
        assert await alerts.catch_up()
        assert alerts.active
        assert alerts.counts.waiting > 0, "the last barrier may go on until the end is known"
        world.expect_end()
        assert await alerts.finish()
        counts = alerts.counts
    raw = await world.raw()
    assert by_series(raw) == world.expected
    assert len(raw) == sum(map(len, world.expected.values())), "nothing was written twice"
    assert (counts.waiting, counts.missing, counts.dead_letters) == (0, 3, {"magic": 15})
    assert counts.repeats > 0
    kinds = {key[1].partition("/")[0] for key in world.expected if key[0] == "alerts"}
    assert kinds == {"portfolio", "pnl", "fills", "dead-letter"}, "the test sees every kind"
    lines = [
        (stream, line)
        for stream in ("portfolio", "alerts")
        for line in (folder / f"{stream}.ndjson").read_bytes().splitlines()
    ]
    assert sorted(lines) == sorted(raw)


async def test_started_again_it_writes_nothing_twice(world, tmp_path):
    """State comes from the beginning of the streams; files that a kill cut are mended."""
    folder = tmp_path / "files"
    folder.mkdir()
    await write(world, world.records())
    world.expect_end()
    async with alerts_running(settings(world, folder=folder)) as alerts:
        assert await alerts.catch_up()
    whole = (folder / "alerts.ndjson").read_bytes()
    (folder / "alerts.ndjson").write_bytes(whole[:-7])
    (folder / "portfolio.ndjson").unlink()
    for _ in range(2):
        async with alerts_running(settings(world, folder=folder)) as alerts:
            assert await alerts.finish()
    raw = await world.raw()
    assert by_series(raw) == world.expected
    assert len(raw) == sum(map(len, world.expected.values()))
    assert (folder / "alerts.ndjson").read_bytes() == whole
    assert len((folder / "portfolio.ndjson").read_bytes().splitlines()) == await world.rolled()


async def test_the_command_of_faust_killed_in_the_middle(world, tmp_path):
    """`kill -9` while the run goes on, twice: the last one says what an undisturbed one says.

    The web is off, nothing is left in the working folder, and SIGTERM ends it in time.
    """
    records = world.records()
    third = len(records) // 3
    for part in (records[:third], records[third : 2 * third]):
        worker = start_worker(world, tmp_path / "cwd")
        before = await world.rolled()
        writing = asyncio.create_task(write(world, part, repeat=True))

        async def goes_on(before: int = before) -> bool:
            return await world.rolled() > before + 5

        await until(goes_on, "the roll-up does not go on")
        worker.kill()
        await ended(worker)
        await writing
    await write(world, records[2 * third :])
    world.expect_end()
    world.write_record(RunState.COMPLETE)
    worker = start_worker(world, tmp_path / "cwd")
    await until(world.is_complete, "the roll-up is not what it would be undisturbed")
    listening = [
        c for c in psutil.Process(worker.pid).net_connections() if c.status == psutil.CONN_LISTEN
    ]
    assert listening == []
    start = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    said = await ended(worker)
    assert time.monotonic() - start < STOP_S
    assert worker.returncode == 0, said
    assert "Traceback" not in said
    assert "web" not in said.replace("  web       | aiohttp", ""), "no web page in the banner"
    assert left_in(tmp_path / "cwd") == []
    for stream in ("portfolio", "alerts"):
        told = await tailed(world, stream)
        assert [line["seq"] for line in told] == [
            msgspec.json.decode(line)["seq"]
            for line in (world.folder / f"{stream}.ndjson").read_bytes().splitlines()
        ]
        assert {line["schema"] for line in told} == {f"streambot.{stream.removesuffix('s')}/1"}
    # The embedded broker's writers are plain; what a kill tore is written again under its number.
    assert by_series(await world.raw()) == world.expected


async def test_a_worker_that_stands_by_is_killed(world, tmp_path):
    """One is active and stays so: the group is formed anew twice, and nothing is lost or doubled."""
    records = world.records()
    async with alerts_running(settings(world)) as active:
        await write(world, records[:100])
        assert await active.catch_up()
        worker = start_worker(world, tmp_path / "cwd")

        async def both_joined() -> bool:
            return await members(world) == 2

        await until(both_joined, "the second worker does not join")
        assert active.active, "whoever has the partitions keeps them"
        worker.kill()
        await ended(worker)
        await write(world, records[100:])
        world.expect_end()
        assert await active.finish(), "a standby's death stops nobody"
    assert (await world.said()) == world.expected


async def test_the_active_worker_is_killed_and_the_other_takes_over(world, tmp_path):
    """The one that stood by counts from the beginning, and writes what was not written yet."""
    records = world.records()
    worker = start_worker(world, tmp_path / "cwd")
    await write(world, records[:100])

    async def rolls() -> bool:
        return await world.rolled() > 0

    await until(rolls, "the first worker does not roll up")
    async with alerts_running(settings(world)) as second:

        async def both_joined() -> bool:
            return await members(world) == 2

        await until(both_joined, "the second worker does not join")
        await write(world, records[100:150])
        assert not await second.catch_up(limit_s=1), "it stands by"
        worker.kill()
        await ended(worker)
        await write(world, records[150:])
        world.expect_end()

        async def taken_over() -> bool:
            return second.active

        await until(taken_over, "nobody takes over")
        assert await second.finish()
    assert (await world.said()) == world.expected


async def members(world: World) -> int:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=world.log.servers)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([f"streambot.{world.run.run}.rollup"])
        return len(answer.groups[0][5])
    finally:
        await admin.close()


async def test_a_run_that_is_declared_on_its_broker(world, tmp_path):
    """No folder is needed: `host:port/namespace.run`; a run that is not declared is said so."""
    name = f"{world.log.servers}/streambot.r"
    worker = start_worker(world, tmp_path / "cwd", name)
    said = await ended(worker)
    assert worker.returncode == 3, said
    assert "is not declared on" in said
    await world.log.create([StreamSpec(name="streambot.r.runs")])
    sink = await world.log.sink()
    declared = {"namespace": "streambot", "manifest": world.run, "topics": world.topics}
    for key, value in ((b"context/AAA", {}), (b"run", declared), (b"successor", {"run": "s"})):
        data = msgspec.json.encode(value)
        await sink.append("streambot.r.runs", 0, data, timestamp_ms=0, key=key)
    await sink.close()
    await write(world, world.records()[:40])
    worker = start_worker(world, tmp_path / "cwd", name)
    await until(world.is_complete, "the roll-up does not go on")
    worker.send_signal(signal.SIGTERM)
    said = await ended(worker)
    assert worker.returncode == 0, said


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.5, 2.5])
async def test_cancelled_it_ends_in_time(world, after_s):
    """Before it is connected, while the group is joined, and while it works; no thread stays."""
    await cancelled(world, asyncio.sleep(after_s))


async def test_cancelled_while_the_group_is_joined_it_leaves_no_connection(world):
    """Faust would then have the consumer closed by another thread's loop, half."""
    for tenths in range(4, 13):
        await cancelled(world, asyncio.sleep(tenths / 10))


async def test_cancelled_before_its_thread_has_begun_it_ends_the_thread(world, monkeypatch):
    """Mode stops only what has begun, and a thread begins a little after it was started."""
    starts, run = threading.Event(), transport._DaemonThread.run

    def begins_late(thread: transport._DaemonThread) -> None:
        starts.set()
        time.sleep(0.3)
        run(thread)

    monkeypatch.setattr(transport._DaemonThread, "run", begins_late)
    await cancelled(world, asyncio.to_thread(starts.wait))


async def cancelled(world: World, at: Awaitable[object]) -> None:
    """A roll-up that is cancelled then ends in time, and leaves nothing."""

    async def body() -> None:
        async with alerts_running(settings(world)):
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await at
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - start < STOP_S
    assert [t for t in threading.enumerate() if type(t).__name__ == "_DaemonThread"] == []
    gc.collect()  # here, and in no other test


async def test_the_broker_dies(world, broker):
    """Faust would wait for it: the body is cancelled, and the error says why."""
    start = time.monotonic()

    async def body() -> None:
        async with alerts_running(settings(world)) as alerts:
            await alerts.catch_up()
            os.kill(broker.pid, signal.SIGKILL)
            await asyncio.sleep(60)

    with pytest.raises(BrokerError, match="has not answered for"):
        await body()
    assert time.monotonic() - start < 20


async def test_a_body_that_fails_is_told_as_it_is(world):
    with pytest.raises(ZeroDivisionError):
        async with alerts_running(settings(world)):
            raise ZeroDivisionError


async def test_streams_that_are_missing_or_wrong(world):
    with pytest.raises(TopicError, match="does not exist"):
        async with alerts_running(settings(world, topics={"fills": "no.such.fills"})):
            await asyncio.sleep(30)
    run = msgspec.structs.replace(world.run, partitions=2, partition_of=(0, 1, 0, 1))
    with pytest.raises(TopicError, match="has 3 partitions, the run has 2"):
        async with alerts_running(settings(world)._replace(run=run)):
            await asyncio.sleep(30)


async def test_a_line_that_is_no_mark_stops_it(world):
    """Corrupt data is worse than no data; the place is named."""
    sink = await world.log.sink()
    await sink.append(world.topics["pnl"], 1, b'{"instrument":"AAA"}\n', timestamp_ms=0)
    await sink.close()
    with pytest.raises(StreamError, match=r"pnl/1/0"):
        async with alerts_running(settings(world)):
            await asyncio.sleep(30)


async def test_the_command_of_faust_says_errors_in_words(world, broker, tmp_path):
    """No run, a run that stays in its process, a broker that is gone: exit codes, no tracebacks."""
    text = (world.folder / "run.json").read_text()
    (world.folder / "run.json").write_text(text.replace(world.log.servers, "in-process"))
    worker = start_worker(world, tmp_path / "cwd")
    said = await ended(worker)
    assert worker.returncode == 3, said
    assert "stay inside its own process" in said
    (world.folder / "run.json").write_text(text.replace(world.log.servers, "127.0.0.1:1"))
    worker = start_worker(world, tmp_path / "cwd")
    said = await ended(worker)
    assert worker.returncode == 5, said
    assert "no broker answers at 127.0.0.1:1" in said
    assert "Traceback" not in said
    (world.folder / "run.json").rename(world.folder / "elsewhere.json")
    worker = start_worker(world, tmp_path / "cwd")
    said = await ended(worker)
    assert worker.returncode == 3, said
    assert "neither the folder of a run nor" in said
