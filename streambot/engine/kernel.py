"""One tick of one slot: every rule that a price can cause, once.

Theory of operation. A slot is a small state machine over integers. `on_tick` does, in this order
(`docs/market-rules.md`, The order of things inside a bar): settle an option that expired before
this tick; at a bar's first tick the closing after a breach, then the waiting order; unless this
tick filled an entry, the liquidation of a short, else the trailing stop. What a barrier causes besides settlement is in
`barrier`.

p is one `PARAMS` record, s one `SLOT` record, log one `LOG` record.
"""

from __future__ import annotations

from typing import Any

from streambot.engine.log import expire_order, new_event, write_mark
from streambot.engine.slots import (
    ACT_BUY,
    ACT_CLOSE,
    ACT_HOLD,
    CAUSE_FILL,
    CAUSE_SETTLEMENT,
    EFFECT_ENTRY,
    EFFECT_EXIT,
    EV_FILLED,
    EV_REJECTED,
    EV_SETTLED,
    EXP_GAP,
    MODEL_NONE,
    NONE,
    REJ_CASH,
    REJ_FLAT,
    REJ_HALTED,
    REJ_INSOLVENT,
    REJ_NO_EXPIRY,
    REJ_POSITION_OPEN,
    REJ_PREMIUM,
    REJ_QUANTITY,
    WHY_BREACH,
    WHY_LIQUIDATED,
    WHY_ORDER,
    WHY_STOP,
)
from streambot.engine.trailing import follow, is_met, start_trail
from streambot.engine.valuation import intrinsic, value_per_unit
from streambot.jit import njit

Record = Any
_MOST_MONEY = 4.0e18
_BEYOND_MONEY = 2**62


@njit
def _flatten(s: Record) -> None:
    s.side = 0
    s.quantity = 0
    s.units = 0
    s.premium = 0
    s.premium_model = MODEL_NONE
    s.expiry = NONE
    s.time_value = 0


@njit
def _release(
    p: Record, s: Record, price: int, value: int, brokerage: int
) -> tuple[int, int, int, int]:
    """Turn the position into cash at `value` ticks per unit; what it was, and the P&L realised."""
    side, quantity, lot_size = s.side, s.quantity, s.lot_size
    money = s.units * p.tick_money
    if p.is_option != 0:
        realized = (value - s.premium) * money
    else:
        realized = side * (price - s.entry_price) * money
    s.cash += value * money - brokerage
    s.realized += realized
    s.brokerage_paid += brokerage
    _flatten(s)
    return side, quantity, lot_size, realized


@njit
def settle(p: Record, s: Record, log: Record, row: int) -> None:
    """Settle the open option at the intrinsic value of the last price."""
    expiry, price = s.expiry, s.last_price
    value = intrinsic(s.side, s.entry_price, price)
    brokerage = p.brokerage_settlement
    side, quantity, lot_size, realized = _release(p, s, price, value, brokerage)
    e = log.events[new_event(s, log, EV_SETTLED, expiry, row)]
    e.side, e.quantity, e.lot_size, e.price = side, quantity, lot_size, price
    e.option_value, e.brokerage, e.realized = value, brokerage, realized
    write_mark(p, s, log, expiry, CAUSE_SETTLEMENT, price, row)


@njit
def settle_expired(p: Record, s: Record, log: Record, ts: int, row: int) -> None:
    """Settle an option that expires by the barrier at `ts`."""
    if s.side != 0 and p.is_option != 0 and s.expiry <= ts:
        settle(p, s, log, row)


@njit
def _exit(
    p: Record,
    s: Record,
    log: Record,
    ts: int,
    price: int,
    last: int,
    why: int,
    gap: int,
    row: int,
) -> None:
    """Close the position at `price` before slippage; `last` is this tick's price, for the mark."""
    fill = max(1, price - s.side * p.slippage)
    value = value_per_unit(p, s, fill)
    option_value = NONE
    if p.is_option != 0:
        value = max(0, value - p.premium_slippage)
        option_value = value
    brokerage, model = p.brokerage_exit, s.premium_model
    side, quantity, lot_size, realized = _release(p, s, fill, value, brokerage)
    e = log.events[new_event(s, log, EV_FILLED, ts, row)]
    e.detail, e.effect, e.premium_model = why, EFFECT_EXIT, model
    e.side, e.quantity, e.lot_size, e.price = side, quantity, lot_size, fill
    e.option_value, e.brokerage, e.realized, e.gap_fill = option_value, brokerage, realized, gap
    write_mark(p, s, log, ts, CAUSE_FILL, last, row)


@njit
def _entry_refusal(p: Record, s: Record, ts: int, units: int, unit_cost: int) -> int:
    """The first check that the waiting entry fails, in the order of the rules; -1: none."""
    if s.order_quantity < 1 or s.order_quantity > p.max_quantity:
        return REJ_QUANTITY
    if units < 1 and p.is_option == 0:
        return REJ_QUANTITY
    if s.halted != 0:
        return REJ_HALTED
    if s.side != 0:
        return REJ_POSITION_OPEN
    if p.is_option != 0:
        if s.order_premium == NONE or s.order_premium < 1:
            return REJ_PREMIUM
        if s.order_expiry == NONE or s.order_expiry <= ts or units < 1:
            return REJ_NO_EXPIRY
    if s.cash < 0:
        return REJ_INSOLVENT
    way_out = p.brokerage_exit
    if p.is_option != 0:
        way_out = max(way_out, p.brokerage_settlement)
    # Integers wrap where floats do not: an absurd size must not become affordable.
    if float(unit_cost) * float(units) * float(p.tick_money) > _MOST_MONEY:
        return REJ_CASH
    if s.cash < unit_cost * units * p.tick_money + p.brokerage_entry + way_out:
        return REJ_CASH
    return -1


