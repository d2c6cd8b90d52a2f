"""Reads the experience of a training, in an order in which no actor's fragments are out of order.

On a broker that keeps everything in memory experience goes through generations, and for a while two
of them are alive. An actor writes to the newer one only after all it wrote to the older one is
stored. So what was read of the newer one is handed out behind everything that the older ones hold at
that moment: whatever comes before it is there by then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from streambot.domain.errors import BrokerError
from streambot.learning.declaration import REST_MS
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.streams.ports import Log, Record, Source, Start

MOST_RECORDS = 256
_PATIENCE = 200
_REST_S = 0.05


class ExperienceReader:
    """Reads streams of one partition each, the oldest generation first.

    Args:
        log: where they are.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._sources: dict[str, Source] = {}
        self._alone = asyncio.Lock()

    @property
    def streams(self) -> tuple[str, ...]:
        """What is read, the oldest first."""
        return tuple(self._sources)

    async def begin(self, starts: Mapping[str, Start]) -> None:
        """Read these as well, behind those that are read already."""
        async with self._alone:
            for stream, start in starts.items():
                self._sources[stream] = await self._log.source(
                    {TopicPartition(stream, 0): start}, rest_ms=REST_MS
                )

    async def read(self, timeout_s: float) -> list[Record]:
        """The next records; empty after `timeout_s` without any.

        Raises:
            BrokerError: the log is gone.
            StreamError: a record that should be next is no longer kept.
        """
        async with self._alone:
            *older, newest = self._sources
            newer = await self._sources[newest].read(
                max_records=MOST_RECORDS, timeout_s=_REST_S if older else timeout_s
            )
            before = [record for stream in older for record in await self._rest(stream)]
            return before + newer

    async def _rest(self, stream: str) -> list[Record]:
        """All that a stream holds by now and that was not read."""
        source, place = self._sources[stream], TopicPartition(stream, 0)
        (end,) = await self._log.end_offsets(stream)
        found: list[Record] = []
        idle = 0
        while source.positions()[place] < end:
            records = await source.read(max_records=MOST_RECORDS, timeout_s=_REST_S)
            found += records
            idle = 0 if records else idle + 1
            if idle > _PATIENCE:
                raise BrokerError("records that should be there do not come", where=stream)
        return found

    async def finish(self, stream: str) -> None:
        """Read that one no more."""
        async with self._alone:
            await self._sources.pop(stream).close()

    async def close(self) -> None:
        """Let go of the log."""
        for source in self._sources.values():
            await source.close()
