"""One reader for all partitions of a stream, which hands each engine task its own records.

A reader per partition would be a connection and a fetch each; one brings several partitions in one
answer. What was read and not taken yet is bounded: at `MAX_WAITING` records reading pauses.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from streambot.streams.ports import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from streambot.streams.ports import Source

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


class Reader(Protocol):
    """Where the records of one partition come from: a `Source` of it, or its share of an `Intake`."""

    async def read(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """The next records in order; empty after `timeout_s` without any."""


class Incoming(NamedTuple):
    """What came: records of the ticks, and of the orders of agents outside."""

    ticks: list[Record]
    orders: list[Record]


class Several:
    """Streams of one partition, whichever comes first.

    Args:
        readers: where each comes from, by a name.
        max_records: of one stream at a time.
    """

    def __init__(self, readers: Mapping[str, Reader], *, max_records: int) -> None:
        self._readers = readers
        self._most = max_records
        self._reading: dict[str, asyncio.Task[list[Record]]] = {}

    async def read(
        self,
        wanted: Collection[str],
        *,
        timeout_s: float,
        also: asyncio.Future[Any] | None = None,
    ) -> dict[str, list[Record]]:
        """What comes next, by stream; as soon as `also` is done, or after `timeout_s`, nothing.

        Args:
            wanted: streams to read; the others are left alone for now.
            timeout_s: how long nothing may come.
            also: what ends the wait too.
        """
        waiting: set[asyncio.Future[Any]] = {self._task(name) for name in wanted}
        if also is not None:
            waiting.add(also)
        if not waiting:
            await asyncio.sleep(timeout_s)
        else:
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return {
            name: self._reading.pop(name).result() for name in wanted if self._reading[name].done()
        }

    async def close(self) -> None:
        """Give up what is being read; the readers stay open."""
        tasks = list(self._reading.values())
        self._reading.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, name: str) -> asyncio.Task[list[Record]]:
        if name not in self._reading:
            self._reading[name] = asyncio.ensure_future(
                self._readers[name].read(max_records=self._most, timeout_s=_READ_TIMEOUT_S)
            )
        return self._reading[name]


class Pair:
    """Ticks and orders of one partition, whichever comes first.

    Args:
        ticks: where the frames come from.
        orders: where orders come from; None: no agents outside.
    """

    def __init__(self, ticks: Reader, orders: Reader | None, *, max_records: int) -> None:
        readers = {"ticks": ticks} if orders is None else {"ticks": ticks, "orders": orders}
        self._several = Several(readers, max_records=max_records)
        self._names = tuple(readers)

    async def read(
        self, *, ticks: bool, timeout_s: float, also: asyncio.Future[Any] | None = None
    ) -> Incoming:
        """What comes next; empty after `timeout_s` without anything, or as soon as `also` is done.

        Args:
            ticks: False: leave the ticks alone for now.
        """
        wanted = [name for name in self._names if ticks or name != "ticks"]
        found = await self._several.read(wanted, timeout_s=timeout_s, also=also)
        return Incoming(found.get("ticks", []), found.get("orders", []))

    async def close(self) -> None:
        """Give up what is being read; the readers stay open."""
        await self._several.close()


class _Nothing:
    """Where a task that has ended would read."""

    async def read(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """Nothing, ever."""
        del max_records
        await asyncio.sleep(timeout_s)
        return []


NOTHING = _Nothing()
