"""Records of a topic, on and on: until the run has ended, however often the broker goes meanwhile.

Read without a group, nothing committed. Transactions show in two ways: their marks are holes between
the records, and one that is open holds back what lies behind it. Its writer may have been killed: then
nothing comes until the broker gives it up, and a reader should say so rather than stand still.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple, Protocol

from streambot.cli.console import say, warn
from streambot.cli.which_broker import open_broker
from streambot.domain.errors import BrokerError, TopicError
from streambot.streams.patience import Patience, mends
from streambot.streams.ports import TopicPartition, event_time_ms
from streambot.streams.reading import read_back

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from streambot.adapters.kafka import KafkaLog
    from streambot.cli.which_broker import BrokerPlace
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.streams.ports import Log, Record, Start

HELD_S = 2.0
"""A transaction is open for a moment; for longer, its writer is gone or stands still."""
GIVEN_UP_S = 30
"""After that long the broker gives up a transaction (`adapters.kafka.profile`)."""
END_EVERY_S = 1.0
_READ_S = 0.2
_RECORDS = 64
_PAUSE_S = 0.5


class Place(NamedTuple):
    """Where to begin.

    Attributes:
        at: `beginning` or `end`.
        last: the last so many records of each partition are enough; None: all that `at` says.
        first_ts: nothing of an earlier market time is wanted, UTC ns.
    """

    at: Start = "beginning"
    last: int | None = None
    first_ts: int | None = None


class End(Protocol):
    """Tells when nothing more will come.

    Attributes:
        exact: once it is reached, everything is stored, and is read to its last record.
    """

    exact: bool

    async def reached(self, log: Log) -> bool:
        """True once it is. Asked often: asks the log now and then."""


class Reader(Protocol):
    """What a follower reads from: a source that knows of transactions."""

    async def read(self, *, max_records: int = 64, timeout_s: float = 1.0) -> list[Record]:
        """See `Source.read`."""

    def positions(self) -> dict[TopicPartition, int]:
        """See `Source.positions`."""

    def held_back(self) -> dict[TopicPartition, int]:
        """Partitions read up to an open transaction, and how much lies behind its start."""

    async def close(self) -> None:
        """See `Source.close`."""


class Unknown:
    """Nobody knows when a stream ends: it is followed until somebody has seen enough."""

    exact = False

    async def reached(self, log: Log) -> bool:
        """Never."""
        del log
        return False


class Going:
    """The end of a process that can be looked at from here."""

    exact = False

    def __init__(self, living: Callable[[], bool]) -> None:
        self._living = living

    async def reached(self, log: Log) -> bool:
        """See `End.reached`."""
        del log
        return not self._living()


class Ended:
    """The end of every partition of a topic, as its last record says it.

    What has ended stays as it is, so the record is looked at once the partition has stood still.

    Args:
        topic: whose records say it.
        ended: looks at the last record of a partition.
        quiet_s: others may still write about it, for that long.
    """

    exact = True

    def __init__(
        self, topic: str, ended: Callable[[Log, str, int], Awaitable[bool]], *, quiet_s: float = 0.0
    ) -> None:
        self._topic = topic
        self._has_ended = ended
        self._quiet_s = quiet_s
        self._ended: set[int] = set()
        self._before: dict[int, int] = {}
        self._looked: dict[int, int] = {}
        self._next = 0.0
        self._all_since: float | None = None

    async def reached(self, log: Log) -> bool:
        """See `End.reached`."""
        now = asyncio.get_running_loop().time()
        if self._all_since is None and now >= self._next:
            self._next = now + END_EVERY_S
            if await self._look(log):
                self._all_since = now
        return self._all_since is not None and now - self._all_since >= self._quiet_s

    async def _look(self, log: Log) -> bool:
        ends = await log.end_offsets(self._topic)
        for partition, end in enumerate(ends):
            stands = self._before.get(partition, end) == end
            if partition not in self._ended and stands and self._looked.get(partition) != end:
                self._looked[partition] = end
                if await self._has_ended(log, self._topic, partition):
                    self._ended.add(partition)
            self._before[partition] = end
        return len(self._ended) == len(ends)


class Follower:
    """Follows one topic.

    Args:
        broker: where it is.
        security: how to talk to it.
        topic: its full name.
        place: where to begin.
        end: when to stop.
        patient: a broker that goes is waited for; else its loss is an error at once.
        release: what frees readers that a dead writer's transaction holds back; a clause.
    """

    def __init__(
        self,
        broker: BrokerPlace,
        security: KafkaSecurity,
        topic: str,
        place: Place,
        end: End,
        *,
        patient: bool,
        release: str = "",
    ) -> None:
        self._broker = broker
        self._security = security
        self._topic = topic
        self._place = place
        self._end = end
        self._patience = Patience(None if patient else 0.0, told=warn, done="read")
        self._patient = patient
        self._held = _Held(release)
        self._positions: dict[TopicPartition, Start] | None = None
        self._caught_up = False

    async def batches(self) -> AsyncGenerator[list[Record] | None]:
        """Records as they come; None once, when those that were there at the start have been given.

        Raises:
            BrokerError: nobody answers; or the broker went, and did not come back in time.
            TopicError: the topic is not there (any more).
        """
        while True:
            try:
                async with aclosing(self._connected()) as batches:
                    async for batch in batches:
                        yield batch
            except BrokerError as failure:
                # Nobody there at the very start is a mistake of the address, not an outage.
                if not self._patient or self._positions is None or not mends(failure):
                    raise
                final = self._patience.failed(failure)
                if final is not None:
                    raise final from None
            else:
                return
            await asyncio.sleep(_PAUSE_S)

    async def _connected(self) -> AsyncGenerator[list[Record] | None]:
        async with open_broker(self._broker, self._security) as log:
            reader, ends = await self._begin(log)
            self._patience.answered()
            try:
                async with aclosing(self._read(log, reader, ends)) as batches:
                    async for batch in batches:
                        yield batch
            finally:
                await reader.close()

    async def _begin(self, log: KafkaLog) -> tuple[Reader, dict[TopicPartition, int]]:
        """A reader from where it was left, at first from its place; and where the partitions end.

        Raises:
            TopicError: the topic is not there.
        """
        if self._topic not in await log.streams():
            raise TopicError(
                f"{self._broker.servers} has no such topic", where=self._topic,
                hint="streambot topics ls shows what is there",
            )  # fmt: skip
        ends = await _ends(log, self._topic)
        if self._positions is None:
            self._positions = await _starts(log, self._topic, self._place, ends)
        return await log.source(self._positions), ends

    async def _read(
        self, log: KafkaLog, reader: Reader, ends: dict[TopicPartition, int]
    ) -> AsyncGenerator[list[Record] | None]:
        final: dict[TopicPartition, int] | None = None
        while True:
            # Asked before reading: what was stored before the end is read below.
            reached = await self._end.reached(log)
            if reached and self._end.exact and final is None:
                final = _by_partition(self._topic, await log.stored_ends(self._topic))
            records = await reader.read(max_records=_RECORDS, timeout_s=_READ_S)
            at = reader.positions()
            self._positions = dict(at)
            if records:
                self._patience.succeeded()
                yield records
            if not self._caught_up and _is_behind(at, ends):
                self._caught_up = True
                yield None
            if log.profile.transactional:
                self._held.look(reader.held_back(), at)
            # A transactional topic ends behind its last record, so an empty read counts as well.
            if reached and not records and (final is None or _is_behind(at, final)):
                if not self._caught_up:
                    yield None
                return


def _is_behind(at: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> bool:
    """What was opened since had nothing to read then."""
    return all(offset >= ends.get(place, 0) for place, offset in at.items())


def _by_partition(topic: str, offsets: list[int]) -> dict[TopicPartition, int]:
    return {TopicPartition(topic, p): offset for p, offset in enumerate(offsets)}


async def _ends(log: KafkaLog, topic: str) -> dict[TopicPartition, int]:
    return _by_partition(topic, await log.end_offsets(topic))


async def _starts(
    log: KafkaLog, topic: str, place: Place, ends: dict[TopicPartition, int]
) -> dict[TopicPartition, Start]:
    if place.at == "end":
        return dict(ends)
    if place.first_ts is not None:
        at = event_time_ms(place.first_ts)
        return {p: await log.offset_at(topic, p.partition, at) for p in ends}
    firsts = _by_partition(topic, await log.beginning_offsets(topic))
    if place.last is None:
        return dict(firsts)
    if not log.profile.transactional or not place.last:
        return {p: max(firsts[p], end - place.last) for p, end in ends.items()}
    starts: dict[TopicPartition, Start] = {}
    for p, end in ends.items():
        lasts = await read_back(log, topic, p.partition, place.last, end)
        starts[p] = lasts[-place.last :][0].offset if lasts else end
    return starts


class _Held:
    """Says once for each open transaction that readers stand before it, and when they go on.

    Args:
        release: what frees them.
    """

    def __init__(self, release: str) -> None:
        self._release = release
        self._since: dict[TopicPartition, tuple[int, float]] = {}
        self._told: set[TopicPartition] = set()

    def look(self, held: dict[TopicPartition, int], at: dict[TopicPartition, int]) -> None:
        """Look at what is held back now.

        Args:
            held: partitions, and how much lies behind the start of an open transaction.
            at: where readers are.
        """
        now = asyncio.get_running_loop().time()
        for place in list(self._since):
            if place not in held or self._since[place][0] != at[place]:
                del self._since[place]
                if place in self._told:
                    self._told.discard(place)
                    say(f"partition {place.partition}: the transaction has ended, going on")
        for place in held:
            _, since = self._since.setdefault(place, (at[place], now))
            if now - since >= HELD_S and place not in self._told:
                self._told.add(place)
                warn(
                    f"partition {place.partition}: a transaction has been open for {now - since:.0f} s, "
                    f"and what follows is held back. Its writer was killed or stands still: the broker "
                    f"gives it up after {GIVEN_UP_S} s, or as soon as{self._release}"
                )
