"""From what a person asks to train on to environments, tasks and an agent; and back, to go on.

    request -> segment stores, one for each timeframe -> split by time and by instrument -> trainer

What was asked is kept in the checkpoint, so `--resume` needs nothing but the folder.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from streambot.domain.errors import ConfigError, DataError
from streambot.domain.suggest import did_you_mean
from streambot.domain.units import NANOS_PER_SECOND
from streambot.env.settings import make_config
from streambot.env.sources import Source
from streambot.env.vector_env import VectorTradingEnv
from streambot.wiring.environments import split_settings, stored_source

if TYPE_CHECKING:
    from streambot.agents.devices import Device
    from streambot.agents.ppo import PPOAgent
    from streambot.data.segments import Segments
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.env.config import EnvConfig
    from streambot.learning.meta import MetaTrainConfig
    from streambot.learning.policy import LoadedPolicy
    from streambot.learning.tasks import TaskPool
    from streambot.learning.trainer import Kept

Kind = TypeVar("Kind", bound=msgspec.Struct)
LAST_SHARE = 0.2
"""Share of the bars, the last ones, that training leaves alone unless it is told otherwise."""
NOTHING = "none"
REQUEST = "request"


class TrainingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person asked for.

    Attributes:
        data: settings of the data by name, as environments take them (`DATA_SETTINGS`).
        timeframes: bars on which agents decide, one store for each; empty: that of the data.
        env: settings of the environment, as `make_config` takes them.
        test_from: time from which on nothing is trained; `none`: everything is; None: the last fifth.
        hold_out: symbols that are never trained on.
        agent: `moe` or `ppo`.
        network: `hidden`, `gate_hidden`, `experts`.
        learn, adapt: settings of `LearnConfig` and `AdaptConfig`.
        start: folder of a policy whose parameters are begun with.
        envs: environments side by side.
        training: settings of `TrainConfig` or `MetaTrainConfig`.
        seed: of parameters, episodes and actions.
    """

    data: dict[str, Any]
    timeframes: tuple[str, ...] = ()
    env: dict[str, Any] = {}
    test_from: str | None = None
    hold_out: tuple[str, ...] = ()
    agent: str = "moe"
    network: dict[str, Any] = {}
    learn: dict[str, Any] = {}
    adapt: dict[str, Any] = {}
    start: str | None = None
    envs: Annotated[int, Meta(ge=1, le=1 << 16)] = 64
    training: dict[str, Any] = {}
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0


class Split(NamedTuple):
    """Data, and what of them is trained on.

    Attributes:
        sources: one for each timeframe.
        train: settings of the environment that is trained in.
        held_out: of the one that is looked at: later time; the same where all of it is trained on.
        instruments: trained on.
        unseen: never trained on.
        said: what is left alone, for people.
        about: for the checkpoint.
    """

    sources: tuple[Source, ...]
    train: dict[str, Any]
    held_out: dict[str, Any]
    instruments: tuple[str, ...]
    unseen: tuple[str, ...]
    said: str
    about: dict[str, str]


