"""`streambot config show|check`: which settings are in force, and who gave each of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from streambot.cli.console import emit, show, terminal_width
from streambot.cli.groups import AsJson, several
from streambot.cli.human import count, place, table
from streambot.cli.settings import ConfigFile, read_settings

_DEFAULT = "default"


def show_all(
    config: ConfigFile = None,
    origin: Annotated[
        bool,
        typer.Option(
            "--origin", help="Say who gave each value: variable, file and line, or default."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every setting and its value. Secrets are shown as ***."""
    from streambot.domain.config import shown

    resolved = read_settings({}, config)
    values = shown(resolved.config)
    if as_json:
        emit("config", settings=values, origins=resolved.origins)
        return
    headings: tuple[str, ...] = ("setting", "value", "origin")
    rows: list[tuple[str, ...]] = [
        (name, value or "-", resolved.origins[name]) for name, value in values.items()
    ]
    if not origin:
        headings = headings[:-1]
        rows = [row[:-1] for row in rows]
    for line in table(headings, rows, width=terminal_width()):
        show(line)


def check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check settings, registry and policy. Exit code 3 names the file, line and key."""
    from streambot.domain.registry import find_registry

    resolved = read_settings({}, config)
    settings = resolved.config
    registry = Path(settings.registry) if settings.registry is not None else None
    source, instruments = find_registry(registry, Path.cwd())
    by_layer = Counter(_layer(origin) for origin in resolved.origins.values())
    if as_json:
        emit(
            "config-check",
            settings=dict(by_layer),
            registry=place(source),
            instruments=len(instruments),
        )
        return
    given = ", ".join(f"{n} from {layer}" for layer, n in sorted(by_layer.items()))
    show(f"ok  settings: {given}")
    show(f"ok  registry {place(source)}: {count(len(instruments), 'instrument')}")


def _layer(origin: str) -> str:
    """`$STREAMBOT_SPEED` is the environment, `streambot.yaml:3` that file."""
    if origin == _DEFAULT:
        return "defaults"
    return "the environment" if origin.startswith("$") else origin.rpartition(":")[0]


app = several(
    "Show and check the settings: flag > environment > streambot.yaml > default.",
    {"show": show_all, "check": check},
)
