"""Files that are whole or absent, and what to say when a disk refuses."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from streambot.domain.errors import ConfigError, DataError, StreambotError

if TYPE_CHECKING:
    from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: a reader, and a crash, see the old file or the new one.

    Raises:
        StreambotError: the disk refuses; the old file stays.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as cause:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise disk_error(path, cause) from cause


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(path: Path, cause: OSError) -> StreambotError:
    """What to tell a person when writing `path` failed."""
    if cause.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return DataError(
            f"no room left to write: {cause.strerror}",
            where=str(path),
            hint="free some space, then go on with `streambot simulate --resume RUN`",
        )
    if cause.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
        return ConfigError(
            f"cannot be written: {cause.strerror}",
            where=str(path),
            hint="choose a folder that you may write, with --runs-dir or STREAMBOT_RUNS_DIR",
        )
    return DataError(f"cannot be written: {cause.strerror or cause}", where=str(path))