def split_data(request: TrainingRequest, cwd: Path, kafka: KafkaSecurity | None = None) -> Split:
    """Read the data, or find them as they were read before, and part them.

    Args:
        request: what is asked for.
        cwd: what relative paths start from.
        kafka: how the broker of a recording is spoken to; never kept.

    Raises:
        StreambotError: the data or a setting are wrong; the broker is not there.
    """
    config = make_config(request.env)
    sources = []
    for timeframe in request.timeframes or (None,):
        data = request.data if timeframe is None else request.data | {"timeframe": timeframe}
        data = data if kafka is None else data | {"kafka": kafka}
        sources.append(stored_source(split_settings(data).simulation, config.features, cwd))
    stores = [source.open(config.features) for source in sources]
    symbols = [instrument.symbol for instrument in stores[0].head.instruments]
    unknown = sorted(set(request.hold_out) - set(symbols))
    if unknown:
        raise ConfigError(
            f"no instrument `{unknown[0]}` in the data", where="hold_out",
            hint=did_you_mean(unknown[0], symbols),
        )  # fmt: skip
    taken = tuple(symbol for symbol in symbols if symbol not in request.hold_out)
    if not taken:
        raise ConfigError("every instrument is held out: there is nothing to train on")
    moment = _test_from(request, config, stores[0])
    train = request.env if moment is None else request.env | {"end": moment}
    held_out = request.env if moment is None else request.env | {"start": moment}
    first, last = _span(stores[0], make_config(train))
    if moment is not None:
        _span(stores[0], make_config(held_out), "nothing is left to look at")
    about = {
        "instruments": ",".join(taken),
        "timeframes": ",".join(request.timeframes) or _said_ns(stores[0].head.decision_ns),
        "trained_from": _iso(first),
        "trained_to": _iso(last),
        "sources": "; ".join(store.head.source for store in stores),
        REQUEST: msgspec.json.encode(request).decode(),
    }
    said = "nothing is held out" if moment is None else f"held out: from {moment} on"
    if request.hold_out:
        said += f", and {', '.join(request.hold_out)}"
    return Split(tuple(sources), train, held_out, taken, tuple(request.hold_out), said, about)


