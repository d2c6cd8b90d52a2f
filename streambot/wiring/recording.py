"""A recorded run as the input of another one: where it is, what it declares, its ticks and orders.

    declaration -> settings that nobody gave -> timeline and agent -> `Prepared`

Whatever nobody asks for otherwise is as it was in the recording; so `--from-run` alone repeats it.
The new run names the recording and its fingerprint among its sources, and is resumed only over the
same.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streambot.data.recorded import RecordedRun, RecordedTimeline
from streambot.domain.config import Capital, KafkaSecurity, OnBreach, Resolved
from streambot.domain.errors import ConfigError, TopicError, UsageError
from streambot.domain.layers import DEFAULT
from streambot.domain.units import exact_decimal
from streambot.processor.declaration import Declared, read_declaration
from streambot.processor.folder import is_held
from streambot.processor.playback import RECORDED, RecordedOrders
from streambot.streams.reading import read_to_end
from streambot.wiring.bridge import Bridge
from streambot.wiring.places import open_lasting, runs_topic
from streambot.wiring.policies import check_decisions, find_agent
from streambot.wiring.preparation import Prepared, check_capital, check_same

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from streambot.domain.config import SimulationConfig
    from streambot.engine.scripts import Script
    from streambot.processor.agents import StrategyFactory
    from streambot.processor.manifest import PolicySettings, RunManifest
    from streambot.streams.ports import Log, Record

_READ_AHEAD = 32
"""Records that are read ahead, over all partitions together."""
_NO_LIMIT = 1 << 62
_CUT_SHORT = re.compile(r"run \S+, barrier ([0-9]+) ")


class RecordedAt(NamedTuple):
    """Where a recording is."""

    servers: str
    security: KafkaSecurity


class Recording(NamedTuple):
    """A recorded run: where it is, and what it declares."""

    at: RecordedAt
    declared: Declared

    @property
    def manifest(self) -> RunManifest:
        """Of the recorded run."""
        return self.declared.declaration.manifest


def find_recording(config: SimulationConfig, cwd: Path) -> Recording:
    """The recording that the settings name. Waits: not for the thread of an event loop.

    Raises:
        UsageError: it is being recorded, or nobody says where it is.
        TopicError: nobody there has declared it.
        BrokerError: nobody answers.
    """
    name = config.from_run
    assert name is not None  # noqa: S101  # the caller has looked
    if is_held(cwd / config.runs_dir / name):
        raise UsageError(
            f"run {name} is running: what it records is not whole yet",
            where="--from-run",
            hint="wait for its end, or stop it: then it is replayed up to where it stands",
        )
    servers = config.from_broker or config.bootstrap_servers
    if servers is None:
        raise UsageError(
            f"where is the recording of run {name}?",
            where="--from-run",
            hint="--from-broker HOST:PORT",
        )
    at = RecordedAt(servers, config.kafka)
    recording = read_recording(at, config.namespace, name, cwd)
    if recording is None:
        raise TopicError(
            f"no run {name} is declared on {servers}",
            where=runs_topic(config.namespace, name, cwd),
            hint="`streambot topics ls` lists the runs of a broker",
        )
    return recording


def read_recording(at: RecordedAt, namespace: str, name: str, cwd: Path) -> Recording | None:
    """What a run declares of itself; None: nothing. Waits, as `find_recording` does.

    Raises:
        TopicError: its ticks are gone.
        BrokerError: nobody answers.
    """
    topic = runs_topic(namespace, name, cwd)
    with Bridge() as bridge:
        log = bridge.enter(opened(at))
        declared = bridge.wait(read_declaration(log, topic))
        if declared is None:
            return None
        ticks = declared.declaration.topics["ticks"]
        if not any(bridge.wait(log.end_offsets(ticks))):
            raise TopicError(f"run {name} has no ticks (any more)", where=ticks)
    return Recording(at, declared)


def with_recording(settings: Resolved, recording: Recording) -> Resolved:
    """The settings, with those of the recording where nobody gave one.

    Raises:
        ConfigError: they contradict one another.
    """
    origins = dict(settings.origins)
    changes: dict[str, Any] = {}
    for name, (field, value) in _settings_of(recording.manifest, settings.config).items():
        if origins[name] == DEFAULT:
            changes[field] = value
            origins[name] = f"run {recording.manifest.run}"
    try:
        config = msgspec.structs.replace(settings.config, **changes)
        config.__post_init__()
    except ValueError as error:
        raise ConfigError(str(error), where=f"run {recording.manifest.run}") from error
    return Resolved(config, origins)


def _settings_of(manifest: RunManifest, config: SimulationConfig) -> dict[str, tuple[str, object]]:
    """Field and value by setting."""
    capital = {
        instrument.symbol: Decimal(exact_decimal(amount, instrument.money_decimals))
        for instrument, amount in zip(manifest.instruments, manifest.capital, strict=True)
    }
    outside = bool(manifest.agents) and not config.agents
    return {
        "policy": ("policy", RECORDED if outside else manifest.policy.spec),
        "lots": ("lots", manifest.policy.lots),
        "capital": ("capital", Capital(Capital().default, capital)),
        "pnl_every": ("pnl_every_ns", manifest.pnl_every_ns),
        "max_quantity": ("max_quantity", manifest.max_quantity),
        "max_gap": ("max_gap_ns", manifest.max_gap_ns),
        "drawdown_limit_bp": ("drawdown_limit_bp", manifest.drawdown_limit_bp),
        "on_breach": ("on_breach", OnBreach(manifest.on_breach)),
        "seed": ("seed", manifest.seed),
        "partitions": ("partitions", manifest.partitions),
    }


def prepare_recorded(
    config: SimulationConfig,
    recording: Recording,
    cwd: Path,
    *,
    limit: int | None = None,
    policy: PolicySettings | None = None,
    kept: Path | None = None,
) -> Prepared:
    """Everything that the run needs. Reads every frame of the recording once.

    Args:
        config: of the run.
        recording: what it replays.
        cwd: where relative paths start.
        limit: barriers that count, at most; None: all that are there.
        policy: what a run says of its policy that is to be the same one; None: any will do.
        kept: where the weights of a training are that the policy names, if it names any.

    Raises:
        StreambotError: anything is wrong with the recording, the settings or the strategy.
    """
    source = recording.manifest
    found = None
    if config.policy != RECORDED:
        found = find_agent(config.policy, folder=cwd, run=policy, kept=kept)
    check_capital(source.instruments, config)
    timeline = recorded_timeline(recording, limit=limit)
    plan = timeline.plan()
    check_decisions(found, plan.decision_ns)
    agent: Script | StrategyFactory | RecordedOrders
    agent = recorded_orders(recording, timeline.through) if found is None else found
    return Prepared(
        config,
        timeline,
        plan,
        agent,
        recording.declared.context,
        (timeline.source,),
        tuple(_warnings(recording, timeline)),
        source.stop_fill,
    )


def prepare_recorded_again(config: SimulationConfig, manifest: RunManifest, cwd: Path) -> Prepared:
    """The same for a run that exists.

    Raises:
        DataError: the recording has changed since.
        ConfigError: so has the checkpoint of its policy.
        StreambotError: as `find_recording` and `prepare_recorded`.
    """
    cut = next((found for s in manifest.sources if (found := _CUT_SHORT.match(s))), None)
    limit = None if cut is None else int(cut[1])
    prepared = prepare_recorded(
        config, find_recording(config, cwd), cwd, limit=limit, policy=manifest.policy
    )
    # The manifest names the policy as it was given; the settings kept say where that was.
    config = msgspec.structs.replace(config, policy=manifest.policy.spec)
    prepared = prepared._replace(config=config)
    check_same(prepared, manifest)
    return prepared


def recorded_timeline(recording: Recording, *, limit: int | None = None) -> RecordedTimeline:
    """The ticks of a recording."""
    return RecordedTimeline(recorded_run(recording), limit=limit)


def recorded_run(recording: Recording) -> RecordedRun:
    """The ticks of a recording, frame by frame."""
    declaration = recording.declared.declaration
    manifest = declaration.manifest
    topic, partitions = declaration.topics["ticks"], manifest.partitions
    return RecordedRun(
        name=manifest.run,
        run_id=manifest.run_id,
        instruments=manifest.instruments,
        partitions=partitions,
        decision_ns=manifest.decision_ns,
        sessions=declaration.outline.sessions,
        open=partial(open_values, recording.at, topic, partitions),
    )


def recorded_orders(recording: Recording, limit: int = _NO_LIMIT) -> RecordedOrders:
    """The orders of a recording, as an agent.

    Raises:
        TopicError: they were not recorded.
    """
    topics = recording.declared.declaration.topics
    orders = RecordedOrders(recording.manifest, lambda _: iter(()), limit)
    if orders.stream not in topics:
        raise TopicError(
            f"run {recording.manifest.run} has not recorded its orders", where="--policy recorded"
        )
    return orders._replace(open=partial(_values_of, recording.at, topics[orders.stream]))


@contextmanager
def open_values(at: RecordedAt, topic: str, partitions: int) -> Iterator[list[Iterator[bytes]]]:
    """Values of the records of each partition, see `open_records`."""
    with open_records(at, topic, partitions) as records:
        yield [(record.value for record in own) for own in records]


@contextmanager
def open_records(at: RecordedAt, topic: str, partitions: int) -> Iterator[list[Iterator[Record]]]:
    """The records of each partition, up to where they end now, for as long as this lasts.

    Raises:
        StreambotError: the log is gone, or does not give what it says it has.
    """
    most = max(1, _READ_AHEAD // partitions)
    with Bridge() as bridge:
        log = bridge.enter(opened(at))
        ends = bridge.wait(log.end_offsets(topic))
        yield [_records(bridge, log, topic, p, ends[p], most) for p in range(partitions)]


def _values_of(at: RecordedAt, topic: str, partition: int) -> Iterator[bytes]:
    """The values of one partition, by itself."""
    with Bridge() as bridge:
        log = bridge.enter(opened(at))
        ends = bridge.wait(log.end_offsets(topic))
        for record in _records(bridge, log, topic, partition, ends[partition], _READ_AHEAD):
            yield record.value


def _records(
    bridge: Bridge, log: Log, topic: str, partition: int, end: int, most: int
) -> Iterator[Record]:
    batches: AsyncIterator[list[Record]] = read_to_end(
        log, topic, {partition: "beginning"}, {partition: end}, max_records=most
    )
    for batch in bridge.items(batches):
        yield from batch


@asynccontextmanager
async def opened(at: RecordedAt) -> AsyncIterator[Log]:
    """The log where a recording is."""
    async with open_lasting(at.servers, at.security) as place:
        yield place.log


def _warnings(recording: Recording, timeline: RecordedTimeline) -> Iterator[str]:
    name = recording.manifest.run
    if not timeline.complete:
        yield (
            f"the recording of run {name} has no end: it is replayed up to barrier {timeline.through}, the "
            "last one that all its partitions have closed"
        )
