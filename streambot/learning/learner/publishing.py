"""Publishes weights: the one writer of a training's `policy` stream.

Where the log has transactions the weights become visible together with the position up to which
experience was learnt from, and whoever begins to publish fences the one before: two learners cannot
both train one policy. Elsewhere the broker lives and dies with its one learner.

A learner goes on while what it sends is on its way: one publication at a time, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence  # of a tuple with names
from typing import TYPE_CHECKING, NamedTuple

from streambot.streams.finishing import ensure_visible, open_finished, unfinished
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from streambot.streams.ports import Log, Sink, Transactions

_CLOSE_S = 2.0


class Publication(NamedTuple):
    """What becomes visible together.

    Attributes:
        records: (stream, key, value).
        positions: how far experience was learnt from, by stream.
        at_ms: wall time of the records, ms since 1970.
    """

    records: Sequence[tuple[str, bytes, bytes]]
    positions: Mapping[str, int]
    at_ms: int


class Publisher:
    """Publishes records of a training.

    Args:
        writer: of the log.
        group: whose positions are told; unused where the log has no transactions.
        places: that it alone writes to.
    """

    def __init__(
        self,
        writer: Sink | Transactions,
        group: str,
        places: Sequence[TopicPartition] = (),
        *,
        transactional: bool,
    ) -> None:
        self._writer, self._group, self._places = writer, group, places
        self._transactional = transactional
        self._sending: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, log: Log, name: str, streams: Sequence[str], *, transactional: bool
    ) -> Publisher:
        """The publisher of a training.

        Args:
            name: `<namespace>.<training>`.
            streams: that it alone writes to.
            transactional: the log has transactions.
        """
        group = f"{name}.learner"
        if not transactional:
            return cls(await log.sink(), group, transactional=False)
        places = [TopicPartition(stream, 0) for stream in streams]
        writer = await open_finished(log, group, places)
        return cls(writer, group, places, transactional=True)

    async def publish(self, what: Publication) -> None:
        """Write it.

        Raises:
            FencedError: another learner has taken over; nothing of it is visible.
            BrokerError: the log is gone, or refuses.
        """
        await self.send(what)
        await self.sent()

    async def send(self, what: Publication) -> None:
        """The same, but it is only on its way when this returns; what was sent before it is there.

        Raises:
            FencedError, BrokerError: as `publish` does, because of what was sent before.
        """
        await self.sent()
        self._sending = asyncio.create_task(self._write(what), name="weights")

    async def sent(self) -> None:
        """Wait until all that was sent is there.

        Raises:
            FencedError, BrokerError: as `publish` does.
        """
        sending, self._sending = self._sending, None
        if sending is not None:
            await sending

    async def settle(self) -> None:
        """Wait until all that was sent can be read.

        Raises:
            FencedError, BrokerError: as `publish` does, or it cannot be.
        """
        await self.sent()
        if self._transactional:
            await ensure_visible(self._writer, self._places)  # type: ignore[arg-type]

    async def visible(self) -> bool:
        """Can all that is there be read? A broker may need a moment for that, or never do it.

        Raises:
            BrokerError: the log is gone.
        """
        return not (self._transactional and await unfinished(self._writer, self._places))  # type: ignore[arg-type]

    async def _write(self, what: Publication) -> None:
        writer = self._writer
        if self._transactional:
            await writer.begin()  # type: ignore[union-attr]
        for stream, key, value in what.records:
            await writer.append(stream, 0, value, timestamp_ms=what.at_ms, key=key)
        await writer.flush()
        if self._transactional:
            if what.positions:
                places = {TopicPartition(stream, 0): at for stream, at in what.positions.items()}
                await writer.offsets(self._group, places)  # type: ignore[union-attr]
            await writer.commit()  # type: ignore[union-attr]

    async def close(self) -> None:
        """Let go of the log; what is still on its way gets a moment to arrive."""
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=_CLOSE_S)
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._writer.close()
