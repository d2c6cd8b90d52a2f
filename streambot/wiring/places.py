"""Where the streams of a run live: the embedded broker, Apache Kafka, or this process.

The embedded broker never frees what was written, so runs whose streams are estimated above
`EMBEDDED_LIMIT` use the in-process log, which keeps a frame until the engine has read it. There
the outputs go to the run's files only: nobody outside this process could read them.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.config import BrokerChoice
from streambot.domain.errors import BrokerError, ConfigError, TopicError
from streambot.domain.topics import TimeKind, find_topics
from streambot.processor.outputs import ACCEPTED
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import Log, StreamSpec
from streambot.wiring.failures import first_failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from streambot.domain.config import KafkaSecurity, SimulationConfig
    from streambot.domain.topics import TopicTemplate
    from streambot.processor.manifest import RunManifest
    from streambot.wiring.preparation import Prepared

EMBEDDED_LIMIT = 1 << 30
IN_PROCESS = "in-process"
STREAMS = ("ticks", "orders", "fills", "pnl", "late", "dead-letter")
"""Of every run."""
SHARED_STREAMS = ("control", "status", "runs", "portfolio", "alerts")
"""Where other processes can read and write."""
STATE = "state"
"""Where transactions keep it together with the outputs; elsewhere it is in the run's folder."""
ALL_STREAMS = (*STREAMS, ACCEPTED, *SHARED_STREAMS, STATE)
_MARK_BYTES = 320
_LOOKS, _LOOK_PAUSE_S = 5, 1.0
_FRAME_OVERHEAD = 1.1


class Place(NamedTuple):
    """An open log and what to say about it.

    Attributes:
        address: of the broker; `in-process` for the log of this process.
        embedded: the broker lives and dies with this process.
        lasting: streams survive this process, so a resumed run goes on behind what they hold.
        readable: other processes can read the streams.
        transactional: outputs, state and positions become visible together.
        delivery: the guarantee, in words.
    """

    log: Log
    address: str
    embedded: bool
    lasting: bool
    readable: bool
    transactional: bool
    delivery: str

    @property
    def shown(self) -> str:
        """The broker, for people."""
        if not self.readable:
            return "in-process log"
        return f"embedded broker {self.address}" if self.embedded else f"Kafka {self.address}"


