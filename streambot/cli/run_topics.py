"""What `streambot topics` is asked about: the run, its streams, and how many partitions they have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streambot.cli.console import say
from streambot.cli.declared import read_on_log
from streambot.cli.human import count
from streambot.cli.settings import read_settings
from streambot.cli.which_broker import KnownRun, find_known
from streambot.domain.errors import ConfigError, UsageError
from streambot.domain.topic_plan import declare
from streambot.domain.topics import TOPICS_FILE, Of, find_topics, streams_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.adapters.kafka import KafkaLog
    from streambot.domain.config import Resolved
    from streambot.domain.topic_plan import DeclaredTopic


class Asked(NamedTuple):
    """What the flags say."""

    settings: Resolved
    known: KnownRun
    topics: Mapping[str, str]
    source: str

    def declared(self, partitions: int) -> tuple[DeclaredTopic, ...]:
        """The run's topics, with so many partitions where a stream has the run's."""
        templates = find_topics(None, Path.cwd())
        try:
            return declare(templates, self.topics, partitions)
        except KeyError as error:
            raise ConfigError(
                f"declares no stream `{error.args[0]}`, and run {self.known.name} has one",
                where=self.source,
            ) from error


def read_asked(
    run: str | None,
    servers: str | None,
    partitions: str | None,
    namespace: str | None,
    config: str | None,
    runs_dir: str | None,
) -> Asked:
    """Settings, the run, and the names of its topics."""
    flags = {
        "run": run, "bootstrap_servers": servers, "partitions": partitions, "namespace": namespace,
        "runs_dir": runs_dir,
    }  # fmt: skip
    settings = read_settings(flags, config)
    known = find_known(settings)
    local = (Path.cwd() / TOPICS_FILE).exists()
    source = TOPICS_FILE if local else f"the bundled {TOPICS_FILE}"
    if known.record is None:
        try:
            names = {
                stream: template.topic(settings.config.namespace, known.name)
                for stream, template in streams_of(find_topics(None, Path.cwd()), Of.RUN).items()
            }
        except ValueError as error:
            raise UsageError(str(error), where="--run", hint="choose a shorter name") from error
        return Asked(settings, known, names, source)
    if partitions is not None and settings.config.partitions != known.partitions:
        raise _keeps(known, known.partitions or 0)
    first = next(iter(known.record.topics.values()), "")
    if namespace is not None and not first.startswith(f"{namespace}."):
        raise UsageError(
            f"run {known.name} has other topics, such as {first}", where="--namespace",
            hint="leave it out",
        )  # fmt: skip
    return Asked(settings, known, known.record.topics, source)


async def declared_topics(asked: Asked, log: KafkaLog | None) -> tuple[DeclaredTopic, ...]:
    """The declared topics of the run, in as many partitions as it has.

    Of a run that was not started here its log is asked: what the run has declared there, else how
    many partitions its ticks have. Without a log the settings say it, as for a run to come.
    """
    settings, known = asked.settings, asked.known
    if known.partitions is not None:
        return asked.declared(known.partitions)
    given, origin = settings.config.partitions, settings.origins["partitions"]
    on_log = await read_on_log(log, asked.topics.get("runs", "")) if log is not None else None
    if on_log is not None:
        partitions = on_log.manifest.partitions
        if origin.startswith("--") and given != partitions:
            raise _keeps(known, partitions)
        say(f"run {known.name} was not started here; by its log: {count(partitions, 'partition')}")
        # Only which streams it has: nobody else's topic is looked at because a record names it.
        topics = {
            stream: topic for stream, topic in asked.topics.items() if stream in on_log.topics
        }
        return asked._replace(topics=topics).declared(partitions)
    if origin == "default":
        found = (
            (await log.streams()).get(asked.topics.get("ticks", "")) if log is not None else None
        )
        where = "as many as its ticks have" if found else "the default; --partitions says another"
        given = found or given
        say(f"run {known.name} was not started here: {count(given, 'partition')}, {where}")
    return asked.declared(given)


def _keeps(known: KnownRun, partitions: int) -> UsageError:
    return UsageError(
        f"run {known.name} has {count(partitions, 'partition')}, and keeps them",
        where="--partitions",
        hint="leave it out",
    )
