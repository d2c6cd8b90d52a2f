"""How far an engine task has come, out of its last state, without the state: no engine is needed.

Whoever only looks (`streambot tail`, `streambot runs`) asks this; `state_log` reads the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streambot.domain.errors import DataError
from streambot.streams.reading import read_back

if TYPE_CHECKING:
    from streambot.streams.ports import Log, Record

TASK_KEY = b"//task"
"""Of the task's own record among those of its slots. No symbol begins like that."""


class Reached(msgspec.Struct, frozen=True):
    """Where a task stands in the ticks, see `streams.sequence.ChainState`."""

    barrier: int = 0
    rows: int = 0
    t_hi: int | None = None


class TaskHead(msgspec.Struct, frozen=True):
    """What is read of a `processor.snapshot.TaskSnapshot`, under the same names."""

    chain: Reached
    ended: bool
    opens: int = 0
    duplicates: int = 0
    dead_letters: int = 0


async def last_task_record(log: Log, topic: str, partition: int) -> Record | None:
    """The last record of the task itself; None: it was never opened."""
    look = 1
    while True:
        records = await read_back(log, topic, partition, look)
        found = [record for record in records if record.key == TASK_KEY]
        if found:
            return found[-1]
        if len(records) < look:
            return None
        look *= 8


async def read_head(log: Log, topic: str, partition: int) -> TaskHead | None:
    """How far the task of a partition has come; None: it was never opened.

    Raises:
        DataError: the record is not what streambot writes.
    """
    record = await last_task_record(log, topic, partition)
    return None if record is None else decode_head(record)


def decode_head(record: Record) -> TaskHead:
    """What the task's own record says.

    Raises:
        DataError: it is not what streambot writes.
    """
    try:
        return msgspec.msgpack.decode(record.value, type=TaskHead)
    except msgspec.MsgspecError as cause:
        raise DataError(
            f"is no state of a task: {cause}",
            where=f"{record.stream}/{record.partition}/{record.offset}",
            hint="it was written by another version, or altered",
        ) from cause