def _test_from(request: TrainingRequest, config: EnvConfig, store: Segments) -> str | None:
    if request.test_from == NOTHING:
        return None
    if config.end is not None or config.start is not None:
        if request.test_from is not None:
            raise ConfigError(
                "`start` or `end` of the environment and `test_from` both part the data",
                where="test_from", hint="give one of them",
            )  # fmt: skip
        return None
    if request.test_from is not None:
        return request.test_from
    zone = ZoneInfo(store.head.instruments[0].timezone)
    close = int(store.closes[int(len(store.closes) * (1 - LAST_SHARE))])
    at = dt.datetime.fromtimestamp(close // NANOS_PER_SECOND, zone)
    first = dt.datetime.fromtimestamp(int(store.closes[0]) // NANOS_PER_SECOND, zone)
    # Whole days are held out, where there is more than one.
    return f"{at.date()}T00:00" if at.date() > first.date() else f"{at:%Y-%m-%dT%H:%M}"


def _span(
    store: Segments, config: EnvConfig, empty: str = "nothing is left to train on"
) -> tuple[int, int]:
    """First and last close that a part may see, UTC ns."""
    zone = store.head.instruments[0].timezone
    first, last = int(store.closes[0]), int(store.closes[-1])
    if config.start is not None:
        first = max(first, config.start.start_ns(zone))
    if config.end is not None:
        last = min(last, config.end.end_ns(zone))
    if first >= last:
        raise DataError(
            empty, where="test_from",
            hint=f"the data are from {_iso(int(store.closes[0]))} to {_iso(int(store.closes[-1]))}",
        )  # fmt: skip
    return first, last


def _iso(ns: int) -> str:
    return dt.datetime.fromtimestamp(ns // NANOS_PER_SECOND, dt.UTC).isoformat()


def _said_ns(ns: int) -> str:
    seconds = ns // NANOS_PER_SECOND
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def training_envs(request: TrainingRequest, split: Split) -> VectorTradingEnv:
    """Environments to train in.

    Raises:
        ConfigError: several timeframes, or instruments held out: episodes are drawn from all of a
            store.
        DataError: an instrument has too few bars.
    """
    if len(split.sources) > 1:
        raise ConfigError(
            "environments are of one timeframe", where="timeframe",
            hint="`meta-train` takes tasks of several",
        )  # fmt: skip
    if split.unseen:
        raise ConfigError(
            "instruments are held out by leaving them out here", where="hold_out",
            hint="--instruments A,B names those to train on",
        )  # fmt: skip
    return VectorTradingEnv(
        split.sources[0], request.envs, autoreset_mode="SameStep", **split.train
    )


def task_pools(
    request: TrainingRequest, split: Split, config: MetaTrainConfig
) -> tuple[TaskPool, TaskPool | None]:
    """Tasks to learn from, and held-out ones: of instruments never trained on, in later time.

    Raises:
        StreambotError: too few bars for one task, or tasks that leak.
    """
    from streambot.learning.tasks import TaskPool

    pool = TaskPool(split.sources, split.train, config.task, instruments=split.instruments)
    if split.held_out == split.train and not split.unseen:
        return pool, None
    unseen = split.unseen or split.instruments
    return pool, TaskPool(split.sources, split.held_out, config.task, instruments=unseen)


def make_agent(request: TrainingRequest, device: Device) -> PPOAgent:
    """The agent that is asked for, new or with the parameters of another one.

    Raises:
        ConfigError: a setting that is unknown or wrong, or an agent of another kind.
        DataError: the policy to begin with cannot be read, or observes something else.
    """
    from streambot.agents.batch import AdaptConfig, LearnConfig
    from streambot.learning.policy import AGENTS, agent_config, load_policy

    if request.agent not in AGENTS:
        raise ConfigError(
            f"there is no agent `{request.agent}`", where="agent",
            hint=did_you_mean(request.agent, list(AGENTS)),
        )  # fmt: skip
    config = agent_config(
        make_config(request.env),
        learn=typed("learn", request.learn, LearnConfig),
        adapt=typed("adapt", request.adapt, AdaptConfig),
        seed=request.seed,
        **request.network,
    )
    if request.start is not None:
        before = load_policy(Path(request.start))
        same = {"learn": config.learn, "adapt": config.adapt, "seed": config.seed}
        begun = msgspec.structs.replace(before.agent.config, **same)
        if before.agent.kind != request.agent or before.agent.config.layout != config.layout:
            raise ConfigError(
                f"the policy is a `{before.agent.kind}` that observes "
                f"{'the same' if before.agent.config.layout == config.layout else 'something else'}",
                where=request.start,
                hint="train with the agent and the settings of the environment that it has",
            )
        agent = AGENTS[request.agent](begun, device=device.torch)
        agent.network.load_state_dict(before.agent.network.state_dict())
        agent.critic.load_state_dict(before.agent.critic.state_dict())
        return agent
    return AGENTS[request.agent](config, device=device.torch)


def typed(group: str, given: dict[str, Any], kind: type[Kind]) -> Kind:
    """Settings by name as what takes them.

    Raises:
        ConfigError: one that is unknown, or a value that it cannot have.
    """
    names = list(kind.__struct_fields__)
    for name in given:
        if name not in names:
            raise ConfigError(f"`{group}` has no setting `{name}`", hint=did_you_mean(name, names))
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`").lower(), where=group) from error


def kept_of(request: TrainingRequest, split: Split, folder: Path) -> Kept:
    """What checkpoints of the training say."""
    from streambot.learning.trainer import Kept

    env = {name: value for name, value in request.env.items() if name not in {"start", "end"}}
    return Kept(folder, env, dict(split.about))


def resumed(folder: Path, device: Device) -> tuple[TrainingRequest, LoadedPolicy]:
    """A training to go on with.

    Raises:
        DataError: there is none, or its checkpoint does not say what was asked for.
    """
    from streambot.learning.policy import load_policy

    found = load_policy(folder, device=device.torch)
    try:
        return msgspec.json.decode(found.head.about[REQUEST], type=TrainingRequest), found
    except (KeyError, msgspec.MsgspecError) as cause:
        raise DataError(
            "the policy does not say what it was trained on", where=str(folder),
            hint="a folder that `streambot train` or `meta-train` wrote",
        ) from cause  # fmt: skip


def training_settings(request: TrainingRequest, kind: type[Kind]) -> Kind:
    """The settings of the training, typed.

    Raises:
        ConfigError: one that is unknown, or a value that it cannot have.
    """
    return typed("training", request.training | {"seed": request.seed}, kind)


def with_updates(request: TrainingRequest, updates: int) -> TrainingRequest:
    """The same training, with another number of updates."""
    return msgspec.structs.replace(request, training=request.training | {"updates": updates})
