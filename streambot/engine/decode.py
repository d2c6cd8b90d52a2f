"""From records of the engine to the events and marks of the vocabulary, and back for orders."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streambot.domain.errors import UsageError
from streambot.domain.events import (
    Action,
    ActionKind,
    EngineEvent,
    Mark,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PositionSettled,
    RejectReason,
    SlotBreached,
    SubmitOrder,
)
from streambot.engine.slots import (
    EFFECT_ENTRY,
    EV_BREACHED,
    EV_EXPIRED,
    EV_FILLED,
    EV_REJECTED,
    EV_SETTLED,
    EVENT,
    MARK,
    NONE,
    ORDER,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ACTIONS = (ActionKind.HOLD, ActionKind.BUY_LONG, ActionKind.SELL_SHORT, ActionKind.CLOSE)
ACTION_CODE = {kind: code for code, kind in enumerate(ACTIONS)}
REASONS = (
    RejectReason.NO_BAR,
    RejectReason.DUPLICATE_ORDER,
    RejectReason.INVALID_QUANTITY,
    RejectReason.HALTED,
    RejectReason.POSITION_OPEN,
    RejectReason.PREMIUM_UNAVAILABLE,
    RejectReason.NO_EXPIRY,
    RejectReason.INSOLVENT,
    RejectReason.INSUFFICIENT_CASH,
    RejectReason.FLAT,
)
FILL_REASONS = ("order", "trailing_stop", "liquidated", "breach")
EXPIRY_REASONS = ("gap", "end_of_data")
CAUSES = ("barrier", "fill", "settlement", "session")
PREMIUM_MODELS = (None, "atr", "bachelier", "given")


def _optional(value: int) -> int | None:
    return None if value == NONE else value


def decode_events(records: npt.NDArray[np.void], symbol: str, *, halts: bool) -> list[EngineEvent]:
    """Events of one slot, in order.

    Args:
        records: `EVENT` [n].
        symbol: instrument of the slot.
        halts: what its breaches do (`SlotBreached.on_breach`).
    """
    names = EVENT.names or ()
    return [_event(dict(zip(names, row, strict=True)), symbol, halts) for row in records.tolist()]


def _event(r: dict[str, Any], symbol: str, halts: bool) -> EngineEvent:
    head = {
        "instrument": symbol,
        "seq": r["seq"],
        "ts_event": r["ts"],
        "barrier": r["barrier"],
    }
    kind = r["kind"]
    if kind == EV_FILLED:
        return OrderFilled(
            **head,
            effect="entry" if r["effect"] == EFFECT_ENTRY else "exit",
            reason=FILL_REASONS[r["detail"]],
            side=r["side"],
            quantity=r["quantity"],
            lot_size=r["lot_size"],
            price=r["price"],
            brokerage=r["brokerage"],
            cash=r["cash"],
            option_value=_optional(r["option_value"]),
            premium=_optional(r["premium"]),
            premium_model=PREMIUM_MODELS[r["premium_model"]],
            realized_pnl=_optional(r["realized"]),
            gap_fill=bool(r["gap_fill"]),
        )
    if kind == EV_SETTLED:
        return PositionSettled(
            **head,
            side=r["side"],
            quantity=r["quantity"],
            lot_size=r["lot_size"],
            price=r["price"],
            option_value=r["option_value"],
            brokerage=r["brokerage"],
            realized_pnl=r["realized"],
            cash=r["cash"],
        )
    if kind == EV_BREACHED:
        return SlotBreached(**head, reason="drawdown", on_breach="halt" if halts else "alert")
    asked = {"action": ACTIONS[r["action"]], "quantity": r["quantity"]}
    if kind == EV_REJECTED:
        return OrderRejected(**head, **asked, reason=REASONS[r["detail"]])
    if kind == EV_EXPIRED:
        return OrderExpired(**head, **asked, reason=EXPIRY_REASONS[r["detail"]])
    raise AssertionError(f"no such event kind: {kind}")


def decode_marks(records: npt.NDArray[np.void], symbol: str) -> list[Mark]:
    """Marks of one slot, in order; records are `MARK` [n]."""
    names = MARK.names or ()
    return [_mark(dict(zip(names, row, strict=True)), symbol) for row in records.tolist()]


def _mark(r: dict[str, Any], symbol: str) -> Mark:
    flat = r["lots"] == 0
    return Mark(
        instrument=symbol,
        seq=r["seq"],
        ts_event=r["ts"],
        barrier=r["barrier"],
        cause=CAUSES[r["cause"]],
        price=r["price"],
        cash=r["cash"],
        equity=r["equity"],
        risk_equity=r["risk_equity"],
        lots=r["lots"],
        realized_pnl=r["realized"],
        brokerage_paid=r["brokerage_paid"],
        trailing_stop_price=None if flat else r["stop"],
        distance_to_trail=None if flat else r["distance"],
        halted=bool(r["halted"]),
    )


def decode_orders(records: npt.NDArray[np.void], symbol: str) -> list[SubmitOrder]:
    """Orders that the engine completed for a co-located agent; records are `ORDER` [n]."""
    names = ORDER.names or ()
    rows = (dict(zip(names, row, strict=True)) for row in records.tolist())
    return [
        SubmitOrder(
            instrument=symbol,
            barrier=r["barrier"],
            action=ACTIONS[r["action"]],
            quantity=r["quantity"],
            premium_ticks=_optional(r["premium"]),
            expiry_ts=_optional(r["expiry"]),
            trail_width_ticks=_optional(r["width"]),
            lot_size=_optional(r["lot_size"]),
        )
        for r in rows
    ]


def encode_orders(orders: Sequence[SubmitOrder], barrier_ts: Iterable[int]) -> npt.NDArray[np.void]:
    """Orders from outside as `ORDER` records, sorted by barrier (arrival order within one).

    Args:
        orders: complete orders of one instrument; HOLD is no order and must not be among them.
        barrier_ts: close time of each order's barrier, UTC ns.
    """
    rows = [
        (
            o.barrier,
            ts,
            ACTION_CODE[o.action],
            o.quantity,
            *(
                NONE if v is None else v
                for v in (o.premium_ticks, o.expiry_ts, o.trail_width_ticks, o.lot_size)
            ),
            PREMIUM_MODELS.index(o.premium_model),
        )
        for o, ts in zip(orders, barrier_ts, strict=True)
    ]
    rows.sort(key=lambda row: row[0])
    return np.array(rows, ORDER)


_MOST_LOTS = 2**31
_MOST = 2**62
_LEAST = {
    "quantity": 1 - _MOST,
    "premium_ticks": 0,
    "expiry_ts": 1 - _MOST,
    "trail_width_ticks": 1,
    "lot_size": 1,
}


def check_order(order: SubmitOrder) -> None:
    """Refuse numbers that an order cannot carry: those that no rule answers with a rejection.

    Raises:
        UsageError: one is no whole number, below its least value, or no machine word.
    """
    for name, least in _LEAST.items():
        value = getattr(order, name)
        if value is None:
            continue
        whole = isinstance(value, int | np.integer)
        if not whole or not least <= value < _MOST:
            raise UsageError(
                f"an order of {order.instrument} with `{name}` {value!r}",
                hint="leave it out where it is not known"
                if name != "quantity"
                else "quantity is whole lots",
            )


class NoActionError(TypeError):
    """An agent answered something that is no `Action`."""


def action_code(action: object) -> tuple[int, int]:
    """Code and lots of an agent's answer.

    Raises:
        NoActionError: the answer is no `Action`, or its lots are no whole number.
    """
    if not isinstance(action, Action):
        raise NoActionError(f"expected an Action (buy(), sell(), CLOSE, HOLD), got {action!r}")
    try:
        code, lots = ACTION_CODE[action.kind], index(action.quantity)
    except (KeyError, TypeError) as error:
        # Half a lot would be cut to none by the compiled code, without a word.
        raise NoActionError(f"expected whole lots of a known action, got {action!r}") from error
    # Beyond any limit, so that it is refused as the rules say; further out it is no machine word.
    return code, min(max(lots, -_MOST_LOTS), _MOST_LOTS)
