"""What must hold for any bars and any orders: money, losses, the trailing stop, snapshots, paths."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.bars import BarBlock
from streambot.domain.events import (
    ActionKind,
    EngineEvent,
    OrderFilled,
    OrderRejected,
    PositionSettled,
    SubmitOrder,
)
from streambot.domain.instruments import (
    Brokerage,
    Expiries,
    Instrument,
    InstrumentType,
    TrailAtr,
    TrailBp,
    Valuation,
)
from streambot.engine.backtesting import BacktestingEngine
from streambot.engine.ordering import Calendar
from streambot.engine.scripts import Script
from streambot.engine.slots import SlotLimits
from tests.scenarios import ticks_of

MINUTE = 60 * 10**9
SYMBOL = "X"


@st.composite
def instruments(draw: st.DrawFn) -> Instrument:
    option = draw(st.booleans())
    fee = st.integers(0, 3_000).map(lambda cents: Decimal(cents).scaleb(-2))
    return Instrument(
        symbol=SYMBOL,
        type=InstrumentType.OPTION if option else InstrumentType.STOCK,
        lot_size=draw(st.integers(1, 75)),
        tick_size=draw(st.sampled_from([Decimal("0.01"), Decimal("0.05"), Decimal("0.0001")])),
        brokerage=Brokerage(entry=draw(fee), exit=draw(fee), settlement=draw(fee)),
        slippage_ticks=draw(st.integers(0, 3)),
        premium_slippage_ticks=draw(st.integers(0, 3)),
        max_lots=draw(st.integers(1, 8)),
        enforce_trailing_stop=draw(st.booleans()),
        trail=draw(st.sampled_from([TrailAtr(), TrailBp(bp=40), TrailBp(bp=900)])),
        valuation=draw(st.sampled_from(list(Valuation))) if option else Valuation.INTRINSIC,
        expiries=Expiries(expires_after=2) if option else None,
    )


@st.composite
def bar_blocks(draw: st.DrawFn, *, most: int = 60) -> BarBlock:
    n = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    close = np.maximum(30, draw(st.integers(100, 5_000)) + np.cumsum(rng.integers(-40, 41, n)))
    open_ = np.maximum(20, np.r_[close[0], close[:-1]] + rng.integers(-8, 9, n))
    high = np.maximum(open_, close) + rng.integers(0, 20, n)
    low = np.maximum(1, np.minimum(open_, close) - rng.integers(0, 20, n))
    gaps = np.where(rng.random(n) < 0.08, rng.integers(1, 10 * 1_440, n), 0)
    ts = (np.arange(n) + np.cumsum(gaps)) * MINUTE
    last = (rng.random(n) < 0.1).astype(np.uint8)
    volume = rng.integers(-1, 100, n)
    return BarBlock(ts, np.full(n, MINUTE), open_, high, low, close, volume, last)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Instrument, SlotLimits, BarBlock, list[SubmitOrder], Decimal]:
    bars = draw(bar_blocks())
    limits = SlotLimits(
        max_quantity=draw(st.integers(1, 10)),
        drawdown_limit_bp=draw(st.sampled_from([500, 2_000, 9_000])),
        halt_on_breach=draw(st.booleans()),
        stop_at_tick=draw(st.booleans()),
    )
    orders = []
    for barrier in range(len(bars)):
        if draw(st.integers(0, 2)):
            continue
        expiry = int(bars.ts[barrier]) + draw(st.integers(1, 20)) * MINUTE // 2
        orders.append(
            SubmitOrder(
                instrument=SYMBOL,
                barrier=barrier,
                action=draw(st.sampled_from([a for a in ActionKind if a != ActionKind.HOLD])),
                quantity=draw(st.integers(0, 11)),
                premium_ticks=draw(st.one_of(st.none(), st.integers(1, 90))),
                expiry_ts=draw(st.one_of(st.none(), st.just(expiry))),
                trail_width_ticks=draw(st.integers(1, 80)),
            )
        )
    capital = Decimal(draw(st.sampled_from([5, 500, 20_000, 1_000_000])))
    return draw(instruments()), limits, bars, orders, capital


def calendar() -> Calendar:
    """Days of 24 hours from 1970 on, as the blocks' times are."""
    day = 1_440 * MINUTE
    opens = np.arange(0, 400) * day
    none = np.zeros(0, np.int64)
    return Calendar(opens, opens + day, none, none)


def engine_for(
    case: tuple[Instrument, SlotLimits, BarBlock, list[SubmitOrder], Decimal],
) -> BacktestingEngine:
    instrument, limits, _, _, capital = case
    return BacktestingEngine(instrument, capital=capital, limits=limits, calendar=calendar())


def cash_after(events: list[EngineEvent]) -> list[tuple[EngineEvent, int]]:
    return [(e, e.cash) for e in events if isinstance(e, OrderFilled | PositionSettled)]


