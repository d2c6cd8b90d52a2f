"""`streambot topics plan|apply|ls|export`: the topics of a run, beside what `topics.yaml` declares."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streambot.cli.console import emit, say, show, terminal_width
from streambot.cli.groups import AsJson, several
from streambot.cli.human import count, duration, place, table
from streambot.cli.run_topics import Asked, declared_topics, read_asked
from streambot.cli.settings import ConfigFile, RunsDir
from streambot.cli.topic_list import ls
from streambot.cli.which_broker import (
    BrokerPlace,
    find_broker,
    open_broker,
)
from streambot.domain.errors import TopicError, UsageError
from streambot.domain.suggest import did_you_mean
from streambot.domain.topic_plan import Difference, TopicPlan, What

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streambot.domain.topic_plan import DeclaredTopic
    from streambot.wiring.topic_care import Applied

FORMATS = ("kafka-topics", "json")
_SHOWN_MS = 1_000 * 86_400_000
_NOBODY = "HOST:9092"

Run = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME", help="Which run. Default: the newest one here."),
]
Servers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers", metavar="HOST:PORT",
        help="Default: the run's own broker, else the one that `broker start` started here.",
    ),
]  # fmt: skip
Partitions = Annotated[
    str | None,
    typer.Option("--partitions", metavar="N", help="Of a run that was not started here."),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", metavar="NAME", help="First part of the names of topics."),
]
Replication = Annotated[
    int,
    typer.Option("--replication", metavar="N", min=1, max=32, help="Copies of what is created."),
]


def plan(
    run: Run = None,
    bootstrap_servers: Servers = None,
    partitions: Partitions = None,
    namespace: Namespace = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare the topics of a run with topics.yaml.

    Exit code 6: they differ. Nothing is changed. A finite retention on a stream of market time is destructive: Kafka counts it
    from market time, and deletes historical records at once.
    """
    asked = read_asked(run, bootstrap_servers, partitions, namespace, config, runs_dir)

    async def look() -> tuple[BrokerPlace, TopicPlan]:
        from streambot.wiring.topic_care import plan_topics

        broker = await find_broker(asked.settings, asked.known)
        async with open_broker(broker, asked.settings.config.kafka) as log:
            return broker, await plan_topics(log, await declared_topics(asked, log))

    broker, found = asyncio.run(look())
    if as_json:
        _emit_plan("topic-plan", asked, broker, found)
    else:
        _say_where(asked, broker)
        for line in _lines(found):
            show(line)
    if not found.equal:
        raise _differs(asked, found)


