"""The `orders` stream: lines of JSON, one `OrdersThrough` each, and strict reading of them.

Whoever writes orders may be another program, so a line is held to what the engine takes for
granted: whole numbers of 64 bits, positive where they must be, nothing beyond the watermark. A
second order for an instrument and barrier is no fault here: the engine answers it with
`duplicate_order`. Fields that are not known are ignored: a newer writer may add some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streambot.domain.errors import DecodeError
from streambot.domain.events import ActionKind, OrdersThrough, SubmitOrder

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINE_BYTES = 1_000_000
MAX_ORDERS = 65_536
_INT64 = 1 << 63
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(OrdersThrough, strict=True)


def encode_orders(lines: Iterable[OrdersThrough]) -> bytes:
    """Value of one record of the `orders` stream. Equal lines give equal bytes."""
    return _encoder.encode_lines(lines)


def decode_orders(value: bytes, partition: int) -> list[OrdersThrough]:
    """The lines of a record, in their order; its partition must be `partition`.

    Raises:
        DecodeError: `value` is something else. `reason` is `short` (empty), `length` (too long),
            `schema` (no JSON, fields missing or of the wrong type), `domain` (values that cannot
            be) or `foreign` (another partition).
    """
    if not value.strip():
        raise DecodeError("no line", reason="short")
    lines = value.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [_decode_line(line, number, partition) for number, line in enumerate(lines, 1)]


def _decode_line(line: bytes, number: int, partition: int) -> OrdersThrough:
    if len(line) > MAX_LINE_BYTES:
        raise DecodeError(f"line {number}: longer than {MAX_LINE_BYTES} bytes", reason="length")
    try:
        decoded = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise DecodeError(f"line {number}: {cause}", reason="schema") from cause
    wrong = _wrong(decoded)
    if wrong:
        raise DecodeError(f"line {number}: {wrong}", reason="domain")
    if decoded.partition != partition:
        raise DecodeError(f"line {number}: of partition {decoded.partition}", reason="foreign")
    return decoded


def _wrong(line: OrdersThrough) -> str:
    """What cannot be about a line; empty: nothing."""
    if not line.agent or len(line.agent) > 256:
        return "`agent` has no name of up to 256 characters"
    if not -1 <= line.through_barrier < _INT64:
        return f"`through_barrier` is {line.through_barrier}"
    if len(line.orders) > MAX_ORDERS:
        return f"{len(line.orders)} orders"
    for order in line.orders:
        wrong = _wrong_order(order, line.through_barrier)
        if wrong:
            return f"order for {order.instrument[:64]!r}: {wrong}"
    return ""


def _wrong_order(order: SubmitOrder, through: int) -> str:
    if not order.instrument:
        return "`instrument` is empty"
    if not 0 <= order.barrier <= through:
        return f"`barrier` is {order.barrier}, beyond `through_barrier` {through}"
    if order.action is ActionKind.HOLD:
        return "`action` is HOLD, which is written as no order"
    least = {
        "quantity": 0,
        "premium_ticks": 0,
        "expiry_ts": -_INT64,
        "trail_width_ticks": 1,
        "lot_size": 1,
    }
    for field, floor in least.items():
        value = getattr(order, field)
        if value is not None and not floor <= value < _INT64:
            return f"`{field}` is {value}"
    return ""
