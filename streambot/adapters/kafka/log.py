"""`streams.ports.Log` on Kafka.

Two habits of brokers shape this module. Some create a topic as soon as a client asks about it by
name, so nobody here does: clients learn about all topics at once, and names are checked against
that first. And a client of a dead broker waits for it without a word, so a watch asks for a sign of
life once a second and ends everything that waits when none came for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from streambot.adapters.kafka.failures import told
from streambot.adapters.kafka.noise import forget_noise, last_noise, silence
from streambot.adapters.kafka.profile import (
    APACHE,
    REQUEST_TIMEOUT_S,
    BrokerProfile,
    client_settings,
    consumer_settings,
    producer_settings,
    require_extension,
)
from streambot.adapters.kafka.sink import KafkaSink
from streambot.adapters.kafka.source import KafkaSource
from streambot.domain.errors import BrokerError, StreambotError, StreamError, TopicError
from streambot.domain.kafka_settings import KafkaSecurity
from streambot.streams.ports import Start, StreamSpec, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from aiokafka.client import AIOKafkaClient

_T = TypeVar("_T")

OPEN_LIMIT_S = 10.0
TOPICS_LIMIT_S = 30.0
_WATCH_S = 1.0
_WATCH_LIMIT_S = 5.0
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_ALREADY_EXISTS, _NOT_THERE = 36, 3


class KafkaLog:
    """Streams on a Kafka broker. Made by `KafkaLog.open`.

    Attributes:
        servers: `host:port`, for messages.
        profile: kind of broker.
    """

    def __init__(
        self, servers: str, profile: BrokerProfile, settings: dict[str, Any], replication: int
    ) -> None:
        self.servers = servers
        self.profile = profile
        self._settings = settings
        self._replication = replication
        self._admin = AIOKafkaAdminClient(**settings)
        self._meta = AIOKafkaConsumer(**settings, **consumer_settings(profile))
        self._known: dict[str, int] = {}
        self._open: set[KafkaSink | KafkaSource] = set()
        self._lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._watch: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        servers: str,
        *,
        profile: BrokerProfile = APACHE,
        security: KafkaSecurity | None = None,
        replication: int = 1,
    ) -> Self:
        """Connect.

        Args:
            servers: `host:port[,host:port]`.
            profile: kind of broker.
            security: how to talk to it; None: plain text, as on loopback.
            replication: copies of each partition of the streams that are created.

        Raises:
            BrokerError: nobody answers there within `OPEN_LIMIT_S`, or aiokafka is not whole.
            ConfigError: certificates cannot be used.
        """  # fmt: skip
        require_extension()
        silence()
        forget_noise()
        log = cls(
            servers, profile, client_settings(servers, security or KafkaSecurity()), replication
        )
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                await log._admin.start()
                await log._meta.start()
        except (KafkaError, OSError, TimeoutError) as cause:
            await log.close()
            why = last_noise() or str(cause) or f"nothing within {OPEN_LIMIT_S:g} s"
            raise BrokerError(
                f"no broker answers at {servers}: {why}",
                hint="is Kafka running there? without --bootstrap-servers none is needed",
            ) from cause
        except BaseException:
            await log.close()
            raise
        log._watch = asyncio.create_task(log._look(), name=f"watch {servers}")
        return log

    def fail(self, failure: BrokerError) -> None:
        """The broker is lost: everything that waits, and every later call, gets this error."""
        if self._lost.done() or self._closed:
            return
        self._lost.set_result(failure)
        for user in list(self._open):
            if isinstance(user, KafkaSink):
                user.fail(failure)

    async def create(self, streams: Sequence[StreamSpec]) -> list[str]:
        """See `Log.create`."""
        for spec in streams:
            if not _NAME.fullmatch(spec.name) or spec.name in {".", ".."} or spec.partitions < 1:
                raise TopicError(
                    f"cannot create stream {spec.name!r} with {spec.partitions} partitions",
                    hint="names have up to 249 letters, digits, dots, underscores and dashes",
                )
        known = await self.streams()
        new = [spec for spec in streams if spec.name not in known]
        if new:
            answer = await self.bounded(
                self._admin.create_topics(
                    [
                        NewTopic(
                            spec.name, spec.partitions, self._replication, topic_configs=spec.config
                        )
                        for spec in new
                    ]
                ),
                TOPICS_LIMIT_S,
                "creating topics",
            )
            for name, code, *message in answer.topic_errors:
                if code not in {0, _ALREADY_EXISTS}:
                    why = message[0] if message and message[0] else for_code(code).__name__
                    raise TopicError(f"cannot be created: {why}", where=name)
            known = await self._until(lambda there: all(spec.name in there for spec in new))
        for spec in streams:
            if known[spec.name] != spec.partitions:
                raise TopicError(
                    f"has {known[spec.name]} partitions, asked for {spec.partitions}",
                    where=spec.name,
                )
        return [spec.name for spec in new]

    async def delete(self, streams: Sequence[str]) -> None:
        """See `Log.delete`."""
        known = await self.streams()
        there = [name for name in streams if name in known]
        if not there:
            return
        answer = await self.bounded(
            self._admin.delete_topics(there), TOPICS_LIMIT_S, "deleting topics"
        )
        for name, code in answer.topic_error_codes:
            if code not in {0, _NOT_THERE}:
                raise TopicError(f"cannot be deleted: {for_code(code).__name__}", where=name)
        await self._until(lambda left: not any(name in left for name in there))

    async def streams(self) -> dict[str, int]:
        """See `Log.streams`. Topics internal to the broker are left out."""
        topics = await self.bounded(
            self._admin.describe_topics(), REQUEST_TIMEOUT_S, "listing topics"
        )
        self._known = {
            topic["topic"]: len(topic["partitions"])
            for topic in sorted(topics, key=lambda topic: str(topic["topic"]))
            if topic["error_code"] == 0
            and not topic["is_internal"]
            and all(part["leader"] >= 0 for part in topic["partitions"])
        }
        return dict(self._known)

    async def sink(self) -> KafkaSink:
        """See `Log.sink`."""
        self.check()
        producer = AIOKafkaProducer(**self._settings, **producer_settings(self.profile))
        try:
            await self.bounded(producer.start(), OPEN_LIMIT_S, "starting a producer")
        except BaseException:
            await producer.stop()
            raise
        sink = KafkaSink(self, producer)
        self._open.add(sink)
        return sink

    async def source(self, starts: Mapping[TopicPartition, Start]) -> KafkaSource:
        """See `Log.source`."""
        self.check()
        if not starts:
            raise TopicError("a source needs at least one partition")
        offsets = await self.resolve({TopicPartition(*place): starts[place] for place in starts})
        return await self._reader(offsets)

    async def beginning_offsets(self, stream: str) -> list[int]:
        """See `Log.beginning_offsets`."""
        return await self._edges(stream, "beginning")

    async def end_offsets(self, stream: str) -> list[int]:
        """See `Log.end_offsets`."""
        return await self._edges(stream, "end")

    async def offset_at(self, stream: str, partition: int, timestamp_ms: int) -> int:
        """See `Log.offset_at`.

        Where the broker cannot find record times, they are searched for; this needs a stream whose
        records are in the order of their times, as streams of event time are.
        """
        await self.require(stream, partition)
        place = TopicPartition(stream, partition)
        if not self.profile.finds_times:
            return await self._search(place, timestamp_ms)
        await self.learn(self._meta._client, stream)  # noqa: SLF001
        at = KafkaPartition(*place)
        found = await self.bounded(
            self._meta.offsets_for_times({at: timestamp_ms}), REQUEST_TIMEOUT_S, "finding a time"
        )
        if found[at] is not None:
            return int(found[at].offset)
        return (await self.end_offsets(stream))[partition]

    async def close(self) -> None:
        """See `Log.close`."""
        if self._closed:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                for user in list(self._open):
                    tasks.create_task(user.close())
        except* StreambotError:  # told already, or about to be: the log is being left
            pass
        finally:
            self._closed = True
            if self._watch is not None:
                self._watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._watch
            for stop in (self._meta.stop(), self._admin.close()):
                with contextlib.suppress(TimeoutError, KafkaError, OSError):
                    async with asyncio.timeout(_WATCH_LIMIT_S):
                        await stop

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # For sinks and sources.

    def check(self) -> None:
        """Raise where the log is lost or closed."""
        if self._lost.done():
            lost = self._lost.result()
            raise BrokerError(lost.message, where=lost.where, hint=lost.hint)
        if self._closed:
            raise BrokerError("the log is closed")

    def forget(self, user: KafkaSink | KafkaSource) -> None:
        """A sink or source was closed."""
        self._open.discard(user)

    async def require(self, stream: str, partition: int) -> None:
        """Raise `TopicError` unless that partition exists."""
        if stream not in self._known:
            await self.streams()
        count = self._known.get(stream)
        if count is None:
            raise TopicError("no such stream", where=stream)
        if not 0 <= partition < count:
            raise TopicError(
                f"no partition {partition}: it has {count}", where=f"{stream}/{partition}"
            )

    async def confirm(self, stream: str) -> None:
        """Raise `TopicError` where the stream was deleted meanwhile."""
        if stream not in await self.streams():
            raise TopicError("the stream was deleted", where=stream)

    async def learn(self, client: AIOKafkaClient, stream: str) -> None:
        """Let a client know a stream that exists, without asking for it by name."""

        async def until_known() -> None:
            while client.cluster.partitions_for_topic(stream) is None:
                await client.force_metadata_update()

        await self.bounded(until_known(), REQUEST_TIMEOUT_S, f"learning about {stream}")

    async def resolve(self, starts: Mapping[TopicPartition, Start]) -> dict[TopicPartition, int]:
        """Offsets of those starts, all of which exist."""
        edges: dict[str, tuple[list[int], list[int]]] = {}
        offsets = {}
        for place, start in starts.items():
            await self.require(*place)
            if place.stream not in edges:
                edges[place.stream] = (
                    await self.beginning_offsets(place.stream),
                    await self.end_offsets(place.stream),
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

    async def bounded(self, work: Coroutine[Any, Any, _T], limit_s: float, doing: str) -> _T:
        """The result of `work`, or an error: of aiokafka, of the lost broker, or after `limit_s`."""
        try:
            self.check()
        except BrokerError:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait(
                (task, self._lost), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            try:
                return task.result()
            except (KafkaError, OSError, TimeoutError) as cause:
                self.check()
                raise told(cause, self.servers) from cause
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, KafkaError, OSError):
            await task
        self.check()
        raise BrokerError(f"no answer from {self.servers}: {doing} took more than {limit_s:g} s")

    async def _edges(self, stream: str, which: str) -> list[int]:
        await self.require(stream, 0)
        await self.learn(self._meta._client, stream)  # noqa: SLF001
        places = [KafkaPartition(stream, p) for p in range(self._known[stream])]
        ask = self._meta.beginning_offsets if which == "beginning" else self._meta.end_offsets
        offsets = await self.bounded(ask(places), REQUEST_TIMEOUT_S, "asking for offsets")
        if which == "end" and not self.profile.knows_ends:
            return await self._watermarks(places, offsets)
        return [int(offsets[place]) for place in places]

    async def _watermarks(
        self, places: list[KafkaPartition], near: Mapping[KafkaPartition, int]
    ) -> list[int]:
        """Ends as a fetch tells them, for a broker that answers a request for ends wrongly."""
        wanted = [(at.partition, int(near[at]) - 1) for at in places if near[at] > 0]
        ends = dict.fromkeys(range(len(places)), 0)
        if wanted:
            seen = await self._peek(places[0].topic, wanted)
            ends |= {part: end for (part, _), (end, _) in zip(wanted, seen, strict=True)}
        return list(ends.values())

    async def _reader(self, offsets: dict[TopicPartition, int]) -> KafkaSource:
        consumer = AIOKafkaConsumer(**self._settings, **consumer_settings(self.profile))
        source = KafkaSource(self, consumer, offsets)
        self._open.add(source)
        try:
            await self.bounded(consumer.start(), OPEN_LIMIT_S, "starting a consumer")
            for stream in {place.stream for place in offsets}:
                await self.learn(consumer._client, stream)  # noqa: SLF001
            source.begin()
        except BaseException:
            await source.close()
            raise
        return source

    async def _search(self, place: TopicPartition, timestamp_ms: int) -> int:
        """Bisect by fetching single records."""
        first = (await self.beginning_offsets(place.stream))[place.partition]
        last = (await self.end_offsets(place.stream))[place.partition]
        while first < last:
            middle = (first + last) // 2
            (_, records), *_ = await self._peek(place.stream, [(place.partition, middle)])
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
        """End and at least one batch of each (partition, offset): where there is something."""
        request = FetchRequest(
            500, 1, 1 << 20, 0, [(stream, [(part, offset, 1) for part, offset in wanted])]
        )
        answer = await self.bounded(
            self._admin._send_request(request),  # noqa: SLF001
            REQUEST_TIMEOUT_S,
            "asking for offsets",
        )
        found: dict[int, tuple[int, bytes]] = {}
        for _, parts in answer.topics:
            for partition, code, watermark, *_, records in parts:
                if code:
                    raise TopicError(for_code(code).__name__, where=f"{stream}/{partition}")
                found[partition] = (int(watermark), records)
        return [found[partition] for partition, _ in wanted]

    async def _until(self, settled: Any) -> dict[str, int]:  # noqa: ANN401  # a predicate
        """Streams, once the broker shows what it was told to do."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + TOPICS_LIMIT_S
        while not settled(known := await self.streams()):
            if loop.time() > limit:
                raise TopicError(
                    f"the topics did not change within {TOPICS_LIMIT_S:g} s", where=self.servers
                )
            await asyncio.sleep(0.02)
        return known

    async def _look(self) -> None:
        """Ask for a sign of life; two missing ones in a row and enough time mean it is gone."""
        loop = asyncio.get_running_loop()
        heard, missed = loop.time(), 0
        while not self._lost.done():
            await asyncio.sleep(_WATCH_S)
            try:
                async with asyncio.timeout(_WATCH_LIMIT_S):
                    await self._admin._get_cluster_metadata([])  # noqa: SLF001
            except (KafkaError, OSError, TimeoutError):
                missed += 1
            else:
                heard, missed = loop.time(), 0
            silence_s = loop.time() - heard
            if missed > 1 and silence_s >= self.profile.unreachable_s:
                self.fail(
                    BrokerError(
                        f"{self.profile.name} at {self.servers} has not answered for "
                        f"{silence_s:.0f} s",
                        hint="is it still running? `--resume RUN` goes on from the last snapshot",
                    )
                )
