"""Which streams a broker has: created, deleted, listed, and never asked for by name.

Some brokers create a topic as soon as a client asks about it. So everybody here learns about all
topics at once, and names are looked up in that.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from aiokafka.admin import NewTopic
from aiokafka.errors import for_code

from streambot.adapters.kafka.failures import DELETED_HINT
from streambot.adapters.kafka.profile import REQUEST_TIMEOUT_S
from streambot.domain.errors import BrokerError, TopicError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streambot.adapters.kafka.connection import Connection
    from streambot.streams.ports import StreamSpec

TOPICS_LIMIT_S = 30.0
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_ALREADY_EXISTS, _NOT_THERE, _NO_LEADER = 36, 3, 5
_CONFIRMATIONS = 3
_CONFIRM_PAUSE_S = 1.0


class Topics:
    """Streams of one broker, with what was last known of them."""

    def __init__(self, connection: Connection, replication: int) -> None:
        self._connection = connection
        self._replication = replication
        self._known: dict[str, int] = {}
        self._leaderless: set[str] = set()
        """There, and nobody can read or write them now: a broker has just started, or is gone."""

    async def all(self) -> dict[str, int]:
        """Every stream and its count of partitions; topics internal to the broker are left out."""
        topics = await self._connection.bounded(
            self._connection.admin.describe_topics(), REQUEST_TIMEOUT_S, "listing topics"
        )
        there = [
            topic
            for topic in sorted(topics, key=lambda topic: str(topic["topic"]))
            if topic["error_code"] in {0, _NO_LEADER} and not topic["is_internal"]
        ]
        led = [
            topic
            for topic in there
            if topic["error_code"] == 0 and all(p["leader"] >= 0 for p in topic["partitions"])
        ]
        self._known = {topic["topic"]: len(topic["partitions"]) for topic in led}
        self._leaderless = {topic["topic"] for topic in there} - set(self._known)
        return dict(self._known)

    async def create(self, streams: Sequence[StreamSpec]) -> list[str]:
        """See `Log.create`."""
        for spec in streams:
            if not _NAME.fullmatch(spec.name) or spec.name in {".", ".."} or spec.partitions < 1:
                raise TopicError(
                    f"cannot create stream {spec.name!r} with {spec.partitions} partitions",
                    hint="names have up to 249 letters, digits, dots, underscores and dashes",
                )
        known = await self.all()
        new = [spec for spec in streams if spec.name not in known]
        if new:
            topics = [
                NewTopic(spec.name, spec.partitions, self._replication, topic_configs=spec.config)
                for spec in new
            ]
            answer = await self._connection.bounded(
                self._connection.admin.create_topics(topics), TOPICS_LIMIT_S, "creating topics"
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
        known = await self.all()
        there = [name for name in streams if name in known]
        if not there:
            return
        answer = await self._connection.bounded(
            self._connection.admin.delete_topics(there), TOPICS_LIMIT_S, "deleting topics"
        )
        for name, code in answer.topic_error_codes:
            if code not in {0, _NOT_THERE}:
                raise TopicError(f"cannot be deleted: {for_code(code).__name__}", where=name)
        await self._until(lambda left: not any(name in left for name in there))

    async def partitions(self, stream: str) -> int:
        """Count of partitions; asks the broker only about streams it does not know yet.

        Raises:
            TopicError: there is no such stream.
        """
        if stream not in self._known and stream not in await self.all():
            if stream in self._leaderless:
                raise BrokerError("has no leader at the moment", where=stream)
            raise TopicError("no such stream", where=stream, hint=DELETED_HINT)
        return self._known[stream]

    async def require(self, stream: str, partition: int) -> None:
        """Raise `TopicError` unless that partition exists."""
        count = await self.partitions(stream)
        if not 0 <= partition < count:
            raise TopicError(
                f"no partition {partition}: it has {count}", where=f"{stream}/{partition}"
            )

    async def confirm(self, stream: str) -> None:
        """Raise `TopicError` where the stream was deleted meanwhile.

        Asked again before it is believed: a broker that has just started may not know it yet.
        """
        for attempt in range(_CONFIRMATIONS):
            if attempt:
                await asyncio.sleep(_CONFIRM_PAUSE_S)
            if stream in await self.all() or stream in self._leaderless:
                return
        raise TopicError("the stream was deleted", where=stream, hint=DELETED_HINT)

    async def _until(self, settled: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Streams, once the broker shows what it was told to do."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + TOPICS_LIMIT_S
        while not settled(known := await self.all()):
            if loop.time() > limit:
                raise TopicError(
                    f"the topics did not change within {TOPICS_LIMIT_S:g} s",
                    where=self._connection.servers,
                )
            await asyncio.sleep(0.02)
        return known
