"""What a run is, on the log itself: the `runs` stream, for whoever knows the broker and its name.

    key `run`               manifest, topics, and what the replay will be
    key `context/SYMBOL`    calendar and history of an instrument that needs them
    key `successor`         the run that a seek went on with

`run` is written last: where it stands, everything before it does. The manifest alone decides what a
task does; so every worker and every mirror, on any machine, starts from the same values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from streambot.domain.errors import StreamError, TopicError
from streambot.engine.ordering import Calendar, SlotContext
from streambot.processor.manifest import RunManifest
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.streams.ports import Log

DECLARATION_SCHEMA = "streambot.declaration/1"
_RUN, _SUCCESSOR = b"run", b"successor"
_CONTEXT = b"context/"


class ReplayOutline(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay will be: counts, spans in UTC ns, see `data.timeline.Plan`."""

    bars: int
    ticks: int
    sessions: int
    first_ns: int
    last_ns: int
    open_ns: int
    closed_ns: int


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a run.

    Attributes:
        namespace: first part of its topics' names.
        topics: full name of every stream.
    """

    schema: str = DECLARATION_SCHEMA
    namespace: str
    manifest: RunManifest
    topics: dict[str, str]
    outline: ReplayOutline


class _Context(msgspec.Struct, frozen=True, kw_only=True):
    """A `SlotContext`; arrays as bytes of int64, little-endian."""

    opens: bytes
    closes: bytes
    expiries: bytes
    lots: bytes
    daily_atr: float | None
    daily_count: int
    daily_close: int


class _Successor(msgspec.Struct, frozen=True, kw_only=True):
    run: str


class Declared(NamedTuple):
    """A run as its log declares it.

    Attributes:
        context: by symbol; instruments without have an empty one.
        successor: the run that goes on after a seek; None: none.
    """

    declaration: Declaration
    context: dict[str, SlotContext]
    successor: str | None


async def declare(
    log: Log, declaration: Declaration, context: Mapping[str, SlotContext], *, at_ms: int
) -> None:
    """Write what a run is. Written again, the last one counts; it must be the same.

    Args:
        log: where its topics are.
        declaration: the run.
        context: of its instruments.
        at_ms: wall time, UTC.

    Raises:
        StreambotError: the log is gone, or refuses.
    """
    topic = declaration.topics["runs"]
    sink = await log.sink()
    try:
        for symbol, known in context.items():
            if len(known.calendar.opens) or known.daily_count:
                await sink.append(
                    topic, 0, msgspec.json.encode(_packed(known)),
                    timestamp_ms=at_ms, key=_CONTEXT + symbol.encode(),
                )  # fmt: skip
        await sink.append(topic, 0, msgspec.json.encode(declaration), timestamp_ms=at_ms, key=_RUN)
        await sink.flush()
    finally:
        await sink.close()


async def declare_successor(log: Log, topic: str, run: str, *, at_ms: int) -> None:
    """Write which run goes on after a seek."""
    sink = await log.sink()
    try:
        value = msgspec.json.encode(_Successor(run=run))
        await sink.append(topic, 0, value, timestamp_ms=at_ms, key=_SUCCESSOR)
        await sink.flush()
    finally:
        await sink.close()


async def read_declaration(log: Log, topic: str) -> Declared | None:
    """What a run is; None where nothing is declared (yet).

    Raises:
        StreamError: the records are not what streambot writes.
    """
    try:
        latest = {
            record.key: record.value
            async for batch in read_to_end(log, topic, {0: "beginning"})
            for record in batch
        }
    except TopicError:
        return None
    if _RUN not in latest:
        return None
    try:
        declaration = msgspec.json.decode(latest[_RUN], type=Declaration)
        context = {
            key.removeprefix(_CONTEXT).decode(): _unpacked(
                msgspec.json.decode(value, type=_Context)
            )
            for key, value in latest.items()
            if key is not None and key.startswith(_CONTEXT)
        }
        successor = latest.get(_SUCCESSOR)
        after = None if successor is None else msgspec.json.decode(successor, type=_Successor).run
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as cause:
        raise StreamError(
            f"the declaration of the run cannot be read: {cause}",
            where=topic,
            hint="it was written by another version of streambot, or altered",
        ) from cause
    return Declared(declaration, context, after)


def _packed(context: SlotContext) -> _Context:
    arrays = [np.ascontiguousarray(array, "<i8").tobytes() for array in context.calendar]
    return _Context(
        opens=arrays[0],
        closes=arrays[1],
        expiries=arrays[2],
        lots=arrays[3],
        daily_atr=None if np.isnan(context.daily_atr) else context.daily_atr,
        daily_count=context.daily_count,
        daily_close=context.daily_close,
    )


def _unpacked(packed: _Context) -> SlotContext:
    # Copies that can be written: compiled code tells the two apart.
    opens, closes, expiries, lots = (
        np.frombuffer(data, "<i8").astype(np.int64).copy()
        for data in (packed.opens, packed.closes, packed.expiries, packed.lots)
    )
    return SlotContext(
        Calendar(opens, closes, expiries, lots),
        np.nan if packed.daily_atr is None else packed.daily_atr,
        packed.daily_count,
        packed.daily_close,
    )
