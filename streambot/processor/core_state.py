"""The state of an engine task as values: what `TaskCore` is restored from.

Any moment between two frames can be kept, inside an interval too. What belongs to one slot stands
apart from the rest, so that a log with keys holds the latest state of every instrument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streambot.domain.errors import DataError
from streambot.domain.events import SubmitOrder
from streambot.domain.ticks import TickBlock

if TYPE_CHECKING:
    from streambot.streams.frame import Frame

STATE_VERSION = 2


class GivenOrder(msgspec.Struct, frozen=True, array_like=True):
    """An order from outside that its slot has not taken yet.

    Attributes:
        order: complete.
        ts: close time of its barrier, UTC ns; None while that is not closed.
    """

    order: SubmitOrder
    ts: int | None


class RecentCloses(msgspec.Struct, frozen=True):
    """Close times of the last frame's barriers that agents outside may not have answered yet.

    Attributes:
        barrier: number of the first.
        times: int64, UTC ns, as bytes.
    """

    barrier: int = 0
    times: bytes = b""

    def of(self, barrier: int, otherwise: int) -> int:
        """Close time of `barrier`; `otherwise` where it is not among them."""
        at = 8 * (barrier - self.barrier)
        return (
            int.from_bytes(self.times[at : at + 8], "little", signed=True)
            if (0 <= at < len(self.times))
            else otherwise
        )


class SlotState(msgspec.Struct, frozen=True, kw_only=True):
    """One slot: its records as bytes, its strategy's own state, and orders it has not taken yet."""

    symbol: str
    slot: bytes
    ring: bytes
    counts: bytes
    strategy: Any = None
    given: tuple[GivenOrder, ...] = ()


class CoreState(msgspec.Struct, frozen=True, kw_only=True):
    """A task between two frames.

    Attributes:
        last_close: close time of the last barrier, UTC ns.
        held: columns of the rows that close a bar of an interval still open (`close_rows`).
        recent: closes that orders may still answer.
        slots: in the order of the instruments; empty where they are kept elsewhere.
    """

    version: int
    last_close: int
    held: tuple[bytes, ...] = ()
    recent: RecentCloses = RecentCloses()
    slots: tuple[SlotState, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_DTYPES = (np.uint16, np.uint16, np.uint8, np.int64, np.int64, np.int64)


def encode_state(state: CoreState | SlotState) -> bytes:
    """Bytes of a state."""
    return _encoder.encode(state)


def decode_core(data: bytes) -> CoreState:
    """The task in `data`.

    Raises:
        DataError: it is none of this version.
    """
    try:
        state = msgspec.msgpack.decode(data, type=CoreState)
    except msgspec.MsgspecError as cause:
        raise DataError(f"is no snapshot of an engine task: {cause}") from cause
    if state.version != STATE_VERSION:
        raise DataError("the snapshot was written by another version", hint="start the run again")
    return state


def decode_slot(data: bytes) -> SlotState:
    """The slot in `data`.

    Raises:
        DataError: it is none.
    """
    try:
        return msgspec.msgpack.decode(data, type=SlotState)
    except msgspec.MsgspecError as cause:
        raise DataError(f"is no state of a slot: {cause}") from cause


def recent_closes(frame: Frame) -> RecentCloses:
    """The closes behind the barrier that `frame` needed answered: later frames bring their orders."""
    first = int(frame.ticks.bar[-1]) if len(frame.ticks) else 0
    return RecentCloses(frame.barrier_lo + first, frame.closes[first:].astype("<i8").tobytes())


def pack_rows(rows: TickBlock | None) -> tuple[bytes, ...]:
    """Columns as bytes; nothing for no rows."""
    return () if rows is None else tuple(column.tobytes() for column in rows)


def unpack_rows(columns: tuple[bytes, ...]) -> TickBlock | None:
    """The rows that `pack_rows` took."""
    if not columns:
        return None
    arrays: list[Any] = [
        np.frombuffer(column, dtype) for column, dtype in zip(columns, _DTYPES, strict=True)
    ]
    return TickBlock(*arrays)
