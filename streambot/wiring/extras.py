"""Packages that only some of streambot needs: where they are missing, what to install is said."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from streambot.domain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRAIN = frozenset({"ray", "safetensors", "tensorboardX", "torch"})


@contextmanager
def needs_train(what: str, *, where: str = "") -> Iterator[None]:
    """Import what needs the extra `train` in here.

    Args:
        what: that needs it: `a trained policy`.
        where: what a person named.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _TRAIN:
            raise
        raise ConfigError(
            f"{what} needs the extra `train`: {missing.name} is not installed",
            where=where,
            hint="pip install 'streambot[train]'",
        ) from missing
