"""What is on the `policy` stream: torn and foreign records are counted, pins name what they keep."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")

from streambot.agents.checkpoint import read_head
from streambot.domain.errors import DataError, StreamError, TopicError
from streambot.learning import published
from streambot.learning.declaration import Training, declare_training
from streambot.learning.published import (
    ENVELOPE,
    asked_of,
    declared_trainings,
    look,
    pin,
    read_seen,
    read_shelf,
)
from streambot.learning.weights import _ENVELOPE, decode_weights
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import StreamSpec, TopicPartition
from tests.served import AT_MS, ENV, begin, trained, training_of, weights_of, write
from tests.trained import save_loud

pytestmark = pytest.mark.train
RUNS = "streambot.moe-1.runs"


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_PAUSE_S", 0.01)


def torn(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


def test_a_head_is_read_without_torch_as_it_is_with_it() -> None:
    record = weights_of(training_of(), 5)
    seen, _ = ENVELOPE.open(record)
    whole = decode_weights(record).head
    assert (seen.training, seen.policy, seen.sequence) == ("moe-1", "main", 5)
    for field in seen.head.__struct_fields__:
        ours, theirs = getattr(seen.head, field), getattr(whole.head, field)
        if field == "agent":
            for part in ours.__struct_fields__:
                assert getattr(ours, part) == getattr(theirs, part)
        else:
            assert ours == theirs
    assert ENVELOPE[0] == _ENVELOPE[0]
    assert ENVELOPE[2:] == _ENVELOPE[2:]


def test_a_checkpoint_is_read_alike(tmp_path: Path) -> None:
    folder = save_loud(tmp_path / "best", env=ENV, progress={"updates": 9})
    seen, whole = read_seen(folder), read_head(folder)
    assert (seen.digest, seen.kind, seen.progress) == (whole.digest, whole.kind, whole.progress)
    assert seen.agent.layout == whole.agent.layout
    (folder / "checkpoint.json").write_text("{")
    with pytest.raises(DataError, match="no checkpoint"):
        read_seen(folder)
    with pytest.raises(DataError, match="no checkpoint: No such file"):
        read_seen(tmp_path)


async def test_what_is_torn_or_foreign_is_counted_and_left(log: MemoryLog) -> None:
    training = await trained(log, 4)
    other = training_of("moe-2")
    strange = ENV | {"window": 5}
    await write(
        log, training,
        torn(weights_of(training, 5)),
        weights_of(other, 6),
        weights_of(training, 7, env=strange),
        weights_of(training, 8, policy="other"),
        b"SBW0" + weights_of(training, 9)[4:],
        b"",
    )  # fmt: skip
    await write(log, training, weights_of(training, 3), key=b"main@2")
    await write(log, training, weights_of(training, 99), key=b"other")
    shelf = await look(log, RUNS)
    assert shelf is not None
    assert shelf.newest is not None
    assert shelf.newest.sequence == 4
    assert shelf.refused == {"crc": 1, "foreign": 4, "magic": 1, "length": 1}
    assert not shelf.pins


async def test_the_highest_sequence_is_the_newest_and_of_one_the_last(log: MemoryLog) -> None:
    """A learner that goes on from a checkpoint publishes updates again that it had published."""
    training = await trained(log, 8, 9)
    again = weights_of(training, 9, wanted=5)
    await write(log, training, weights_of(training, 8), again)
    shelf = await look(log, RUNS, 9)
    assert shelf is not None
    assert shelf.newest is not None
    assert shelf.newest.value == again
    assert shelf.asked == shelf.newest


async def test_what_is_not_there_is_told_with_what_is(log: MemoryLog) -> None:
    training = await trained(log)
    shelf = await look(log, RUNS, wait_s=0.1)
    assert shelf is not None
    with pytest.raises(TopicError, match="has not published weights yet"):
        asked_of(shelf, None)
    await write(log, training, torn(weights_of(training, 5)))
    shelf = await look(log, RUNS)
    assert shelf is not None
    with pytest.raises(StreamError, match="no weights of training moe-1 can be used: crc 1"):
        asked_of(shelf, None)
    await write(log, training, weights_of(training, 5), weights_of(training, 6))
    assert await pin(log, RUNS, None) is not None
    with pytest.raises(TopicError, match="no weights 7") as caught:
        await pin(log, RUNS, 7)
    assert "weights on the log: 5 to 6; pinned: 6" in caught.value.hint
    assert await look(log, "streambot.nobody.runs") is None
    assert await pin(log, "streambot.nobody.runs", None) is None


async def test_a_pin_outlives_its_weights_and_is_not_written_twice(log: MemoryLog) -> None:
    """What compaction leaves: the newest weights, and the pins."""
    training = await trained(log, 1, 2)
    for _ in range(2):
        assert await pin(log, RUNS, 1)
    topic = training.topics["policy"]
    assert await log.end_offsets(topic) == [3]
    source = await log.source({TopicPartition(topic, 0): "beginning"})
    kept = [r for r in await source.read() if r.key == b"main@1"]
    await source.close()
    await log.delete([topic])
    await log.create([StreamSpec(name=topic)])
    await write(log, training, kept[0].value, key=b"main@1")
    await write(log, training, weights_of(training, 2))
    shelf = await look(log, RUNS, 1)
    assert shelf is not None
    assert asked_of(shelf, 1).value == weights_of(training, 1)
    assert asked_of(shelf, 1).pinned


async def test_other_weights_are_not_pinned_in_the_place_of_those_that_are(log: MemoryLog) -> None:
    training = await trained(log, 3)
    assert await pin(log, RUNS, None)
    await write(log, training, weights_of(training, 3, wanted=7))
    same = await pin(log, RUNS, None)
    assert same is not None, "the same weights, whatever else their header says"
    assert not same.new
    from tests.trained import loud_agent

    await write(log, training, weights_of(training, 3, agent=loud_agent(seed=77, env=ENV)))
    with pytest.raises(TopicError, match="other weights are pinned as 3 already"):
        await pin(log, RUNS, None)


async def test_a_pin_that_a_newer_generation_has_missed_is_written_there(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = training_of(topics=training_of().topics | {"policy": "streambot.moe-1.policy.g0000"})
    await begin(log, before)
    await write(log, before, weights_of(before, 5))
    after = msgspec.structs.replace(
        before, topics=before.topics | {"policy": "streambot.moe-1.policy.g0001"}
    )
    writes = published._write

    async def rolled(log: MemoryLog, training: Training, weights: published.Published) -> None:
        await writes(log, training, weights)
        if training == before:
            await log.create([StreamSpec(name=after.topics["policy"])])
            await write(log, after, weights_of(after, 6))
            await declare_training(log, after, at_ms=AT_MS)

    monkeypatch.setattr(published, "_write", rolled)
    assert await pin(log, RUNS, 5)
    shelf = await read_shelf(log, after)
    assert list(shelf.pins) == [5]


async def test_trainings_of_a_namespace_are_found_and_no_runs(log: MemoryLog) -> None:
    one, two = await trained(log, 1), await trained(log, 1, name="moe-2")
    await trained(log, 1, name="moe-3", namespace="elsewhere")
    await log.create([StreamSpec(name="streambot.r.runs"), StreamSpec(name="streambot.r.ticks")])
    broken = training_of("moe-4")
    await begin(log, broken)
    sink = await log.sink()
    await sink.append(broken.topics["runs"], 0, b"{}", timestamp_ms=0, key=b"training")
    await sink.close()
    found = await declared_trainings(log, "streambot")
    assert found.trainings == {"moe-1": one, "moe-2": two}
    assert list(found.unreadable) == ["moe-4"]