def estimated_bytes(prepared: Prepared) -> int:
    """About how much the streams of a run will hold: frames and marks; fills are few."""
    plan, config = prepared.plan, prepared.config
    every = config.pnl_every_ns or plan.decision_ns
    marks = min(plan.bars, len(plan.symbols) * (plan.open_ns // max(every, 1) + 1))
    return int(plan.estimated_bytes * _FRAME_OVERHEAD) + marks * _MARK_BYTES


def choose(config: SimulationConfig, size: int) -> tuple[BrokerChoice | None, str | None]:
    """The kind of place (None: Apache Kafka), and what to tell the person about the choice.

    Raises:
        ConfigError: the embedded broker was asked for, and the run is too large for it.
    """
    if config.bootstrap_servers is not None:
        return None, None
    if config.broker is BrokerChoice.IN_PROCESS:
        return BrokerChoice.IN_PROCESS, None
    if size <= EMBEDDED_LIMIT:
        return BrokerChoice.EMBEDDED, None
    about = f"the streams of this run are estimated at {size / 2**30:.1f} GiB"
    if config.broker is BrokerChoice.EMBEDDED:
        raise ConfigError(
            f"{about}, and the embedded broker keeps everything in memory",
            where="--broker",
            hint="leave --broker out (in-process log), or give --bootstrap-servers of Apache Kafka",
        )
    return BrokerChoice.IN_PROCESS, (
        f"{about}: they stay in this process instead of the embedded broker; "
        "orders, fills and P&L are in the files of the run"
    )


@asynccontextmanager
async def open_place(
    config: SimulationConfig,
    kind: BrokerChoice | None,
    folder: Path,
    on_failure: Callable[[BrokerError], None],
) -> AsyncIterator[Place]:
    """The log of a run, closed again whatever happens.

    Args:
        config: address and security of Apache Kafka.
        kind: as `choose` said.
        folder: of the run; the embedded broker's own words go there.
        on_failure: called once when the broker is lost.

    Raises:
        BrokerError: nobody answers.
    """
    if kind is BrokerChoice.IN_PROCESS:
        log = MemoryLog()
        try:
            yield Place(
                log, IN_PROCESS, True, False, False, False,
                "exactly once: in this process, and in the files of the run through --resume",
            )  # fmt: skip
        finally:
            await log.close()
        return
    if kind is None:
        assert config.bootstrap_servers is not None  # noqa: S101  # `choose` has seen it
        async with open_lasting(config.bootstrap_servers, config.kafka) as place:
            yield place
        return
    async with open_embedded(
        folder,
        on_failure,
        "exactly once while this process lives, and in the files of the run through "
        "--resume; the embedded broker keeps everything in memory",
    ) as place:
        yield place


@asynccontextmanager
async def open_embedded(
    folder: Path, on_failure: Callable[[BrokerError], None], delivery: str
) -> AsyncIterator[Place]:
    """The log of a broker that lives and dies with this process.

    Args:
        folder: its own words go there.
        on_failure: called once when it is lost.
        delivery: the guarantee, in words.

    Raises:
        BrokerError: it does not start, or it was lost, and why, whatever was seen of that first.
    """
    # aiokafka costs a quarter of a second to import, and the in-process log does without.
    from streambot.adapters.broker import EmbeddedBroker
    from streambot.adapters.kafka import EMBEDDED, KafkaLog

    broker = EmbeddedBroker(log=folder / "broker.log")
    broker.on_failure(on_failure)
    async with broker:
        kafka = await KafkaLog.open(broker.address, profile=EMBEDDED)
        broker.on_failure(kafka.fail)
        try:
            async with kafka:
                yield Place(kafka, broker.address, True, False, True, False, delivery)
        except (BrokerError, BaseExceptionGroup) as error:
            if isinstance(first_failure(error), BrokerError) and (why := await broker.lost()):
                raise why from error
            raise


@asynccontextmanager
async def open_lasting(servers: str, security: KafkaSecurity) -> AsyncIterator[Place]:
    """The log at `servers`, which was there before this process and stays behind it.

    Raises:
        BrokerError: nobody answers.
    """
    from streambot.adapters.kafka import EMBEDDED, KafkaLog, detect_profile

    profile = await detect_profile(servers, security)
    async with await KafkaLog.open(servers, profile=profile, security=security) as kafka:
        embedded = profile is EMBEDDED
        yield Place(
            kafka, servers, False, True, True, not embedded,
            (
                "exactly once in the files of the run; this broker keeps everything in memory, has "
                "no transactions, and repeats after a crash are dropped by number"
            )
            if embedded
            else "exactly once: outputs, state and positions in one transaction",
        )  # fmt: skip


def topic_names(config: SimulationConfig, run: str, cwd: Path) -> dict[str, str]:
    """Full topic name of every stream that a run may have.

    Raises:
        ConfigError: `topics.yaml` is wrong, lacks a stream, or a name gets too long.
    """
    templates = _templates(cwd)
    try:
        return {stream: templates[stream].topic(config.namespace, run) for stream in ALL_STREAMS}
    except ValueError as error:
        raise ConfigError(str(error), where="--run", hint="choose a shorter name") from error


def runs_topic(namespace: str, run: str, cwd: Path) -> str:
    """Where a run is declared.

    Raises:
        ConfigError: `topics.yaml` is wrong, or the name gets too long.
    """
    try:
        return _templates(cwd)["runs"].topic(namespace, run)
    except ValueError as error:
        raise ConfigError(str(error), where="--run", hint="choose a shorter name") from error


async def create_streams(
    place: Place, config: SimulationConfig, manifest: RunManifest, cwd: Path, *, resumed: bool
) -> None:
    """Create the topics of a run.

    Raises:
        TopicError: one exists with other partitions, or holds records of an earlier run.
    """
    templates = _templates(cwd)
    names = topics_in(place, config, manifest, cwd)
    made = await place.log.create(
        [
            StreamSpec(
                name=name,
                partitions=templates[stream].partition_count(manifest.partitions),
                config=templates[stream].kafka_settings(),
                bounded=stream == "ticks",
            )
            for stream, name in names.items()
        ]
    )
    if resumed:
        return
    for name in names.values():
        if name not in made and any(await place.log.end_offsets(name)):
            raise TopicError(
                "holds the records of an earlier run",
                where=name,
                hint=f"choose another --run, or go on with `--resume {manifest.run}`",
            )


async def check_streams(log: Log, topics: Mapping[str, str], partitions: int) -> None:
    """Check that a run's topics are there, as the run has them: they are somebody else's to alter.

    Raises:
        TopicError: one is missing, or has another count of partitions.
    """
    there: dict[str, int] = {}
    for attempt in range(_LOOKS):
        if attempt:  # a broker that has just started does not lead them all yet
            await asyncio.sleep(_LOOK_PAUSE_S)
        there = await log.streams()
        if there.keys() >= set(topics.values()):
            break
    for stream, name in topics.items():
        wanted = 1 if stream in SHARED_STREAMS else partitions
        found = there.get(name)
        if found is None:
            raise TopicError(
                "is missing: it was deleted, or this user may not see it",
                where=name,
                hint="`streambot topics plan` shows what is there; start the run again under another name",
            )
        if found != wanted:
            raise TopicError(
                f"has {found} partitions, and the run has {wanted}",
                where=name,
                hint="partitions cannot be taken away again: start the run again under another name",
            )


def topics_in(
    place: Place, config: SimulationConfig, manifest: RunManifest, cwd: Path
) -> dict[str, str]:
    """Full topic name of every stream that a run has in that place.

    Raises:
        ConfigError: see `topic_names`.
    """
    streams = {
        *STREAMS,
        *((ACCEPTED,) if manifest.free_run else ()),
        *(SHARED_STREAMS if place.readable else ()),
        *((STATE,) if place.transactional else ()),
    }
    names = topic_names(config, manifest.run, cwd)
    return {stream: topic for stream, topic in names.items() if stream in streams}


def _templates(cwd: Path) -> dict[str, TopicTemplate]:
    templates = find_topics(None, cwd)
    for stream in ALL_STREAMS:
        template = templates.get(stream)
        if template is None:
            raise ConfigError(f"declares no stream `{stream}`", where="topics.yaml")
        if stream in SHARED_STREAMS:
            if template.per_run or template.partitions != 1:
                raise ConfigError("needs `partitions: 1`", where=f"topics.yaml:{stream}")
            continue
        if not template.per_run or template.time is not TimeKind.EVENT:
            raise ConfigError(
                "needs `partitions: run` and `time: event`: streams of a run are split alike",
                where=f"topics.yaml:{stream}",
            )
    return templates
