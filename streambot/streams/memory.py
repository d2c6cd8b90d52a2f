"""The log in this process: the semantics of a broker, without one, in bounded memory.

Streams that are not `bounded` are kept whole. A bounded stream holds what its slowest source has
not read yet: at `MAX_WAITING_RECORDS` records or `MAX_WAITING_BYTES` bytes its writers wait. A
source counts from the moment it is opened until it is closed; a source opened later starts at
the first record still kept. One event loop, no threads.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from streambot.domain.errors import BrokerError, StreamError, TopicError
from streambot.streams.memory_transactions import MemoryTransactions
from streambot.streams.ports import (
    MAX_RECORD_BYTES,
    MAX_WAITING_BYTES,
    MAX_WAITING_RECORDS,
    Headers,
    Record,
    Start,
    StreamSpec,
    TopicPartition,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STALL_S = 600.0
"""A writer waits that long for a source that does not move, then gives up."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class _Partition:
    """Records of one partition from offset `base` on."""

    def __init__(self, place: TopicPartition, *, bounded: bool) -> None:
        self.place = place
        self.bounded = bounded
        self.base = 0
        self.records: list[Record] = []
        self.bytes = 0
        self.sources: dict[_MemorySource, int] = {}
        self.room = asyncio.Event()

    @property
    def end(self) -> int:
        return self.base + len(self.records)

    @property
    def full(self) -> bool:
        return self.bounded and (
            len(self.records) >= MAX_WAITING_RECORDS or self.bytes >= MAX_WAITING_BYTES
        )

    def append(self, record: Record) -> None:
        self.records.append(record)
        self.bytes += len(record.value)
        for source in self.sources:
            source.woken.set()

    def move(self, source: _MemorySource, offset: int) -> None:
        self.sources[source] = offset
        self.free()

    def free(self) -> None:
        """Forget what every source has read; without a source, nothing has been read."""
        if not self.bounded or not self.sources:
            return
        read = min(self.sources.values()) - self.base
        if read > 0:
            self.bytes -= sum(len(record.value) for record in self.records[:read])
            del self.records[:read]
            self.base += read
            self.room.set()

    def resolve(self, start: Start) -> int:
        if start == "end":
            return self.end
        offset = self.base if start == "beginning" else int(start)
        if not self.base <= offset <= self.end:
            raise StreamError(
                f"offset {offset} is not kept: it holds {self.base} to {self.end}",
                where=f"{self.place.stream}/{self.place.partition}",
            )
        return offset


