"""What a roll-up needs to know: which run, on which broker, under which topics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec

from streambot.adapters.kafka.detect import detect_profile
from streambot.adapters.kafka.log import KafkaLog
from streambot.adapters.kafka.profile import BrokerProfile
from streambot.domain.errors import ConfigError, StreamError
from streambot.domain.kafka_settings import KafkaSecurity
from streambot.domain.topics import bundled_topics
from streambot.processor.folder import read_record
from streambot.processor.run_state import RunState
from streambot.report.rollup import RolledRun
from streambot.streams.ports import StreamSpec
from streambot.streams.reading import read_to_end

INPUTS = ("pnl", "fills", "dead-letter")
OUTPUTS = ("portfolio", "alerts")
RUN_VARIABLE = "STREAMBOT_RUN"
_IN_PROCESS = "in-process"
_RUN_KEY = b"run"
"""Of the declaration's own record, see `processor.declaration`."""
_ON_BROKER = re.compile(r"(?P<servers>[^/\s]+:\d+)/(?P<namespace>[^/.\s]+)\.(?P<run>[^/\s]+)")


class _Declared(msgspec.Struct, frozen=True):
    """What is read of a `processor.declaration.Declaration`, under the same names."""

    manifest: RolledRun
    topics: dict[str, str]


class RollupSettings(NamedTuple):
    """Settings of a roll-up.

    Attributes:
        servers: `host:port[,host:port]`.
        run: what it must know of the run.
        namespace: first part of the run's topics, and of the name of the consumer group.
        topics: full names of `pnl`, `fills`, `dead-letter`, `portfolio`, `alerts`; a stream that is
            missing here has its usual name.
        profile: kind of broker; None: it is asked.
        security: how to talk to it; None: plain text, as on loopback.
        folder: of the run: what is rolled up is kept there too, as `portfolio.ndjson` and
            `alerts.ndjson`; None: on the broker only.
        ended: says whether the run is complete and everything it wrote is stored, so that the last
            barrier is rolled up as well; asked twice a second. None: whoever runs the roll-up says
            it, or the states of the run's tasks do, where they are on the broker.
        web_port: Faust's own web pages, on loopback; None: no listener.
        told: given every new line as it is written: its stream, and its bytes.
    """

    servers: str
    run: RolledRun
    namespace: str = "streambot"
    topics: Mapping[str, str] = {}
    profile: BrokerProfile | None = None
    security: KafkaSecurity | None = None
    folder: Path | None = None
    ended: Callable[[], bool] | None = None
    web_port: int | None = None
    told: Callable[[str, bytes], None] | None = None

    @property
    def group(self) -> str:
        """Name of the consumer group."""
        return f"{self.namespace}.{self.run.run}.rollup"

    def topic(self, stream: str) -> str:
        """Full name of a stream's topic."""
        return self.topics.get(stream) or f"{self.namespace}.{self.run.run}.{stream}"

    def outputs(self) -> list[StreamSpec]:
        """The streams that a roll-up writes, to be made where they are not there yet."""
        templates = bundled_topics()
        return [
            StreamSpec(
                name=self.topic(stream),
                partitions=templates[stream].partition_count(self.run.partitions),
                config=templates[stream].kafka_settings(),
            )
            for stream in OUTPUTS
        ]


def settings_of(text: str | None) -> RollupSettings:
    """Settings from the value of `STREAMBOT_RUN`: a run's folder, or `host:port/namespace.run`.

    Raises:
        ConfigError: it names no run, or one whose streams nobody else can read.
    """
    hint = f"{RUN_VARIABLE}=runs/RUN, or {RUN_VARIABLE}=127.0.0.1:9092/streambot.RUN"
    if not text:
        raise ConfigError("says no run", where=RUN_VARIABLE, hint=hint)
    folder = Path(text)
    if (folder / "run.json").is_file():
        return _of_folder(folder)
    found = _ON_BROKER.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{text[:200]!r} is neither the folder of a run nor `host:port/namespace.run`",
            where=RUN_VARIABLE, hint=hint,
        )  # fmt: skip
    return declared_run(found["servers"], found["namespace"], found["run"])


def declared_run(servers: str, namespace: str, run: str) -> RollupSettings:
    """Settings from the declaration of a run on its broker: the stream `<namespace>.<run>.runs`.

    Raises:
        ConfigError: there is none.
        BrokerError: nobody answers there.
        StreamError: the declaration is not what streambot writes.
    """
    topic = f"{namespace}.{run}.runs"
    # In a thread: an event loop of its own here would take away the one that Faust sets up.
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(asyncio.run, _declaration(servers, topic)).result()
    if found is None:
        raise ConfigError(
            f"run {run} in namespace {namespace} is not declared on {servers}",
            where=topic,
            hint="is the name right? `streambot replay` and `streambot simulate` declare their runs",
        )
    return RollupSettings(servers, found.manifest, namespace=namespace, topics=found.topics)


async def _declaration(servers: str, topic: str) -> _Declared | None:
    profile = await detect_profile(servers)
    async with await KafkaLog.open(servers, profile=profile) as log:
        if topic not in await log.streams():
            return None
        latest: bytes | None = None
        async for batch in read_to_end(log, topic):
            for record in batch:
                latest = record.value if record.key == _RUN_KEY else latest
    if latest is None:
        return None
    try:
        return msgspec.json.decode(latest, type=_Declared)
    except msgspec.MsgspecError as cause:
        raise StreamError(f"the declaration cannot be read: {cause}", where=topic) from cause


def _of_folder(folder: Path) -> RollupSettings:
    record = read_record(folder)
    if record.broker == _IN_PROCESS:
        raise ConfigError(
            f"the streams of run {record.run} stay inside its own process",
            where=str(folder),
            hint="run it with --broker embedded, or with --bootstrap-servers of Apache Kafka",
        )
    try:
        run = msgspec.json.decode(record.manifest, type=RolledRun)
    except msgspec.MsgspecError as cause:
        raise ConfigError(
            f"its manifest is not what streambot writes: {cause}", where=str(folder / "run.json")
        ) from cause
    pnl = record.topics.get("pnl", "")
    namespace = pnl.removesuffix(f".{record.run}.pnl")
    return RollupSettings(
        servers=record.broker,
        run=run,
        namespace=namespace if namespace != pnl else "streambot",
        topics=record.topics,
        folder=folder,
        ended=lambda: read_record(folder).state is RunState.COMPLETE,
    )
