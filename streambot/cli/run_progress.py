"""How far a run has come on its broker: what is replayed, and where its engine tasks are.

Everything is read from the last records of its streams: no process is asked, and none need live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import TopicError
from streambot.processor.task_head import TaskHead, read_head
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from streambot.streams.ports import Log, Record

_LOOKS = (2, 16, 256)
"""Offsets to look back for the last record: behind it there is a mark of its transaction at most."""


class Replayed(NamedTuple):
    """What the last frame of a partition says.

    Attributes:
        barrier: barriers closed so far.
        ticks: so far; None where the frame does not say.
        t_hi: event time up to which everything is there, UTC ns.
        ended: END stands there: nothing will follow.
    """

    barrier: int
    ticks: int | None
    t_hi: int
    ended: bool


class PartitionProgress(NamedTuple):
    """One partition. `replayed`, `engine`: None: nothing yet."""

    partition: int
    replayed: Replayed | None
    engine: TaskHead | None


class RunProgress(NamedTuple):
    """A run.

    Attributes:
        executable: its broker keeps states of tasks; where it has no transactions, it does not.
    """

    partitions: list[PartitionProgress]
    executable: bool

    @property
    def replayed(self) -> bool:
        """True where END stands in every partition."""
        return all(p.replayed is not None and p.replayed.ended for p in self.partitions)

    @property
    def executed(self) -> bool:
        """True where every task has ended."""
        return all(p.engine is not None and p.engine.ended for p in self.partitions)

    @property
    def ticks(self) -> int | None:
        """Ticks replayed so far; None where that is not known."""
        counts = [0 if p.replayed is None else p.replayed.ticks for p in self.partitions]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def replayed_barrier(self) -> int:
        """Barriers that every partition has closed in the ticks."""
        return min((0 if p.replayed is None else p.replayed.barrier) for p in self.partitions)

    @property
    def engine_barrier(self) -> int | None:
        """Barriers that every task has closed; None: no task has begun."""
        if all(p.engine is None for p in self.partitions):
            return None
        return min((0 if p.engine is None else p.engine.chain.barrier) for p in self.partitions)


async def read_progress(log: Log, topics: dict[str, str], partitions: int) -> RunProgress:
    """How far a run has come.

    Raises:
        StreambotError: the log is gone, or does not hold what streambot writes.
    """
    state = topics.get("state")
    there = await log.streams()
    executable = state is not None and state in there
    found = []
    for partition in range(partitions):
        last = await _last(log, topics["ticks"], partition) if topics["ticks"] in there else None
        head = await read_head(log, state, partition) if executable and state is not None else None
        found.append(PartitionProgress(partition, _replayed(last), head))
    return RunProgress(found, executable)


async def has_end(log: Log, topic: str, partition: int) -> bool:
    """True where the last frame of a partition is its END."""
    replayed = _replayed(await _last(log, topic, partition))
    return replayed is not None and replayed.ended


async def _last(log: Log, topic: str, partition: int) -> Record | None:
    """The last record of a partition, without the frames before it where that can be."""
    try:
        end = (await log.end_offsets(topic))[partition]
        first = (await log.beginning_offsets(topic))[partition]
    except IndexError:
        raise TopicError(f"has no partition {partition}", where=topic) from None
    for look in (*_LOOKS, end - first):
        last = None
        start = max(first, end - look)
        async for batch in read_to_end(log, topic, {partition: start}, {partition: end}):
            last = batch[-1]
        if last is not None or start == first:
            return last
    return None


def _replayed(last: Record | None) -> Replayed | None:
    if last is None:
        return None
    from streambot.streams.frame_peek import peek

    header = peek(last.value)
    if header is None or not header.intact:
        return None
    rows = dict(last.headers).get("rows", b"")
    return Replayed(
        barrier=header.barrier_lo + header.closes,
        ticks=int(rows) if rows.isdigit() else None,
        t_hi=header.t_hi,
        ended=header.kind == "END",
    )
