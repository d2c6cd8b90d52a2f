"""The `orders` stream: lines of JSON, one `OrdersThrough` each, and strict reading of them.

Whoever writes orders may be another program, so a line is held to what the engine takes for
granted: whole numbers of 64 bits, positive where they must be, nothing beyond the watermark. A
second order for an instrument and barrier is no fault here: the engine answers it with
`duplicate_order`. Fields that are not known are ignored: a newer writer may add some.

What a learned policy says of itself stands in the `policy` of its line. The key of what it says of one
close is `SYMBOL@BARRIER.NAME`; any other key is about the policy as a whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.errors import DecodeError
from streambot.domain.events import ActionKind, OrdersThrough, SubmitOrder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_LINE_BYTES = 1_000_000
MAX_ORDERS = 65_536
MAX_SAID_BYTES = 200_000
"""Of what a policy says in one line, so that its orders have room: four weights at 1,800 closes."""
_NUMBER_BYTES = 24  # of a float, with the quotes, colon and comma around its key
_INT64 = 1 << 63
_ABOUT_A_CLOSE = re.compile(r"@([0-9]{1,19})\.[^@]+\Z")
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


def said_key(symbol: str, barrier: int, name: str) -> str:
    """Key of a number that a policy says of one close; no symbol has an `@` in it."""
    return f"{symbol}@{barrier}.{name}"


def said_of(policy: Mapping[str, float], symbol: str, barrier: int) -> dict[str, float]:
    """What a policy says of one close, by name, and of itself as a whole."""
    head = said_key(symbol, barrier, "")
    return {
        key.removeprefix(head): value
        for key, value in policy.items()
        if key.startswith(head) or _barrier_of(key) is None
    }


def said_between(
    policy: Mapping[str, float] | None, after: int, through: int
) -> dict[str, float] | None:
    """What a policy says of the barriers behind `after`, up to `through`, and of itself."""
    if policy is None:
        return None
    kept = {}
    for key, value in policy.items():
        barrier = _barrier_of(key)
        if barrier is None or after < barrier <= through:
            kept[key] = value
    return kept


def newest_said(policy: dict[str, float]) -> dict[str, float]:
    """What fits into a line: of too many closes the last ones."""
    if sum(map(len, policy)) + _NUMBER_BYTES * len(policy) <= MAX_SAID_BYTES:
        return policy
    about = {key: _barrier_of(key) for key in policy}
    kept, size = {key for key, barrier in about.items() if barrier is None}, 0
    closes = [(barrier, key) for key, barrier in about.items() if barrier is not None]
    for _, key in sorted(closes, reverse=True):
        size += len(key) + _NUMBER_BYTES
        if size > MAX_SAID_BYTES:
            break
        kept.add(key)
    return {key: value for key, value in policy.items() if key in kept}


def _barrier_of(key: str) -> int | None:
    """The barrier that a key is about; None: it is about the policy as a whole."""
    found = _ABOUT_A_CLOSE.search(key)
    return None if found is None else int(found[1])
