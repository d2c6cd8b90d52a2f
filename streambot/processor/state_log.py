"""The state of an engine task on a log that lasts: the `state` stream.

Every commit writes, in the transaction of its outputs, the slots that changed, keyed by instrument,
and one record of the task (`TASK_KEY`): positions, counts, and which commit wrote each slot last.
So the task's last record says what belongs to it, and a restart reads a few records from the end,
however long the run is: every slot is written again at least every `FULL_EVERY` commits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import DataError
from streambot.processor.core_state import decode_slot, encode_state
from streambot.processor.snapshot import TaskSnapshot
from streambot.processor.task_head import TASK_KEY, last_task_record
from streambot.streams.ports import Headers
from streambot.streams.reading import read_back

if TYPE_CHECKING:
    from streambot.processor.core_state import CoreState, SlotState
    from streambot.streams.ports import Log, Record

FULL_EVERY = 64
_COMMIT = "commit"
_FIRST_LOOK = 64


class StateRecord(NamedTuple):
    """A record of the `state` stream."""

    key: bytes
    value: bytes
    headers: Headers


class StateWriter:
    """Turns snapshots into records, those of the slots that did not change left out.

    Args:
        commit: number of the last commit before.
    """

    def __init__(self, commit: int = 0) -> None:
        self._commit = commit
        self._written: dict[str, tuple[int, bytes]] = {}

    def records(self, snapshot: TaskSnapshot) -> list[StateRecord]:
        """Records of the next commit, the task's own last."""
        self._commit += 1
        headers = ((_COMMIT, str(self._commit).encode()),)
        out: list[StateRecord] = []
        for slot in () if snapshot.core is None else snapshot.core.slots:
            value = encode_state(slot)
            at, before = self._written.get(slot.symbol, (0, b""))
            if value != before or self._commit - at >= FULL_EVERY:
                self._written[slot.symbol] = (self._commit, value)
                out.append(StateRecord(slot.symbol.encode(), value, headers))
        task = msgspec.structs.replace(
            snapshot,
            core=None if snapshot.core is None else _without_slots(snapshot.core),
            slots={symbol: at for symbol, (at, _) in self._written.items()},
        )
        out.append(StateRecord(TASK_KEY, msgspec.msgpack.encode(task), headers))
        return out


def _without_slots(core: CoreState) -> CoreState:
    return msgspec.structs.replace(core, slots=())


async def read_task(log: Log, topic: str, partition: int) -> TaskSnapshot | None:
    """The task's own last record, without its slots; None: it was never opened."""
    record = await last_task_record(log, topic, partition)
    return None if record is None else _decode(record)


async def restore_state(
    log: Log, topic: str, partition: int, end: int | None = None
) -> TaskSnapshot | None:
    """The last committed state of a task, whole; None: it was never opened.

    Call it only once nobody else can commit any more.

    Args:
        log: where the stream is.
        topic: its full name.
        partition: of the task.
        end: where the partition ends; None: where it ends now.

    Raises:
        DataError: the records are damaged, or some are missing.
    """
    look = _FIRST_LOOK
    while True:
        records = await read_back(log, topic, partition, look, end)
        task = next((_decode(r) for r in reversed(records) if r.key == TASK_KEY), None)
        if task is not None and task.core is None:
            return task
        if task is not None and task.core is not None:
            slots = _slots_of(task, records)
            if slots is not None:
                core = msgspec.structs.replace(task.core, slots=tuple(slots))
                return msgspec.structs.replace(task, core=core)
        if len(records) < look:
            if records:
                raise DataError(
                    "the state of the task is not whole",
                    where=f"{topic}/{partition}",
                    hint="the topic was altered: start the run again",
                )
            return None
        look *= 8


def last_commit(task: TaskSnapshot) -> int:
    """Number of the last commit that a task knows of."""
    return max(task.slots.values(), default=0)


def _slots_of(task: TaskSnapshot, records: list[Record]) -> list[SlotState] | None:
    """The slots that belong to the task, in its order; None where not all are among the records."""
    found = {
        (record.key, dict(record.headers).get(_COMMIT)): record
        for record in records
        if record.key != TASK_KEY
    }
    slots = []
    for symbol, at in task.slots.items():
        record = found.get((symbol.encode(), str(at).encode()))
        if record is None:
            return None
        slots.append(decode_slot(record.value))
    return slots


def _decode(record: Record) -> TaskSnapshot:
    try:
        return msgspec.msgpack.decode(record.value, type=TaskSnapshot)
    except msgspec.MsgspecError as cause:
        raise DataError(
            f"is no state of a task: {cause}",
            where=f"{record.stream}/{record.partition}/{record.offset}",
            hint="it was written by another version, or altered: start the run again",
        ) from cause
