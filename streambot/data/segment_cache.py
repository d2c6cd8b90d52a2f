"""Where segment stores lie: one folder each, named by what they are made of, bounded together.

A store is written beside its place and moved there whole: who finds one finds all of it. What has
not been opened for longest goes first when the stores together grow too large.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streambot.data.segment_build import build_segments
from streambot.data.segments import FORMAT, open_segments
from streambot.data.sessions import calendars_version, user_cache_folder
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streambot.data.segment_build import Recording
    from streambot.market.feature_config import FeatureConfig

MOST_BYTES = 32 << 30
"""Of all stores together; the newest one stays, however large it is."""
_BUILDING = ".building-"
_ABANDONED_S = 86_400.0


def segments_folder() -> Path:
    """Where this user's stores are kept."""
    return user_cache_folder().parent / "segments"


def store_key(recording: Recording, features: FeatureConfig, salt: bytes) -> str:
    """Name of the store of a recording: all that decides what is in it."""
    digest = hashlib.blake2b(digest_size=16)
    calendars = calendars_version() if features.timeframes else ""
    digest.update(
        msgspec.json.encode([
            FORMAT, recording.source, recording.instruments, recording.decision_ns,
            recording.complete, recording.stop_at_tick, features.digest, calendars,
        ])
    )  # fmt: skip
    for symbol, context in sorted(recording.context.items()):
        digest.update(symbol.encode())
        for column in context.calendar:
            digest.update(len(column).to_bytes(8, "little") + column.tobytes())
        daily = (repr(float(context.daily_atr)), int(context.daily_count), int(context.daily_close))
        digest.update(msgspec.json.encode(daily))
    digest.update(salt)
    return digest.hexdigest()


def cached_segments(
    recording: Recording,
    features: FeatureConfig,
    *,
    salt: bytes = b"",
    folder: Path | None = None,
    most_bytes: int = MOST_BYTES,
) -> Path:
    """Folder of the store of a recording; built where it is missing or damaged.

    Args:
        salt: what else decides its ticks.
        folder: of the stores; None: this user's.
        most_bytes: of all stores together.

    Raises:
        DataError: the recording cannot be used, or the store cannot be written.
    """
    parent = folder or segments_folder()
    place = parent / store_key(recording, features, salt)
    if _is_whole(place):
        with contextlib.suppress(OSError):
            os.utime(place)  # so that it goes last; in a folder of somebody else's it may not
        return place
    try:
        parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=parent))
        try:
            build_segments(recording, features, building)
            with _alone(parent):
                _move(building, place)
                _prune(parent, place, most_bytes)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as cause:
        raise DataError(
            f"the segment store could not be built: {cause.strerror or cause}",
            where=str(cause.filename or parent),
            hint="is there room on the disk? XDG_CACHE_HOME says where stores lie",
        ) from cause
    return place


def _is_whole(place: Path) -> bool:
    try:
        open_segments(place)
    except DataError:
        return False
    return True


@contextlib.contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Nobody else moves or deletes stores in `parent` meanwhile; released with the process."""
    folder = os.open(parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _move(building: Path, place: Path) -> None:
    """Put a store in its place, unless somebody has put the same one there; a damaged one goes."""
    if not _is_whole(place):
        shutil.rmtree(place, ignore_errors=True)
        building.chmod(0o755)
        building.rename(place)


def _prune(parent: Path, keep: Path, most_bytes: int) -> None:
    now = keep.stat().st_mtime
    found = [path for path in parent.iterdir() if path.is_dir()]
    for path in found:
        # What a killed process left; nobody builds for a day.
        if path.name.startswith(_BUILDING) and now - _opened(path) > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)
    stores = [path for path in found if not path.name.startswith(_BUILDING)]
    sizes = {path: _size(path) for path in stores}
    total = sum(sizes.values())
    for path in sorted(stores, key=_opened):
        if total <= most_bytes:
            return
        if path != keep:
            # What is mapped stays readable until it is closed.
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]


def _opened(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(part.stat().st_size for part in path.iterdir())
    return 0
