"""Whole runs on Apache Kafka: the same digest, and a killed run goes on behind what the log holds."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from streambot.adapters.broker import ApacheBroker
from streambot.adapters.kafka import KafkaLog
from streambot.domain.errors import BrokerError, TopicError
from streambot.processor.folder import read_record
from streambot.streams.frame import FrameKind, decode_frame
from streambot.streams.reading import read_to_end
from streambot.streams.sequence import SequenceGuard
from streambot.wiring import run_simulation
from tests.integration.simulate.bars import CHILD, run, settings, write_bars

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("kafka")
    write_bars(made / "bars.parquet")
    return made


async def simulate(folder: Path, servers: str, **flags: str):
    given = settings(folder, bootstrap_servers=servers, broker="auto", **flags)
    return await run_simulation(given, cwd=folder)


async def child(folder: Path, kill_after: int, resume: str, *flags: str) -> subprocess.Popen:
    command = [sys.executable, str(CHILD), str(folder), str(kill_after), resume, *flags]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=120, check=False
    )


async def values(log: KafkaLog, stream: str, partition: int) -> list:
    return [
        record
        async for batch in read_to_end(log, stream, {partition: "beginning"})
        for record in batch
    ]


async def test_runs_and_killed_runs_on_apache_kafka(folder, kafka_home, tmp_path):
    reference = await asyncio.to_thread(run, folder, run="reference")
    async with ApacheBroker(kafka_home, tmp_path / "broker") as broker:
        whole = await simulate(folder, broker.address, run="whole")
        assert whole.digest == reference.digest
        (folder / "runs" / "whole").rename(folder / "runs" / "aside")
        with pytest.raises(TopicError, match="earlier run"):
            await simulate(folder, broker.address, run="whole")

        flags = (f"bootstrap_servers={broker.address}", "broker=auto", "partitions=2")
        begun = await child(folder, 200, "", "run=killed", "speed=20000x", *flags)
        assert begun.returncode == -9, begun.stdout + begun.stderr
        again = await child(folder, 150, "killed", "speed=20000x")
        assert again.returncode == -9, again.stdout + again.stderr
        done = await child(folder, 0, "killed", "speed=max")
        assert done.stdout.split()[-2:] == ["complete", reference.digest], done.stdout + done.stderr

        record = read_record(folder / "runs" / "killed")
        async with await KafkaLog.open(broker.address) as log:
            names = record.topics
            for partition in range(2):
                run_id = settings_run_id(folder / "runs" / "killed")
                guard = SequenceGuard("ticks", run_id, partition)
                frames = [
                    decode_frame(r.value, run_id, partition, 5)
                    for r in await values(log, names["ticks"], partition)
                ]
                assert sum(guard.accept(frame) for frame in frames) == len(frames)
                assert frames[-1].kind is FrameKind.END
            for stream in ("fills", "pnl"):
                lines = [
                    line
                    for partition in range(2)
                    for r in await values(log, names[stream], partition)
                    for line in r.value.splitlines(keepends=True)
                ]
                kept = (folder / "runs" / "killed" / f"{stream}.ndjson").read_bytes()
                assert sorted(lines) == sorted(kept.splitlines(keepends=True))


def settings_run_id(folder: Path) -> bytes:
    import msgspec

    from streambot.processor.manifest import RunManifest

    return msgspec.json.decode(read_record(folder).manifest, type=RunManifest).run_id


async def test_nobody_there_is_one_error_and_no_run(folder):
    before = set((folder / "runs").iterdir()) if (folder / "runs").exists() else set()
    with pytest.raises(BrokerError, match="no broker answers"):
        await simulate(folder, "127.0.0.1:9", run="nobody")
    after = set((folder / "runs").iterdir()) if (folder / "runs").exists() else set()
    assert after == before
