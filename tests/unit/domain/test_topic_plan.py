"""Declared topics beside those of a broker: every difference is found, and what loses records is called so."""

from __future__ import annotations

import pytest

from streambot.domain.topic_plan import (
    DeclaredTopic,
    Difference,
    FoundSetting,
    FoundTopic,
    TopicPlan,
    What,
    compare,
    declare,
)
from streambot.domain.topics import bundled_topics

TEMPLATES = bundled_topics()
NAMES = {stream: template.topic("streambot", "r1") for stream, template in TEMPLATES.items()}
DECLARED = declare(TEMPLATES, NAMES, 3)


def as_declared(**changes: FoundTopic | None) -> dict[str, FoundTopic]:
    """A broker that has every topic as it should be, but for the streams in `changes`."""
    found = {}
    for topic in DECLARED:
        settings = {name: FoundSetting(value, True) for name, value in topic.settings.items()}
        there = changes.get(topic.stream.replace("-", "_"), FoundTopic(topic.partitions, settings))
        if there is not None:
            found[topic.topic] = there
    return found


def of(stream: str) -> DeclaredTopic:
    return next(topic for topic in DECLARED if topic.stream == stream)


def with_settings(stream: str, **changes: str) -> FoundTopic:
    settings = of(stream).settings | {n.replace("_", "."): v for n, v in changes.items()}
    return FoundTopic(
        of(stream).partitions, {n: FoundSetting(value, True) for n, value in settings.items()}
    )


def the_one(plan: TopicPlan) -> Difference:
    (difference,) = plan.differences
    return difference


def test_a_broker_as_declared_differs_in_nothing():
    plan = compare(DECLARED, as_declared())
    assert plan.equal
    assert (plan.missing, plan.settings, plan.immovable, plan.besides) == ((), {}, (), ())


def test_an_empty_broker_misses_everything():
    plan = compare(DECLARED, {})
    assert plan.missing == DECLARED
    assert {d.what for d in plan.differences} == {What.MISSING}


def test_what_is_not_of_the_run_is_nobodys_business_here():
    found = as_declared() | {"streambot.r2.ticks": FoundTopic(9, {}), "other": FoundTopic(1, None)}
    assert compare(DECLARED, found).equal


@pytest.mark.parametrize("count", [1, 7])
def test_another_count_of_partitions_cannot_be_mended(count):
    plan = compare(DECLARED, as_declared(pnl=with_settings("pnl")._replace(partitions=count)))
    assert plan.immovable == plan.differences
    difference = the_one(plan)
    assert (difference.stream, difference.declared, difference.found) == ("pnl", "3", str(count))
    assert ("taken away" if count > 3 else "mapped") in difference.why


@pytest.mark.parametrize(
    ("stream", "setting", "value", "says"),
    [
        ("ticks", "retention_ms", "604800000", "historical records at once"),
        ("fills", "retention_ms", "0", "historical records at once"),
        ("runs", "retention_ms", "86400000", "deletes"),
        ("ticks", "retention_bytes", "1000000", "deletes"),
        ("orders", "cleanup_policy", "compact", "last record of every key"),
        ("orders", "cleanup_policy", "compact,delete", "last record of every key"),
        ("ticks", "message_timestamp_type", "LogAppendTime", "time of arrival"),
    ],
)
def test_what_loses_records_is_destructive(stream, setting, value, says):
    plan = compare(DECLARED, as_declared(**{stream: with_settings(stream, **{setting: value})}))
    difference = the_one(plan)
    assert difference.destructive
    assert says in difference.why
    assert difference.found == value


@pytest.mark.parametrize(
    ("stream", "setting", "value"),
    [
        ("status", "retention_ms", "-1"),  # keeps more than it has to
        ("status", "retention_ms", "86400000"),  # a stream of a week may be one of a day
        ("ticks", "segment_ms", "604800000"),
        ("state", "cleanup_policy", "delete"),
        ("ticks", "message_timestamp_after_max_ms", "3600000"),
    ],
)
def test_what_only_differs_is_not(stream, setting, value):
    plan = compare(DECLARED, as_declared(**{stream: with_settings(stream, **{setting: value})}))
    assert not the_one(plan).destructive
    name = setting.replace("_", ".")
    assert plan.settings == {of(stream).topic: {name: of(stream).settings[name]}}


def test_values_are_compared_by_what_they_mean():
    declared = DeclaredTopic(
        stream="s", topic="t", partitions=1,
        settings={"cleanup.policy": "delete,compact", "min.cleanable.dirty.ratio": "0.10"},
    )  # fmt: skip
    found = {
        "cleanup.policy": FoundSetting("compact, delete", True),
        "min.cleanable.dirty.ratio": FoundSetting("0.1", True),
    }
    assert compare([declared], {"t": FoundTopic(1, found)}).equal


def test_defaults_of_the_broker_count_like_settings_of_the_topic():
    settings = {n: FoundSetting(v, False) for n, v in of("fills").settings.items()}
    assert compare(DECLARED, as_declared(fills=FoundTopic(3, settings))).equal


def test_a_setting_that_is_not_set_at_all():
    settings = dict(with_settings("fills").settings or {})
    del settings["retention.ms"]
    difference = the_one(compare(DECLARED, as_declared(fills=FoundTopic(3, settings))))
    assert (difference.name, difference.found, difference.destructive) == (
        "retention.ms",
        "",
        False,
    )


def test_what_somebody_else_has_set_is_named_and_left_alone():
    there = with_settings("fills", min_insync_replicas="2")
    plan = compare(DECLARED, as_declared(fills=there))
    assert plan.equal
    assert plan.besides == ((of("fills").topic, "min.insync.replicas", "2"),)


def test_a_broker_that_does_not_tell_settings():
    plan = compare(DECLARED, as_declared(fills=FoundTopic(3, None), pnl=FoundTopic(2, None)))
    assert plan.untold == (of("fills").topic, of("pnl").topic)
    assert [d.what for d in plan.differences] == [What.PARTITIONS]


def test_a_stream_without_a_declaration():
    with pytest.raises(KeyError, match="gone"):
        declare(TEMPLATES, {"gone": "streambot.r1.gone"}, 1)
