"""The settings in force for a command: its flags, the environment, `streambot.yaml`, defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.domain.config import Resolved

ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file. Default: ./streambot.yaml, where there is one.",
    ),
]
RunsDir = Annotated[
    str | None,
    typer.Option("--runs-dir", metavar="FOLDER", help="Folder of all run folders. Default: runs"),
]


def read_settings(flags: Mapping[str, object], config_file: str | None = None) -> Resolved:
    """Put the layers together: flag > environment > file > default.

    Raises:
        UsageError: a flag makes no sense.
        ConfigError: a variable or a key of the file makes no sense.
    """
    from streambot.domain.config import find_config, resolve

    explicit = Path(config_file) if config_file is not None else None
    return resolve(flags, os.environ, find_config(explicit, Path.cwd()))


def runs_folder(flag: str | None, config_file: str | None = None) -> Path:
    """The folder of all runs."""
    return Path(read_settings({"runs_dir": flag}, config_file).config.runs_dir)
