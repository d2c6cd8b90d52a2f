"""Which broker, and what of a run is known here, for commands that work on the topics of a run.

A run that was started here needs its name only: its folder says where its topics are and how many
partitions they have. Of any other run the broker has to be said, and what is declared is all there is.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import BrokerError, ConfigError, UsageError
from streambot.domain.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streambot.adapters.kafka import KafkaLog
    from streambot.domain.config import Resolved
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.processor.run_state import RunRecord

IN_PROCESS = "in-process"


class KnownRun(NamedTuple):
    """A run, and what its folder says of it.

    Attributes:
        name: of the run.
        path: its folder, whether it is there or not.
        record: None: it was not started here.
    """

    name: str
    path: Path
    record: RunRecord | None

    @property
    def living(self) -> bool:
        """True while a process works on it here."""
        from streambot.processor.folder import is_held

        return is_held(self.path)

    @property
    def partitions(self) -> int | None:
        """Partitions of its streams; None: not known here."""
        return None if self.record is None else _manifest(self).partitions


class BrokerPlace(NamedTuple):
    """Where a broker is, and who said so."""

    servers: str
    source: str


class _Manifest(msgspec.Struct, frozen=True):
    """What is needed of a manifest here: the whole of it belongs to the engine, and its compiler."""

    partitions: int = 1


def find_known(settings: Resolved) -> KnownRun:
    """The run that the settings name, else the newest one here.

    Raises:
        UsageError: no run is named, and there is none here.
    """
    from streambot.processor.folder import check_run_name, find_run, read_record

    runs_dir, name = Path(settings.config.runs_dir), settings.config.run
    path = find_run(runs_dir, None) if name is None else runs_dir / check_run_name(name)
    record = read_record(path) if (path / "run.json").is_file() else None
    return KnownRun(path.name, path, record)


async def find_broker(settings: Resolved, known: KnownRun | None) -> BrokerPlace:
    """The broker of a run: as said by flag, by the run, by the settings, or the one started here.

    Raises:
        UsageError: nobody says which.
        BrokerError: the run's broker has gone with it.
    """
    servers, origin = settings.config.bootstrap_servers, settings.origins["bootstrap_servers"]
    if servers is not None and origin.startswith("--"):
        return BrokerPlace(servers, origin)
    if known is not None and known.record is not None:
        return _broker_of(known, known.record)
    if servers is not None:
        return BrokerPlace(servers, origin)
    started = await started_here()
    if started is not None:
        return started
    if known is None:
        raise UsageError("which broker?", hint=_WHICH)
    from streambot.processor.folder import list_runs

    names = [record.run for record in list_runs(known.path.parent)]
    raise UsageError(
        f"there is no run {known.name} here, and no broker to ask about it",
        where=str(known.path.parent),
        hint=f"{did_you_mean(known.name, names)}\n{_WHICH}".strip(),
    )


_WHICH = "--bootstrap-servers HOST:PORT, or start one: streambot broker start"


async def with_broker(settings: Resolved) -> Resolved:
    """The settings, with the broker that was started here where nobody names one."""
    if settings.config.bootstrap_servers is not None:
        return settings
    started = await started_here()
    if started is None:
        return settings
    import msgspec

    from streambot.domain.config import Resolved

    config = msgspec.structs.replace(settings.config, bootstrap_servers=started.servers)
    return Resolved(config, {**settings.origins, "bootstrap_servers": started.source})


async def with_recording_place(settings: Resolved) -> Resolved:
    """The settings, with the broker that has the recording which is to be replayed.

    Raises:
        UsageError: nobody says which.
        BrokerError: the recording went with its broker.
    """
    from streambot.domain.config import Resolved

    name = settings.config.from_run
    if name is None or settings.config.from_broker is not None:
        return settings
    origins = {**settings.origins, "run": "--from-run"}
    config = msgspec.structs.replace(settings.config, run=name)
    known = find_known(Resolved(config, origins))
    if known.record is not None:
        place = _broker_of(known, known.record)
    elif settings.config.bootstrap_servers is not None:
        servers = settings.config.bootstrap_servers
        place = BrokerPlace(servers, settings.origins["bootstrap_servers"])
    else:
        place = await find_broker(Resolved(config, origins), known)
    config = msgspec.structs.replace(settings.config, from_broker=place.servers)
    return Resolved(config, {**settings.origins, "from_broker": place.source})


def _broker_of(known: KnownRun, record: RunRecord) -> BrokerPlace:
    if record.broker == IN_PROCESS:
        raise BrokerError(
            f"run {known.name} has no topics: its streams stayed inside its own process",
            hint="run it with --bootstrap-servers of Apache Kafka",
        )
    if record.embedded and not known.living:
        raise BrokerError(
            f"the topics of run {known.name} went with its embedded broker",
            hint="look while a run goes, or keep them: simulate --bootstrap-servers",
        )
    return BrokerPlace(record.broker, str(known.path / "run.json"))


async def started_here() -> BrokerPlace | None:
    """The broker of `streambot broker start`; None: none runs."""
    from streambot.adapters.broker.standing import Status, look
    from streambot.cli.broker import DEFAULT_FOLDER

    found = await look(Path(DEFAULT_FOLDER))
    if found.status is not Status.RUNNING or found.state is None:
        return None
    return BrokerPlace(found.state.address, "streambot broker start")


@asynccontextmanager
async def open_broker(
    place: BrokerPlace, security: KafkaSecurity, replication: int = 1
) -> AsyncIterator[KafkaLog]:
    """The broker, opened as its kind needs.

    Raises:
        BrokerError: nobody answers there.
    """
    from streambot.adapters.kafka import KafkaLog, detect_profile

    profile = await detect_profile(place.servers, security)
    async with await KafkaLog.open(
        place.servers, profile=profile, security=security, replication=replication
    ) as log:
        yield log


def _manifest(known: KnownRun) -> _Manifest:
    assert known.record is not None  # noqa: S101  # for the type checker
    try:
        return msgspec.json.decode(known.record.manifest, type=_Manifest)
    except msgspec.MsgspecError as cause:
        raise ConfigError(
            f"its manifest is not what streambot writes: {cause}",
            where=str(known.path / "run.json"),
        ) from cause