@given(cases())
@settings(max_examples=250)
def test_money_is_conserved(case: tuple) -> None:
    """cash + value + brokerage = capital + P&L to the last unit, and events explain every change of cash."""
    instrument, _, bars, orders, capital = case
    engine = engine_for(case)
    result = engine.run(bars, orders)
    start = instrument.money(capital)
    cash, realized, paid, invested = start, 0, 0, 0
    for event, after in cash_after(result.events):
        units = event.quantity * event.lot_size * instrument.tick_money
        paid += event.brokerage
        if isinstance(event, OrderFilled) and event.effect == "entry":
            cost = event.premium if instrument.is_option else event.price
            invested = (cost or 0) * units
            cash -= invested + event.brokerage
        else:
            realized += event.realized_pnl or 0
            cash += invested + (event.realized_pnl or 0) - event.brokerage
            invested = 0
        assert after == cash
    assert cash + invested + paid == start + realized
    assert (
        engine.cash + engine.brokerage_paid + Decimal(invested).scaleb(-instrument.money_decimals)
        == capital + engine.realized_pnl
    )
    assert (
        engine.equity + engine.brokerage_paid
        == capital + engine.realized_pnl + engine.unrealized_pnl
    )
    for mark in result.marks:
        assert mark.lots != 0 or mark.equity == mark.cash == mark.risk_equity


@given(cases())
@settings(max_examples=200)
def test_an_option_never_loses_more_than_its_premium(case: tuple) -> None:
    instrument, _, bars, orders, _ = case
    if not instrument.is_option:
        instrument = msgspec.structs.replace(
            instrument, type=InstrumentType.OPTION, expiries=Expiries(expires_after=2)
        )
    case = (instrument, *case[1:])
    premium = units = 0
    for event in engine_for(case).run(bars, orders).events:
        if isinstance(event, OrderFilled) and event.effect == "entry":
            premium = event.premium or 0
            units = event.quantity * event.lot_size * instrument.tick_money
        elif isinstance(event, OrderFilled | PositionSettled):
            assert (event.realized_pnl or 0) >= -premium * units


@given(cases())
@settings(max_examples=200)
def test_the_stop_only_moves_in_the_positions_favour(case: tuple) -> None:
    _, _, bars, orders, _ = case
    before = None
    for mark in engine_for(case).run(bars, orders).marks:
        if mark.lots == 0 or mark.cause != "barrier":
            before = None if mark.lots == 0 or mark.cause == "fill" else before
            continue
        side = 1 if mark.lots > 0 else -1
        stop = side * (mark.trailing_stop_price or 0)
        assert before is None or stop >= before
        before = stop


@given(cases())
@settings(max_examples=200)
def test_a_rejected_order_changes_nothing(case: tuple) -> None:
    """Without the orders that were rejected, everything else is the same."""
    _, _, bars, orders, _ = case
    result = engine_for(case).run(bars, orders)
    refused = {e.barrier for e in result.events if isinstance(e, OrderRejected)}
    kept = [order for order in orders if order.barrier not in refused]
    again = engine_for(case).run(bars, kept)

    def facts(events: list[EngineEvent]) -> list[EngineEvent]:
        return [
            msgspec.structs.replace(e, seq=0) for e in events if not isinstance(e, OrderRejected)
        ]

    assert facts(result.events) == facts(again.events)
    assert result.marks == again.marks


@given(cases(), st.integers(0, 60))
@settings(max_examples=200)
def test_a_restart_from_any_barrier_changes_nothing(case: tuple, at: int) -> None:
    _, _, bars, orders, _ = case
    at = min(at, len(bars))
    whole = engine_for(case).run(bars, orders)
    first = engine_for(case)
    head = first.run(
        BarBlock(*(c[:at] for c in bars)), [o for o in orders if o.barrier < at], end=False
    )
    second = engine_for(case)
    second.restore(first.snapshot())
    tail = second.run(BarBlock(*(c[at:] for c in bars)), [o for o in orders if o.barrier >= at])
    assert head.events + tail.events == whole.events
    assert head.marks + tail.marks == whole.marks


@given(cases(), st.sampled_from([Script.SMA_CROSS, Script.RANDOM, Script.BUY_HOLD, None]))
@settings(max_examples=200)
def test_bars_and_their_ticks_give_the_same(case: tuple, script: Script | None) -> None:
    """Leaving out the ticks of quiet bars is an optimisation: nothing can see it."""
    _, _, bars, orders, _ = case
    results = []
    for data in (bars, ticks_of(bars)):
        engine = engine_for(case)
        if script is not None:
            engine.use_script(script, lots=2, fast=2, slow=5)
        closes = None if isinstance(data, BarBlock) else data[1]
        block = data if isinstance(data, BarBlock) else data[0]
        results.append(engine.run(block, None if script else orders, closes=closes))
    assert results[0].events == results[1].events
    assert results[0].marks == results[1].marks
