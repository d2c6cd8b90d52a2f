"""Records of a run from its broker: without a group, nothing committed, nothing written.

When the embedded broker of a run goes with its process, what had not been read yet stands in the
run's files; events carry their own numbers, so no line comes twice.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streambot.cli.console import warn
from streambot.cli.tail_files import decode_row, file_rows
from streambot.cli.tail_views import tick_row
from streambot.domain.errors import BrokerError, DecodeError, StreamError
from streambot.processor.stream_files import file_of
from streambot.streams.ports import TopicPartition, event_time_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from streambot.cli.seen_run import SeenRun
    from streambot.cli.tail_files import Batch, Row
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.streams.ports import Log, Record, Start

IN_PROCESS = "in-process"
_CUT_SHORT = "the embedded broker went with its run before the last ticks were read"
_READ_S = 0.2
_RECORDS = 64


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


async def broker_rows(
    seen: SeenRun, stream: str, place: Place, security: KafkaSecurity
) -> AsyncIterator[Batch]:
    """Rows of a stream from the broker of the run, until the run ends.

    Raises:
        BrokerError: it cannot be reached, and the stream is in no file.
    """
    path = file_of(seen.path, stream)
    size = path.stat().st_size if path.exists() else 0
    new = _New(stream)
    caught_up, lost = False, False
    try:
        async for batch in _from_log(seen, stream, place, security, new):
            caught_up = caught_up or batch is None
            yield batch
    except (BrokerError, StreamError) as failure:
        if stream == "ticks" and (seen.living or not caught_up):
            raise
        lost = True
        if stream == "ticks":
            warn(_CUT_SHORT)
        elif seen.living:
            warn(f"{failure.message}; going on with the run's files")
    if stream == "ticks" or not (lost or seen.record.embedded):
        return
    # The embedded broker goes with its process. The rest is in the file, and so is what it had given.
    rest = file_rows(path, living=lambda: seen.living, offset=size if caught_up else 0)
    async for batch in rest:
        if batch is not None:
            yield [row for row in batch if new(row)]
        elif not caught_up:
            yield None


async def _from_log(
    seen: SeenRun, stream: str, place: Place, security: KafkaSecurity, new: _New
) -> AsyncIterator[Batch]:
    from streambot.adapters.kafka import APACHE, EMBEDDED, KafkaLog

    profile = EMBEDDED if seen.record.embedded else APACHE
    async with await KafkaLog.open(seen.record.broker, profile=profile, security=security) as log:
        topic = seen.record.topics[stream]
        decode = _Frames(seen, new) if stream == "ticks" else _lines(stream, topic, new)
        async for batch in _records(seen, log, topic, place):
            if batch is None:
                yield None
                continue
            rows = [row for record in batch for row in decode(record)]
            # Partitions have no mutual order; a person reads by time.
            if rows and "ts_event" in rows[0]:
                rows.sort(key=lambda row: row["ts_event"])
            yield rows
            if isinstance(decode, _Frames) and decode.ended:
                return
        if isinstance(decode, _Frames) and seen.record.embedded:
            warn(_CUT_SHORT)


async def _records(
    seen: SeenRun, log: Log, topic: str, place: Place
) -> AsyncIterator[list[Record] | None]:
    """Records of all partitions; None once, at the records that were there at the start."""
    ends = await log.end_offsets(topic)
    starts = await _starts(log, topic, place, ends)
    async with contextlib.AsyncExitStack() as stack:
        source = await log.source(starts)
        stack.push_async_callback(source.close)
        waiting = True
        while True:
            alive = seen.living
            records = await source.read(max_records=_RECORDS, timeout_s=_READ_S)
            if records:
                yield records
            if waiting and all(at >= ends[p.partition] for p, at in source.positions().items()):
                waiting = False
                yield None
            # A transactional topic ends behind its last record, so an empty read counts as well.
            if not records and not alive:
                if waiting:
                    yield None
                return


async def _starts(
    log: Log, topic: str, place: Place, ends: list[int]
) -> dict[TopicPartition, Start]:
    partitions = [TopicPartition(topic, p) for p in range(len(ends))]
    if place.at == "end":
        return {p: ends[p.partition] for p in partitions}
    if place.first_ts is not None:
        at = event_time_ms(place.first_ts)
        return {p: await log.offset_at(topic, p.partition, at) for p in partitions}
    firsts = await log.beginning_offsets(topic)
    if place.last is None:
        return {p: firsts[p.partition] for p in partitions}
    return {p: max(firsts[p.partition], ends[p.partition] - place.last) for p in partitions}


class _New:
    """True for a row that was not seen before, by the number that the row itself carries."""

    def __init__(self, stream: str) -> None:
        self._owner, self._number = {
            "orders": (("agent", "partition"), "through_barrier"),
            "late": (("stream", "partition"), "offset"),
            "dead-letter": (("stream", "partition"), "offset"),
            "ticks": (("partition",), "frame_seq"),
            "portfolio": (("currency",), "seq"),
            "alerts": (("series",), "seq"),
        }.get(stream, (("instrument",), "seq"))
        self._last: dict[tuple[Any, ...], int] = {}

    def __call__(self, row: Row) -> bool:
        owner = tuple(row[name] for name in self._owner)
        number = row[self._number]
        if number <= self._last.get(owner, -1):
            return False
        self._last[owner] = number
        return True


class _Frames:
    """Decodes frames; remembers which partitions have ended."""

    def __init__(self, seen: SeenRun, new: _New) -> None:
        # Here only: it brings the engine, and with it the compiler.
        from streambot.processor.manifest import RunManifest

        manifest = msgspec.json.decode(seen.record.manifest, type=RunManifest)
        self._run_id = manifest.run_id
        self._instruments = manifest.instruments
        self._partitions = manifest.partitions
        self._new = new
        self._ends: set[int] = set()

    @property
    def ended(self) -> bool:
        """True when every partition has sent its END."""
        return len(self._ends) == self._partitions

    def __call__(self, record: Record) -> list[Row]:
        from streambot.streams.frame import FrameKind, decode_frame

        try:
            frame = decode_frame(
                record.value, self._run_id, record.partition, len(self._instruments)
            )
        except DecodeError:
            return []  # the engine counts it, and keeps it as a dead letter
        if not self._new({"partition": frame.partition, "frame_seq": frame.frame_seq}):
            return []
        if frame.kind is FrameKind.END:
            self._ends.add(frame.partition)
        ticks = frame.ticks
        columns = (ticks.instrument, ticks.ts, ticks.price, ticks.size, ticks.flags, ticks.bar)
        return [
            tick_row(self._instruments[number], ts, price, size, flags, frame.barrier_lo + bar)
            for number, ts, price, size, flags, bar in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]


def _lines(stream: str, topic: str, new: _New) -> Callable[[Record], list[Row]]:
    def decode(record: Record) -> list[Row]:
        where = f"{topic}/{record.partition}/{record.offset}"
        if stream in {"late", "dead-letter"}:
            rows = [_dead_letter(record)]
        else:
            rows = [decode_row(line, where=where) for line in record.value.splitlines() if line]
        return [row for row in rows if new(row)]

    return decode


def _dead_letter(record: Record) -> Row:
    """What the headers say of the bytes that could not be used."""
    row: Row = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    for name in ("partition", "offset"):
        row[name] = int(row.get(name, -1))
    return {"stream": "", **row, "bytes": len(record.value)}
