"""Partitions, transactions and groups as Apache Kafka keeps them, as far as that can hurt.

- Records of an open transaction take offsets at once. Readers of committed records see nothing
  behind the first record of a transaction that is not decided *in that partition*.
- The end of a transaction is acknowledged when the coordinator has decided; the marks that decide
  it in each partition, and for the group, come later, each when it likes, and take offsets.
- Who opens a name raises its epoch, has the open transaction of the predecessor aborted, and gets
  an answer once that is complete everywhere. Requests with an older epoch are refused.
- The coordinator aborts a transaction that takes too long, and raises the epoch: then the producer
  is fenced, and has no successor.
- The first version of the protocol knows transactions by epoch alone. A late request to end one
  ends whatever is open under that epoch.
- Records of a producer carry numbers per partition: what comes twice is stored once.

Requests are functions of the broker that get a `reply`; one that has to wait (for a transaction
that is being completed) replies later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from streambot.domain.errors import BrokerError, FencedError, TopicError
from streambot.streams.ports import Headers, Record, TopicPartition

TRANSACTION_TIMEOUT_S = 3.0

Reply = Callable[[Any], None]
"""Told the answer: a value, or an exception for the one who asked."""


class Stored(NamedTuple):
    """What stands at an offset: neither: a mark, or something that is no longer kept."""

    record: Record | None
    transaction: OpenTransaction | None


class Produced(NamedTuple):
    """A record under way. `number`: of its producer in its partition; -1: of nobody special."""

    place: TopicPartition
    number: int
    value: bytes
    timestamp_ms: int
    key: bytes | None
    headers: Headers


class OpenTransaction:
    """A transaction until it is complete everywhere.

    Attributes:
        who: the process it is of.
        ending: decided: to be committed (True) or aborted (False); None: open.
    """

    def __init__(self, who: object) -> None:
        self.who = who
        self.ending: bool | None = None
        self.places: list[TopicPartition] = []
        self.groups: dict[str, dict[TopicPartition, int]] = {}
        self.marks = 0


class Name:
    """What the coordinator knows about a transactional id."""

    def __init__(self) -> None:
        self.epoch = -1
        self.transaction: OpenTransaction | None = None
        self.numbers: dict[TopicPartition, int] = {}
        self.last: bool | None = None
        self.waiting: list[Callable[[], None]] = []


class Partition:
    """Records of one partition."""

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.base = 0
        self.entries: list[Stored] = []
        self.undecided: dict[OpenTransaction, int] = {}
        self.watchers: dict[object, Callable[[], None]] = {}

    @property
    def stable(self) -> int:
        """The last stable offset: everything before it is decided."""
        return min(self.undecided.values(), default=len(self.entries))

    def visible(self, start: int, end: int, most: int) -> tuple[list[Record], int]:
        """Committed records from `start` up to `end`, and the offset behind what was looked at."""
        found: list[Record] = []
        at = start
        while at < end and len(found) < most:
            record, transaction = self.entries[at]
            if record is not None and (transaction is None or transaction.ending):
                found.append(record)
            at += 1
        return found, at

    def append(self, produced: Produced, transaction: OpenTransaction | None) -> int:
        offset = len(self.entries)
        place, _, value, timestamp_ms, key, headers = produced
        record = Record(*place, offset, timestamp_ms, key, value, headers)
        self.entries.append(Stored(record, transaction))
        if transaction is not None:
            self.undecided.setdefault(transaction, offset)
        return offset

    def mark(self) -> None:
        """Something that takes an offset and is no record."""
        self.entries.append(Stored(None, None))

    def truncate(self, base: int) -> None:
        """Keep nothing before `base`."""
        self.base = max(self.base, base)

    def compact(self) -> None:
        """Of the stable records of a key, keep the last."""
        seen = set()
        for offset in reversed(range(self.base, self.stable)):
            record, transaction = self.entries[offset]
            if record is None:
                continue
            if record.key in seen or (transaction is not None and not transaction.ending):
                self.entries[offset] = Stored(None, None)
            else:
                seen.add(record.key)

    def wake(self) -> None:
        for told in list(self.watchers.values()):
            told()


class SimulatedBroker:
    """All partitions, names and groups.

    Args:
        mark_s: how long the next mark of a transaction takes to come.
        on_stable: told of every partition (None: of the groups) in which more has become final.
        on_decided: told of every transaction that is to be committed or aborted.
    """

    def __init__(
        self,
        mark_s: Callable[[], float] = lambda: 0.0,
        on_stable: Callable[[TopicPartition | None], None] = lambda _: None,
        on_decided: Callable[[OpenTransaction], None] = lambda _: None,
    ) -> None:
        self.partitions: dict[str, list[Partition]] = {}
        self.names: dict[str, Name] = {}
        self.groups: dict[str, dict[TopicPartition, int]] = {}
        self._mark_s = mark_s
        self._on_stable = on_stable
        self._on_decided = on_decided

    def partition(self, place: TopicPartition) -> Partition:
        """That partition, or `TopicError`."""
        parts = self.partitions.get(place.stream)
        if parts is None or not 0 <= place.partition < len(parts):
            raise TopicError("no such partition", where=f"{place.stream}/{place.partition}")
        return parts[place.partition]

    def quiet(self, name: str) -> bool:
        """True where nothing of that name is open or being completed."""
        return name not in self.names or self.names[name].transaction is None

    # Requests -----------------------------------------------------------------------------------

    def store(self, batch: list[Produced], reply: Reply) -> None:
        """Records of nobody special."""
        offsets = [self.partition(produced.place).append(produced, None) for produced in batch]
        self._stable(dict.fromkeys(produced.place for produced in batch))
        reply(offsets)

    def fence(self, name: str, reply: Reply) -> None:
        """Open a name: answers with its epoch."""
        known = self.names.setdefault(name, Name())
        if known.transaction is not None and known.transaction.ending is None:
            known.epoch += 1  # the open transaction is aborted under an epoch of its own
            self._end(known, commit=False)
        if self._must_wait(known):
            known.waiting.append(partial(self.fence, name, reply))
            return
        known.epoch += 1
        known.numbers = {}
        known.last = None
        reply(known.epoch)

    def produce(
        self, name: str, epoch: int, who: object, batch: list[Produced], reply: Reply
    ) -> None:
        """Records of a transaction, which begins with its first."""
        known = self.names[name]
        transaction = self._transaction(name, epoch, who, reply)
        if transaction is None:
            return
        if transaction.ending is not None:
            known.waiting.append(partial(self.produce, name, epoch, who, batch, reply))
            return
        offsets = []
        for produced in batch:
            part = self.partition(produced.place)
            expected = known.numbers.get(produced.place, 0)
            if produced.number > expected:
                reply(BrokerError("records of a producer are out of order"))
                return
            if produced.number < expected:
                offsets.append(-1)  # stored already
                continue
            if produced.place not in transaction.places:
                transaction.places.append(produced.place)
            offsets.append(part.append(produced, transaction))
            known.numbers[produced.place] = expected + 1
        reply(offsets)

    def offsets(
        self,
        name: str,
        epoch: int,
        who: object,
        group: str,
        positions: Mapping[TopicPartition, int],
        reply: Reply,
    ) -> None:
        """How far a group has read, once the transaction is committed."""
        known = self.names[name]
        transaction = self._transaction(name, epoch, who, reply)
        if transaction is None:
            return
        if transaction.ending is not None:
            again = partial(self.offsets, name, epoch, who, group, positions, reply)
            known.waiting.append(again)
            return
        transaction.groups.setdefault(group, {}).update(positions)
        reply(None)

    def end(self, name: str, epoch: int, commit: bool, reply: Reply) -> None:
        """Commit or abort: answered once it is decided, long before it is complete."""
        known = self.names[name]
        if self._is_old(known, epoch):
            reply(FencedError(f"another process took over {name}"))
            return
        transaction = known.transaction
        if transaction is None:
            same = known.last is commit
            reply(None if same else BrokerError("no transaction is open"))
            return
        if transaction.ending is None:
            self._end(known, commit=commit)
        elif transaction.ending is not commit:
            reply(BrokerError("the transaction is ending otherwise"))
            return
        reply(None)

    # Coordinator --------------------------------------------------------------------------------

    def _is_old(self, known: Name, epoch: int) -> bool:
        return epoch != known.epoch

    def _must_wait(self, known: Name) -> bool:
        return known.transaction is not None

    def _transaction(
        self, name: str, epoch: int, who: object, reply: Reply
    ) -> OpenTransaction | None:
        """The transaction that a request is for, begun where it is the first; None: refused."""
        known = self.names[name]
        if self._is_old(known, epoch):
            reply(FencedError(f"another process took over {name}"))
            return None
        if known.transaction is None:
            known.transaction = OpenTransaction(who)
            asyncio.get_running_loop().call_later(
                TRANSACTION_TIMEOUT_S, self._time_out, known, known.transaction
            )
        return known.transaction

    def _time_out(self, known: Name, transaction: OpenTransaction) -> None:
        if known.transaction is transaction and transaction.ending is None:
            known.epoch += 1
            self._end(known, commit=False)

    def _end(self, known: Name, *, commit: bool) -> None:
        transaction = known.transaction
        assert transaction is not None
        transaction.ending = commit
        self._on_decided(transaction)
        loop = asyncio.get_running_loop()
        places: list[TopicPartition | None] = [*transaction.places]
        if transaction.groups:
            places.append(None)
        transaction.marks = len(places)
        for place in places:
            loop.call_later(self._mark_s(), self._mark, known, transaction, place)
        if not places:
            self._complete(known, transaction)

    def _mark(
        self, known: Name, transaction: OpenTransaction, place: TopicPartition | None
    ) -> None:
        """The end of a transaction has reached a partition, or the group."""
        transaction.marks -= 1
        if place is None:
            if transaction.ending:
                for group, positions in transaction.groups.items():
                    self.groups.setdefault(group, {}).update(positions)
        else:
            part = self.partition(place)
            del part.undecided[transaction]
            part.mark()
        if transaction.marks == 0:
            self._complete(known, transaction)
        self._stable([place])

    def _complete(self, known: Name, transaction: OpenTransaction) -> None:
        known.transaction = None
        known.last = transaction.ending
        waiting, known.waiting = known.waiting, []
        for again in waiting:
            again()

    def _stable(self, places) -> None:
        for place in places:
            if place is not None:
                self.partition(place).wake()
            self._on_stable(place)
