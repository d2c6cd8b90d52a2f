"""State and constants of a slot: record arrays, whose bytes are the snapshot.

A slot is one instrument of a run, or one environment, with its own cash. Prices are ticks, money
is money units, times are UTC nanoseconds (`domain.units`). A field that means "none" holds `NONE`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from streambot.domain.errors import ConfigError
from streambot.domain.instruments import (
    AtrPremium,
    BachelierPremium,
    Instrument,
    TrailBp,
    Valuation,
)
from streambot.domain.units import NANOS_PER_DAY
from streambot.engine.valuation import breach_threshold

NONE = -(2**62)
"""Stands for "none" in integer fields: no price, time or amount gets there."""

# Codes of the records. The text forms are in `decode`.
ACT_HOLD, ACT_BUY, ACT_SELL, ACT_CLOSE = 0, 1, 2, 3
EV_FILLED, EV_REJECTED, EV_EXPIRED, EV_SETTLED, EV_BREACHED = 0, 1, 2, 3, 4
EFFECT_ENTRY, EFFECT_EXIT = 0, 1
WHY_ORDER, WHY_STOP, WHY_LIQUIDATED, WHY_BREACH = 0, 1, 2, 3
(
    REJ_NO_BAR,
    REJ_DUPLICATE,
    REJ_QUANTITY,
    REJ_HALTED,
    REJ_POSITION_OPEN,
    REJ_PREMIUM,
    REJ_NO_EXPIRY,
    REJ_INSOLVENT,
    REJ_CASH,
    REJ_FLAT,
) = range(10)
EXP_GAP, EXP_END = 0, 1
CAUSE_BARRIER, CAUSE_FILL, CAUSE_SETTLEMENT, CAUSE_SESSION = 0, 1, 2, 3
MODEL_NONE, MODEL_ATR, MODEL_BACHELIER, MODEL_GIVEN = 0, 1, 2, 3

PARAMS = np.dtype(
    [
        ("is_option", "i8"),
        ("marked", "i8"),
        ("enforce_stop", "i8"),
        ("stop_at_tick", "i8"),
        ("halt_on_breach", "i8"),
        ("trail_bp", "i8"),
        ("trail_atr", "f8"),
        ("lot_size", "i8"),
        ("tick_money", "i8"),
        ("brokerage_entry", "i8"),
        ("brokerage_exit", "i8"),
        ("brokerage_settlement", "i8"),
        ("slippage", "i8"),
        ("premium_slippage", "i8"),
        ("max_quantity", "i8"),
        ("max_gap", "i8"),
        ("drawdown_bp", "i8"),
        ("capital", "i8"),
        ("premium_model", "i8"),
        ("premium_k", "f8"),
        ("given_atr", "f8"),
        ("min_days", "i8"),
        ("expires_after", "i8"),
        ("mark_every", "i8"),
        ("script", "i8"),
        ("script_lots", "i8"),
        ("script_fast", "i8"),
        ("script_slow", "i8"),
        ("seed", "u8"),
        ("instrument_key", "u8"),
    ],
    align=True,
)
"""Constants of a slot. `given_atr` in ticks, NaN: from the data; `mark_every` ns, 0: every bar,
`NO_MARKS`: never, not even at fills."""

SLOT = np.dtype(
    [
        # money
        ("cash", "i8"),
        ("realized", "i8"),
        ("brokerage_paid", "i8"),
        ("peak_risk", "i8"),
        ("breach_below", "i8"),
        ("peak_equity", "i8"),
        ("max_drawdown", "i8"),
        ("drawdown_peak", "i8"),
        # position
        ("side", "i8"),
        ("quantity", "i8"),
        ("units", "i8"),
        ("lot_size", "i8"),
        ("entry_price", "i8"),
        ("premium", "i8"),
        ("premium_model", "i8"),
        ("expiry", "i8"),
        ("best", "i8"),
        ("stop", "i8"),
        ("width", "i8"),
        ("time_value", "i8"),
        # the order that waits for the next bar
        ("order_action", "i8"),
        ("order_quantity", "i8"),
        ("order_premium", "i8"),
        ("order_expiry", "i8"),
        ("order_width", "i8"),
        ("order_lot_size", "i8"),
        ("order_model", "i8"),
        ("order_ts", "i8"),
        # life of the slot
        ("halted", "i8"),
        ("alerted", "i8"),
        ("breach_close", "i8"),
        ("last_reject", "i8"),
        ("event_seq", "i8"),
        ("mark_seq", "i8"),
        ("next_mark", "i8"),
        # market
        ("last_price", "i8"),
        ("in_bar", "i8"),
        ("bars", "i8"),
        ("close_ts", "i8"),
        ("barrier", "i8"),
        ("bar_open_ts", "i8"),
        ("bar_open", "i8"),
        ("bar_high", "i8"),
        ("bar_low", "i8"),
        ("bar_volume", "i8"),
        ("prev_close", "i8"),
        ("atr", "f8"),
        ("atr_count", "i8"),
        ("day_open", "i8"),
        ("day_high", "i8"),
        ("day_low", "i8"),
        ("day_prev_close", "i8"),
        ("daily_atr", "f8"),
        ("daily_count", "i8"),
        ("ring_at", "i8"),
        ("above", "i8"),
        ("fast_sum", "i8"),
        ("slow_sum", "i8"),
    ],
    align=True,
)
"""State of a slot. `units` is quantity x lot size of the open position, `side` 0 when flat."""

EVENT = np.dtype(
    [
        ("kind", "i8"),
        ("seq", "i8"),
        ("ts", "i8"),
        ("barrier", "i8"),
        ("detail", "i8"),
        ("effect", "i8"),
        ("action", "i8"),
        ("side", "i8"),
        ("quantity", "i8"),
        ("lot_size", "i8"),
        ("price", "i8"),
        ("option_value", "i8"),
        ("premium", "i8"),
        ("premium_model", "i8"),
        ("brokerage", "i8"),
        ("realized", "i8"),
        ("cash", "i8"),
        ("gap_fill", "i8"),
        ("row", "i8"),
    ],
    align=True,
)
"""One event. `detail` is the reason's code; `row` numbers the tick or bar that caused it."""

