"""State of an engine task at a closed barrier, as a file that is whole or absent.

The snapshot is the only source of truth for where a resumed run goes on: position in the ticks,
state of the core and count of lines written belong to one moment. A file that fails its digest is
refused, never repaired.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.errors import DataError
from streambot.processor.durable import write_atomic
from streambot.streams.sequence import ChainState

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"SBSNAP1\n"
_DIGEST_BYTES = 32


class TaskSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a task needs to go on.

    Attributes:
        barrier: first barrier that is not closed yet.
        core: state of `TaskCore`, opaque.
        chain: where the reader of the ticks stands.
        offset: offset of the next record of the ticks.
        lines: lines of this partition in the files of the run, by stream.
        duplicates, dead_letters: counted so far.
        ended: the END frame was processed, so nothing is left to do.
    """

    run: str
    partition: int
    barrier: int
    core: bytes
    chain: ChainState
    offset: int
    lines: dict[str, int]
    duplicates: int
    dead_letters: int
    ended: bool


def snapshot_path(folder: Path, partition: int) -> Path:
    """File of a partition's snapshot in the folder of its run."""
    return folder / "state" / f"p{partition:04d}.snapshot"


def save_snapshot(folder: Path, snapshot: TaskSnapshot) -> None:
    """Replace the snapshot of its partition.

    Raises:
        StreambotError: the disk refuses; the snapshot before stays.
    """
    body = msgspec.msgpack.encode(snapshot)
    digest = blake2b(body, digest_size=_DIGEST_BYTES).digest()
    write_atomic(snapshot_path(folder, snapshot.partition), _MAGIC + digest + body)


def load_snapshot(folder: Path, run: str, partition: int) -> TaskSnapshot | None:
    """The last snapshot of a partition; None: it never took one.

    Raises:
        DataError: the file is damaged, or of another run.
    """
    path = snapshot_path(folder, partition)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise DataError(f"cannot be read: {cause.strerror}", where=str(path)) from cause
    head = len(_MAGIC) + _DIGEST_BYTES
    body = data[head:]
    digest = blake2b(body, digest_size=_DIGEST_BYTES).digest()
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : head] != digest:
        raise _damaged(path, "its digest differs")
    try:
        snapshot = msgspec.msgpack.decode(body, type=TaskSnapshot)
    except msgspec.MsgspecError as cause:
        raise _damaged(path, str(cause)) from cause
    if (snapshot.run, snapshot.partition) != (run, partition):
        raise _damaged(path, f"it belongs to {snapshot.run}/{snapshot.partition}")
    return snapshot


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"is no snapshot of this run: {why}",
        where=str(path),
        hint="the run cannot be resumed: start it again",
    )
