"""Where records stand: first, end, and by time.

The embedded broker answers two of these questions wrongly: the end of a partition (it gives the
first offset of the last batch, plus one) and the offset of a time (it looks at the time of
arrival). There, the end is what a fetch says beside its records, and times are searched for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords

from streambot.adapters.kafka.failures import told
from streambot.adapters.kafka.profile import REQUEST_TIMEOUT_S
from streambot.domain.errors import StreamError, TopicError
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiokafka.structs import OffsetAndMetadata

    from streambot.adapters.kafka.connection import Connection
    from streambot.adapters.kafka.topics import Topics
    from streambot.streams.ports import Start

READ_UNCOMMITTED = 0
_COMMITTED = "read_committed"
_LATEST = -1
_ASKING = "asking for offsets"
_SETTLE_S, _SETTLE_PAUSE_S = 10.0, 0.1


class Offsets:
    """Questions about offsets."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        self._connection = connection
        self._topics = topics

    async def beginning(self, stream: str) -> list[int]:
        """See `Log.beginning_offsets`."""
        places = await self._places(stream)
        offsets = await self._connection.bounded(
            self._connection.meta.beginning_offsets(places), REQUEST_TIMEOUT_S, _ASKING
        )
        return [int(offsets[place]) for place in places]

    async def end(self, stream: str) -> list[int]:
        """See `Log.end_offsets`."""
        places = await self._places(stream)
        offsets = await self._connection.bounded(
            self._connection.meta.end_offsets(places), REQUEST_TIMEOUT_S, _ASKING
        )
        ends = [int(offsets[place]) for place in places]
        if not self._connection.profile.knows_ends:
            near = [(part, end - 1) for part, end in enumerate(ends) if end > 0]
            if near:
                for (part, _), (end, _) in zip(near, await self._peek(stream, near), strict=True):
                    ends[part] = end
        return ends

    async def _group_offsets(
        self, group: str, wanted: list[KafkaPartition]
    ) -> dict[KafkaPartition, OffsetAndMetadata]:
        """What the group's coordinator says. A broker has none before the first group asks for it."""
        while True:
            try:
                found: dict[
                    KafkaPartition, OffsetAndMetadata
                ] = await self._connection.admin.list_consumer_group_offsets(
                    group, partitions=wanted
                )
            except (
                GroupCoordinatorNotAvailableError,
                GroupLoadInProgressError,
                NotCoordinatorForGroupError,
            ):
                await asyncio.sleep(_SETTLE_PAUSE_S)
            else:
                return found

    async def stored(self, stream: str) -> list[int]:
        """Ends behind everything that is stored, also behind what no transaction has committed."""
        connection = self._connection
        if connection.profile.isolation != _COMMITTED:
            return await self.end(stream)
        limit = asyncio.get_running_loop().time() + _SETTLE_S
        while True:
            ends, wrong = await self._stored_now(stream)
            if wrong is None:
                return [ends[partition] for partition in sorted(ends)]
            partition, kind = wrong
            # A stream that was just made may have no leader for a moment.
            if not kind.retriable or asyncio.get_running_loop().time() > limit:
                raise told(kind(), connection.servers, f"{stream}/{partition}")
            await asyncio.sleep(_SETTLE_PAUSE_S)
            await connection.bounded(
                connection.meta._client.force_metadata_update(),  # noqa: SLF001
                REQUEST_TIMEOUT_S,
                _ASKING,
            )

    async def _stored_now(
        self, stream: str
    ) -> tuple[dict[int, int], tuple[int, type[KafkaError]] | None]:
        """Ends by partition; and of which partition the broker did not tell it, and why."""
        connection = self._connection
        client = connection.meta._client  # noqa: SLF001  # aiokafka asks for what its reader may see
        by_leader: dict[int | None, list[tuple[int, int]]] = {}
        for place in await self._places(stream):
            leader = client.cluster.leader_for_partition(place)
            by_leader.setdefault(leader, []).append((place.partition, _LATEST))
        ends: dict[int, int] = {}
        wrong = None
        for leader, wanted in by_leader.items():
            request = OffsetRequest(-1, READ_UNCOMMITTED, [(stream, wanted)])
            answer = await connection.bounded(
                client.send(leader, request), REQUEST_TIMEOUT_S, _ASKING
            )
            for _, parts in answer.topics:
                for partition, code, _, offset in parts:
                    if code:
                        wrong = (partition, for_code(code))
                    ends[partition] = int(offset)
        return ends, wrong

    async def at(self, stream: str, partition: int, timestamp_ms: int) -> int:
        """See `Log.offset_at`.

        Where the broker cannot find record times, they are searched for; this needs a stream whose
        records are in the order of their times, as streams of event time are.
        """
        await self._topics.require(stream, partition)
        if not self._connection.profile.finds_times:
            return await self._search(stream, partition, timestamp_ms)
        place = (await self._places(stream))[partition]
        found = await self._connection.bounded(
            self._connection.meta.offsets_for_times({place: timestamp_ms}),
            REQUEST_TIMEOUT_S,
            _ASKING,
        )
        if found[place] is not None:
            return int(found[place].offset)
        return (await self.end(stream))[partition]

    async def resolve(self, starts: Mapping[TopicPartition, Start]) -> dict[TopicPartition, int]:
        """Offsets of those starts.

        Raises:
            TopicError: unknown stream or partition.
            StreamError: an offset that is not kept.
        """
        edges: dict[str, tuple[list[int], list[int]]] = {}
        offsets = {}
        for place, start in starts.items():
            await self._topics.require(*place)
            if place.stream not in edges:
                edges[place.stream] = (
                    await self.beginning(place.stream),
                    await self.end(place.stream),
                )
            first, last = (edge[place.partition] for edge in edges[place.stream])
            offset = first if start == "beginning" else last if start == "end" else int(start)
            if not first <= offset <= last:
                raise StreamError(
                    f"offset {offset} is not kept: it holds {first} to {last}",
                    where=f"{place.stream}/{place.partition}",
                )
            offsets[place] = offset
        return offsets

    async def committed(
        self, group: str, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """See `Log.committed`."""
        wanted = [KafkaPartition(*place) for place in places]
        found = await self._connection.bounded(
            self._group_offsets(group, wanted), REQUEST_TIMEOUT_S, _ASKING
        )
        return {
            TopicPartition(place.topic, place.partition): int(known.offset)
            for place, known in found.items()
            if known.offset >= 0
        }

    async def _places(self, stream: str) -> list[KafkaPartition]:
        count = await self._topics.partitions(stream)
        await self._connection.learn(self._connection.meta._client, stream)  # noqa: SLF001
        return [KafkaPartition(stream, partition) for partition in range(count)]

    async def _search(self, stream: str, partition: int, timestamp_ms: int) -> int:
        """Bisect by fetching one batch at a time."""
        first = (await self.beginning(stream))[partition]
        last = (await self.end(stream))[partition]
        while first < last:
            middle = (first + last) // 2
            ((_, records),) = await self._peek(stream, [(partition, middle)])
            offset, time_ms = next(
                (record.offset, record.timestamp)
                for batch in iter(MemoryRecords(records).next_batch, None)
                for record in batch
                if record.offset >= middle
            )
            if time_ms < timestamp_ms:
                first = offset + 1
            else:
                last = middle
        return last

    async def _peek(
        self, stream: str, wanted: Sequence[tuple[int, int]]
    ) -> list[tuple[int, bytes]]:
        """End, and at least one batch, of each (partition, offset) where something is stored."""
        request = FetchRequest(
            500, 1, 1 << 20, 0, [(stream, [(part, offset, 1) for part, offset in wanted])]
        )
        answer = await self._connection.bounded(
            self._connection.admin._send_request(request),  # noqa: SLF001
            REQUEST_TIMEOUT_S,
            _ASKING,
        )
        found: dict[int, tuple[int, bytes]] = {}
        for _, parts in answer.topics:
            for partition, code, watermark, *_, records in parts:
                if code:
                    raise TopicError(for_code(code).__name__, where=f"{stream}/{partition}")
                found[partition] = (int(watermark), records)
        return [found[partition] for partition, _ in wanted]
