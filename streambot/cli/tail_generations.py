"""A stream of a training that goes through generations, `….experience.g0007`, as one that goes on.

On a broker that frees memory only when topics are deleted a newer generation is opened now and then,
and older ones are deleted once they were learnt from. For a while two of them are written to, so all
that are there are read, the oldest first; one that is deleted is done.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from streambot.cli.tail_log import Follower
from streambot.domain.errors import TopicError
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.adapters.kafka import KafkaLog
    from streambot.cli.tail_log import Place
    from streambot.streams.ports import Log, Record, Source, Start

_GENERATION = re.compile(r"(?P<stream>.+)\.g(?P<number>[0-9]{4,9})")
_LOOK_S = 1.0


def stream_of(topic: str) -> str | None:
    """The stream that a topic is a generation of; None: it is none."""
    found = _GENERATION.fullmatch(topic)
    return None if found is None else found["stream"]


async def generations(log: Log, stream: str) -> list[str]:
    """The generations of a stream that are there, the oldest first."""
    found = [match for topic in await log.streams() if (match := _GENERATION.fullmatch(topic))]
    own = [(int(match["number"]), match[0]) for match in found if match["stream"] == stream]
    return [topic for _, topic in sorted(own)]


class GenerationFollower(Follower):
    """Follows a stream through its generations. As `Follower`; the topic is any one of them."""

    async def _begin(self, log: KafkaLog) -> tuple[GenerationReader, dict[TopicPartition, int]]:
        stream = stream_of(self._topic) or self._topic
        bounds = {}
        for topic in await generations(log, stream):
            with suppress(TopicError):  # deleted since
                (first,), (end,) = await log.beginning_offsets(topic), await log.end_offsets(topic)
                bounds[TopicPartition(topic, 0)] = first, end
        if not bounds:
            raise TopicError(
                f"{self._broker.servers} has no generation of it", where=stream,
                hint="streambot topics ls shows what is there",
            )  # fmt: skip
        if self._positions is None:
            self._positions = first_positions(bounds, self._place)
        reader = GenerationReader(log, stream, self._positions)
        await reader.look()
        return reader, {place: end for place, (_, end) in bounds.items()}


def first_positions(
    bounds: Mapping[TopicPartition, tuple[int, int]], place: Place
) -> dict[TopicPartition, Start]:
    """Where to begin in each generation: the last so many records may be of several.

    Args:
        bounds: first offset of each, and its end; the oldest first.
        place: where a person said to begin.
    """
    left = 0 if place.at == "end" else place.last
    starts: dict[TopicPartition, Start] = {}
    for at, (first, end) in reversed(list(bounds.items())):
        start = first if left is None else max(first, end - left)
        left = None if left is None else left - (end - start)
        starts[at] = start
    return starts


class GenerationReader:
    """Reads all generations of a stream that are there; a new one from its beginning.

    Args:
        log: where they are.
        stream: name without a generation.
        positions: where to go on.
    """

    def __init__(self, log: Log, stream: str, positions: Mapping[TopicPartition, Start]) -> None:
        self._log, self._stream = log, stream
        self._starts = dict(positions)
        self._sources: dict[str, Source] = {}
        self._looked = -_LOOK_S

    async def look(self) -> None:
        """Look which generations there are now."""
        self._looked = asyncio.get_running_loop().time()
        there = await generations(self._log, self._stream)
        for topic in set(self._sources) - set(there):
            await self._finish(topic)
        for topic in there:
            if topic not in self._sources:
                place = TopicPartition(topic, 0)
                start = self._starts.pop(place, "beginning")
                with suppress(TopicError):  # deleted since
                    self._sources[topic] = await self._log.source({place: start})

    async def read(self, *, max_records: int = 64, timeout_s: float = 1.0) -> list[Record]:
        """The next records, those of older generations first; see `Source.read`."""
        if asyncio.get_running_loop().time() - self._looked >= _LOOK_S:
            await self.look()
        found: list[Record] = []
        waits = dict.fromkeys(self._sources, 0.0)
        if waits:
            waits[next(reversed(waits))] = timeout_s
        else:
            await asyncio.sleep(timeout_s)
        for topic, wait_s in waits.items():
            try:
                found += await self._sources[topic].read(max_records=max_records, timeout_s=wait_s)
            except TopicError:
                await self._finish(topic)
        return found

    async def _finish(self, topic: str) -> None:
        await self._sources.pop(topic).close()

    def positions(self) -> dict[TopicPartition, int]:
        """See `Source.positions`: of the generations that are there."""
        return {
            place: at
            for source in self._sources.values()
            for place, at in source.positions().items()
        }

    def held_back(self) -> dict[TopicPartition, int]:
        """Nothing: such a broker has no transactions."""
        return {}

    async def close(self) -> None:
        """Let go of the log."""
        for topic in list(self._sources):
            await self._finish(topic)
