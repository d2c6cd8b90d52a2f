"""One reader for all partitions of a stream, which hands each engine task its own records.

A reader per partition would be a connection and a fetch each; one brings several partitions in one
answer. What was read and not taken yet is bounded: at `MAX_WAITING` records reading pauses.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streambot.streams.ports import Record, Source

MAX_WAITING = 32
_READ_TIMEOUT_S = 1.0


class Intake:
    """Distributes the records of a source by partition. `run` must run for anyone to get any.

    Args:
        source: reads all the partitions, each from its own start.
        partitions: which they are.
    """

    def __init__(self, source: Source, partitions: Iterable[int]) -> None:
        self._source = source
        self._queues = {partition: PartitionIntake(self) for partition in partitions}
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()

    def of(self, partition: int) -> PartitionIntake:
        """The records of one partition."""
        return self._queues[partition]

    async def run(self) -> None:
        """Read and distribute, for ever.

        Raises:
            StreambotError: the log is gone, or no longer keeps what should be next.
        """
        while True:
            await self._room.wait()
            records = await self._source.read(max_records=MAX_WAITING, timeout_s=_READ_TIMEOUT_S)
            for record in records:
                self._queues[record.partition].put(record)
            self._moved(len(records))

    def taken(self, count: int) -> None:
        """`count` records were taken out."""
        self._moved(-count)

    def _moved(self, count: int) -> None:
        self._waiting += count
        if self._waiting < MAX_WAITING:
            self._room.set()
        else:
            self._room.clear()


class PartitionIntake:
    """The records of one partition, in order."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._records: deque[Record] = deque()
        self._come = asyncio.Event()

    def put(self, record: Record) -> None:
        """The next record came."""
        self._records.append(record)
        self._come.set()

    async def read(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """The next records; empty after `timeout_s` without any."""
        if not self._records:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._come.wait()
            except TimeoutError:
                return []
        found = [self._records.popleft() for _ in range(min(max_records, len(self._records)))]
        if not self._records:
            self._come.clear()
        self._intake.taken(len(found))
        return found


class _Nothing:
    """Where a task that has ended would read."""

    async def read(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """Nothing, ever."""
        del max_records
        await asyncio.sleep(timeout_s)
        return []


NOTHING = _Nothing()
