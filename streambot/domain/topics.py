"""The streams of a run as templates: `topics.yaml` to `TopicTemplate`s, and to settings of topics.

A topic is called `<namespace>.<run>.<stream>`. Where record timestamps are event time, retention
must be `forever`: Kafka counts it from the timestamps and would delete historical data at once.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from streambot.domain.bundled import bundled_path
from streambot.domain.durations import parse_duration
from streambot.domain.errors import UsageError
from streambot.domain.suggest import did_you_mean
from streambot.domain.typed import build
from streambot.domain.yaml_positions import Document, safe_load_positions

if TYPE_CHECKING:
    from pathlib import Path

TOPICS_FILE = "topics.yaml"
FOREVER = "forever"
_ROOT = "topics"
_STREAM = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_MAX_TOPIC_NAME = 249  # Kafka's limit
_EVENT_TIME: Final = {
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": str(2**63 - 1),
    "message.timestamp.after.max.ms": str(2**63 - 1),
    # A segment rolls by the timestamps in it: a hundred years, so that only its size rolls it.
    "segment.ms": str(100 * 366 * 86_400_000),
}
_SETTABLE = (
    "compression.type", "delete.retention.ms", "flush.messages", "flush.ms", "max.compaction.lag.ms",
    "max.message.bytes", "min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas",
    "segment.bytes", "segment.index.bytes",
)  # fmt: skip


class TimeKind(StrEnum):
    """What the timestamp of a record is."""

    EVENT = "event"
    WALL = "wall"


class Cleanup(StrEnum):
    """What Kafka does with old records, as its `cleanup.policy`."""

    DELETE = "delete"
    COMPACT = "compact"


class ValueKind(StrEnum):
    """What a record holds."""

    FRAME = "frame"
    NDJSON = "ndjson"
    JSON = "json"
    SNAPSHOT = "snapshot"
    ORIGINAL = "original"
    FRAGMENT = "fragment"
    WEIGHTS = "weights"


class Key(StrEnum):
    """What records are keyed by."""

    NONE = "none"
    INSTRUMENT = "instrument"
    RECORD = "record"
    ACTOR = "actor"
    POLICY = "policy"


class Of(StrEnum):
    """What owns a stream."""

    RUN = "run"
    TRAINING = "training"
    BOTH = "both"


class PerRun(StrEnum):
    """A count that the run decides."""

    RUN = "run"


Word = Annotated[str, Meta(pattern=r"^[a-z][a-z-]{0,31}\Z")]


class TopicTemplate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stream, as every run has it.

    Attributes:
        stream: last part of the topic's name.
        value: what a record holds.
        writer: the one program that writes it.
        time: what the timestamps of its records are.
        retention: `forever` or a duration.
        partitions: a number, or the run's.
        of: what owns it: a run, a training, or each of them.
        key: what records are keyed by.
        cleanup: `delete` or `compact`.
        notes: for people.
        settings: further settings of a Kafka topic.
    """

    stream: str
    value: ValueKind
    writer: Word
    time: TimeKind
    retention: str
    partitions: Annotated[int, Meta(ge=1, le=1024)] | PerRun = PerRun.RUN
    of: Of = Of.RUN
    key: Key = Key.NONE
    cleanup: Cleanup = Cleanup.DELETE
    notes: str = ""
    settings: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.retention != FOREVER:
            try:
                finite = parse_duration(self.retention)
            except UsageError as error:
                raise ValueError(f"`retention`: {error.message}; or `{FOREVER}`") from error
            if self.time is TimeKind.EVENT:
                raise ValueError(
                    f"`retention` {self.retention} with event time: Kafka would delete "
                    f"historical data at once; use `{FOREVER}`"
                )
            if not finite:
                raise ValueError("`retention` of nothing keeps nothing")
        if self.cleanup is Cleanup.COMPACT and self.key is Key.NONE:
            raise ValueError("`cleanup` compact needs a `key`")
        for name, text in self.settings.items():
            if name not in _SETTABLE:
                raise ValueError(
                    f"`settings` cannot hold {name!r}; {did_you_mean(name, _SETTABLE)}"
                )
            if not text.isprintable() or len(text) > 100:
                raise ValueError(f"`settings` has no such value for {name}")

    def topic(self, namespace: str, run: str) -> str:
        """The name of this stream's topic.

        Raises:
            ValueError: longer than Kafka allows.
        """
        name = f"{namespace}.{run}.{self.stream}"
        if len(name) > _MAX_TOPIC_NAME:
            raise ValueError(f"the topic name {name!r} is longer than {_MAX_TOPIC_NAME} characters")
        return name

    def partition_count(self, run_partitions: int) -> int:
        """Partitions of this stream in a run that has `run_partitions`."""
        return run_partitions if isinstance(self.partitions, PerRun) else self.partitions

    @property
    def per_run(self) -> bool:
        """True where the stream is split as the run's instruments are."""
        return isinstance(self.partitions, PerRun)

    def kafka_settings(self) -> dict[str, str]:
        """The settings of the Kafka topic, by name, sorted."""
        forever = self.retention == FOREVER
        settings = {
            "cleanup.policy": self.cleanup.value,
            "retention.ms": "-1" if forever else str(parse_duration(self.retention) // 1_000_000),
            "retention.bytes": "-1",
            **(_EVENT_TIME if self.time is TimeKind.EVENT else {}),
            **self.settings,
        }
        return dict(sorted(settings.items()))


def streams_of(
    templates: dict[str, TopicTemplate], owner: Literal[Of.RUN, Of.TRAINING]
) -> dict[str, TopicTemplate]:
    """Those streams that a run, or a training, has."""
    return {name: one for name, one in templates.items() if one.of in {owner, Of.BOTH}}


def load_topics(path: Path) -> dict[str, TopicTemplate]:
    """The templates that the file at `path` declares, by stream, in the order of the file.

    Raises:
        ConfigError: unreadable or wrong, at `file:line:key`.
    """
    return read_topics(safe_load_positions(path))


def bundled_topics() -> dict[str, TopicTemplate]:
    """The templates that travel with streambot."""
    path = bundled_path(TOPICS_FILE)
    return read_topics(safe_load_positions(path, name=f"bundled {TOPICS_FILE}"))


def find_topics(explicit: Path | None, cwd: Path) -> dict[str, TopicTemplate]:
    """The templates to use: `explicit`, else `topics.yaml` in `cwd`, else the bundled ones.

    Raises:
        ConfigError: the first of the three that exists is wrong, or `explicit` does not exist.
    """
    if explicit is not None:
        return load_topics(explicit)
    local = cwd / TOPICS_FILE
    return load_topics(local) if local.exists() else bundled_topics()


def read_topics(document: Document) -> dict[str, TopicTemplate]:
    """The templates of a parsed `topics.yaml`.

    Raises:
        ConfigError: anything in it is wrong.
    """
    root = document.root.value
    if not isinstance(root, dict):
        raise document.error(f"expected `{_ROOT}:` and the streams below it")
    for key in root:
        if key != _ROOT:
            raise document.error(f"unknown key `{key}`", key, hint=did_you_mean(key, [_ROOT]))
    entries = root[_ROOT].value if _ROOT in root else None
    if not isinstance(entries, dict) or not entries:
        raise document.error("no streams are declared", _ROOT)
    templates: dict[str, TopicTemplate] = {}
    for stream in entries:
        if not _STREAM.match(stream):
            hint = "use small letters, digits and `-`: dots part the name of a topic"
            raise document.error(
                f"`{stream[:60]}` is no name of a stream", _ROOT, stream, hint=hint
            )
        templates[stream] = build(document, TopicTemplate, _ROOT, stream, stream=stream)
    return templates
