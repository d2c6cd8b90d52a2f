"""The one vocabulary: every message that may cross a topic, apart from frames of ticks.

Facts are past tense, commands imperative. Integers inside (`units`); the text form with exact
decimals is written by `streams.orders` and `processor.journal`. New fields come last and have a
default; readers ignore fields that they do not know.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec


class ActionKind(StrEnum):
    """What an agent may ask for at a barrier (`docs/market-rules.md`, Orders and fills)."""

    HOLD = "HOLD"
    BUY_LONG = "BUY_LONG"
    SELL_SHORT = "SELL_SHORT"
    CLOSE = "CLOSE"


class Action(msgspec.Struct, frozen=True):
    """An agent's answer to a barrier. `quantity` is lots; it means nothing for HOLD and CLOSE."""

    kind: ActionKind
    quantity: int = 1


HOLD = Action(ActionKind.HOLD, 0)
CLOSE = Action(ActionKind.CLOSE, 0)


def buy(quantity: int = 1) -> Action:
    """`BUY_LONG` of `quantity` lots (stock: buy; option: a long call proxy)."""
    return Action(ActionKind.BUY_LONG, quantity)


def sell(quantity: int = 1) -> Action:
    """`SELL_SHORT` of `quantity` lots (stock: sell short; option: a long put proxy)."""
    return Action(ActionKind.SELL_SHORT, quantity)


class SubmitOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order, complete: the engine needs nothing else from the market layer.

    Attributes:
        instrument: symbol.
        barrier: the barrier it answers; it acts at the first tick of that instrument's next bar.
        quantity: lots; 0 for CLOSE.
        premium_ticks: proxy premium per unit in ticks, without slippage; None for stocks, or when
            no premium could be computed.
        expiry_ts: expiry of the option contract, UTC ns; None for stocks or without a contract.
        trail_width_ticks: width of the trailing stop, at least 1; ignored with a stop in basis points.
        lot_size: units per lot of the contract; None: the instrument's own.
        premium_model: which proxy priced it; None: whoever ordered does not say (`given` in the
            fill).
    """

    instrument: str
    barrier: int
    action: ActionKind
    quantity: int = 0
    premium_ticks: int | None = None
    expiry_ts: int | None = None
    trail_width_ticks: int | None = None
    lot_size: int | None = None
    premium_model: Literal["atr", "bachelier", "given"] | None = None


class OrdersThrough(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the `orders` stream: everything that an agent wants up to a barrier.

    A log with a watermark: no order for an instrument and barrier up to `through_barrier` is HOLD.

    Attributes:
        agent: who decides.
        policy: what a learned policy says of itself (gate weights, weights sequence); outside
            every digest.
    """

    agent: str
    partition: int
    through_barrier: int
    orders: tuple[SubmitOrder, ...] = ()
    policy: dict[str, float] | None = None


class AcceptedOrders(OrdersThrough, frozen=True, kw_only=True):
    """A line of the `accepted` stream: orders of a free run, as they took effect.

    There is one for every agent and frame, without orders too. The orders answer the last bar of
    their instrument when they were taken: given in lockstep they have the same fills.

    Attributes:
        frame_seq, row: the frame of ticks, and the row in it, before which they took effect.
    """

    frame_seq: int
    row: int


