"""One tick and one barrier of one slot: every rule of the market, once.

Theory of operation. A slot is a small state machine over integers. `on_tick` does, in this order
(`docs/market-rules.md`, The order of things inside a bar): settle an option that expired before
this tick; at a bar's first tick the closing after a breach, then the waiting order; unless this
tick filled an entry, the liquidation of a short, else the trailing stop. At a barrier the drivers
settle what expires by it, measure drawdown, and mark (`drive`). Both write events and marks into the log that
the caller owns.

p is one `PARAMS` record, s one `SLOT` record, log one `LOG` record.
"""

from __future__ import annotations

from typing import Any

from streambot.engine.slots import (
    ACT_BUY,
    ACT_CLOSE,
    ACT_HOLD,
    CAUSE_FILL,
    CAUSE_SETTLEMENT,
    EFFECT_ENTRY,
    EFFECT_EXIT,
    EV_BREACHED,
    EV_EXPIRED,
    EV_FILLED,
    EV_REJECTED,
    EV_SETTLED,
    EXP_END,
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
from streambot.engine.trailing import distance_to_trail, follow, is_met, start_trail
from streambot.engine.valuation import (
    breach_threshold,
    equity_at,
    intrinsic,
    risk_equity_at,
    value_per_unit,
)
from streambot.jit import njit

Record = Any
_MOST_MONEY = 4.0e18


@njit
def _event(s: Record, log: Record, kind: int, ts: int, row: int) -> int:
    at = log.n_events
    e = log.events[at]
    e.kind = kind
    e.seq = s.event_seq
    e.ts = ts
    e.barrier = s.barrier
    e.detail = 0
    e.effect = 0
    e.action = ACT_HOLD
    e.side = 0
    e.quantity = 0
    e.lot_size = 0
    e.price = NONE
    e.option_value = NONE
    e.premium = NONE
    e.premium_model = MODEL_NONE
    e.brokerage = 0
    e.realized = NONE
    e.cash = s.cash
    e.gap_fill = 0
    e.row = row
    s.event_seq += 1
    log.n_events = at + 1
    return at


@njit
def write_mark(
    p: Record, s: Record, log: Record, ts: int, cause: int, price: int, row: int
) -> None:
    """Append a mark of the slot at `price`."""
    m = log.marks[log.n_marks]
    m.seq = s.mark_seq
    m.ts = ts
    m.barrier = s.barrier
    m.cause = cause
    m.price = price
    m.cash = s.cash
    m.equity = equity_at(p, s, price)
    m.risk_equity = risk_equity_at(p, s, price)
    m.lots = s.side * s.quantity
    m.realized = s.realized
    m.brokerage_paid = s.brokerage_paid
    m.stop = s.stop if s.side != 0 else NONE
    m.distance = distance_to_trail(s.side, price, s.stop, s.width)
    m.halted = s.halted
    m.row = row
    s.mark_seq += 1
    log.n_marks += 1


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
    e = log.events[_event(s, log, EV_SETTLED, expiry, row)]
    e.side, e.quantity, e.lot_size, e.price = side, quantity, lot_size, price
    e.option_value, e.brokerage, e.realized = value, brokerage, realized
    write_mark(p, s, log, expiry, CAUSE_SETTLEMENT, price, row)


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
    e = log.events[_event(s, log, EV_FILLED, ts, row)]
    e.detail, e.effect, e.premium_model = why, EFFECT_EXIT, model
    e.side, e.quantity, e.lot_size, e.price = side, quantity, lot_size, fill
    e.option_value, e.brokerage, e.realized, e.gap_fill = option_value, brokerage, realized, gap
    write_mark(p, s, log, ts, CAUSE_FILL, last, row)


@njit
def _entry_refusal(p: Record, s: Record, ts: int, units: int, unit_cost: int) -> int:
    """The first check that the waiting entry fails, in the order of the rules; -1: none."""
    if s.order_quantity < 1 or s.order_quantity > p.max_quantity:
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
    e = log.events[_event(s, log, EV_REJECTED, ts, row)]
    e.detail, e.action = reason, s.order_action
    e.quantity = 0 if s.order_action == ACT_CLOSE else s.order_quantity
    s.last_reject = reason


@njit
def reject_now(
    s: Record, log: Record, ts: int, action: int, quantity: int, reason: int, row: int
) -> None:
    """Reject an order that never got to wait (`no_bar`, `duplicate_order`), at the barrier."""
    e = log.events[_event(s, log, EV_REJECTED, ts, row)]
    e.detail, e.action = reason, action
    e.quantity = 0 if action == ACT_CLOSE else quantity
    s.last_reject = reason


@njit
def expire_order(s: Record, log: Record, ts: int, reason: int, row: int) -> None:
    """The waiting order ends unfilled."""
    e = log.events[_event(s, log, EV_EXPIRED, ts, row)]
    e.detail, e.action = reason, s.order_action
    e.quantity = 0 if s.order_action == ACT_CLOSE else s.order_quantity
    s.order_action = ACT_HOLD


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
    fill = max(1, price + side * p.slippage)
    premium = s.order_premium + p.premium_slippage
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
    e = log.events[_event(s, log, EV_FILLED, ts, row)]
    e.detail, e.effect, e.side, e.quantity = WHY_ORDER, EFFECT_ENTRY, side, s.quantity
    e.lot_size, e.price, e.brokerage, e.gap_fill = lot_size, fill, p.brokerage_entry, gap
    if p.is_option != 0:
        e.premium, e.premium_model = premium, s.order_model
    write_mark(p, s, log, ts, CAUSE_FILL, price, row)
    return True


@njit
def _liquidation_due(p: Record, s: Record, price: int) -> bool:
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
        if _liquidation_due(p, s, price):
            _exit(p, s, log, ts, price, price, WHY_LIQUIDATED, gap, row)
        elif p.enforce_stop != 0 and is_met(s, price):
            at = price if opens_source_bar or p.stop_at_tick != 0 else s.stop
            _exit(p, s, log, ts, at, price, WHY_STOP, gap, row)
        else:
            follow(p, s, price)
    s.last_price = price


@njit
def quiet_range(p: Record, s: Record) -> tuple[int, int, int]:
    """Prices strictly between the first two, at or before the third time, change nothing here.

    It holds while nothing happens: after any event ask again. It lets the drivers walk through
    quiet stretches without calling `on_tick` for each tick.
    """
    low, high, until = 0, -NONE, -NONE
    if s.side == 0:
        return low, high, until
    if p.is_option != 0:
        until = s.expiry
    if s.side > 0:
        high = s.best
        if p.enforce_stop != 0:
            low = max(low, s.stop)
    else:
        low = s.best
        if p.enforce_stop != 0:
            high = min(high, s.stop)
        if p.is_option == 0:
            # value <= brokerage  <=>  2 S0 - S <= floor(brokerage / money per tick)
            spare = p.brokerage_exit // (s.units * p.tick_money)
            high = min(high, 2 * s.entry_price - spare)
    return low, high, until


@njit
def stays_quiet(p: Record, s: Record, high: int, low: int, close_ts: int) -> bool:
    """Whether no path through a bar can end or change the position, except for the best price.

    True: the best price and the stop have followed the bar's better extreme, as they would have on
    any path. False: nothing has changed, and the bar must be walked tick by tick.
    """
    if s.side == 0:
        return True
    if p.is_option != 0 and s.expiry <= close_ts:
        return False
    good, bad = (high, low) if s.side > 0 else (low, high)
    if _liquidation_due(p, s, bad):
        return False
    if p.enforce_stop == 0:
        follow(p, s, good)
        return True
    best, stop, width = s.best, s.stop, s.width
    follow(p, s, good)
    if is_met(s, bad):
        s.best, s.stop, s.width = best, stop, width
        return False
    return True


@njit
def settle_expired(p: Record, s: Record, log: Record, ts: int, row: int) -> None:
    """Settle an option that expires by the barrier at `ts`."""
    if s.side != 0 and p.is_option != 0 and s.expiry <= ts:
        settle(p, s, log, row)


@njit
def stamp_close(s: Record, barrier: int, ts: int) -> None:
    """A bar of this slot closed at `barrier`."""
    s.barrier = barrier
    s.in_bar = 0
    s.close_ts = ts
    s.bars += 1


@njit
def measure_risk(p: Record, s: Record) -> bool:
    """Peak and drawdown at a barrier; True at a breach (`docs/market-rules.md`, Termination)."""
    equity = equity_at(p, s, s.last_price)
    if equity > s.peak_equity:
        s.peak_equity = equity
    elif s.peak_equity - equity > s.max_drawdown:
        s.max_drawdown = s.peak_equity - equity
        s.drawdown_peak = s.peak_equity
    risk = equity
    if s.side != 0 and p.is_option != 0:
        risk = risk_equity_at(p, s, s.last_price)
    if risk > s.peak_risk:
        s.peak_risk = risk
        s.breach_below = breach_threshold(risk, p.drawdown_bp)
        s.alerted = 0
        return False
    return bool(risk < s.breach_below and s.halted == 0 and s.alerted == 0)


@njit
def breach(p: Record, s: Record, log: Record, ts: int, row: int) -> None:
    """Drawdown went beyond the limit: halt and close at the next bar's first tick, or alert once."""
    _event(s, log, EV_BREACHED, ts, row)
    if p.halt_on_breach != 0:
        s.halted = 1
        s.breach_close = 1 if s.side != 0 else 0
    else:
        s.alerted = 1


@njit
def end_of_data(s: Record, log: Record, row: int) -> None:
    """The run is over: an order that met no next bar expires at the last close."""
    if s.order_action != ACT_HOLD:
        expire_order(s, log, s.close_ts, EXP_END, row)