@njit
def _reject(s: Record, log: Record, ts: int, reason: int, row: int) -> None:
    e = log.events[new_event(s, log, EV_REJECTED, ts, row)]
    e.detail, e.action = reason, s.order_action
    e.quantity = 0 if s.order_action == ACT_CLOSE else s.order_quantity
    s.last_reject = reason


@njit
def _act(
    p: Record,
    s: Record,
    log: Record,
    ts: int,
    price: int,
    gap: int,
    row: int,
) -> bool:
    """Carry out the waiting order at a bar's first tick; True where it opened a position."""
    action = s.order_action
    if action == ACT_CLOSE:
        if s.halted != 0:
            _reject(s, log, ts, REJ_HALTED, row)
        elif s.side == 0:
            _reject(s, log, ts, REJ_FLAT, row)
        else:
            _exit(p, s, log, ts, price, price, WHY_ORDER, gap, row)
        s.order_action = ACT_HOLD
        return False
    if ts - s.order_ts > p.max_gap:
        expire_order(s, log, ts, EXP_GAP, row)
        return False
    side = 1 if action == ACT_BUY else -1
    lot_size = p.lot_size if s.order_lot_size == NONE else s.order_lot_size
    units = 0
    if 1 <= s.order_quantity <= p.max_quantity:
        units = s.order_quantity * lot_size
        if float(s.order_quantity) * float(lot_size) > _MOST_MONEY:
            units = _BEYOND_MONEY
    fill = max(1, price + side * p.slippage)
    premium = min(s.order_premium, _BEYOND_MONEY) + p.premium_slippage
    unit_cost = premium if p.is_option != 0 else fill
    refusal = _entry_refusal(p, s, ts, units, unit_cost)
    if refusal >= 0:
        _reject(s, log, ts, refusal, row)
        s.order_action = ACT_HOLD
        return False
    s.cash -= unit_cost * units * p.tick_money + p.brokerage_entry
    s.brokerage_paid += p.brokerage_entry
    s.side, s.quantity, s.units, s.lot_size = side, s.order_quantity, units, lot_size
    s.entry_price = fill
    s.last_reject = -1
    if p.is_option != 0:
        s.premium = premium
        s.premium_model = s.order_model
        s.expiry = s.order_expiry
        # Marked valuation starts from what the model asked, so that slippage is a loss at once.
        s.time_value = s.order_premium if p.marked != 0 else 0
    start_trail(p, s, s.order_width)
    s.order_action = ACT_HOLD
    e = log.events[new_event(s, log, EV_FILLED, ts, row)]
    e.detail, e.effect, e.side, e.quantity = WHY_ORDER, EFFECT_ENTRY, side, s.quantity
    e.lot_size, e.price, e.brokerage, e.gap_fill = lot_size, fill, p.brokerage_entry, gap
    if p.is_option != 0:
        e.premium, e.premium_model = premium, s.order_model
    write_mark(p, s, log, ts, CAUSE_FILL, price, row)
    return True


@njit
def liquidation_due(p: Record, s: Record, price: int) -> bool:
    """A short stock whose value no longer exceeds the brokerage of its way out."""
    if s.side >= 0 or p.is_option != 0:
        return False
    return bool(value_per_unit(p, s, price) * s.units * p.tick_money <= p.brokerage_exit)


@njit
def on_tick(
    p: Record,
    s: Record,
    log: Record,
    ts: int,
    price: int,
    opens_source_bar: bool,
    row: int,
) -> None:
    """One tick: everything that a price can cause.

    Args:
        ts: UTC ns.
        price: ticks.
        opens_source_bar: first tick of a bar of the source (an enforced stop that was jumped over
            fills at this price: no path led through the stop).
        row: number that the caller gives to what happens here.
    """
    if s.side != 0 and p.is_option != 0 and s.expiry < ts:
        settle(p, s, log, row)
    entered = False
    gap = 0
    if s.in_bar == 0:
        s.in_bar = 1
        if s.close_ts != NONE and ts > s.close_ts:
            gap = 1
        if s.breach_close != 0:
            s.breach_close = 0
            if s.side != 0:
                _exit(p, s, log, ts, price, price, WHY_BREACH, gap, row)
        if s.order_action != ACT_HOLD:
            entered = _act(p, s, log, ts, price, gap, row)
        opens_source_bar = True
    if s.side != 0 and not entered:
        if liquidation_due(p, s, price):
            _exit(p, s, log, ts, price, price, WHY_LIQUIDATED, gap, row)
        elif p.enforce_stop != 0 and is_met(s, price):
            at = price if opens_source_bar or p.stop_at_tick != 0 else s.stop
            _exit(p, s, log, ts, at, price, WHY_STOP, gap, row)
        else:
            follow(p, s, price)
    s.last_price = price
