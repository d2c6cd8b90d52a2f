"""Where a run's streams live follows from its size and what was asked for."""

import msgspec
import pytest

from streambot.domain.config import BrokerChoice, SimulationConfig
from streambot.domain.errors import ConfigError, TopicError
from streambot.streams.memory import MemoryLog
from streambot.wiring.places import (
    ALL_STREAMS,
    EMBEDDED_LIMIT,
    SHARED_STREAMS,
    Place,
    choose,
    create_streams,
    topic_names,
)
from tests.unit.processor.market import Market

SMALL, LARGE = 1 << 20, EMBEDDED_LIMIT + 1


def test_a_small_run_takes_the_embedded_broker():
    assert choose(SimulationConfig(), SMALL) == (BrokerChoice.EMBEDDED, None)


def test_a_large_run_stays_in_the_process_and_says_so():
    kind, told = choose(SimulationConfig(), LARGE)
    assert kind is BrokerChoice.IN_PROCESS
    assert "1.0 GiB" in told


def test_the_embedded_broker_is_not_filled_against_better_knowledge():
    with pytest.raises(ConfigError, match="in memory"):
        choose(SimulationConfig(broker=BrokerChoice.EMBEDDED), LARGE)


def test_kafka_takes_any_size():
    config = SimulationConfig(bootstrap_servers="localhost:9092")
    assert choose(config, LARGE) == (None, None)


def test_topics_are_named_by_namespace_run_and_stream(tmp_path):
    names = topic_names(SimulationConfig(namespace="sb"), "mine", tmp_path)
    assert names["fills"] == "sb.mine.fills"
    assert set(names) == set(ALL_STREAMS)
    with pytest.raises(ConfigError):
        topic_names(SimulationConfig(namespace="n" * 240), "mine", tmp_path)


@pytest.mark.parametrize("broken", ["partitions: 3", "time: wall"])
def test_topics_that_would_tear_a_run_apart_are_refused(tmp_path, broken):
    text = "topics:\n"
    for stream in ALL_STREAMS:
        lines = {"partitions": "partitions: run", "time": "time: event"}
        if stream == "fills":
            lines[broken.partition(":")[0]] = broken
        settings = ", ".join(
            ["value: ndjson", "writer: engine", "retention: forever", *lines.values()]
        )
        if stream in SHARED_STREAMS:
            lines = {"partitions": "partitions: 1", "time": "time: event"}
        text += f"  {stream}: {{{settings}}}\n"
    (tmp_path / "topics.yaml").write_text(text)
    with pytest.raises(ConfigError, match="split alike"):
        topic_names(SimulationConfig(), "mine", tmp_path)


async def test_topics_with_records_of_an_earlier_run_are_not_mixed(tmp_path):
    manifest = Market().manifest(run="mine")
    config = SimulationConfig()
    log = MemoryLog()
    place = Place(log, "x", False, True, True, False, "")
    await create_streams(place, config, manifest, tmp_path, resumed=False)
    await create_streams(place, config, manifest, tmp_path, resumed=False)
    sink = await log.sink()
    await sink.append("streambot.mine.fills", 1, b"{}\n", timestamp_ms=0)
    with pytest.raises(TopicError, match="earlier run"):
        await create_streams(place, config, manifest, tmp_path, resumed=False)
    await create_streams(place, config, manifest, tmp_path, resumed=True)
    other = msgspec.structs.replace(manifest, partitions=5)
    with pytest.raises(TopicError, match="partitions"):
        await create_streams(place, config, other, tmp_path, resumed=True)