def apply(
    run: Run = None,
    bootstrap_servers: Servers = None,
    partitions: Partitions = None,
    namespace: Namespace = None,
    replication: Replication = 1,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Create missing topics of a run, and set back what differs.

    Partitions are never changed: where a count differs nothing is done at all, and the exit code is 6.
    """
    asked = read_asked(run, bootstrap_servers, partitions, namespace, config, runs_dir)

    async def mend() -> tuple[BrokerPlace, Applied]:
        from streambot.wiring.topic_care import apply_topics

        broker = await find_broker(asked.settings, asked.known)
        if not as_json:
            _say_where(asked, broker)
        async with open_broker(broker, asked.settings.config.kafka, replication) as log:
            return broker, await apply_topics(log, await declared_topics(asked, log))

    broker, applied = asyncio.run(mend())
    if as_json:
        _emit_plan("topics-applied", asked, broker, applied.before, created=list(applied.created))
        return
    counts = {topic.topic: topic.partitions for topic in applied.before.declared}
    for topic in applied.created:
        show(f"created  {topic}  {count(counts[topic], 'partition')}")
    for one in applied.before.differences:
        if one.what is What.SETTING:
            show(f"set      {one.topic}  {one.name}: {one.found or 'not set'} -> {one.declared}")
    said = f"{count(len(counts), 'topic')} as declared"
    show(said if not applied.before.equal else f"nothing to do: {said}")


def export(
    run: Run = None,
    form: Annotated[
        str, typer.Option("--format", metavar="|".join(FORMATS), help="What to write.")
    ] = FORMATS[0],
    bootstrap_servers: Servers = None,
    partitions: Partitions = None,
    namespace: Namespace = None,
    replication: Replication = 1,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Write the declarations, for somebody else to create topics.

    No broker is asked. A run that does not exist yet needs --run and --partitions.
    """
    if form not in FORMATS:
        raise UsageError(f"no format `{form}`", where="--format", hint=did_you_mean(form, FORMATS))
    asked = read_asked(run, bootstrap_servers, partitions, namespace, config, runs_dir)
    config_used = asked.settings.config
    wanted = asyncio.run(declared_topics(asked, None))
    if as_json or form == "json":
        for topic in wanted:
            emit(
                "topic-declared", run=asked.known.name, replication=replication,
                **msgspec.to_builtins(topic),
            )  # fmt: skip
        return
    say(f"{count(len(wanted), 'topic')} of run {asked.known.name}, by {asked.source}", style="dim")
    servers, record = config_used.bootstrap_servers, asked.known.record
    if servers is None and record is not None and not record.embedded and ":" in record.broker:
        servers = record.broker
    for topic in wanted:
        show(_command(topic, servers or _NOBODY, replication))


def _say_where(asked: Asked, broker: BrokerPlace) -> None:
    say(
        f"run {asked.known.name} at {broker.servers} (by {place(broker.source)}), "
        f"declared by {asked.source}",
        style="dim",
    )


def _lines(found: TopicPlan) -> Iterator[str]:
    """The plan, for people."""
    if found.differences:
        rows = [_row(one) for one in found.differences]
        headings = ("topic", "what", "declared", "found", "")
        yield from table(headings, rows, width=terminal_width())
        for name, why in {one.name: one.why for one in found.differences if one.why}.items():
            yield f" {name}: {why}"
    else:
        yield f"{count(len(found.declared), 'topic')} as declared"
    if found.untold:
        yield f" the broker does not tell the settings of {count(len(found.untold), 'topic')}"
    for topic, name, value in found.besides:
        yield f" also set on {topic}, and left alone: {name}={value}"


def _row(one: Difference) -> tuple[str, ...]:
    mark = "DESTRUCTIVE" if one.destructive else ""
    if one.what is What.MISSING:
        return one.topic, "missing", "", "", mark
    found = _value(one.name, one.found) if one.found else "not set"
    return one.topic, one.name, _value(one.name, one.declared), found, mark


def _value(name: str, text: str) -> str:
    """A setting; milliseconds that a person cannot read at a glance in words as well."""
    if name.endswith(".ms") and text.isdigit() and 1_000 <= int(text) < _SHOWN_MS:
        return f"{text} ({duration(int(text) / 1_000)})"
    return text


def _differs(asked: Asked, found: TopicPlan) -> TopicError:
    number = count(len(found.differences), "difference")
    lossy = sum(one.destructive for one in found.differences)
    lost = f", {lossy} of them destructive" if lossy else ""
    if found.immovable:
        hint = "start a new run under another name: partitions of a run cannot be changed"
    else:
        hint = f"streambot topics apply --run {asked.known.name}"
        origin = asked.settings.origins["bootstrap_servers"]
        if origin.startswith("--"):
            hint += f" {origin} {asked.settings.config.bootstrap_servers}"
        if asked.known.record is None and asked.settings.origins["partitions"] != "default":
            hint += f" --partitions {asked.settings.config.partitions}"
    return TopicError(f"{number} between the broker and {asked.source}{lost}", hint=hint)


def _emit_plan(
    schema: str, asked: Asked, broker: BrokerPlace, found: TopicPlan, **fields: object
) -> None:
    emit(
        schema,
        run=asked.known.name,
        broker=broker.servers,
        equal=found.equal,
        topics=[topic.topic for topic in found.declared],
        differences=msgspec.to_builtins(found.differences),
        untold=list(found.untold),
        besides=[{"topic": t, "name": n, "value": v} for t, n, v in found.besides],
        **fields,
    )


def _command(topic: DeclaredTopic, servers: str, replication: int) -> str:
    """The topic as a command of Apache Kafka, safe to paste."""
    words = [
        "kafka-topics.sh", "--bootstrap-server", servers, "--create", "--if-not-exists",
        "--topic", topic.topic, "--partitions", str(topic.partitions),
        "--replication-factor", str(replication),
    ]  # fmt: skip
    for name, value in topic.settings.items():
        words += ["--config", f"{name}={value}"]
    return shlex.join(words)


app = several(
    "Topics of a run beside their declarations: compare, put right, list, write out.",
    {"plan": plan, "apply": apply, "ls": ls, "export": export},
)
