"""From what a person asks to train on to environments, tasks and an agent; and back, to go on.

    request -> data, parted (`wiring.parting`) -> environments or tasks, and an agent -> trainer

What was asked is kept in the checkpoint, so `--resume` needs nothing but the folder.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from streambot.domain.errors import ConfigError, DataError
from streambot.domain.suggest import did_you_mean
from streambot.env.settings import make_config
from streambot.env.sources import Source
from streambot.env.vector_env import VectorTradingEnv
from streambot.wiring.trained_on import together

if TYPE_CHECKING:
    from streambot.agents.devices import Device
    from streambot.agents.ppo import PPOAgent
    from streambot.learning.meta import MetaTrainConfig
    from streambot.learning.policy import LoadedPolicy
    from streambot.learning.tasks import TaskPool
    from streambot.learning.trainer import Kept

Kind = TypeVar("Kind", bound=msgspec.Struct)
REQUEST = "request"
NOTHING = "none"
"""`test_from`: nothing is held out."""
MOST_SEED = 2**53
"""Networks are made from its multiples, which the generators of torch take up to 2**63."""


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
        training: settings of `TrainConfig` or `MetaTrainConfig`; with `stream` of `LearnerConfig`,
            and `rollout`.
        stream: settings of `StreamSettings`: trained by a learner from what actors bring; None: in
            one process.
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
    stream: dict[str, Any] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**53)] = 0


class Split(NamedTuple):
    """Data, and what of them is trained on.

    Attributes:
        sources: one for each timeframe.
        train: settings of the environment that is trained in.
        held_out: of the one that is looked at: later time; the same where all of it is trained on.
        instruments: trained on.
        unseen: never trained on.
        said: the days that are trained on, and what is left alone, for people.
        about: for the checkpoint.
        test_from: as `TrainingRequest.test_from`, said or found.
    """

    sources: tuple[Source, ...]
    train: dict[str, Any]
    held_out: dict[str, Any]
    instruments: tuple[str, ...]
    unseen: tuple[str, ...]
    said: str
    about: dict[str, str]
    test_from: str = NOTHING


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
    if request.seed > MOST_SEED:
        raise ConfigError(f"a seed of {request.seed}", where="seed", hint=f"0 to {MOST_SEED}")
    config = agent_config(
        make_config(request.env),
        learn=typed("learn", request.learn, LearnConfig),
        adapt=typed("adapt", request.adapt, AdaptConfig),
        seed=request.seed,
        **request.network,
    )
    if request.start is not None:
        before = load_policy(Path(request.start))
        for name, value in request.network.items():
            if getattr(before.agent.config, name) != value:
                raise ConfigError(
                    f"the policy has `{name}` {getattr(before.agent.config, name)}", where=name,
                    hint=f"leave it out: --from {request.start} says what its networks are",
                )  # fmt: skip
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
    return AGENTS[request.agent](config, device=device.torch, mixed=device.mixed)


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
        made = msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`").lower(), where=group) from error
    endless = _endless(msgspec.to_builtins(made))
    if endless is not None:
        raise ConfigError(
            f"`{endless}` is no finite number", where=group, hint="1e9 is as good as never reached"
        )
    return made


def _endless(settings: dict[str, Any]) -> str | None:
    """Name of a number that a checkpoint cannot say; None: there is none."""
    for name, value in settings.items():
        if isinstance(value, float) and not isfinite(value):
            return name
        if isinstance(value, dict) and (inner := _endless(value)) is not None:
            return f"{name}.{inner}"
    return None


def kept_of(
    request: TrainingRequest, split: Split, folder: Path, begun: LoadedPolicy | None = None
) -> Kept:
    """What checkpoints of the training say.

    Args:
        begun: the checkpoint that it goes on from, which says what it was begun with; None: it is new.

    Raises:
        DataError: the policy to begin with cannot be read.
    """
    from streambot.agents.checkpoint import read_head
    from streambot.learning.trainer import Kept

    env = {name: value for name, value in request.env.items() if name not in {"start", "end"}}
    if begun is not None:
        about = split.about | begun.head.about | {REQUEST: split.about[REQUEST]}
    elif request.start is not None:
        about = together(split.about, read_head(Path(request.start)).about)
    else:
        about = dict(split.about)
    return Kept(folder, env, about)


def rooted(data: dict[str, Any], cwd: Path) -> dict[str, Any]:
    """Settings of the data with whole paths: a training goes on from any folder."""

    def whole(item: str) -> str:
        return str((cwd / Path(item).expanduser()).resolve())

    paths: dict[str, Any] = {}
    if "data" in data:
        paths["data"] = [whole(item) for item in data["data"]]
    if data.get("registry") is not None:
        paths["registry"] = whole(data["registry"])
    scenario = data.get("scenario", "")
    if "/" in scenario or scenario.endswith((".yaml", ".yml")):
        paths["scenario"] = whole(scenario)
    return data | paths


def resumed(folder: Path, device: Device) -> tuple[TrainingRequest, LoadedPolicy]:
    """A training to go on with.

    Raises:
        DataError: there is none, or its checkpoint does not say what was asked for.
    """
    from streambot.learning.policy import load_policy

    found = load_policy(folder, device=device.torch, mixed=device.mixed)
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
