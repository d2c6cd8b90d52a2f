"""Where segment stores lie: one folder each, named by what they are made of, bounded together.

A store is written beside its place and moved there whole: who finds one finds all of it. What has
not been opened for longest goes first when the stores together grow too large.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streambot.data.segment_build import build_segments
from streambot.data.segments import FORMAT, open_segments
from streambot.data.sessions import user_cache_folder
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from streambot.data.segment_build import Recording
    from streambot.market.feature_config import FeatureConfig

MOST_BYTES = 32 << 30
"""Of all stores together; the newest one stays, however large it is."""
_BUILDING = ".building-"


def segments_folder() -> Path:
    """Where this user's stores are kept."""
    return user_cache_folder().parent / "segments"


def store_key(recording: Recording, features: FeatureConfig, salt: bytes) -> str:
    """Name of the store of a recording: all that decides what is in it."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(
        msgspec.json.encode([
            FORMAT, recording.source, recording.instruments, recording.decision_ns,
            recording.complete, recording.stop_at_tick, features.digest,
        ])
    )  # fmt: skip
    for symbol, context in sorted(recording.context.items()):
        digest.update(symbol.encode())
        for column in context.calendar:
            digest.update(len(column).to_bytes(8, "little") + column.tobytes())
        daily = (repr(context.daily_atr), context.daily_count, context.daily_close)
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
        DataError: the recording cannot be used, or the disk is full.
    """
    parent = folder or segments_folder()
    place = parent / store_key(recording, features, salt)
    with contextlib.suppress(DataError):
        open_segments(place)
        os.utime(place)
        return place
    try:
        parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=parent))
        try:
            build_segments(recording, features, building)
            _move(building, place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as cause:
        raise DataError(
            f"the segment store cannot be written: {cause.strerror or cause}",
            where=str(parent),
            hint="free some disk space; XDG_CACHE_HOME says where it lies",
        ) from cause
    _prune(parent, place, most_bytes)
    return place


def _move(building: Path, place: Path) -> None:
    building.chmod(0o755)
    try:
        building.rename(place)
    except OSError:
        # Somebody else built the same one meanwhile; a damaged one is no longer in the way then.
        with contextlib.suppress(DataError):
            open_segments(place)
            return
        shutil.rmtree(place, ignore_errors=True)
        building.rename(place)


def _prune(parent: Path, keep: Path, most_bytes: int) -> None:
    stores = [
        path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(_BUILDING)
    ]
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
