"""A sink whose records become visible in transactions that it makes by itself.

For writers that know no commits, such as a replay: records are handed over one by one; what came
meanwhile becomes visible together, as soon as nothing more comes, at most every `COMMIT_EVERY_S`,
and at `COMMIT_BYTES`. Whoever opens the same name fences this writer: two replays of one run cannot
both write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import BrokerError, StreambotError
from streambot.streams.finishing import ensure_visible
from streambot.streams.ports import Headers

if TYPE_CHECKING:
    from collections.abc import Collection

    from streambot.streams.ports import TopicPartition, Transactions

COMMIT_EVERY_S = 0.1
COMMIT_BYTES = 8 << 20
MOST_WAITING_BYTES = 16 << 20


class _Handed(NamedTuple):
    stream: str
    partition: int
    value: bytes
    timestamp_ms: int
    key: bytes | None
    headers: Headers
    stored: asyncio.Future[int]


class CommittingSink:
    """`streams.ports.Sink` on transactions.

    The future of a record is done once it is visible.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._queue: deque[_Handed] = deque()
        self._bytes = 0
        self._come = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._drained = asyncio.Event()
        self._drained.set()
        self._failure: StreambotError | None = None
        self._closed = False
        self._task = asyncio.create_task(self._run(), name="committing sink")

    async def append(
        self, stream: str, partition: int, value: bytes, *, timestamp_ms: int,
        key: bytes | None = None, headers: Headers = (),
    ) -> asyncio.Future[int]:  # fmt: skip
        """See `Sink.append`."""
        self._check()
        if not self._room.is_set():
            await self._room.wait()
            self._check()
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Handed(stream, partition, value, timestamp_ms, key, headers, stored))
        self._bytes += len(value)
        if self._bytes >= MOST_WAITING_BYTES:
            self._room.clear()
        self._drained.clear()
        self._come.set()
        return stored

    async def flush(self) -> None:
        """See `Sink.flush`."""
        self._check()
        await self._drained.wait()
        self._check()

    async def settle(self, places: Collection[TopicPartition]) -> None:
        """Wait until all that was handed over can be read, see `finishing.ensure_visible`."""
        await self.flush()
        await ensure_visible(self._transactions, places)

    async def close(self) -> None:
        """See `Sink.close`."""
        if self._closed:
            return
        failure = None
        try:
            if self._failure is None:
                await self._drained.wait()
            failure = self._failure
        finally:
            self._closed = True
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._transactions.close()
        if failure is not None:
            raise failure

    async def _run(self) -> None:
        taken: list[_Handed] = []
        try:
            while True:
                await self._come.wait()
                taken = []
                await self._transaction(taken)
                for handed in taken:
                    if not handed.stored.done():
                        handed.stored.set_result(0)
                if not self._queue:
                    self._drained.set()
        except asyncio.CancelledError:
            self._fail(BrokerError("the sink is closed"), taken)
            raise
        except StreambotError as failure:
            self._fail(failure, taken)

    async def _transaction(self, taken: list[_Handed]) -> None:
        """Write and commit what waits and what comes meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + COMMIT_EVERY_S
        size = 0
        await self._transactions.begin()
        while self._queue and size < COMMIT_BYTES and loop.time() < until:
            handed = self._queue.popleft()
            taken.append(handed)
            size += len(handed.value)
            self._bytes -= len(handed.value)
            if self._bytes < MOST_WAITING_BYTES:
                self._room.set()
            await self._transactions.append(
                handed.stream, handed.partition, handed.value,
                timestamp_ms=handed.timestamp_ms, key=handed.key, headers=handed.headers,
            )  # fmt: skip
        if not self._queue:
            self._come.clear()
        await self._transactions.flush()
        await self._transactions.commit()

    def _fail(self, failure: StreambotError, taken: list[_Handed]) -> None:
        self._failure = self._failure or failure
        for handed in (*taken, *self._queue):
            if not handed.stored.done():
                handed.stored.set_exception(failure)
                handed.stored.exception()  # told by the next call as well: nobody need look here
        self._queue.clear()
        for event in (self._room, self._drained, self._come):
            event.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise BrokerError("the sink is closed")
