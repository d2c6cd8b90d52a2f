"""`streambot tail experience` beside a training on the embedded broker, through its generations."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.kafka import EMBEDDED, KafkaLog
from streambot.learning.declaration import RUNS, State, Training, declare_training, generation
from streambot.processor.run_state import RunState
from streambot.streams.fragment import encode_fragment
from streambot.streams.ports import StreamSpec
from tests.integration.cli.conftest import Ended, Run, Start, end
from tests.unit.cli.run_folders import write_run
from tests.unit.streams.test_fragment import made

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.integration
AT_MS = 1_795_552_265_250
STREAM = "streambot.t1.experience"
TOPICS = {"experience": generation(STREAM, 0), "policy": generation("streambot.t1.policy", 0)}


class Writer:
    """Actors of the training, so to say."""

    def __init__(self, log: KafkaLog) -> None:
        self.log = log
        self._written = 0

    async def open(self, number: int) -> None:
        await self.log.create([StreamSpec(name=generation(STREAM, number))])

    async def delete(self, number: int) -> None:
        await self.log.delete([generation(STREAM, number)])

    async def write(self, number: int, count: int, value: bytes | None = None) -> None:
        """Write fragments, numbered on and on, to a generation."""
        sink = await self.log.sink()
        for _ in range(count):
            fragment = encode_fragment(made(sequence=self._written, weights=self._written // 2))
            await sink.append(
                generation(STREAM, number), 0, value or fragment, timestamp_ms=AT_MS, key=b"a"
            )
            self._written += value is None
        await sink.close()


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
async def writer(broker: EmbeddedBroker) -> AsyncIterator[Writer]:
    async with await KafkaLog.open(broker.address, profile=EMBEDDED) as log:
        writer = Writer(log)
        await writer.open(0)
        yield writer


@contextmanager
def training(folder: Path, broker: EmbeddedBroker) -> Iterator[Path]:
    """The folder of a training that goes as long as the context does."""
    path = write_run(
        folder / "runs", "t1", kind="training", topics=TOPICS, broker=broker.address,
        state=RunState.RUNNING, summary=False,
    )  # fmt: skip
    with (path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def rows(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def read_lines(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def sequences(found: list[dict[str, Any]]) -> list[int]:
    return [row["sequence"] for row in found]


async def test_what_there_is_over_all_generations(
    run: Run, writer: Writer, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await writer.write(0, 3)
    await writer.write(0, 1, b"no fragment at all")
    await writer.open(1)
    await writer.write(1, 2)
    with training(tmp_path, broker):
        tail = ("tail", "experience", "--no-follow", "--json")
        found = rows(run(*tail, "--from", "beginning"))
        assert [row.get("sequence") for row in found] == [0, 1, 2, None, 3, 4]
        assert (found[3]["refused"], found[3]["offset"]) == ("magic", 3)
        assert sequences(rows(run(*tail, "-n", "2"))) == [3, 4]
        assert len(rows(run(*tail, "-n", "4"))) == 4
        assert sequences(rows(run(*tail, "--where", "weights == 1"))) == [2, 3]
        seen = run("tail", "experience", "--no-follow", "-n", "3")
        assert (seen.code, len(seen.out.splitlines())) == (0, 4), seen
        assert "no fragment (magic)" in seen.out
        assert "Traceback" not in seen.err


async def test_it_follows_through_generations_and_ends_with_the_training(
    start: Start, writer: Writer, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """A newer one is opened, the older is still written to, and deleted; then the next."""
    await writer.write(0, 2)
    with training(tmp_path, broker) as path:
        tail = start("tail", "experience", "--json", "--from", "beginning")
        found = read_lines(tail, 2)
        await writer.open(1)
        await writer.write(1, 2)
        await writer.write(0, 1)
        found += read_lines(tail, 3)
        await writer.delete(0)
        await writer.open(2)
        await writer.delete(1)
        await writer.write(2, 2)
        found += read_lines(tail, 2)
        record = msgspec.json.decode((path / "run.json").read_bytes())
        (path / "run.json").write_bytes(msgspec.json.encode(record | {"state": "complete"}))
        await writer.write(2, 1)
    ended = end(tail)
    assert sorted(sequences(found + rows(ended))) == list(range(8))
    assert ended.err == "training t1: complete, 8 shown\n"


async def test_the_broker_goes_with_the_training(
    start: Start, writer: Writer, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await writer.write(0, 2)
    with training(tmp_path, broker):
        tail = start("tail", "experience", "--json")
        assert sequences(read_lines(tail, 2)) == [0, 1]
        await writer.log.close()
        await broker.stop()
    ended = end(tail)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "training t1: killed, 2 shown\n"


async def test_a_training_that_was_started_elsewhere(
    run: Run, start: Start, writer: Writer, broker: EmbeddedBroker
) -> None:
    """Its declaration says where its streams are, and when it has ended."""
    servers = ("--bootstrap-servers", broker.address)
    tail = ("tail", "experience", "--no-follow", "--json", *servers)
    none = run(*tail)
    assert none.code == 6
    assert "no training is declared" in none.err
    await writer.write(0, 3)
    topics = TOPICS | {RUNS: "streambot.t1.runs"}
    await writer.log.create([StreamSpec(name=topics[name]) for name in (RUNS, "policy")])
    about = Training(
        namespace="streambot", training="t1", policy="moe", topics=topics, layout="", seed=0,
        request=msgspec.Raw(b"{}"), data="", envs=1, rollout=1,
    )  # fmt: skip
    await declare_training(writer.log, about, at_ms=AT_MS)
    for asked in ((), ("--run", "t1")):
        found = run(*tail, *asked)
        assert sequences(rows(found)) == [0, 1, 2]
    other = run(*tail, "--run", "t2")
    assert other.code == 6
    assert "no training t2 is declared" in other.err
    following = start("tail", "experience", "--json", *servers)
    assert sequences(read_lines(following, 3)) == [0, 1, 2]
    await writer.write(0, 1)
    ended = msgspec.structs.replace(about, state=State.STOPPED)
    await declare_training(writer.log, ended, at_ms=AT_MS)
    followed = end(following)
    assert sequences(rows(followed)) == [3]
    assert followed.err == "training t1: its learner has ended, 4 shown\n"
