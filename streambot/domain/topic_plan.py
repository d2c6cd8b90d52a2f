"""What a run's topics should be, what they are, and how the two differ.

Only what `topics.yaml` declares is compared; what else is set on a topic is named, and left alone: it
may be an administrator's. A topic of event time must keep everything, because Kafka counts retention
from market time: that difference, and others by which records are lost, are called destructive.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.topics import TimeKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.domain.topics import TopicTemplate

_FOREVER = "-1"
_COMPACT = "compact"


class DeclaredTopic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as `topics.yaml` declares it for one run."""

    stream: str
    topic: str
    partitions: int
    settings: dict[str, str]
    event_time: bool = False


class FoundSetting(NamedTuple):
    """A setting of a topic on a broker. `own`: set on the topic itself, not by the broker's defaults."""

    value: str
    own: bool


class FoundTopic(NamedTuple):
    """A topic as a broker tells it. `settings`: None where it does not tell."""

    partitions: int
    settings: Mapping[str, FoundSetting] | None


class What(StrEnum):
    """Kinds of differences."""

    MISSING = "missing"
    PARTITIONS = "partitions"
    SETTING = "setting"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference.

    Attributes:
        what: kind of it.
        stream, topic: where.
        name: the setting; `partitions`; empty for a topic that is missing.
        declared, found: the two values; empty where there is none.
        destructive: records are lost by it.
        why: what it does to the records; empty where that is obvious or harmless.
    """

    what: What
    stream: str
    topic: str
    name: str = ""
    declared: str = ""
    found: str = ""
    destructive: bool = False
    why: str = ""


class TopicPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Declared topics beside those of a broker.

    Attributes:
        declared: all of them, in their order.
        differences: in the order of the topics.
        untold: topics of which the broker does not tell the settings.
        besides: (topic, setting, value) set on the topics and not declared.
    """

    declared: tuple[DeclaredTopic, ...]
    differences: tuple[Difference, ...]
    untold: tuple[str, ...] = ()
    besides: tuple[tuple[str, str, str], ...] = ()

    @property
    def equal(self) -> bool:
        """True where nothing differs."""
        return not self.differences

    @property
    def immovable(self) -> tuple[Difference, ...]:
        """Differences that no command can take away: counts of partitions."""
        return tuple(d for d in self.differences if d.what is What.PARTITIONS)

    @property
    def missing(self) -> tuple[DeclaredTopic, ...]:
        """Topics to create."""
        names = {d.topic for d in self.differences if d.what is What.MISSING}
        return tuple(topic for topic in self.declared if topic.topic in names)

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """Settings to set, by topic."""
        wanted: dict[str, dict[str, str]] = {}
        for difference in self.differences:
            if difference.what is What.SETTING:
                wanted.setdefault(difference.topic, {})[difference.name] = difference.declared
        return wanted


def declare(
    templates: Mapping[str, TopicTemplate], topics: Mapping[str, str], run_partitions: int
) -> tuple[DeclaredTopic, ...]:
    """The topics of a run: `topics` has the name of each stream's topic, and which there are.

    Raises:
        KeyError: a stream that no template declares.
    """
    return tuple(
        DeclaredTopic(
            stream=stream,
            topic=topic,
            partitions=templates[stream].partition_count(run_partitions),
            settings=templates[stream].kafka_settings(),
            event_time=templates[stream].time is TimeKind.EVENT,
        )
        for stream, topic in topics.items()
    )


def compare(declared: Sequence[DeclaredTopic], found: Mapping[str, FoundTopic]) -> TopicPlan:
    """How the topics of a broker (`found`, by name) differ from the declared ones."""
    differences: list[Difference] = []
    untold: list[str] = []
    besides: list[tuple[str, str, str]] = []
    for topic in declared:
        there = found.get(topic.topic)
        if there is None:
            differences.append(
                Difference(what=What.MISSING, stream=topic.stream, topic=topic.topic)
            )
            continue
        if there.partitions != topic.partitions:
            differences.append(_partitions(topic, there.partitions))
        if there.settings is None:
            untold.append(topic.topic)
            continue
        for name, value in topic.settings.items():
            setting = there.settings.get(name)
            if setting is None or not _same(value, setting.value):
                differences.append(_setting(topic, name, value, setting))
        besides += [
            (topic.topic, name, setting.value)
            for name, setting in sorted(there.settings.items())
            if setting.own and name not in topic.settings
        ]
    return TopicPlan(
        declared=tuple(declared),
        differences=tuple(differences),
        untold=tuple(untold),
        besides=tuple(besides),
    )


def _partitions(topic: DeclaredTopic, found: int) -> Difference:
    why = (
        "partitions are never taken away: the records in them would go"
        if found > topic.partitions
        else "a run's instruments are mapped to its partitions when it starts, and stay there"
    )
    return Difference(
        what=What.PARTITIONS, stream=topic.stream, topic=topic.topic, name="partitions",
        declared=str(topic.partitions), found=str(found), why=why,
    )  # fmt: skip


def _setting(
    topic: DeclaredTopic, name: str, declared: str, found: FoundSetting | None
) -> Difference:
    value = found.value if found is not None else ""
    why, destructive = _harm(topic, name, declared, value) if found is not None else ("", False)
    return Difference(
        what=What.SETTING, stream=topic.stream, topic=topic.topic, name=name, declared=declared,
        found=value, destructive=destructive, why=why,
    )  # fmt: skip


def _harm(topic: DeclaredTopic, name: str, declared: str, found: str) -> tuple[str, bool]:
    """What the setting that was found does to records, and whether they are lost."""
    forever = declared == _FOREVER
    if name == "retention.ms" and forever and topic.event_time:
        return "Kafka counts it from market time and deletes historical records at once", True
    if name in {"retention.ms", "retention.bytes"} and forever:
        return "Kafka deletes the records beyond it", True
    if name == "cleanup.policy" and _COMPACT in found and _COMPACT not in declared:
        return "Kafka keeps only the last record of every key", True
    if name == "message.timestamp.type" and topic.event_time:
        return "the broker puts the time of arrival in the place of market time", True
    if name.startswith("message.timestamp.") and topic.event_time:
        return "Kafka refuses records whose market time is farther away than that", False
    return "", False


def _same(declared: str, found: str) -> bool:
    """Equal as text, as numbers, or as lists in any order."""
    if declared == found:
        return True
    if {part.strip() for part in declared.split(",")} == {
        part.strip() for part in found.split(",")
    }:
        return True
    try:
        return Decimal(declared) == Decimal(found)
    except InvalidOperation:
        return False
