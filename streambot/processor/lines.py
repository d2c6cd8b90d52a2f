"""Events and marks as lines of JSON, written by compiled code.

A run at full speed brings a hundred thousand events and marks a second; making objects of them to
make text of those would take longer than everything else. So the text is written straight from the
engine's records: integers, exact decimals, fixed names. `journal` says what the fields are; a test
compares every line with the slow way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streambot.engine.decode import (
    ACTIONS,
    CAUSES,
    EXPIRY_REASONS,
    FILL_REASONS,
    PREMIUM_MODELS,
    REASONS,
)
from streambot.engine.slots import (
    EV_BREACHED,
    EV_EXPIRED,
    EV_FILLED,
    EV_REJECTED,
    EV_SETTLED,
    NONE,
)
from streambot.jit import njit

MOST_ORDER_BYTES = 512
MOST_LINE_BYTES = 1_024
"""No line is longer: the longest names, every integer with its 19 digits and its sign."""
Bytes = npt.NDArray[np.uint8]
_ZERO, _MINUS, _DOT, _QUOTE = 48, 45, 46, 34
_DISTANCE_SCALE = 1_000_000


def text(value: str) -> Bytes:
    """A constant text, as the compiled code wants it."""
    return np.frombuffer(value.encode(), np.uint8).copy()


def table(values: tuple[str, ...]) -> Bytes:
    """Texts as rows of [length, bytes...], so that compiled code can pick one by its code."""
    rows = np.zeros((len(values), 64), np.uint8)
    for row, value in zip(rows, values, strict=True):
        data = value.encode()
        row[0] = len(data)
        row[1 : 1 + len(data)] = np.frombuffer(data, np.uint8)
    return rows


@njit
def put(out: Any, at: int, value: Any) -> int:
    """Copy a text; returns the position behind it."""
    for k in range(len(value)):
        out[at + k] = value[k]
    return at + len(value)


@njit
def pick(out: Any, at: int, rows: Any, code: int) -> int:
    """Copy row `code` of a table of texts."""
    n = int(rows[code, 0])
    for k in range(n):
        out[at + k] = rows[code, 1 + k]
    return at + n


@njit
def put_int(out: Any, at: int, value: int) -> int:
    """An integer in decimal."""
    if value < 0:
        out[at] = _MINUS
        at += 1
        value = -value
    end = at + 1
    rest = value // 10
    while rest > 0:
        end += 1
        rest //= 10
    k = end
    while k > at:
        k -= 1
        out[k] = _ZERO + value % 10
        value //= 10
    return end


@njit
def put_decimal(out: Any, at: int, value: int, decimals: int) -> int:
    """`value` units of 10^-decimals, without quotes: (-12345, 2) gives -123.45."""
    if value < 0:
        out[at] = _MINUS
        at += 1
        value = -value
    if decimals == 0:
        return put_int(out, at, value)
    unit = 1
    for _ in range(decimals):
        unit *= 10
    at = put_int(out, at, value // unit)
    out[at] = _DOT
    part = value % unit
    for k in range(decimals, 0, -1):
        out[at + k] = _ZERO + part % 10
        part //= 10
    return at + 1 + decimals


@njit
def put_amount(out: Any, at: int, value: int, decimals: int) -> int:
    """A decimal in quotes, or null where there is none."""
    if value == NONE:
        return put(out, at, _NULL)
    out[at] = _QUOTE
    at = put_decimal(out, at + 1, value, decimals)
    out[at] = _QUOTE
    return at + 1


@njit
def put_price(out: Any, at: int, ticks: int, step: int, decimals: int) -> int:
    """A price in quotes: `ticks` x `step` units of 10^-decimals."""
    return put_amount(out, at, NONE if ticks == NONE else ticks * step, decimals)


@njit
def put_flag(out: Any, at: int, value: int) -> int:
    """True or false."""
    return put(out, at, _TRUE if value != 0 else _FALSE)


_NULL, _TRUE, _FALSE = text("null"), text("true"), text("false")
_KINDS = table(("OrderFilled", "OrderRejected", "OrderExpired", "PositionSettled", "SlotBreached"))
_ACTIONS = table(ACTIONS)
_EFFECTS = table(("entry", "exit"))
_FILL_REASONS = table(FILL_REASONS)
_REJECTIONS = table(REASONS)
_EXPIRIES = table(EXPIRY_REASONS)
_CAUSES = table(CAUSES)
_MODELS = table(tuple("null" if model is None else f'"{model}"' for model in PREMIUM_MODELS))
_ON_BREACH = table(("alert", "halt"))

_K_KIND = text('{"kind":"')
_K_INSTRUMENT = text('","instrument":"')
_K_SEQ = text('","seq":')
_K_TS = text(',"ts_event":')
_K_BARRIER = text(',"barrier":')
_K_EFFECT = text(',"effect":"')
_K_REASON = text('","reason":"')
_K_REASON_1 = text(',"reason":"')
_K_SIDE = text('","side":')
_K_SIDE_1 = text(',"side":')
_K_QUANTITY = text(',"quantity":')
_K_QUANTITY_1 = text('","quantity":')
_K_LOT_SIZE = text(',"lot_size":')
_K_PRICE = text(',"price":')
_K_OPTION_VALUE = text(',"option_value":')
_K_PREMIUM = text(',"premium":')
_K_MODEL = text(',"premium_model":')
_K_BROKERAGE = text(',"brokerage":')
_K_REALIZED = text(',"realized_pnl":')
_K_CASH = text(',"cash":')
_K_GAP = text(',"gap_fill":')
_K_ACTION = text(',"action":"')
_K_ON_BREACH = text('","on_breach":"')
_K_END = text("}\n")
_K_QUOTE_END = text('"}\n')
_M_INSTRUMENT = text('{"instrument":"')
_M_CAUSE = text(',"cause":"')
_M_PRICE = text('","price":')
_M_EQUITY = text(',"equity":')
_M_RISK = text(',"risk_equity":')
_M_LOTS = text(',"lots":')
_M_PAID = text(',"brokerage_paid":')
_M_STOP = text(',"trailing_stop_price":')
_M_DISTANCE = text(',"distance_to_trail":')
_M_HALTED = text(',"halted":')


@njit
def _put_event(
    out: Any, at: int, e: Any, symbol: Any, step: int, price_dec: int, money_dec: int, halts: int
) -> int:
    at = put(out, at, _K_KIND)
    at = pick(out, at, _KINDS, e.kind)
    at = put(out, at, _K_INSTRUMENT)
    at = put(out, at, symbol)
    at = put(out, at, _K_SEQ)
    at = put_int(out, at, e.seq)
    at = put(out, at, _K_TS)
    at = put_int(out, at, e.ts)
    at = put(out, at, _K_BARRIER)
    at = put_int(out, at, e.barrier)
    if e.kind == EV_BREACHED:
        at = put(out, at, _K_REASON_1)
        at = put(out, at, _DRAWDOWN)
        at = put(out, at, _K_ON_BREACH)
        at = pick(out, at, _ON_BREACH, halts)
        return put(out, at, _K_QUOTE_END)
    if e.kind == EV_REJECTED or e.kind == EV_EXPIRED:
        at = put(out, at, _K_ACTION)
        at = pick(out, at, _ACTIONS, e.action)
        at = put(out, at, _K_QUANTITY_1)
        at = put_int(out, at, e.quantity)
        at = put(out, at, _K_REASON_1)
        at = pick(out, at, _REJECTIONS if e.kind == EV_REJECTED else _EXPIRIES, e.detail)
        return put(out, at, _K_QUOTE_END)
    if e.kind == EV_FILLED:
        at = put(out, at, _K_EFFECT)
        at = pick(out, at, _EFFECTS, e.effect)
        at = put(out, at, _K_REASON)
        at = pick(out, at, _FILL_REASONS, e.detail)
        at = put(out, at, _K_SIDE)
    else:
        at = put(out, at, _K_SIDE_1)
    at = put_int(out, at, e.side)
    at = put(out, at, _K_QUANTITY)
    at = put_int(out, at, e.quantity)
    at = put(out, at, _K_LOT_SIZE)
    at = put_int(out, at, e.lot_size)
    at = put(out, at, _K_PRICE)
    at = put_price(out, at, e.price, step, price_dec)
    at = put(out, at, _K_OPTION_VALUE)
    at = put_price(out, at, e.option_value, step, price_dec)
    if e.kind == EV_FILLED:
        at = put(out, at, _K_PREMIUM)
        at = put_price(out, at, e.premium, step, price_dec)
        at = put(out, at, _K_MODEL)
        at = pick(out, at, _MODELS, e.premium_model)
    at = put(out, at, _K_BROKERAGE)
    at = put_amount(out, at, e.brokerage, money_dec)
    at = put(out, at, _K_REALIZED)
    at = put_amount(out, at, e.realized, money_dec)
    at = put(out, at, _K_CASH)
    at = put_amount(out, at, e.cash, money_dec)
    if e.kind == EV_FILLED:
        at = put(out, at, _K_GAP)
        at = put_flag(out, at, e.gap_fill)
    return put(out, at, _K_END)


_DRAWDOWN = text("drawdown")
assert EV_SETTLED == 3  # noqa: S101  # the order of `_KINDS` is the order of the codes


@njit
def _put_mark(
    out: Any, at: int, m: Any, symbol: Any, step: int, price_dec: int, money_dec: int
) -> int:
    at = put(out, at, _M_INSTRUMENT)
    at = put(out, at, symbol)
    at = put(out, at, _K_SEQ)
    at = put_int(out, at, m.seq)
    at = put(out, at, _K_TS)
    at = put_int(out, at, m.ts)
    at = put(out, at, _K_BARRIER)
    at = put_int(out, at, m.barrier)
    at = put(out, at, _M_CAUSE)
    at = pick(out, at, _CAUSES, m.cause)
    at = put(out, at, _M_PRICE)
    at = put_price(out, at, m.price, step, price_dec)
    at = put(out, at, _K_CASH)
    at = put_amount(out, at, m.cash, money_dec)
    at = put(out, at, _M_EQUITY)
    at = put_amount(out, at, m.equity, money_dec)
    at = put(out, at, _M_RISK)
    at = put_amount(out, at, m.risk_equity, money_dec)
    at = put(out, at, _M_LOTS)
    at = put_int(out, at, m.lots)
    at = put(out, at, _K_REALIZED)
    at = put_amount(out, at, m.realized, money_dec)
    at = put(out, at, _M_PAID)
    at = put_amount(out, at, m.brokerage_paid, money_dec)
    at = put(out, at, _M_STOP)
    at = put_price(out, at, m.stop, step, price_dec)
    at = put(out, at, _M_DISTANCE)
    if m.lots == 0:
        at = put(out, at, _NULL)
    else:
        scaled = int(np.floor(m.distance * _DISTANCE_SCALE + 0.5))
        at = put_decimal(out, at, scaled, 6)
    at = put(out, at, _M_HALTED)
    at = put_flag(out, at, m.halted)
    return put(out, at, _K_END)


@njit
def event_lines(
    out: Any,
    ends: Any,
    records: Any,
    symbol: Any,
    step: int,
    price_dec: int,
    money_dec: int,
    halts: int,
) -> int:
    """Write events of one slot as lines.

    Args:
        out: uint8 [at least `MOST_LINE_BYTES` x n].
        ends: int64 [n], position behind each line.
        records: `EVENT` [n].
        symbol: the instrument's symbol as bytes.
        step: tick size in units of 10^-price_dec.
        price_dec, money_dec: decimals of prices and of money.
        halts: 1 where a breach halts.

    Returns:
        Bytes written.
    """
    at = 0
    for k in range(len(records)):
        at = _put_event(out, at, records[k], symbol, step, price_dec, money_dec, halts)
        ends[k] = at
    return at


@njit
def mark_lines(
    out: Any, ends: Any, records: Any, symbol: Any, step: int, price_dec: int, money_dec: int
) -> int:
    """Write marks of one slot as lines; arguments as `event_lines`, records are `MARK` [n]."""
    at = 0
    for k in range(len(records)):
        at = _put_mark(out, at, records[k], symbol, step, price_dec, money_dec)
        ends[k] = at
    return at


_O_BARRIER = text('","barrier":')
_O_ACTION = text(',"action":"')
_O_PREMIUM = text(',"premium_ticks":')
_O_EXPIRY = text(',"expiry_ts":')
_O_WIDTH = text(',"trail_width_ticks":')
_O_END = text("},")


@njit
def put_optional(out: Any, at: int, value: int) -> int:
    """An integer, or null where there is none."""
    if value == NONE:
        return put(out, at, _NULL)
    return put_int(out, at, value)


@njit
def order_items(out: Any, ends: Any, records: Any, symbol: Any) -> int:
    """Write orders of one slot as items of a JSON array, each with a comma behind it.

    Args:
        out: uint8 [at least `MOST_ORDER_BYTES` x n].
        ends: int64 [n], position behind each item.
        records: `ORDER` [n].
        symbol: the instrument's symbol as bytes.

    Returns:
        Bytes written.
    """
    at = 0
    for k in range(len(records)):
        o = records[k]
        at = put(out, at, _M_INSTRUMENT)
        at = put(out, at, symbol)
        at = put(out, at, _O_BARRIER)
        at = put_int(out, at, o.barrier)
        at = put(out, at, _O_ACTION)
        at = pick(out, at, _ACTIONS, o.action)
        at = put(out, at, _K_QUANTITY_1)
        at = put_int(out, at, o.quantity)
        at = put(out, at, _O_PREMIUM)
        at = put_optional(out, at, o.premium)
        at = put(out, at, _O_EXPIRY)
        at = put_optional(out, at, o.expiry)
        at = put(out, at, _O_WIDTH)
        at = put_optional(out, at, o.width)
        at = put(out, at, _K_LOT_SIZE)
        at = put_optional(out, at, o.lot_size)
        at = put(out, at, _K_MODEL)
        at = pick(out, at, _MODELS, o.model)
        at = put(out, at, _O_END)
        ends[k] = at
    return at


@njit
def gather(data: Any, ends: Any, order: Any, out: Any) -> None:
    """Copy lines, line k ending at `ends[k]` of `data`, into `out` in the order given."""
    at = 0
    for line in order:
        start = ends[line - 1] if line > 0 else 0
        for k in range(start, ends[line]):
            out[at] = data[k]
            at += 1
