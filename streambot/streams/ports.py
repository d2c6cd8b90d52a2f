"""What every log can do, whoever keeps it: memory, the embedded broker, Apache Kafka.

A *stream* here is a full topic name, `<namespace>.<run>.<stream>`, with a fixed count of
partitions. Records of a partition have offsets that grow; readers may assume nothing else about
them (transactions leave holes). Partitions have no mutual order.

One suite of tests holds every implementation to this page (`tests/conformance`):

- `append` keeps the order of one caller per partition; bytes are stored as they are;
- a source reads from the beginning, the end, an offset or a time, and never commits anything:
  any number of them may read a stream without disturbing each other;
- a record may be stored twice where a broker fell over while it was under way: Kafka forgets
  idempotent producers whose last record time is older than a day, and event times are. So records
  that matter are numbered (`frame_seq`), and their readers drop repeats;
- every wait has a limit, and a log that is gone is a `BrokerError`, never silence;
- `close` may be called twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping, Sequence

MAX_RECORD_BYTES = 8_000_000
"""Largest value that a log takes; frames stay below 900 KB, policy weights may be larger."""
MAX_WAITING_RECORDS = 64
MAX_WAITING_BYTES = 64 << 20
"""How far a reader of a bounded stream may be behind before its writer waits."""

Headers = tuple[tuple[str, bytes], ...]
Start = Literal["beginning", "end"] | int
"""Where a source starts: at the first record kept, behind the last one, or at an offset."""


class TopicPartition(NamedTuple):
    """One partition of a stream."""

    stream: str
    partition: int


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A stream to create.

    Attributes:
        name: full topic name.
        partitions: fixed for the life of the stream.
        config: topic settings for brokers; the in-process log needs none.
        bounded: the in-process log keeps a record only until every registered source has read it,
            and its writers wait for the slowest one. Brokers ignore it.
    """

    name: str
    partitions: int = 1
    config: dict[str, str] = {}
    bounded: bool = False


class Record(NamedTuple):
    """One record as it was stored. `timestamp_ms` is event time, UTC."""

    stream: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Headers


def event_time_ms(ts: int) -> int:
    """Record timestamp for an event at `ts` (UTC ns): whole milliseconds, 1970 at the earliest.

    Kafka knows no time before 1970: such records are findable by offset only. Frames and events
    carry their exact times inside.
    """
    return max(0, ts // 1_000_000)


@runtime_checkable
class Sink(Protocol):
    """Writer to any partition of any stream of a log."""

    async def append(
        self,
        stream: str,
        partition: int,
        value: bytes,
        *,
        timestamp_ms: int,
        key: bytes | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[int]:
        """Hand over a record; waits only while too much is under way.

        Returns:
            A future of the record's offset, done once it is stored. It need not be awaited:
            a failure also comes out of the next `append`, `flush` or `close`.

        Raises:
            TopicError: unknown stream or partition.
            BrokerError: the log is gone, refuses, or the record is too large.
        """  # fmt: skip

    async def flush(self) -> None:
        """Wait until everything handed over is stored."""

    async def close(self) -> None:
        """Flush, then let go of the log. A second call does nothing."""


@runtime_checkable
class Transactions(Protocol):
    """Writer whose records become visible together, or not at all, and whose name it owns alone.

    Whoever opens a name fences the one who had it: from then on every call of the predecessor
    raises `FencedError`, and what it had not committed is gone. After any other error nothing is
    known about the transaction under way: close, and open the name again.
    """

    async def begin(self) -> None:
        """Start a transaction; none may be open."""

    async def append(
        self,
        stream: str,
        partition: int,
        value: bytes,
        *,
        timestamp_ms: int,
        key: bytes | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[int]:
        """See `Sink.append`; readers see the record once the transaction is committed."""

    async def flush(self) -> None:
        """Wait until everything handed over is stored (not yet visible)."""

    async def offsets(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Commit, with the transaction, how far `group` has read."""

    async def commit(self) -> None:
        """Make everything since `begin` visible.

        Raises:
            FencedError: somebody else opened the name: nothing of it became visible.
            BrokerError: it may be committed, or not.
        """

    async def close(self) -> None:
        """Let go, and abort what is open. A second call does nothing."""


@runtime_checkable
class Source(Protocol):
    """Reader of some partitions, without a group."""

    async def read(self, *, max_records: int = 64, timeout_s: float = 1.0) -> list[Record]:
        """The next records, in order within each partition; empty after `timeout_s` without any.

        Raises:
            BrokerError: the log is gone.
            StreamError: a record that should be next is no longer kept.
        """

    def positions(self) -> dict[TopicPartition, int]:
        """Offset of the next record that `read` would give, per partition."""

    async def seek(self, stream: str, partition: int, start: Start) -> None:
        """Go on reading that partition at `start`."""

    async def close(self) -> None:
        """Let go of the log. A second call does nothing."""


@runtime_checkable
class Log(Protocol):
    """A place that keeps streams."""

    async def create(self, streams: Sequence[StreamSpec]) -> list[str]:
        """Create the streams that do not exist yet; returns their names.

        Raises:
            TopicError: one exists with another count of partitions, or cannot be created.
        """

    async def delete(self, streams: Sequence[str]) -> None:
        """Delete streams with all they hold; unknown names are ignored."""

    async def streams(self) -> dict[str, int]:
        """Every stream and its count of partitions."""

    async def sink(self) -> Sink:
        """A new writer."""

    async def source(self, starts: Mapping[TopicPartition, Start], *, rest_ms: int = 0) -> Source:
        """A new reader of those partitions.

        Args:
            starts: where to begin; `end` means: behind what is stored when this returns.
            rest_ms: so much later than at once a record may be seen, where it spares both sides work: a
                broker that does not tell of new records is asked more seldom.
        """

    async def transactions(self, name: str) -> Transactions:
        """The one writer of that name; fences its predecessor.

        Raises:
            BrokerError: this log has no transactions, or does not answer.
        """

    async def committed(
        self, group: str, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """How far a group has read, as transactions committed it; places without are left out."""

    async def beginning_offsets(self, stream: str) -> list[int]:
        """Offset of the first record kept, per partition."""

    async def end_offsets(self, stream: str) -> list[int]:
        """Offset that the next record will get (at least), per partition."""

    async def offset_at(self, stream: str, partition: int, timestamp_ms: int) -> int:
        """Offset of the first record at or behind that time; the end where there is none."""

    async def close(self) -> None:
        """Let go of everything, sinks and sources included. A second call does nothing."""
