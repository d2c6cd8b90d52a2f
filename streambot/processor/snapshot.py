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
from streambot.processor.core_state import CoreState
from streambot.processor.durable import write_atomic
from streambot.processor.outside import OutsideState
from streambot.streams.sequence import ChainState

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"SBSNAP1\n"
_DIGEST_BYTES = 32


class TaskSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a task needs to go on.

    Attributes:
        core: state of `TaskCore`; None where a strategy cannot tell its own: then the task starts
            again from the first frame, and what it had written is not written again.
        chain: where the core stands in the ticks.
        outside: answers of agents in other processes that were read and not given to the core yet.
        offset, orders_offset: offsets of the next records of the ticks and of the orders.
        lines: lines of this partition so far, by stream.
        written: `frame_seq` of the last record of each output stream; for `dead-letter`, by the
            stream that it came from, the offset of the last record that was buried.
        duplicates, dead_letters: counted so far.
        ended: the END frame was processed, so nothing is left to do.
        opens: how often the task was opened, on a log that keeps its state.
        slots: on such a log, the number of the commit that wrote each slot's state last.
    """

    run: str
    partition: int
    core: CoreState | None
    chain: ChainState
    offset: int
    lines: dict[str, int]
    duplicates: int
    dead_letters: int
    ended: bool
    outside: OutsideState = OutsideState()
    orders_offset: int = 0
    written: dict[str, int] = {}
    opens: int = 0
    slots: dict[str, int] = {}

    @property
    def barrier(self) -> int:
        """First barrier that is not closed yet."""
        return self.chain.barrier


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
