"""`streambot topics` as far as no broker is asked: declarations, names, and mistakes."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from streambot.cli.topic_list import split_topic
from streambot.domain.topics import Of, bundled_topics, streams_of
from tests.unit.cli.run_folders import write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]

STREAMS = list(streams_of(bundled_topics(), Of.RUN))


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the embedded broker that has ended: four topics, one partition."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs", "one")


@pytest.mark.parametrize(
    ("topic", "namespace", "parts"),
    [
        ("streambot.r1.ticks", "streambot", ("streambot", "r1", "ticks")),
        ("streambot.r1.dead-letter", "streambot", ("streambot", "r1", "dead-letter")),
        ("streambot.a.b.ticks", "streambot", ("streambot", "a.b", "ticks")),
        ("my.space.r1.ticks", "my.space", ("my.space", "r1", "ticks")),
        ("other.r1.ticks", "streambot", None),
        ("other.r1.ticks", None, ("other", "r1", "ticks")),
        ("streambot.r1.tricks", "streambot", None),
        ("streambot.ticks", "streambot", None),
        ("streambot.ticks", None, None),
        ("ticks", None, None),
        ("__consumer_offsets", None, None),
        ("..ticks", None, None),
        ("streambot..ticks", "streambot", None),
    ],
)
def test_a_topic_belongs_to_the_run_in_its_name(topic, namespace, parts):
    assert split_topic(topic, namespace, STREAMS) == parts


def test_export_of_a_known_run_declares_its_topics(streambot: Invoke) -> None:
    said = streambot("topics", "export", "--run", "one", "--json")
    assert said.code == 0
    topics = [json.loads(line) for line in said.out.splitlines()]
    assert [one["topic"] for one in topics] == [
        f"streambot.one.{stream}" for stream in ("ticks", "orders", "fills", "pnl")
    ]
    assert {one["partitions"] for one in topics} == {1}
    assert topics[0]["settings"] == bundled_topics()["ticks"].kafka_settings()
    assert topics[0]["schema"] == "streambot.topic-declared/1"


def test_export_of_a_run_to_come_declares_every_stream(streambot: Invoke) -> None:
    said = streambot(
        "topics", "export", "--run", "new", "--partitions", "3", "--namespace", "sb",
        "--replication", "2", "--bootstrap-servers", "kafka.example:9093",
    )  # fmt: skip
    assert said.code == 0
    words = [shlex.split(line) for line in said.out.splitlines()]
    assert len(words) == len(STREAMS)
    assert words[0][:4] == [
        "kafka-topics.sh",
        "--bootstrap-server",
        "kafka.example:9093",
        "--create",
    ]
    by_name = dict(zip([line[line.index("--topic") + 1] for line in words], words, strict=True))
    ticks = by_name["sb.new.ticks"]
    assert ticks[ticks.index("--partitions") + 1] == "3"
    assert ticks[ticks.index("--replication-factor") + 1] == "2"
    assert "retention.ms=-1" in ticks
    assert "cleanup.policy=compact" in by_name["sb.new.state"]
    status = by_name["sb.new.status"]
    assert status[status.index("--partitions") + 1] == "1"


def test_export_without_partitions_says_which_it_took(streambot: Invoke) -> None:
    said = streambot("topics", "export", "--run", "new")
    assert "4 partitions, the default" in said.err
    assert "--bootstrap-server HOST:9092" in said.out


def test_topics_of_the_working_folder_are_the_declarations(
    streambot: Invoke, tmp_path: Path
) -> None:
    text = "topics:\n  ticks: {value: frame, writer: replay, time: event, retention: forever}\n"
    (tmp_path / "topics.yaml").write_text(text)
    said = streambot("topics", "export", "--run", "new", "--json", "--partitions", "1")
    assert [json.loads(line)["stream"] for line in said.out.splitlines()] == ["ticks"]
    said = streambot("topics", "export", "--run", "one")
    assert said.code == 3
    assert "topics.yaml: declares no stream `orders`" in said.err


def test_a_finite_retention_in_topics_yaml_is_refused_at_its_line(
    streambot: Invoke, tmp_path: Path
) -> None:
    text = "topics:\n  ticks:\n    value: frame\n    writer: replay\n    time: event\n    retention: 7d\n"
    (tmp_path / "topics.yaml").write_text(text)
    said = streambot("topics", "plan", "--run", "new", "--bootstrap-servers", "127.0.0.1:1")
    assert said.code == 3
    assert "topics.yaml:6" in said.err
    assert "delete historical data at once" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("plan",), 5, "went with its embedded broker"),
        (("plan", "--run", "on"), 2, "did you mean `one`"),
        (("plan", "--run", "a/b"), 2, "is no name"),
        (("plan", "--run", "one", "--partitions", "3"), 2, "has 1 partition, and keeps them"),
        (("plan", "--run", "one", "--namespace", "x"), 2, "has other topics"),
        (("plan", "--partitions", "many"), 2, "--partitions"),
        (("apply", "--bootstrap-servers", "127.0.0.1"), 2, "no broker address"),
        (("apply", "--bootstrap-servers", "127.0.0.1:1"), 5, "no broker answers"),
        (("ls",), 2, "which broker?"),
        (("ls", "--bootstrap-servers", "127.0.0.1:1"), 5, "no broker answers"),
        (("export", "--format", "jsn"), 2, "did you mean `json`"),
        (("export", "--run", "r" * 60, "--namespace", "n" * 65), 2, "--namespace"),
        (("plan", "--apply"), 2, "no such option"),
    ],
)
def test_mistakes(streambot: Invoke, arguments: tuple[str, ...], code: int, says: str) -> None:
    said = streambot("topics", *arguments)
    assert said.code == code, said.err
    assert says in said.err.lower()
    assert said.out == ""
    assert "Traceback" not in said.err


def test_streams_that_stayed_in_a_process_have_no_topics(streambot: Invoke, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "inside", broker="in-process", started="2026-11-25T20:00:00Z")
    said = streambot("topics", "plan")
    assert said.code == 5
    assert "stayed inside its own process" in said.err


def test_no_run_at_all(streambot: Invoke, tmp_path: Path) -> None:
    said = streambot("topics", "plan", "--runs-dir", str(tmp_path / "none"))
    assert said.code == 2
    assert "there is no run yet" in said.err