class RejectReason(StrEnum):
    """Why an order was rejected, in the order of the checks."""

    NO_BAR = "no_bar"
    DUPLICATE_ORDER = "duplicate_order"
    INVALID_QUANTITY = "invalid_quantity"
    HALTED = "halted"
    POSITION_OPEN = "position_open"
    PREMIUM_UNAVAILABLE = "premium_unavailable"
    NO_EXPIRY = "no_expiry"
    INSOLVENT = "insolvent"
    INSUFFICIENT_CASH = "insufficient_cash"
    FLAT = "flat"


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What the engine says happened.

    Attributes:
        instrument: symbol.
        seq: number of the event in its instrument, from 0: with the symbol, its identity.
        ts_event: UTC ns.
        barrier: last barrier closed in the instrument's run before the event (-1: none yet).
    """

    instrument: str
    seq: int
    ts_event: int
    barrier: int


class OrderFilled(Event, frozen=True, kw_only=True, tag="OrderFilled"):
    """A position was opened or closed.

    Attributes:
        effect: `entry` or `exit`.
        reason: `order`, `trailing_stop`, `liquidated` or `breach`.
        side: +1 long, -1 short: the position's, at the exit too (a put proxy is -1).
        price: fill price in ticks, slippage included (of an option: the underlying's).
        option_value: value per unit at an option's exit, ticks, after slippage.
        premium: premium per unit at an option's entry, ticks, slippage included.
        premium_model: which proxy priced it (`given`: it came with the order); None for stocks.
        realized_pnl: at the exit, before brokerage.
        cash: after the event.
        gap_fill: filled at a tick that opened later than the bar before it closed.
    """

    effect: str
    reason: str
    side: int
    quantity: int
    lot_size: int
    price: int
    brokerage: int
    cash: int
    option_value: int | None = None
    premium: int | None = None
    premium_model: str | None = None
    realized_pnl: int | None = None
    gap_fill: bool = False


class OrderRejected(Event, frozen=True, kw_only=True, tag="OrderRejected"):
    """An order was not executed, and changed nothing."""

    action: ActionKind
    quantity: int
    reason: RejectReason


class OrderExpired(Event, frozen=True, kw_only=True, tag="OrderExpired"):
    """An order met no next bar in time: `gap` or `end_of_data`."""

    action: ActionKind
    quantity: int
    reason: str


class PositionSettled(Event, frozen=True, kw_only=True, tag="PositionSettled"):
    """An option position was settled at its expiry, at intrinsic value of `price`."""

    side: int
    quantity: int
    lot_size: int
    price: int
    option_value: int
    brokerage: int
    realized_pnl: int
    cash: int


class SlotBreached(Event, frozen=True, kw_only=True, tag="SlotBreached"):
    """Drawdown of the risk equity went beyond the limit."""

    reason: str
    on_breach: str


EngineEvent = OrderFilled | OrderRejected | OrderExpired | PositionSettled | SlotBreached


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """State of one slot at a moment, as the `pnl` stream shows it.

    Attributes:
        cause: `barrier`, `fill`, `settlement` or `session`: why this mark exists.
        price: last price, ticks.
        cash, equity, risk_equity, brokerage_paid, realized_pnl: money units; `realized_pnl` is
            before brokerage, since the start of the run.
        lots: signed: positive long, negative short.
        trailing_stop_price: ticks; None when flat.
        distance_to_trail: `side x (price - stop) / width`, clipped to [-3, 3]; None when flat.
    """

    instrument: str
    seq: int
    ts_event: int
    barrier: int
    cause: str
    price: int
    cash: int
    equity: int
    risk_equity: int
    lots: int
    realized_pnl: int
    brokerage_paid: int
    trailing_stop_price: int | None
    distance_to_trail: float | None
    halted: bool


class PortfolioRolled(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="PortfolioRolled"
):
    """All slots of one currency together, behind a barrier, as the `portfolio` stream shows it.

    Money is an exact decimal string in `currency`: the slots may have different money units.

    Attributes:
        seq: number of the record in its currency, from 0: with the currency, its identity.
        ts_event: newest mark that is counted in, UTC ns.
        barrier: every partition with slots of this currency is through it.
        peak: highest equity at a barrier so far, the initial capital included.
        drawdown: peak less equity; `drawdown_pct` in percent of the peak.
        max_drawdown: largest drawdown so far; its percent is of the peak it fell from.
        pnl_net: equity less initial capital; after brokerage.
        pnl_realized, pnl_unrealized: before brokerage.
        open_positions, halted: slots.
        marks: marks counted in.
        missing: marks that should have come before them and did not.
    """

    seq: int
    ts_event: int
    barrier: int
    currency: str
    equity: str
    cash: str
    peak: str
    drawdown: str
    drawdown_pct: float
    max_drawdown: str
    max_drawdown_pct: float
    pnl_net: str
    pnl_realized: str
    pnl_unrealized: str
    brokerage: str
    open_positions: int
    halted: int
    marks: int
    missing: int


class AlertKind(StrEnum):
    """What an alert is about."""

    DRAWDOWN = "drawdown"
    """A currency's drawdown went beyond the limit of the run."""
    BREACHED = "breached"
    """A slot's drawdown did."""
    HALTED = "halted"
    """A slot takes no entries any more."""
    GAP = "gap"
    """Numbers are missing in the events or marks of an instrument."""
    DEAD_LETTER = "dead_letter"
    LAG = "lag"
    """Marks wait for a partition from which nothing comes."""


class Alert(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Something that a person should know, said once.

    Attributes:
        series: where its number counts: `portfolio/USD`, `pnl/SPY`, `fills/SPY`, `dead-letter/0`,
            `lag`. Streams have no mutual order, so neither have series.
        seq: number in its series, from 0: with the series, its identity.
        ts_event: when it became true, UTC ns.
        where: currency, instrument, or stream and partition.
        amount, unit: how much.
        percent, limit_percent: of a drawdown.
        since: when what it is about began, UTC ns.
        message: for people.
    """

    series: str
    seq: int
    ts_event: int
    alert: AlertKind
    where: str
    amount: str
    unit: str
    since: int
    message: str
    percent: float | None = None
    limit_percent: float | None = None


class AlertRaised(Alert, frozen=True, kw_only=True, tag="AlertRaised"):
    """It is so, since `since`."""


class AlertCleared(Alert, frozen=True, kw_only=True, tag="AlertCleared"):
    """It was so from `since` on, and is over."""
