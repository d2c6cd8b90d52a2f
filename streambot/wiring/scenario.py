"""Scenarios: what to do when nobody names data. A layer of settings between file and default.

A scenario file has the keys of `streambot.yaml`; its paths start from its own folder. It counts only
where no data are given, and every setting that someone gave wins over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from streambot.domain.bundled import bundled_path
from streambot.domain.config import SETTINGS, Resolved, SimulationConfig, find_config, resolve
from streambot.domain.errors import ConfigError
from streambot.domain.layers import DEFAULT
from streambot.domain.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ENDING = ".yaml"


def scenario_names() -> list[str]:
    """Names of the bundled scenarios."""
    folder = bundled_path("replay") / "scenarios"
    return sorted(path.stem for path in folder.glob(f"*{_ENDING}"))


def with_origins(settings: SimulationConfig | Resolved) -> Resolved:
    """Settings that know who gave them; of a bare configuration, what is not default was given."""
    if isinstance(settings, Resolved):
        return settings
    default = SimulationConfig()
    origins = {
        name: DEFAULT if _get(settings, setting.field) == _get(default, setting.field) else "given"
        for name, setting in SETTINGS.items()
    }
    return Resolved(settings, origins)


def with_scenario(settings: Resolved, cwd: Path) -> Resolved:
    """The settings with those of their scenario, where nothing else to replay is given.

    Raises:
        ConfigError: there is no such scenario, or its file is wrong.
    """
    if settings.config.data or settings.config.from_run is not None:
        return settings
    path = _scenario_path(settings.config.scenario, cwd)
    scenario = resolve({}, {}, find_config(path, cwd))
    changes: dict[str, Any] = {}
    origins = dict(settings.origins)
    for name, value in _given(scenario):
        if "." in SETTINGS[name].field:
            raise ConfigError(
                "how to reach a broker is no part of a scenario", where=f"{path}:{name}"
            )
        if origins[name] == DEFAULT:
            changes[SETTINGS[name].field] = value
            origins[name] = f"scenario {path.stem}"
    if "data" not in changes:
        raise ConfigError("names no data", where=str(path), hint="data: [bars.parquet]")
    changes["data"] = tuple(str((path.parent / item).resolve()) for item in changes["data"])
    try:
        config = msgspec.structs.replace(settings.config, **changes)
        config.__post_init__()
    except ValueError as error:
        raise ConfigError(str(error), where=str(path)) from error
    return Resolved(config, origins)


def _scenario_path(name: str, cwd: Path) -> Path:
    if name.endswith((_ENDING, ".yml")) or "/" in name:
        return cwd / name
    path = bundled_path("replay") / "scenarios" / f"{name}{_ENDING}"
    if not path.is_file():
        raise ConfigError(
            f"there is no scenario `{name}`",
            where="--scenario",
            hint=did_you_mean(name, scenario_names()),
        )
    return path


def _given(scenario: Resolved) -> Iterator[tuple[str, object]]:
    for name, origin in scenario.origins.items():
        if origin != DEFAULT:
            yield name, _get(scenario.config, SETTINGS[name].field)


def _get(config: object, field: str) -> object:
    for part in field.split("."):
        config = getattr(config, part)
    return config
