"""Weights of a training, as a policy names them; and where a run keeps those that it has read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import ConfigError
from streambot.learning.published import SERVED, read_seen
from streambot.processor.durable import disk_error

if TYPE_CHECKING:
    from collections.abc import Iterable

NEWEST = "newest"
KEPT = "policy"
"""Folder of a run with the weights that it has read."""
_SERVED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})@(newest|[0-9]{1,15})")
_ALMOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})@([^/:]*)")


class ServedName(NamedTuple):
    """Weights of a training. `sequence`: None are the newest."""

    training: str
    sequence: int | None

    def __str__(self) -> str:
        return f"{self.training}@{NEWEST if self.sequence is None else self.sequence}"


def served_name(spec: str, folder: Path) -> ServedName | None:
    """The weights of a training that a policy names; None: it names something else.

    Args:
        spec: the policy.
        folder: what a relative path starts from: a folder of that name goes first.

    Raises:
        ConfigError: it nearly does.
    """
    found = _SERVED.fullmatch(spec)
    if found is None:
        almost = _ALMOST.fullmatch(spec)
        if almost is not None and not (folder / spec).is_dir():
            raise ConfigError(
                f"`{almost[2][:40]}` is no sequence of weights", where=spec[:120],
                hint=f"{almost[1]}@{NEWEST}, or a number: {almost[1]}@250",
            )  # fmt: skip
        return None
    if (folder / spec).is_dir():
        return None
    return ServedName(found[1], None if found[2] == NEWEST else int(found[2]))


def kept_by(spec: str, runs: Iterable[Path]) -> Path | None:
    """Where one of some runs keeps the weights that a policy names; None: none does.

    Args:
        spec: `training@sequence`.
        runs: folders of runs.
    """
    for run in runs:
        folder = run / KEPT
        if folder.is_dir() and read_seen(folder).about.get(SERVED) == spec:
            return folder
    return None


def kept_in(runs_dir: Path, run: str) -> Path | None:
    """Where a run keeps the weights that it has read; None: it has read none, or is not here."""
    folder = runs_dir / run / KEPT
    return folder if folder.is_dir() else None


def put(taken: Path, run: Path) -> Path:
    """Keep a checkpoint in the folder of a run.

    Raises:
        StreambotError: the disk refuses.
    """
    try:
        return Path(shutil.copytree(taken, run / KEPT))
    except OSError as cause:
        raise disk_error(run / KEPT, cause) from cause
