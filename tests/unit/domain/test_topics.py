"""`topics.yaml`: what every stream is, and the one mistake that would lose history."""

from __future__ import annotations

import pytest

from streambot.domain.errors import ConfigError
from streambot.domain.topics import (
    Cleanup,
    Of,
    TimeKind,
    TopicTemplate,
    bundled_topics,
    find_topics,
    read_topics,
    streams_of,
)
from streambot.domain.yaml_positions import safe_load_positions

GOOD = "topics:\n  fills:\n    value: ndjson\n    writer: engine\n    time: event\n    retention: forever\n"


def read(text: str) -> dict[str, TopicTemplate]:
    return read_topics(safe_load_positions(text, name="topics.yaml"))


def test_the_bundled_streams():
    topics = bundled_topics()
    assert list(topics) == [
        "ticks",
        "orders",
        "accepted",
        "fills",
        "pnl",
        "state",
        "late",
        "dead-letter",
        "experience",
        "policy",
        "status",
        "control",
        "runs",
        "portfolio",
        "alerts",
    ]
    assert topics["ticks"].topic("streambot", "run-1") == "streambot.run-1.ticks"
    # the last record of every key is what they are for, so only they lose the ones before
    compacted = {s for s, t in topics.items() if t.cleanup is Cleanup.COMPACT}
    assert compacted == {"state", "policy", "runs"}
    # ticks, orders and outputs are joined by partition: their counts must be equal
    counts = {s: topics[s].partition_count(3) for s in ("ticks", "orders", "fills", "pnl")}
    assert set(counts.values()) == {3}
    # what is about the whole run stands in one partition, and everything else is split as it is
    alone = {"experience", "policy", "status", "control", "runs", "portfolio", "alerts"}
    assert {s: t.partition_count(3) for s, t in topics.items()} == {
        s: 1 if s in alone else 3 for s in topics
    }
    wall = {s for s, t in topics.items() if t.time is TimeKind.WALL}
    assert wall == {"experience", "policy", "status", "control", "runs"}
    training = streams_of(topics, Of.TRAINING)
    assert list(training) == ["experience", "policy", "status", "runs"]
    assert set(streams_of(topics, Of.RUN)) == set(topics) - {"experience", "policy"}


def test_streams_of_event_time_are_kept_whatever_their_timestamps_say():
    """Of wall time, what a run is stays as long as the run; what it was told goes after a week."""
    week = str(7 * 86_400_000)
    wall = {"status": week, "control": week, "experience": week, "policy": "-1", "runs": "-1"}
    for stream, template in bundled_topics().items():
        settings = template.kafka_settings()
        if template.time is TimeKind.EVENT:
            assert settings["retention.ms"] == "-1"
            assert settings["retention.bytes"] == "-1"
            assert settings["message.timestamp.type"] == "CreateTime"
            assert int(settings["segment.ms"]) > 99 * 365 * 86_400_000
            assert int(settings["message.timestamp.after.max.ms"]) == 2**63 - 1
        else:
            assert settings["retention.ms"] == wall[stream], stream
            assert "segment.ms" not in settings


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        (("forever", "7d"), "6:topics.fills.retention", "delete historical data"),
        (("forever", "week"), "6:topics.fills.retention", "no duration"),
        (("event", "evnt"), "5:topics.fills.time", "unknown value"),
        (("ndjson", "yaml"), "3:topics.fills.value", "unknown value"),
        (("writer", "writr"), "4:topics.fills.writr", "unknown key"),
        (("writer: engine", "writer: [a, b]"), "4:topics.fills.writer", "expected text"),
        (("    writer: engine\n", ""), "2:topics.fills", "`writer` is missing"),
        (("fills", "my.fills"), "2:topics.my.fills", "no name of a stream"),
        (("fills", "../fills"), "2:topics.../fills", "no name of a stream"),
        (("topics", "topic"), "1:topic", "unknown key"),
    ],
)
def test_a_mistake_is_told_at_its_line_and_key(change, where, says):
    with pytest.raises(ConfigError) as caught:
        read(GOOD.replace(*change))
    assert caught.value.where == f"topics.yaml:{where}"
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("extra", "key", "says"),
    [
        ("partitions: 0", "partitions", "at least 1"),
        ("partitions: many", "partitions", "whole number"),
        ("partitions: 1.5", "partitions", "got `1.5`"),
        ("cleanup: compact", "cleanup", "needs a `key`"),
        ("settings: {retention.ms: 5}", "settings", "cannot hold"),
        ("settings: {segment.byte: 5}", "settings", "`segment.bytes`"),
        ("key: symbol", "key", "unknown value"),
    ],
)
def test_a_mistake_in_a_further_field(extra, key, says):
    with pytest.raises(ConfigError) as caught:
        read(f"{GOOD}    {extra}\n")
    assert caught.value.where == f"topics.yaml:7:topics.fills.{key}"
    assert says in caught.value.message


def test_what_a_topic_may_set_besides():
    one = read(f"{GOOD}    partitions: 2\n    settings: {{max.message.bytes: 4194304}}\n")["fills"]
    assert one.partition_count(9) == 2
    assert one.kafka_settings()["max.message.bytes"] == "4194304"


def test_a_topic_name_stays_below_kafka_s_limit():
    with pytest.raises(ValueError, match="longer"):
        read(GOOD)["fills"].topic("n" * 200, "r" * 60)


def test_topics_of_the_working_folder_win_over_the_bundled_ones(tmp_path):
    assert find_topics(None, tmp_path) == bundled_topics()
    (tmp_path / "topics.yaml").write_text(GOOD)
    assert list(find_topics(None, tmp_path)) == ["fills"]
    with pytest.raises(ConfigError):
        find_topics(tmp_path / "missing.yaml", tmp_path)
