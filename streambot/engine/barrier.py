"""What a bar's close causes, in this order: market, valuation, risk, decision; then what is due.

Settlement comes first and is the kernel's. `judge` writes nothing; `write_due` writes what it found
(`docs/market-rules.md`, The order of things inside a bar; Termination).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streambot.engine.log import expire_order, new_event, write_mark
from streambot.engine.premium import current_atr, model_price, round_up, trading_days
from streambot.engine.scripts import Script, decide
from streambot.engine.slots import (
    ACT_HOLD,
    CAUSE_BARRIER,
    CAUSE_SESSION,
    EV_BREACHED,
    EXP_END,
    NONE,
)
from streambot.engine.valuation import breach_threshold, equity_at, risk_equity_at
from streambot.jit import njit
from streambot.market.atr import ATR_PERIOD, true_range, update_atr

Record = Any
DUE_BREACH, DUE_MARK = 1, 2
_SCRIPT_NONE = int(Script.NONE)


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
    new_event(s, log, EV_BREACHED, ts, row)
    if p.halt_on_breach != 0:
        s.halted = 1
        s.breach_close = 1 if s.side != 0 else 0
    else:
        s.alerted = 1


@njit
def close_market(p: Record, s: Record, session_close: bool) -> None:
    """The decision bar is complete: ATR; with the session's last bar the daily bar too.

    Kept only where something is measured in them: the bar's for a trailing stop in ATR, the day's
    for a premium.
    """
    if p.trail_bp == 0:
        high, low = float(s.bar_high), float(s.bar_low)
        spread = true_range(high, low, float(s.prev_close), s.prev_close != NONE)
        s.atr = update_atr(s.atr, s.atr_count, spread, ATR_PERIOD)
        s.atr_count += 1
        s.prev_close = s.last_price
    if p.is_option == 0:
        return
    if s.day_open == NONE:
        s.day_open, s.day_high, s.day_low = s.bar_open, s.bar_high, s.bar_low
    else:
        s.day_high = max(s.day_high, s.bar_high)
        s.day_low = min(s.day_low, s.bar_low)
    if session_close:
        day = true_range(
            float(s.day_high), float(s.day_low), float(s.day_prev_close), s.day_prev_close != NONE
        )
        s.daily_atr = update_atr(s.daily_atr, s.daily_count, day, ATR_PERIOD)
        s.daily_count += 1
        s.day_prev_close = s.last_price
        s.day_open = NONE


@njit
def revalue(p: Record, s: Record, calendar: Any) -> None:
    """Marked valuation: the proxy's price with what is known now, less intrinsic value."""
    atr = current_atr(p, s)
    if np.isnan(atr):
        return
    moneyness = s.side * (s.last_price - s.entry_price)
    days = trading_days(calendar.opens, calendar.closes, s.close_ts, s.expiry)
    price = model_price(p.premium_model, p.premium_k, atr, days, float(moneyness))
    s.time_value = max(0, round_up(price) - max(0, moneyness))


@njit
def judge(p: Record, s: Record, ring: Record, ts: int, session_close: bool) -> tuple[int, int, int]:
    """Risk, and what is due at this close: bits of `DUE_BREACH` and `DUE_MARK`; a script's answer.

    It writes nothing: a loop without calls that write runs three times faster, so both drivers
    leave it only where something is due.
    """
    due = 0
    if measure_risk(p, s):
        due |= DUE_BREACH
        if p.halt_on_breach != 0:
            # The script must know; `breach` says it to everybody else.
            s.halted = 1
    if session_close or ts >= s.next_mark:
        due |= DUE_MARK
    action, quantity = ACT_HOLD, 0
    if p.script != _SCRIPT_NONE:
        action, quantity = decide(p, s, ring)
    return due, action, quantity


@njit
def write_due(
    p: Record, s: Record, log: Record, ts: int, session_close: bool, row: int, due: int
) -> None:
    """What `judge` found due: the breach, then the mark."""
    if due & DUE_BREACH:
        breach(p, s, log, ts, row)
    if due & DUE_MARK:
        cause = CAUSE_SESSION if session_close else CAUSE_BARRIER
        write_mark(p, s, log, ts, cause, s.last_price, row)
        # At most one mark per `mark_every` of event time, on its multiples in UTC.
        if p.mark_every > 0:
            s.next_mark = (ts // p.mark_every + 1) * p.mark_every


@njit
def end_of_data(s: Record, log: Record, row: int) -> None:
    """The run is over: an order that met no next bar expires at the last close."""
    if s.order_action != ACT_HOLD:
        expire_order(s, log, s.close_ts, EXP_END, row)