MARK = np.dtype(
    [
        ("seq", "i8"),
        ("ts", "i8"),
        ("barrier", "i8"),
        ("cause", "i8"),
        ("price", "i8"),
        ("cash", "i8"),
        ("equity", "i8"),
        ("risk_equity", "i8"),
        ("lots", "i8"),
        ("realized", "i8"),
        ("brokerage_paid", "i8"),
        ("stop", "i8"),
        ("distance", "f8"),
        ("halted", "i8"),
        ("row", "i8"),
    ],
    align=True,
)
"""One mark. `stop` is `NONE` and `distance` NaN when flat."""

ORDER = np.dtype(
    [
        ("barrier", "i8"),
        ("ts", "i8"),
        ("action", "i8"),
        ("quantity", "i8"),
        ("premium", "i8"),
        ("expiry", "i8"),
        ("width", "i8"),
        ("lot_size", "i8"),
        ("model", "i8"),
    ],
    align=True,
)
"""One complete order; `premium`, `expiry`, `width`, `lot_size` may be `NONE`."""

NO_MARKS = 1 << 62
"""As a cadence: nobody reads marks, none are written."""
_MOST_MONEY = 4 * 10**18
CAPACITY = 4_096
"""Events, marks and orders that a log holds before it must be emptied."""
ROOM = 8
"""Events (and marks) that one bar can write at most while nothing is checked, with some to spare."""

LOG = np.dtype(
    [
        ("events", EVENT, (CAPACITY,)),
        ("marks", MARK, (CAPACITY,)),
        ("orders", ORDER, (CAPACITY,)),
        ("n_events", "i8"),
        ("n_marks", "i8"),
        ("n_orders", "i8"),
        ("n_given", "i8"),
        ("n_views", "i8"),
    ],
    align=True,
)
"""What a run writes. One record and not a tuple of arrays: compiled code counts references to
arrays at every call, and that costs ten times the rules themselves. `n_given` counts the orders
from outside that were used,
`n_views` the closes of the last run ahead."""

MAX_AVERAGE = 256
RING = np.dtype([("closes", "i8", (MAX_AVERAGE,))], align=True)
"""Last closes of a slot, for the scripts that average them."""

VIEW_FIELDS = (
    "open_ts",
    "close_ts",
    "barrier",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "cash",
    "equity",
    "lots",
    "entry_price",
    "stop",
    "width",
    "unrealized",
    "halted",
    "position",
    "session_close",
)
"""What a Python agent may see at a bar's close, a row each of an int64 array [fields, bars];
`position` is where the driver goes on behind it."""


class SlotLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the run that every slot obeys.

    Attributes:
        max_quantity: Q, most lots of one order (the instrument's `max_lots` may be lower).
        max_gap_ns: an entry whose next bar opens later than this after the decision expires.
        drawdown_limit_bp: breach beyond this drawdown of the risk equity, basis points.
        halt_on_breach: True: close and halt the slot; False: alert only.
        stop_at_tick: True: ticks are real, an enforced stop fills at the tick's price; False:
            ticks were made from bars, the path passed through the stop.
        mark_every_ns: event time between two marks; 0: a mark at every bar; `NO_MARKS`: none.
        seed: seed of the run's scripted randomness.
    """

    max_quantity: Annotated[int, Meta(ge=1)] = 10
    max_gap_ns: Annotated[int, Meta(ge=0)] = 7 * NANOS_PER_DAY
    drawdown_limit_bp: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    halt_on_breach: bool = True
    stop_at_tick: bool = False
    mark_every_ns: Annotated[int, Meta(ge=0)] = 0
    seed: Annotated[int, Meta(ge=0)] = 0


def word(record: np.dtype[np.void], field: str) -> int:
    """Position of a field in a record, in words of eight bytes."""
    assert record.fields is not None  # noqa: S101  # a record type, for the checker
    return int(record.fields[field][1]) // 8


def make_params(instrument: Instrument, capital: int, limits: SlotLimits) -> npt.NDArray[np.void]:
    """The constants of one slot, as an array of one `PARAMS` record.

    Args:
        instrument: what the slot trades.
        capital: initial cash, money units of the instrument.
        limits: settings of the run.

    Raises:
        ConfigError: an amount that leaves no room in 64 bits for what may become of it.
    """
    params = np.zeros(1, PARAMS)
    p = params[0]
    fees = instrument.brokerage
    for name, amount in (
        ("capital", capital),
        ("tick_size", instrument.tick_money),
        *(
            (f"brokerage.{part}", instrument.money(getattr(fees, part)))
            for part in ("entry", "exit", "settlement")
        ),
    ):
        if not -_MOST_MONEY < amount < _MOST_MONEY:
            raise ConfigError(
                f"`{name}` of {instrument.symbol} is {amount} units of "
                f"1e-{instrument.money_decimals} {instrument.currency}: more than the engine counts",
                hint="use less capital, or a coarser tick size",
            )
    p["is_option"] = instrument.is_option
    p["marked"] = instrument.valuation == Valuation.MARKED
    p["enforce_stop"] = instrument.enforce_trailing_stop
    p["stop_at_tick"] = limits.stop_at_tick
    p["halt_on_breach"] = limits.halt_on_breach
    if isinstance(instrument.trail, TrailBp):
        p["trail_bp"] = instrument.trail.bp
    else:
        p["trail_atr"] = instrument.trail.atr
    # Lot rules resolve with the contract; an order always carries the size then.
    p["lot_size"] = instrument.lot_size if isinstance(instrument.lot_size, int) else 0
    p["tick_money"] = instrument.tick_money
    p["brokerage_entry"] = instrument.money(instrument.brokerage.entry)
    p["brokerage_exit"] = instrument.money(instrument.brokerage.exit)
    p["brokerage_settlement"] = instrument.money(instrument.brokerage.settlement)
    p["slippage"] = instrument.slippage_ticks
    p["premium_slippage"] = instrument.premium_slippage_ticks
    p["max_quantity"] = min(limits.max_quantity, instrument.max_lots)
    p["max_gap"] = limits.max_gap_ns
    p["drawdown_bp"] = limits.drawdown_limit_bp
    p["capital"] = capital
    p["given_atr"] = np.nan
    if instrument.is_option:
        model: AtrPremium | BachelierPremium = instrument.premium
        p["premium_model"] = MODEL_ATR if isinstance(model, AtrPremium) else MODEL_BACHELIER
        p["premium_k"] = model.k
        if model.daily_atr is not None:
            p["given_atr"] = float(model.daily_atr / instrument.tick_size)
        p["min_days"] = instrument.min_days
        if instrument.expiries is not None and instrument.expiries.expires_after is not None:
            p["expires_after"] = instrument.expiries.expires_after
    p["mark_every"] = limits.mark_every_ns
    p["seed"] = limits.seed
    return params


def new_slot(params: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """A flat slot with its capital in cash, as an array of one `SLOT` record."""
    capital = int(params[0]["capital"])
    slot = np.zeros(1, SLOT)
    s = slot[0]
    s["cash"] = capital
    s["peak_risk"] = capital
    s["peak_equity"] = capital
    s["breach_below"] = breach_threshold(capital, int(params[0]["drawdown_bp"]))
    s["last_reject"] = -1
    s["barrier"] = -1
    for name in (
        "expiry",
        "order_ts",
        "next_mark",
        "last_price",
        "close_ts",
        "prev_close",
        "day_prev_close",
    ):
        s[name] = NONE
    s["day_open"] = NONE
    return slot
