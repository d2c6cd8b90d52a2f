"""What `streambot env` is asked for: data as anywhere, and `--set NAME=VALUE` for all else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from streambot.cli.replayed import check_recording, check_scenario
from streambot.cli.run_flags import WHAT, Text
from streambot.cli.settings import read_settings
from streambot.cli.which_broker import with_recording_place
from streambot.domain.errors import BrokerError, UsageError

if TYPE_CHECKING:
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.env.config import EnvConfig
    from streambot.env.sources import Source

Scenario = Annotated[
    Text,
    typer.Argument(
        metavar="SCENARIO",
        help="Bundled scenario or scenario file, where neither --data nor --from-run is given.",
    ),
]
FromRun = Annotated[
    Text,
    typer.Option(
        "--from-run",
        metavar="RUN",
        rich_help_panel=WHAT,
        help="The recorded ticks of a run, from --bootstrap-servers.",
    ),
]
BootstrapServers = Annotated[
    Text,
    typer.Option(
        "--bootstrap-servers",
        metavar="HOST:PORT",
        rich_help_panel=WHAT,
        help="The broker that has the recording.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the environment: episode_bars=100, reward=pnl, reward.eta=0.05, "
        "timeframes=5m,15m. Repeatable.",
    ),
]
_LISTS = frozenset({"regime_windows", "timeframes"})
_TEXTS = frozenset({"capital", "start", "end", "max_gap", "actions"})
_NOTHING = frozenset({"none", "null", ""})


class Wanted(NamedTuple):
    """An environment, ready to be made.

    Attributes:
        source: its data.
        settings: by name, as `TradingEnv` takes them.
        config: the same, typed.
    """

    source: Source
    settings: dict[str, Any]
    config: EnvConfig


def parse_sets(given: list[str] | None) -> dict[str, Any]:
    """Settings of the environment by name: `window=20`, `reward.eta=0.05`, `episode_bars=none`.

    Raises:
        UsageError: no `NAME=VALUE`, or one setting twice.
    """
    settings: dict[str, Any] = {}
    for item in given or ():
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not name:
            raise UsageError(
                f"`{item[:60]}` sets nothing", where="--set", hint="NAME=VALUE, as in window=20"
            )
        group, dot, field = name.partition(".")
        # The core reward and its coefficients are one setting with several parts.
        if name == "reward":
            group, dot, field = "reward", ".", "core"
        place = settings.setdefault(group, {}) if dot else settings
        if not isinstance(place, dict) or (field if dot else name) in place:
            raise UsageError(f"`{name}` is set twice", where="--set")
        place[field if dot else name] = _value(name, text)
    return settings


def _value(name: str, text: str) -> Any:
    nothing = text.lower() in _NOTHING
    if name.removeprefix("features.") in _LISTS:
        if nothing:
            return []
        return [_number(part.strip()) for part in text.split(",")]
    if nothing:
        return None
    return text if name in _TEXTS else _number(text)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_wanted(flags: dict[str, Any], sets: list[str] | None, config_file: str | None) -> Wanted:
    """The data and the settings; the data are read, or found as they were read before.

    Args:
        flags: settings of the data by name.
        sets: those of the environment, `NAME=VALUE`.

    Raises:
        StreambotError: the data or a setting are wrong; the broker is not there.
    """
    from streambot.env.settings import make_config
    from streambot.wiring.environments import split_settings, stored_source

    settings = parse_sets(sets)
    config = make_config(settings)  # a mistake in here is told before the data are read
    data, kafka = read_data(flags, config_file)
    simulation = split_settings({**data, "kafka": kafka}).simulation
    return Wanted(stored_source(simulation, config.features, Path.cwd()), settings, config)


def read_data(
    flags: dict[str, Any], config_file: str | None
) -> tuple[dict[str, Any], KafkaSecurity]:
    """The settings of the data that are not the default, by name, and how a broker is spoken to.

    Args:
        flags: settings of the data by name.

    Raises:
        StreambotError: a setting is wrong, or nobody says where a recording is.
    """
    from streambot.domain.config import SETTINGS
    from streambot.domain.layers import DEFAULT
    from streambot.wiring.environments import DATA_SETTINGS

    check_scenario(flags["scenario"], None, flags["data"])
    whole = dict.fromkeys(
        ("from_broker", "policy", "from", "to", "bar_path", "quote_side", "round_prices")
    )
    check_recording({**whole, **flags})
    resolved = read_settings(flags, config_file)
    if resolved.config.from_run is not None and resolved.config.bootstrap_servers is None:
        try:
            resolved = asyncio.run(with_recording_place(resolved))
        except UsageError as error:
            raise BrokerError(
                f"where is the recording of run {resolved.config.from_run}?",
                where="--from-run",
                hint="--bootstrap-servers HOST:PORT",
            ) from error
    data = {}
    for name in DATA_SETTINGS:
        setting = SETTINGS[name]
        if resolved.origins[name] != DEFAULT:
            value = getattr(resolved.config, setting.field)
            shown = (
                [setting.show(v) for v in value]
                if isinstance(value, tuple)
                else setting.show(value)
            )
            data["path_seed" if name == "seed" else name] = shown
    return data, resolved.config.kafka
