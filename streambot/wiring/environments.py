"""Environments from data as people name them: a scenario, bar files, or a recorded run.

settings -> timeline and context -> segment store (once) -> `TradingEnv`, `VectorTradingEnv`
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streambot.data.segment_build import Recording
from streambot.data.segment_cache import cached_segments
from streambot.domain.config import SETTINGS, SimulationConfig
from streambot.domain.durations import parse_duration
from streambot.domain.errors import BrokerError, ConfigError, TopicError, UsageError
from streambot.domain.suggest import did_you_mean
from streambot.env.config import EnvConfig
from streambot.env.settings import NAMES, make_config
from streambot.env.sources import StoredSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.env.trading_env import TradingEnv
    from streambot.env.vector_env import VectorTradingEnv
    from streambot.market.feature_config import FeatureConfig
    from streambot.wiring.env_streams import StreamSource
    from streambot.wiring.preparation import Prepared

DATA_SETTINGS = (
    "data",
    "scenario",
    "instruments",
    "registry",
    "infer_instruments",
    "round_prices",
    "bar_path",
    "quote_side",
    "timeframe",
    "seed",
    "from_run",
    "from_broker",
    "bootstrap_servers",
    "namespace",
    "runs_dir",
)
"""Settings that say what the data are, as in `streambot.yaml`; `path_seed` gives `seed`."""
_KNOWN = {"path_seed" if name == "seed" else name: name for name in DATA_SETTINGS}
"""By the name that an environment gives them."""
_LIVE = ("run", "bootstrap_servers", "namespace", "instruments", "agent", "wait", "kafka")
TRAIN = "train"


class DataSettings(NamedTuple):
    """What the data are, and what the environment is.

    Attributes:
        simulation: what to replay.
        env: the rest.
        rest: settings of the environment as they were given.
    """

    simulation: SimulationConfig
    env: EnvConfig
    rest: dict[str, Any]


def trading_env(
    *,
    mode: str = TRAIN,
    render_mode: str | None = None,
    actor: int = 0,
    slot: int = 0,
    **settings: Any,  # noqa: ANN401  # by name, checked
) -> TradingEnv:
    """`TradingEnv` over a scenario, bar files or a recorded run, or on a run that is going on.

    Args:
        mode: `train`: episodes of what was recorded, the engine in process; `mirror`: one slot of
            a run in lockstep, as an agent of it; `free-run`: of a run whose orders take effect when
            they arrive.
        render_mode, actor, slot: see `TradingEnv`.
        settings: `DATA_SETTINGS` and `env.settings.NAMES`; nothing: the default scenario. On a
            run that is going on: `run`, `bootstrap_servers`, `instruments` (one), `agent`, `wait`
            (how long the run is waited for, `30s`) and the environment's. `kafka`, a
            `domain.kafka_settings.KafkaSecurity`, where the broker wants more than plain text.

    Raises:
        StreambotError: the data, the run or a setting are wrong; the broker is not there.
    """
    from streambot.env.trading_env import TradingEnv

    if mode != TRAIN:
        live, rest = _live(mode, settings)
        return TradingEnv(live, render_mode=render_mode, actor=actor, slot=slot, **rest)
    split = split_settings(settings)
    source = stored_source(split.simulation, split.env.features, Path.cwd())
    return TradingEnv(source, render_mode=render_mode, actor=actor, slot=slot, **split.rest)


def _live(mode: str, settings: Mapping[str, Any]) -> tuple[StreamSource, dict[str, Any]]:
    """The slot of a run that is going on, and the settings of the environment."""
    from streambot.wiring.env_streams import FREE_RUN, MIRROR, RunToTrade, StreamSource

    if mode not in {MIRROR, FREE_RUN}:
        raise ConfigError(
            f"no mode `{mode}`", where="mode", hint=did_you_mean(mode, [TRAIN, MIRROR, FREE_RUN])
        )
    given = {name: value for name, value in settings.items() if name not in NAMES}
    unknown = sorted(set(given) - set(_LIVE))
    if unknown:
        raise ConfigError(
            f"an environment on a running run has no setting `{unknown[0]}`",
            hint=did_you_mean(unknown[0], [*_LIVE, *NAMES]),
        )
    run, servers = given.get("run"), given.get("bootstrap_servers")
    if run is None or servers is None:
        raise ConfigError(
            f'mode="{mode}" needs `run` and `bootstrap_servers`',
            hint='run="NAME", bootstrap_servers="HOST:PORT"',
        )
    symbols = given.get("instruments", ())
    listed = (symbols,) if isinstance(symbols, str) else tuple(symbols)
    if len(listed) > 1:
        raise ConfigError("an environment trades one instrument", where="instruments")
    default = SimulationConfig()
    target = RunToTrade(
        servers=_read("bootstrap_servers", servers),
        security=given.get("kafka", default.kafka),
        namespace=_read("namespace", given.get("namespace", default.namespace)),
        run=_read("run", run),
        agent=given.get("agent"),
        instrument=listed[0] if listed else None,
        mode=mode,
        wait_s=_said_duration(given.get("wait", "30s")),
        cwd=Path.cwd(),
    )
    return StreamSource(target), {n: value for n, value in settings.items() if n in NAMES}


def _said_duration(text: object) -> float:
    try:
        return parse_duration(str(text)) / 10**9
    except UsageError as error:
        raise ConfigError(error.message, where="wait", hint=error.hint) from error


def vector_trading_env(
    num_envs: int = 1,
    *,
    actor: int = 0,
    autoreset_mode: str = "NextStep",
    copy: bool = True,
    **settings: Any,  # noqa: ANN401  # by name, checked
) -> VectorTradingEnv:
    """`VectorTradingEnv`, as `trading_env`.

    Raises:
        StreambotError: the data or a setting are wrong; the broker is not there.
    """
    from streambot.env.vector_env import VectorTradingEnv

    if settings.pop("mode", TRAIN) != TRAIN or settings.pop("render_mode", None) is not None:
        raise ConfigError(
            "many environments are for training, and draw no pictures",
            hint="`gymnasium.make` makes one that trades a running run, or is rendered",
        )
    split = split_settings(settings)
    source = stored_source(split.simulation, split.env.features, Path.cwd())
    return VectorTradingEnv(
        source, num_envs, actor=actor, autoreset_mode=autoreset_mode, copy=copy, **split.rest
    )


def split_settings(settings: Mapping[str, Any]) -> DataSettings:
    """Settings of the data apart from those of the environment.

    Raises:
        ConfigError: a setting that is unknown or wrong.
    """
    fields: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "kafka":
            fields["kafka"] = value
        elif name in _KNOWN:
            setting = SETTINGS[_KNOWN[name]]
            if value is not None:
                fields[setting.field] = _read(name, value)
        elif name in NAMES:
            rest[name] = value
        else:
            raise ConfigError(
                f"an environment has no setting `{name}`",
                hint=did_you_mean(name, [*_KNOWN, *NAMES]),
            )
    simulation = SimulationConfig(**fields)
    return DataSettings(simulation, make_config(rest), rest)


def _read(name: str, value: object) -> Any:  # noqa: ANN401  # as the table of settings
    setting = SETTINGS[_KNOWN.get(name, name)]
    try:
        if setting.name in {"data", "instruments"}:
            listed = [value] if isinstance(value, (str, Path)) else list(value)  # type: ignore[call-overload]
            return tuple(setting.parse(str(item)) for item in listed)
        return setting.parse(str(value))
    except UsageError as error:
        raise ConfigError(error.message, where=name, hint=error.hint) from error


def stored_source(config: SimulationConfig, features: FeatureConfig, cwd: Path) -> StoredSource:
    """The segment store of what `config` names; built where it is missing.

    Raises:
        StreambotError: the data are wrong, or the broker is not there.
    """
    prepared, planned_ns = _prepared(config, cwd)
    complete = getattr(prepared.timeline, "complete", True)
    recording = Recording(
        instruments=prepared.timeline.instruments,
        context=prepared.context,
        windows=prepared.timeline.windows(),
        source="; ".join(prepared.sources),
        complete=complete,
        decision_ns=prepared.plan.decision_ns,
        stop_at_tick=prepared.stop_fill == "tick",
    )
    path = msgspec.json.encode([
        prepared.config.bar_path, prepared.config.seed, prepared.config.quote_side,
        prepared.config.start, prepared.config.end,
    ])  # fmt: skip
    folder = cached_segments(recording, features, salt=path)
    return StoredSource(folder, None if complete else planned_ns)


def _prepared(config: SimulationConfig, cwd: Path) -> tuple[Prepared, int | None]:
    """What is replayed, and of a recording the close of its last bar, as it was planned."""
    from streambot.wiring.preparation import prepare
    from streambot.wiring.recording import RecordedAt, prepare_recorded, read_recording
    from streambot.wiring.scenario import with_origins, with_scenario

    config = msgspec.structs.replace(config, policy="flat")
    if config.from_run is None:
        return prepare(with_scenario(with_origins(config), cwd).config, cwd), None
    servers = config.from_broker or config.bootstrap_servers
    if servers is None:
        raise BrokerError(
            f"where is the recording of run {config.from_run}?",
            where="from_run",
            hint="`bootstrap_servers` names it: HOST:PORT",
        )
    # A run that is being recorded counts too, up to the last barrier that all its partitions closed.
    recording = read_recording(
        RecordedAt(servers, config.kafka), config.namespace, config.from_run, cwd
    )
    if recording is None:
        raise TopicError(
            f"no run {config.from_run} is declared on {servers}",
            hint="`streambot topics ls` lists the runs of a broker",
        )
    planned = recording.declared.declaration.outline.last_ns
    return prepare_recorded(config, recording, cwd), planned
