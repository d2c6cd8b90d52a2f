"""Reader of Kafka: partitions assigned by hand, no group, nothing committed."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import TopicPartition as KafkaPartition

from streambot.adapters.kafka.connection import OPEN_LIMIT_S
from streambot.adapters.kafka.profile import REQUEST_TIMEOUT_S
from streambot.adapters.kafka.stopping import stopped, to_the_end
from streambot.domain.errors import BrokerError, StreamError, TopicError
from streambot.streams.ports import Record, Start, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import ConsumerRecord

    from streambot.adapters.kafka.connection import Connection
    from streambot.adapters.kafka.offsets import Offsets
    from streambot.adapters.kafka.topics import Topics

_HOLE_S, _HOLE_PAUSE_S, _HOLE_REST_S = 5.0, 0.005, 1.0
"""A batch that others have overtaken is waited for so long (it is written, so it comes at once), and asked for
so often; who has not asked for longer than the last begins to wait anew."""


class _Hole(NamedTuple):
    """Where a batch is missing, since when, and when that was last seen."""

    offset: int
    since_s: float
    looked_s: float


class KafkaSource:
    """`streams.ports.Source` on one consumer. Made by `KafkaLog.source`.

    A fetch is taken whole and handed out in pieces: aiokafka asks for the next one only when the
    last one is used up, so that the broker works on it while the caller works on this one.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        offsets: Offsets,
        consumer: AIOKafkaConsumer,
        on_close: Callable[[KafkaSource], None],
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._offsets = offsets
        self._consumer = consumer
        self._on_close = on_close
        self._positions: dict[TopicPartition, int] = {}
        self._fetched: deque[Record] = deque()
        self._holes: dict[KafkaPartition, _Hole] = {}
        self._closed = False

    async def begin(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Start the consumer, assign the partitions, go to their offsets."""
        consumer = self._consumer
        await self._connection.start(consumer.start(), OPEN_LIMIT_S, "starting a consumer")
        for stream in {place.stream for place in offsets}:
            await self._connection.learn(consumer._client, stream)  # noqa: SLF001
        self._positions = dict(offsets)
        consumer.assign([KafkaPartition(*place) for place in offsets])
        # Metadata of all topics, always: asking for one by name may create it.
        consumer._client.set_topics([])  # noqa: SLF001
        for place, offset in offsets.items():
            consumer.seek(KafkaPartition(*place), offset)

    async def read(self, *, max_records: int = 64, timeout_s: float = 1.0) -> list[Record]:
        """See `Source.read`."""
        self._check()
        if not self._fetched:
            await self._fetch(timeout_s)
            self._check()
        found: list[Record] = []
        while self._fetched and len(found) < max_records:
            record = self._fetched.popleft()
            found.append(record)
            self._positions[TopicPartition(record.stream, record.partition)] = record.offset + 1
        if not self._fetched:
            self._pass_holes()
        return found

    def _pass_holes(self) -> None:
        """Behind the last record there may be marks of transactions, which are no records."""
        if not self._connection.profile.transactional:
            return
        assignment = self._consumer._subscription.subscription.assignment  # noqa: SLF001
        for place, position in self._positions.items():
            state = assignment.state_value(KafkaPartition(*place))
            if state is not None and state.has_valid_position:
                self._positions[place] = max(position, state.position)

    def positions(self) -> dict[TopicPartition, int]:
        """See `Source.positions`."""
        return dict(self._positions)

    def held_back(self) -> dict[TopicPartition, int]:
        """Partitions read up to an open transaction, and how many offsets lie behind its start.

        As of the last answers to fetches. The offsets are records, and marks of transactions.
        """
        held = {}
        for place, position in self._positions.items():
            partition = KafkaPartition(*place)
            stable = self._consumer.last_stable_offset(partition)
            end = self._consumer.highwater(partition)
            if stable is not None and end is not None and position >= stable >= 0 and end > stable:
                held[place] = end - stable
        return held

    async def seek(self, stream: str, partition: int, start: Start) -> None:
        """See `Source.seek`."""
        self._check()
        place = TopicPartition(stream, partition)
        if place not in self._positions:
            raise TopicError("this source does not read it", where=f"{stream}/{partition}")
        offset = (await self._offsets.resolve({place: start}))[place]
        self._fetched = deque(r for r in self._fetched if (r.stream, r.partition) != place)
        self._positions[place] = offset
        self._consumer.seek(KafkaPartition(*place), offset)

    async def close(self) -> None:
        """See `Source.close`."""
        if self._closed:
            return
        self._closed = True
        self._fetched.clear()
        await to_the_end(self._stop())
        self._on_close(self)

    async def _stop(self) -> None:
        if not await stopped(self._consumer.stop()):
            await stopped(self._consumer._client.close())  # noqa: SLF001

    async def _fetch(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            left_s = max(0.0, until - loop.time())
            batches: dict[KafkaPartition, list[ConsumerRecord]] = await self._connection.bounded(
                self._consumer.getmany(timeout_ms=int(left_s * 1_000)),
                left_s + REQUEST_TIMEOUT_S,
                "reading",
            )
            for place, records in batches.items():
                self._fetched.extend(
                    Record(
                        place.topic, place.partition, record.offset, record.timestamp,
                        record.key, b"" if record.value is None else record.value, record.headers,
                    )
                    for record in self._next_ones(place, records)
                )  # fmt: skip
            if self._fetched or not batches or loop.time() >= until:
                break
            await asyncio.sleep(_HOLE_PAUSE_S)
        if not batches:
            for place in self._positions:
                if self._consumer.partitions_for_topic(place.stream) is None:
                    await self._topics.confirm(place.stream)

    def _next_ones(
        self, place: KafkaPartition, fetched: list[ConsumerRecord]
    ) -> list[ConsumerRecord]:
        """What comes next; where a broker has left something out, the consumer goes back to it.

        Raises:
            StreamError: it does not come.
        """
        if self._connection.profile.in_order:
            return fetched
        expected = self._positions[TopicPartition(*place)]
        for number, record in enumerate(fetched):
            if record.offset != expected + number:
                self._consumer.seek(place, expected + number)
                self._wait_for(place, expected + number, record.offset)
                return fetched[:number]
        self._holes.pop(place, None)
        return fetched

    def _wait_for(self, place: KafkaPartition, missing: int, found: int) -> None:
        now = asyncio.get_running_loop().time()
        hole = self._holes.get(place)
        if hole is None or hole.offset != missing or now - hole.looked_s > _HOLE_REST_S:
            hole = _Hole(missing, now, now)  # nobody has looked for long: what was fetched is old
        self._holes[place] = hole._replace(looked_s=now)
        if now - hole.since_s > _HOLE_S:
            raise StreamError(
                f"the broker gives the record at offset {found} where that at {missing} is next",
                where=f"{place.topic}/{place.partition}",
            )

    def _check(self) -> None:
        self._connection.check()
        if self._closed:
            raise BrokerError("the source is closed")
