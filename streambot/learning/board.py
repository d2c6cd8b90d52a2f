"""The course of a training as TensorBoard shows it: one scalar a figure, by environment steps."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

import msgspec
from tensorboardX import SummaryWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from streambot.learning.trainer import Progress


class Board:
    """Writes the events of a training.

    Args:
        folder: where.
        from_step: events of later steps, of a training that was taken up again before them, are
            hidden.
    """

    def __init__(self, folder: Path, *, from_step: int = 0) -> None:
        self._make = partial(SummaryWriter, str(folder), purge_step=from_step or None)
        self._writer: SummaryWriter | None = None

    def __call__(self, progress: Progress) -> None:
        """An update of a `Trainer`."""
        found = {"reward/step": progress.reward}
        if progress.returns:
            found["reward/episode"] = sum(progress.returns) / len(progress.returns)
        if progress.learnt is not None:
            for name, value in msgspec.structs.asdict(progress.learnt).items():
                found[f"update/{name}"] = float(value)
        if progress.meta is not None:
            for name, value in progress.meta._asdict().items():
                found[f"meta/{name}"] = float(value)
        if progress.curve is not None:
            for k, rewards in enumerate(progress.curve):
                found[f"held-out/after_{k}_steps"] = float(rewards.mean())
        self.write(found, progress.steps)

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Figures by name, at a count of environment steps."""
        self._writer = self._writer or self._make()  # a training that never began leaves nothing
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