class MemoryLog:
    """`streams.ports.Log` in this process.

    Args:
        stall_s: how long a writer waits for a source that does not move.
    """

    def __init__(self, *, stall_s: float = STALL_S) -> None:
        self._streams: dict[str, list[_Partition]] = {}
        self._open: set[_MemorySink | _MemorySource] = set()
        self._owners: dict[str, MemoryTransactions] = {}
        self._committed: dict[str, dict[TopicPartition, int]] = {}
        self._stall_s = stall_s
        self.closed = False

    @property
    def retained_bytes(self) -> int:
        """Bytes of all record values kept."""
        return sum(part.bytes for parts in self._streams.values() for part in parts)

    async def create(self, streams: Sequence[StreamSpec]) -> list[str]:
        """See `Log.create`."""
        self.check_open()
        created = []
        for spec in streams:
            if not _NAME.fullmatch(spec.name) or spec.partitions < 1:
                raise TopicError(
                    f"cannot create stream {spec.name!r} with {spec.partitions} partitions",
                    hint="names have up to 249 letters, digits, dots, underscores and dashes",
                )
            existing = self._streams.get(spec.name)
            if existing is None:
                self._streams[spec.name] = [
                    _Partition(TopicPartition(spec.name, p), bounded=spec.bounded)
                    for p in range(spec.partitions)
                ]
                created.append(spec.name)
            elif len(existing) != spec.partitions:
                raise TopicError(
                    f"has {len(existing)} partitions, asked for {spec.partitions}", where=spec.name
                )
        return created

    async def delete(self, streams: Sequence[str]) -> None:
        """See `Log.delete`."""
        self.check_open()
        for name in streams:
            for part in self._streams.pop(name, ()):
                part.room.set()
                for source in part.sources:
                    source.woken.set()

    async def streams(self) -> dict[str, int]:
        """See `Log.streams`."""
        self.check_open()
        return {name: len(parts) for name, parts in sorted(self._streams.items())}

    async def sink(self) -> _MemorySink:
        """See `Log.sink`."""
        self.check_open()
        sink = _MemorySink(self, self._stall_s)
        self._open.add(sink)
        return sink

    async def transactions(self, name: str) -> MemoryTransactions:
        """See `Log.transactions`."""
        self.check_open()
        self._owners[name] = made = MemoryTransactions(self, name)
        return made

    async def committed(
        self, group: str, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """See `Log.committed`."""
        self.check_open()
        known = self._committed.get(group, {})
        return {place: known[place] for place in places if place in known}

    def owns(self, name: str, user: MemoryTransactions) -> bool:
        """True while nobody else has opened `name`."""
        return self._owners.get(name) is user

    def move_group(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """A transaction committed how far a group has read."""
        self._committed.setdefault(group, {}).update(positions)

    async def source(
        self, starts: Mapping[TopicPartition, Start], *, rest_ms: int = 0
    ) -> _MemorySource:
        """See `Log.source`."""
        del rest_ms  # nobody is asked here: a reader is woken
        self.check_open()
        if not starts:
            raise TopicError("a source needs at least one partition")
        parts = {TopicPartition(*place): self.partition(*place) for place in starts}
        offsets = {place: parts[place].resolve(starts[place]) for place in parts}
        source = _MemorySource(self, parts)
        for place, offset in offsets.items():
            parts[place].move(source, offset)
        self._open.add(source)
        return source

    async def beginning_offsets(self, stream: str) -> list[int]:
        """See `Log.beginning_offsets`."""
        return [part.base for part in self._parts(stream)]

    async def end_offsets(self, stream: str) -> list[int]:
        """See `Log.end_offsets`."""
        return [part.end for part in self._parts(stream)]

    async def offset_at(self, stream: str, partition: int, timestamp_ms: int) -> int:
        """See `Log.offset_at`. The running maximum makes times sortable that are not sorted."""
        part = self.partition(stream, partition)
        latest = list(accumulate((record.timestamp_ms for record in part.records), max))
        return part.base + bisect_left(latest, timestamp_ms)

    async def close(self) -> None:
        """See `Log.close`."""
        if self.closed:
            return
        for user in list(self._open):
            await user.close()
        self.closed = True
        for parts in self._streams.values():
            for part in parts:
                part.room.set()
        self._streams.clear()

    def partition(self, stream: str, partition: int) -> _Partition:
        """That partition, or `TopicError`."""
        parts = self._parts(stream)
        if not 0 <= partition < len(parts):
            raise TopicError(
                f"no partition {partition}: it has {len(parts)}", where=f"{stream}/{partition}"
            )
        return parts[partition]

    def check_open(self) -> None:
        """Raise `BrokerError` behind `close`."""
        if self.closed:
            raise BrokerError("the in-process log is closed")

    def forget(self, user: _MemorySink | _MemorySource) -> None:
        """A sink or source was closed."""
        self._open.discard(user)

    def _parts(self, stream: str) -> list[_Partition]:
        self.check_open()
        parts = self._streams.get(stream)
        if parts is None:
            raise TopicError("no such stream", where=stream)
        return parts


class _MemorySink:
    def __init__(self, log: MemoryLog, stall_s: float) -> None:
        self._log = log
        self._stall_s = stall_s
        self._closed = False

    async def append(
        self, stream: str, partition: int, value: bytes, *, timestamp_ms: int,
        key: bytes | None = None, headers: Headers = (),
    ) -> asyncio.Future[int]:  # fmt: skip
        self._check_open()
        place = f"{stream}/{partition}"
        if len(value) > MAX_RECORD_BYTES:
            raise BrokerError(
                f"a record of {len(value)} bytes is too large: the limit is {MAX_RECORD_BYTES}",
                where=place,
            )
        await asyncio.sleep(0)  # a writer that never waits would starve the readers
        part = self._log.partition(stream, partition)
        while part.full:
            part.room.clear()
            try:
                async with asyncio.timeout(self._stall_s):
                    await part.room.wait()
            except TimeoutError:
                raise BrokerError(
                    f"{len(part.records)} records wait, and nobody read one for "
                    f"{self._stall_s:g} s",
                    where=place,
                ) from None
            self._check_open()
            part = self._log.partition(stream, partition)  # it may have been deleted meanwhile
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stored.set_result(part.end)
        part.append(
            Record(stream, partition, part.end, timestamp_ms, key, bytes(value), tuple(headers))
        )
        return stored

    async def flush(self) -> None:
        self._check_open()

    async def close(self) -> None:
        self._closed = True
        self._log.forget(self)

    def _check_open(self) -> None:
        self._log.check_open()
        if self._closed:
            raise BrokerError("the sink is closed")


class _MemorySource:
    def __init__(self, log: MemoryLog, parts: dict[TopicPartition, _Partition]) -> None:
        self._log = log
        self._parts = parts
        self._turn = list(parts)
        self._closed = False
        self.woken = asyncio.Event()

    async def read(self, *, max_records: int = 64, timeout_s: float = 1.0) -> list[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await asyncio.sleep(0)
        while True:
            self._check_open()
            self.woken.clear()
            found = self._take(max_records)
            if found or loop.time() >= deadline:
                return found
            try:
                async with asyncio.timeout_at(deadline):
                    await self.woken.wait()
            except TimeoutError:
                return []

    def positions(self) -> dict[TopicPartition, int]:
        return {place: part.sources[self] for place, part in self._parts.items()}

    async def seek(self, stream: str, partition: int, start: Start) -> None:
        self._check_open()
        part = self._parts.get(TopicPartition(stream, partition))
        if part is None:
            raise TopicError("this source does not read it", where=f"{stream}/{partition}")
        part.move(self, part.resolve(start))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.woken.set()
        for part in self._parts.values():
            part.sources.pop(self, None)
            part.free()
            part.room.set()
        self._log.forget(self)

    def _take(self, max_records: int) -> list[Record]:
        """Up to `max_records`; partitions take turns to be first, so that none starves."""
        found: list[Record] = []
        for place in self._turn:
            part = self._parts[place]
            at = part.sources[self] - part.base
            records = part.records[at : at + max_records - len(found)]
            if records:
                found += records
                part.move(self, part.sources[self] + len(records))
        self._turn.append(self._turn.pop(0))
        return found

    def _check_open(self) -> None:
        self._log.check_open()
        if self._closed:
            raise BrokerError("the source is closed")
        for place, part in self._parts.items():
            if self._log.partition(*place) is not part:
                raise TopicError(
                    "the stream was deleted", where=f"{place.stream}/{place.partition}"
                )
