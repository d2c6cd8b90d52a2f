"""`verify` and `--from-run` on Apache Kafka: runs of every kind come out again, exactly."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from streambot.adapters.broker import ApacheBroker
from streambot.adapters.kafka import KafkaLog
from streambot.domain.config import KafkaSecurity, Speed, resolve
from streambot.domain.errors import SequenceGapError, UsageError
from streambot.report.progress import SilentObserver
from streambot.streams.control import SetSpeed
from streambot.streams.ports import StreamSpec
from streambot.streams.reading import read_to_end
from streambot.wiring import StopRequest, run_simulation
from streambot.wiring.controlling import ReplayControls
from streambot.wiring.publishing import run_publishing
from streambot.wiring.recording import RecordedAt
from streambot.wiring.verified import RunToVerify
from streambot.wiring.verifying import verify_run
from streambot.wiring.ways import WaysToVerify, verify_ways
from tests.integration.simulate.bars import CHILD, Told, run, settings, stopped_after, write_bars

pytestmark = pytest.mark.kafka
NAMES = "AAA,AAA_OPT,BBB,CCC"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("verified")
    write_bars(made / "bars.parquet", "AAA BBB CCC", bars=500)
    return made


@pytest.fixture(scope="module")
def servers(kafka_home, tmp_path_factory):
    with asyncio.Runner() as runner:
        broker = ApacheBroker(kafka_home, tmp_path_factory.mktemp("kafka") / "broker")
        runner.run(broker.start())
        yield broker.address
        runner.run(broker.stop())


def on_kafka(servers: str, **flags: str) -> dict[str, str]:
    return {"bootstrap_servers": servers, "broker": "auto", "instruments": NAMES, **flags}


def verified(folder: Path, servers: str, name: str):
    at = RecordedAt(servers, KafkaSecurity())
    wanted = RunToVerify(name, folder / "runs" / name, at, "streambot", None, folder)
    return verify_run(wanted, lambda _: None)


def again(folder: Path, servers: str, source: str, **flags: str):
    """A run from the recording, with its own settings."""
    given = {
        "from_run": source, "from_broker": servers, "runs_dir": str(folder / "runs"),
        "speed": "max", "broker": "in-process",
    }  # fmt: skip
    return asyncio.run(run_simulation(resolve(given | flags, {}, None), cwd=folder))


@pytest.fixture(scope="module")
def reference(folder, servers):
    return run(folder, run="reference", partitions="3", **on_kafka(servers))


async def rewrite(servers: str, topic: str, change) -> None:
    """Somebody writes a topic anew, record by record."""
    async with await KafkaLog.open(servers) as log:
        records = [r async for batch in read_to_end(log, topic) for r in batch]
        partitions = (await log.streams())[topic]
        await log.delete([topic])
        await log.create([StreamSpec(name=topic, partitions=partitions)])
        sink = await log.sink()
        for number, record in enumerate(records):
            for value in change(number, record.value):
                await sink.append(
                    topic, record.partition, value, timestamp_ms=record.timestamp_ms,
                    headers=record.headers,
                )  # fmt: skip
        await sink.close()


def test_a_run_comes_out_again_and_so_does_its_recording(folder, servers, reference):
    found = verified(folder, servers, "reference")
    assert found.equal
    assert found.complete
    assert found.digest == found.digest_again == reference.digest
    assert (found.outputs, found.ticks, found.gaps, found.repeats) == (
        "topics", "recorded ticks", 0, 0,
    )  # fmt: skip
    assert not found.notes
    for flags in ({}, {"policy": "recorded", "partitions": "1"}, {"speed": "60000x"}):
        assert again(folder, servers, "reference", **flags).digest == reference.digest
    copy = again(
        folder, servers, "reference", run="copy", bootstrap_servers=servers, broker="auto",
        policy="recorded", partitions="2",
    )  # fmt: skip
    assert copy.digest == reference.digest
    found = verified(folder, servers, "copy")
    assert (found.equal, found.orders) == (True, "recorded")


def test_a_run_over_a_recording_is_killed_and_goes_on(folder, servers, reference):
    """The recorded orders that were given before are not given again, and none is left out."""

    def child(kill_after: int, resume: str, *flags: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(CHILD), str(folder), str(kill_after), resume, *flags],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    flags = (
        "run=killed", "from_run=reference", f"from_broker={servers}", "policy=recorded", "broker=auto",
        f"bootstrap_servers={servers}", "partitions=2", "speed=40000x",
    )  # fmt: skip
    begun = child(60, "", *flags)
    assert begun.returncode == -9, begun.stdout + begun.stderr
    again = child(40, "killed", "speed=40000x")
    assert again.returncode == -9, again.stdout + again.stderr
    done = child(0, "killed", "speed=max")
    assert done.stdout.split()[-2:] == ["complete", reference.digest], done.stdout + done.stderr
    found = verified(folder, servers, "killed")
    assert (found.equal, found.complete, found.repeats) == (True, True, 0)


def test_a_stopped_run_is_compared_up_to_what_was_committed(folder, servers, reference):
    part = stopped_after(
        folder, 20, run="part", speed="60000x", partitions="2", **on_kafka(servers)
    )
    assert part.state == "interrupted"
    found = verified(folder, servers, "part")
    assert found.equal
    assert not found.complete
    assert found.rows <= part.ticks < reference.ticks
    assert "has not ended: compared is what its tasks have committed" in found.notes[0]
    # Its last line belongs to what was committed: without it, something is missing.
    topic = "streambot.part.pnl"
    values = []
    asyncio.run(rewrite(servers, topic, lambda _, value: values.append(value) or [value]))
    last = max(values, key=lambda value: json.loads(value.splitlines()[-1])["ts_event"])

    def cut(_: int, value: bytes) -> list[bytes]:
        lines = value.splitlines(keepends=True)
        return [b"".join(lines[:-1])] if value == last else [value]

    asyncio.run(rewrite(servers, topic, cut))
    found = verified(folder, servers, "part")
    assert not found.equal
    assert found.difference.stream == "pnl"
    gone = json.loads(last.splitlines()[-1])
    assert json.loads(found.difference.expected) == gone
    assert found.difference.instrument == gone["instrument"]


def test_what_was_altered_in_a_topic_is_named(folder, servers):
    run(folder, run="altered", partitions="2", **on_kafka(servers))
    topic = "streambot.altered.fills"
    seen = []

    def alter(number: int, value: bytes) -> list[bytes]:
        if number == 1:
            first, *rest = value.splitlines(keepends=True)
            seen.append(json.loads(first))
            return [b"".join([first.replace(b'"seq":', b'"seq": '), *rest])]
        return [value]

    asyncio.run(rewrite(servers, topic, alter))
    found = verified(folder, servers, "altered")
    assert not found.equal
    [row] = seen
    assert (found.difference.instrument, found.difference.line) == (
        row["instrument"], row["seq"] + 1,
    )  # fmt: skip
    assert found.difference.where.startswith(topic)
    assert json.loads(found.difference.found) == json.loads(found.difference.expected) == row

    run(folder, run="repeated", partitions="2", **on_kafka(servers))
    topic = "streambot.repeated.fills"
    asyncio.run(rewrite(servers, topic, lambda n, v: [v, v] if n == 0 else [v]))
    found = verified(folder, servers, "repeated")
    assert not found.equal, "where there are transactions, a repeat is one too many"
    assert found.repeats > 0

    run(folder, run="cut", partitions="2", **on_kafka(servers))
    asyncio.run(rewrite(servers, "streambot.cut.ticks", lambda n, v: [] if n == 0 else [v]))
    with pytest.raises(SequenceGapError):
        verified(folder, servers, "cut")
    with pytest.raises(SequenceGapError):
        again(folder, servers, "cut")


def test_what_nobody_executed_is_no_run_to_compare_but_one_to_replay(folder, servers, reference):
    wanted = settings(folder, run="published", **on_kafka(servers, partitions="2"))
    asyncio.run(run_publishing(wanted, SilentObserver(), StopRequest(), folder))
    with pytest.raises(UsageError, match="was not executed yet"):
        verified(folder, servers, "published")
    assert again(folder, servers, "published").digest == reference.digest


@pytest.mark.parametrize("free", [False, True])
def test_orders_from_outside_come_out_again(folder, servers, reference, free):
    name = f"outside-{free}".lower()
    flags = {"agents": "me", "speed": "max", "partitions": "2"}
    if free:
        flags |= {"free_run": "true", "speed": "60x"}
    told, controls = Told(), ReplayControls()

    def faster(records: int) -> None:
        """A free run waits for nobody: it goes slowly until the first order has arrived."""
        if free and told.records[-1][0] == "fills" and controls.speed == Speed(60):
            controls.apply(SetSpeed(id="faster", sender="test", speed="20000x"))

    told.at_record = faster

    async def both():
        actor = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "streambot.cli.main", "actor", "--run", name, "--agent", "me",
            "--policy", "random", "--bootstrap-servers", servers, "--wait", "60s", "--quiet",
            "--runs-dir", str(folder / "runs"), cwd=folder, env=_environment(),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            given = settings(folder, run=name, **on_kafka(servers, **flags))
            summary = await run_simulation(given, cwd=folder, observer=told, controls=controls)
            said, _ = await actor.communicate()
        finally:
            if actor.returncode is None:
                actor.kill()
                await actor.communicate()
        assert actor.returncode == 0, said.decode()
        return summary

    outside = asyncio.run(both())
    assert outside.fills > 0
    if not free:
        assert outside.digest == reference.digest
    found = verified(folder, servers, name)
    assert (found.equal, found.complete, found.orders) == (True, True, "recorded")
    assert found.digest == outside.digest
    for partitions in ("1", "3"):
        recorded = again(folder, servers, name, partitions=partitions)
        assert recorded.policy == "recorded"
        assert recorded.digest == outside.digest


def _environment() -> dict[str, str]:
    import os

    root = Path(__file__).resolve().parents[2]
    return os.environ | {"PYTHONPATH": str(root), "NO_COLOR": "1"}


async def test_all_ways_give_one_digest_and_leave_no_topic(folder, servers, reference):
    wanted = settings(folder, instruments=NAMES, broker="auto")
    found = await verify_ways(
        WaysToVerify(wanted, servers, quick=False, cwd=folder), lambda _: None, lambda _: None
    )
    assert [way for way in found.ways if not way.equal] == []
    assert found.equal
    assert {way.digest for way in found.ways} == {reference.digest}
    names = [way.way for way in found.ways]
    for words in (
        "paced",
        "embedded",
        "Apache Kafka at",
        "1 worker,",
        "2 workers,",
        "outside, on A",
    ):
        assert any(words in name for name in names), words
    assert not found.left_out
    async with await KafkaLog.open(servers) as log:
        assert not [name for name in await log.streams() if ".verify-" in name]
