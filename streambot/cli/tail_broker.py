"""Records of a run from its broker: without a group, nothing committed, nothing written.

When the embedded broker of a run goes with its process, what had not been read yet stands in the
run's files; events carry their own numbers, so no line comes twice.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from streambot.cli.console import warn
from streambot.cli.run_progress import has_end
from streambot.cli.tail_files import decode_row, file_rows
from streambot.cli.tail_log import Ended, Follower, Going, Place, Unknown
from streambot.cli.tail_views import tick_row
from streambot.cli.which_broker import IN_PROCESS, BrokerPlace
from streambot.domain.errors import BrokerError, DecodeError, StreamError
from streambot.processor.stream_files import file_of
from streambot.processor.task_head import read_head

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from streambot.cli.seen_run import SeenRun
    from streambot.cli.tail_files import Batch, Row
    from streambot.cli.tail_log import End
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.processor.manifest import RunManifest
    from streambot.streams.ports import Log, Record

__all__ = ["IN_PROCESS", "Place", "apart_rows", "broker_rows"]

_CUT_SHORT = "the embedded broker went with its run before the last ticks were read"
_ROLLUP_S = 3.0


async def broker_rows(
    seen: SeenRun, stream: str, place: Place, security: KafkaSecurity
) -> AsyncGenerator[Batch]:
    """Rows of a stream from the broker of the run, until the run ends.

    Raises:
        BrokerError: it cannot be reached, and the stream is in no file.
    """
    path = file_of(seen.path, stream)
    size = path.stat().st_size if path.exists() else 0
    new = _New(stream)
    caught_up, lost = False, False
    try:
        end = Going(lambda: seen.living)
        async with aclosing(_from_log(seen, stream, place, security, new, end)) as batches:
            async for batch in batches:
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


async def apart_rows(
    seen: SeenRun, stream: str, place: Place, security: KafkaSecurity
) -> AsyncGenerator[Batch]:
    """Rows of a run whose pieces are apart: from its broker alone, until all of its tasks have ended.

    Raises:
        BrokerError: it cannot be reached, or went for too long.
        TopicError: the stream is not there.
    """
    again = "replay --resume" if stream == "ticks" else "worker --run"
    release = f" `streambot {again} {seen.record.run}` is started again"
    end = _end_of(seen, stream)
    rows = _from_log(seen, stream, place, security, _New(stream), end, release)
    async with aclosing(rows) as batches:
        async for batch in batches:
            yield batch


def _end_of(seen: SeenRun, stream: str) -> End:
    topics = seen.record.topics
    if stream == "ticks":
        return Going(lambda: seen.living) if seen.is_here else Ended(topics["ticks"], has_end)
    if "state" not in topics:
        warn(
            "the broker has no transactions, so nothing says when the run has ended: Ctrl-C ends this"
        )
        return Unknown()
    # The roll-up follows the tasks, and ends a moment behind them.
    quiet_s = _ROLLUP_S if stream in {"portfolio", "alerts"} else 0.0
    return Ended(topics["state"], _task_ended, quiet_s=quiet_s)


async def _task_ended(log: Log, topic: str, partition: int) -> bool:
    head = await read_head(log, topic, partition)
    return head is not None and head.ended


async def _from_log(
    seen: SeenRun,
    stream: str,
    place: Place,
    security: KafkaSecurity,
    new: _New,
    end: End,
    release: str | None = None,
) -> AsyncGenerator[Batch]:
    topic = seen.record.topics[stream]
    broker = BrokerPlace(seen.record.broker, str(seen.path / "run.json"))
    decode = _Frames(seen, new) if stream == "ticks" else _lines(stream, topic, new)
    follower = Follower(
        broker, security, topic, place, end, patient=release is not None, release=release or ""
    )
    async with aclosing(follower.batches()) as batches:
        async for batch in batches:
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
            "status": (("partition",), "offset"),
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
        self._seen = seen
        self._new = new
        self._ends: set[int] = set()

    @cached_property
    def _manifest(self) -> RunManifest:
        # Here only: it brings the engine, and with it the compiler.
        from streambot.processor.manifest import RunManifest

        try:
            return msgspec.json.decode(self._seen.record.manifest, type=RunManifest)
        except msgspec.MsgspecError as cause:
            raise StreamError(
                f"the manifest of run {self._seen.record.run} is of another version: {cause}"
            ) from cause

    @property
    def ended(self) -> bool:
        """True when every partition has sent its END."""
        return bool(self._ends) and len(self._ends) == self._manifest.partitions

    def __call__(self, record: Record) -> list[Row]:
        from streambot.streams.frame import FrameKind, decode_frame

        manifest = self._manifest
        try:
            frame = decode_frame(
                record.value, manifest.run_id, record.partition, len(manifest.instruments)
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
            tick_row(manifest.instruments[number], ts, price, size, flags, frame.barrier_lo + bar)
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
        if stream == "status":  # it has no number of its own
            rows = [row | {"partition": record.partition, "offset": record.offset} for row in rows]
        return [row for row in rows if new(row)]

    return decode


def _dead_letter(record: Record) -> Row:
    """What the headers say of the bytes that could not be used."""
    row: Row = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    for name in ("partition", "offset"):
        row[name] = int(row.get(name, -1))
    return {"stream": "", **row, "bytes": len(record.value)}
