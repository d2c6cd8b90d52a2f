"""Transactions of the in-process log: kept aside, and appended together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from streambot.domain.errors import BrokerError, FencedError
from streambot.streams.ports import MAX_RECORD_BYTES, Headers, Record, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping


class Partition(Protocol):
    """Where records go."""

    @property
    def end(self) -> int:
        """Offset of the next record."""

    def append(self, record: Record) -> None:
        """Store a record at the end."""


class Owner(Protocol):
    """The log, as far as transactions need it."""

    def partition(self, stream: str, partition: int) -> Partition:
        """That partition, or `TopicError`."""

    def check_open(self) -> None:
        """Raise `BrokerError` behind `close`."""

    def owns(self, name: str, user: MemoryTransactions) -> bool:
        """True while nobody else has opened `name`."""

    def move_group(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """A transaction committed how far a group has read."""


class _Waiting(NamedTuple):
    """A record of a transaction that is not committed."""

    stream: str
    partition: int
    value: bytes
    timestamp_ms: int
    key: bytes | None
    headers: Headers


class MemoryTransactions:
    """Keeps the records of a transaction, and appends them together.

    A bounded stream does not hold it up: a transaction that waited for its readers could not end.
    """

    def __init__(self, log: Owner, name: str) -> None:
        self._log = log
        self._name = name
        self._waiting: list[_Waiting] | None = None
        self._groups: list[tuple[str, dict[TopicPartition, int]]] = []
        self._closed = False

    async def begin(self) -> None:
        """See `Transactions.begin`."""
        self._check()
        if self._waiting is not None:
            raise BrokerError("a transaction is open already", where=self._name)
        self._waiting, self._groups = [], []

    async def append(
        self, stream: str, partition: int, value: bytes, *, timestamp_ms: int,
        key: bytes | None = None, headers: Headers = (),
    ) -> asyncio.Future[int]:  # fmt: skip
        """See `Transactions.append`."""
        await asyncio.sleep(0)
        waiting = self._begun()
        part = self._log.partition(stream, partition)
        if len(value) > MAX_RECORD_BYTES:
            raise BrokerError(
                f"a record of {len(value)} bytes is too large: the limit is {MAX_RECORD_BYTES}",
                where=f"{stream}/{partition}",
            )
        before = sum((w.stream, w.partition) == (stream, partition) for w in waiting)
        waiting.append(_Waiting(stream, partition, bytes(value), timestamp_ms, key, tuple(headers)))
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stored.set_result(part.end + before)
        return stored

    async def flush(self) -> None:
        """See `Transactions.flush`."""
        self._begun()

    async def offsets(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """See `Transactions.offsets`."""
        self._begun()
        self._groups.append((group, dict(positions)))

    async def commit(self) -> None:
        """See `Transactions.commit`."""
        await asyncio.sleep(0)
        for item in self._begun():
            part = self._log.partition(item.stream, item.partition)
            part.append(
                Record(
                    item.stream, item.partition, part.end, item.timestamp_ms, item.key, item.value,
                    item.headers,
                )
            )  # fmt: skip
        for group, positions in self._groups:
            self._log.move_group(group, positions)
        self._waiting = None

    async def close(self) -> None:
        """See `Transactions.close`."""
        self._closed = True
        self._waiting = None

    def _begun(self) -> list[_Waiting]:
        self._check()
        if self._waiting is None:
            raise BrokerError("no transaction is open", where=self._name)
        return self._waiting

    def _check(self) -> None:
        self._log.check_open()
        if self._closed:
            raise BrokerError("the transactions are closed", where=self._name)
        if not self._log.owns(self._name, self):
            raise FencedError(f"another process took over {self._name}")
