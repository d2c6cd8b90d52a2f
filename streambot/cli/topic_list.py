"""`streambot topics ls`: which runs a broker has, and what their streams hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from streambot.cli.console import emit, say, show, terminal_width
from streambot.cli.groups import AsJson
from streambot.cli.human import count, place, table
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.which_broker import (
    BrokerPlace,
    KnownRun,
    find_broker,
    find_known,
    open_broker,
)
from streambot.domain.errors import UsageError
from streambot.domain.suggest import did_you_mean
from streambot.domain.topics import find_topics
from streambot.domain.words import few

if TYPE_CHECKING:
    from collections.abc import Collection

    from streambot.streams.ports import Log

_HEADINGS = ("run", "stream", "partitions", "records", "first-last offset")
_OTHER = ("topic", "partitions", "records", "first-last offset")
_SHOWN_PARTITIONS = 4


class Held(NamedTuple):
    """A topic and what it holds.

    Attributes:
        namespace, run, stream: the parts of its name; `run` is empty for a topic of nobody's run.
        first, end: offsets of the first record kept and of the next one to come, by partition.
    """

    topic: str
    namespace: str
    run: str
    stream: str
    first: list[int]
    end: list[int]

    @property
    def records(self) -> int:
        """Offsets used and kept: with transactions and compaction, somewhat more than records."""
        return sum(end - first for first, end in zip(self.first, self.end, strict=True))

    @property
    def offsets(self) -> str:
        """`0-196, 0-195`; a partition without records is `-`."""
        spans = [
            f"{first:,}-{end - 1:,}" if end > first else "-"
            for first, end in zip(self.first, self.end, strict=True)
        ]
        return few(spans, _SHOWN_PARTITIONS)


def split_topic(
    topic: str, namespace: str | None, streams: Collection[str]
) -> tuple[str, str, str] | None:
    """(namespace, run, stream) of a topic; None where it is none of a run's.

    Args:
        namespace: None: any, where it has no dot in it.
        streams: names that are known.
    """
    rest, _, stream = topic.rpartition(".")
    if stream not in streams:
        return None
    if namespace is not None:
        run = rest.removeprefix(f"{namespace}.")
        return (namespace, run, stream) if run != rest and run else None
    space, _, run = rest.partition(".")
    return (space, run, stream) if space and run else None


def ls(
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Only this run. Default: all.")
    ] = None,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            "--bootstrap-servers", metavar="HOST:PORT",
            help="Default: the run's broker, that of the settings, or of `broker start`.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", metavar="NAME", help="First part of the names of topics."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Runs of other namespaces, and other topics, too.")
    ] = False,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List the runs on a broker: streams, partitions, records.

    Records are counted by offsets: transactions and compaction leave holes. Topics internal to the
    broker are left out.
    """
    flags = {
        "run": run, "bootstrap_servers": bootstrap_servers, "namespace": namespace,
        "runs_dir": runs_dir,
    }  # fmt: skip
    settings = read_settings(flags, config)
    known = find_known(settings) if settings.config.run is not None else None
    space = None if everything else settings.config.namespace

    async def look() -> tuple[BrokerPlace, list[Held]]:
        broker = await find_broker(settings, known)
        async with open_broker(broker, settings.config.kafka) as log:
            return broker, await _held(log, space, known, everything=everything)

    broker, held = asyncio.run(look())
    if as_json:
        for one in held:
            emit("topic", broker=broker.servers, **one._asdict(), records=one.records)
        return
    say(f"broker {broker.servers} (by {place(broker.source)})", style="dim")
    _show(held, space)


async def _held(
    log: Log, namespace: str | None, known: KnownRun | None, *, everything: bool
) -> list[Held]:
    """Topics to show.

    Raises:
        UsageError: one run is asked for, and has none.
    """
    streams = list(find_topics(None, Path.cwd()))
    there = {topic: split_topic(topic, namespace, streams) for topic in await log.streams()}
    if known is not None:
        names = {parts[1] for parts in there.values() if parts}
        if known.name not in names:
            raise UsageError(
                f"there are no topics of run {known.name} on that broker",
                hint=did_you_mean(known.name, sorted(names)),
            )
        there = {t: parts for t, parts in there.items() if parts and parts[1] == known.name}
    found = []
    for topic, parts in there.items():
        if not topic.startswith("__") and (parts or everything):
            first, end = await log.beginning_offsets(topic), await log.end_offsets(topic)
            found.append(Held(topic, *(parts or ("", "", "")), first, end))
    order = {stream: number for number, stream in enumerate(streams)}
    return sorted(
        found, key=lambda one: (not one.run, one.namespace, one.run, order.get(one.stream, 0), one.topic)
    )  # fmt: skip


def _show(held: list[Held], namespace: str | None) -> None:
    runs = [one for one in held if one.run]
    others = [one for one in held if not one.run]
    names = {(one.namespace, one.run) for one in runs}
    if not held:
        where = f" in namespace {namespace}" if namespace is not None else ""
        say(f"it has no runs{where}; next: streambot simulate --bootstrap-servers HOST:PORT")
        return
    many = len({one.namespace for one in runs}) > 1 or namespace is None
    rows = [
        (f"{one.namespace}.{one.run}" if many else one.run, one.stream, *_counts(one))
        for one in runs
    ]
    right = "partitions|records"
    if rows:
        for line in table(
            _HEADINGS, rows, right=right, width=terminal_width(), optional="first-last offset"
        ):
            show(line)
    if others:
        if rows:
            show()
        rows_of_others = [(one.topic, *_counts(one)) for one in others]
        for line in table(
            _OTHER,
            rows_of_others,
            right=right,
            width=terminal_width(),
            optional="first-last offset",
        ):
            show(line)
    say(f"{count(len(names), 'run')}, {count(len(held), 'topic')}", style="dim")


def _counts(one: Held) -> tuple[str, str, str]:
    return f"{len(one.end):,}", f"{one.records:,}", one.offsets
