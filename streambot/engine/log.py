"""What the engine writes: events, marks and refusals, into the log that the caller owns.

s is one `SLOT` record, log one `LOG` record (`slots`).
"""

from __future__ import annotations

from typing import Any

from streambot.engine.slots import (
    ACT_CLOSE,
    ACT_HOLD,
    EV_EXPIRED,
    EV_REJECTED,
    MODEL_NONE,
    NO_MARKS,
    NONE,
)
from streambot.engine.trailing import distance_to_trail
from streambot.engine.valuation import equity_at, risk_equity_at
from streambot.jit import njit

Record = Any


@njit
def new_event(s: Record, log: Record, kind: int, ts: int, row: int) -> int:
    """Append an event with nothing but its head; its place in the log, to fill in the rest."""
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
    """Append a mark of the slot at `price`, where anybody wants marks."""
    if p.mark_every == NO_MARKS:
        return
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
def reject_now(
    s: Record, log: Record, ts: int, action: int, quantity: int, reason: int, row: int
) -> None:
    """Reject an order that never got to wait (`no_bar`, `duplicate_order`), at the barrier."""
    e = log.events[new_event(s, log, EV_REJECTED, ts, row)]
    e.detail, e.action = reason, action
    e.quantity = 0 if action == ACT_CLOSE else quantity
    s.last_reject = reason


@njit
def expire_order(s: Record, log: Record, ts: int, reason: int, row: int) -> None:
    """The waiting order ends unfilled."""
    e = log.events[new_event(s, log, EV_EXPIRED, ts, row)]
    e.detail, e.action = reason, s.order_action
    e.quantity = 0 if s.order_action == ACT_CLOSE else s.order_quantity
    s.order_action = ACT_HOLD
