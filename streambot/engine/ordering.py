"""From an agent's answer to the order that waits for the next bar.

An order carries all that the rules need as integers: width of the trailing stop, contract, lot size
and premium, from completed bars only. An order from outside comes complete.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.engine.kernel import settle_expired
from streambot.engine.log import reject_now
from streambot.engine.premium import current_atr, model_price, pick_expiry, round_up, trading_days
from streambot.engine.slots import (
    ACT_CLOSE,
    ACT_HOLD,
    CAPACITY,
    MODEL_GIVEN,
    MODEL_NONE,
    NONE,
    REJ_DUPLICATE,
    REJ_NO_BAR,
    ROOM,
)
from streambot.engine.trailing import width_from_atr
from streambot.jit import njit

Record = Any


class Calendar(NamedTuple):
    """What a slot knows of the future: sessions by the calendar, contracts of its chain.

    Attributes:
        opens, closes: sessions, UTC ns, int64 [n], increasing.
        expiries: contracts, UTC ns, int64 [k], increasing.
        lots: lot size of each contract, int64 [k]; 0: the instrument's own.
    """

    opens: npt.NDArray[np.int64]
    closes: npt.NDArray[np.int64]
    expiries: npt.NDArray[np.int64]
    lots: npt.NDArray[np.int64]


def empty_calendar() -> Calendar:
    """For slots that hold no options."""
    none = np.zeros(0, np.int64)
    return Calendar(none, none, none, none)


class SlotContext(NamedTuple):
    """What a slot knows besides its ticks.

    Attributes:
        calendar: sessions and contracts.
        daily_atr: Wilder's ATR of the daily bars before the run, ticks; NaN without.
        daily_count: true ranges in it.
        daily_close: close of the last daily bar, ticks; `slots.NONE` without.
    """

    calendar: Calendar
    daily_atr: float = np.nan
    daily_count: int = 0
    daily_close: int = NONE

    def warm(self, slot: Record) -> None:
        """Give a new slot, a `SLOT` record, the daily bars before the run."""
        if self.daily_count > 0:
            slot["daily_atr"] = self.daily_atr
            slot["daily_count"] = self.daily_count
            slot["day_prev_close"] = self.daily_close


@njit
def begin_order(p: Record, s: Record, order: Record, action: int, quantity: int) -> None:
    """Turn an agent's answer at the close that `s` describes into an order.

    The width of the trailing stop comes from completed bars only.
    """
    order.barrier = s.barrier
    order.ts = s.close_ts
    order.action = action
    order.quantity = 0 if action == ACT_CLOSE else quantity
    order.premium = NONE
    order.expiry = NONE
    order.width = NONE
    order.lot_size = NONE
    order.model = MODEL_NONE
    if action != ACT_CLOSE:
        order.width = width_from_atr(p.trail_atr, s.atr) if p.trail_bp == 0 else 1


@njit
def add_contract(p: Record, s: Record, calendar: Any, order: Record) -> None:
    """Contract, lot size and premium of an option's entry, from completed bars only."""
    k = pick_expiry(p, calendar.opens, calendar.closes, calendar.expiries, s.close_ts)
    days = 0.0
    if k >= 0:
        if p.expires_after > 0:
            order.expiry = calendar.closes[k]
        else:
            order.expiry = calendar.expiries[k]
            if calendar.lots[k] > 0:
                order.lot_size = calendar.lots[k]
        days = trading_days(calendar.opens, calendar.closes, s.close_ts, order.expiry)
    atr = current_atr(p, s)
    order.model = p.premium_model
    if not np.isnan(atr) and k >= 0:
        order.premium = round_up(model_price(p.premium_model, p.premium_k, atr, days, 0.0))
    elif not np.isnan(atr):
        # Without a contract the reason is `no_expiry`, not the premium.
        order.premium = 1


@njit
def wait_with(s: Record, order: Record) -> None:
    """Make a complete order the one that waits for the next bar."""
    s.order_action = order.action
    s.order_quantity = order.quantity
    s.order_premium = order.premium
    s.order_expiry = order.expiry
    s.order_width = order.width
    s.order_lot_size = order.lot_size
    s.order_model = order.model if order.model != MODEL_NONE else MODEL_GIVEN
    s.order_ts = s.close_ts


@njit
def submit(p: Record, s: Record, calendar: Any, log: Record, action: int, quantity: int) -> None:
    """Complete an agent's answer at the close that `s` describes, log it, and let it wait."""
    order = log.orders[log.n_orders]
    begin_order(p, s, order, action, quantity)
    if p.is_option != 0 and action != ACT_CLOSE:
        add_contract(p, s, calendar, order)
    wait_with(s, order)
    log.n_orders += 1


@njit
def submit_stock(p: Record, s: Record, log: Record, action: int, quantity: int) -> None:
    """`submit` without the calendar: handing over its arrays costs more than the order itself."""
    order = log.orders[log.n_orders]
    begin_order(p, s, order, action, quantity)
    wait_with(s, order)
    log.n_orders += 1


@njit
def take_given(p: Record, s: Record, given: Record, log: Record, through: int, row: int) -> None:
    """Orders from outside for the barriers before `through`, as far as the log has room for them.

    One that answers this slot's last close waits for the next bar, unless that bar has begun; a
    second one is a duplicate; any other answers a barrier at which this slot closed no bar. Nothing
    else is asked than the state, so it does not matter how often a full log interrupts.

    What expires by such a barrier is settled before its orders are refused, as at any barrier.
    """
    while log.n_given < len(given) and given[log.n_given].barrier < through:
        if log.n_events + ROOM > CAPACITY or log.n_marks + ROOM > CAPACITY:
            break
        g = given[log.n_given]
        settle_expired(p, s, log, g.ts, row)
        if g.barrier != s.barrier or s.in_bar != 0:
            reject_now(s, log, g.ts, g.action, g.quantity, REJ_NO_BAR, row)
        elif s.order_action != ACT_HOLD:
            reject_now(s, log, g.ts, g.action, g.quantity, REJ_DUPLICATE, row)
        else:
            wait_with(s, g)
        log.n_given += 1
