"""Premium, contracts and trading days against slow, plain computations."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.domain.bars import BarBlock
from streambot.domain.events import OrderFilled, OrderRejected, RejectReason, buy
from streambot.domain.instruments import (
    AtrPremium,
    BachelierPremium,
    Expiries,
    Instrument,
    InstrumentType,
    Valuation,
)
from streambot.engine.backtesting import BacktestingEngine
from streambot.engine.ordering import Calendar
from streambot.engine.premium import bachelier, pick_expiry, round_up, trading_days
from streambot.engine.scripts import Script
from streambot.engine.slots import SlotLimits, make_params

HOUR = 3_600 * 10**9
DAY = 24 * HOUR
# Sessions of six hours a day, days 2 and 3 closed.
DAYS = np.array([d for d in range(60) if d % 7 not in {2, 3}])
OPENS = DAYS * DAY + 9 * HOUR
CLOSES = OPENS + 6 * HOUR


@given(st.floats(-500, 500), st.floats(0.5, 300))
def test_bachelier_is_the_expectation_it_claims_to_be(moneyness: float, deviation: float) -> None:
    """Against the integral of max(0, m + s z) over the normal density."""
    z = np.linspace(-9, 9, 40_001)
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    expected = np.trapezoid(np.maximum(0, moneyness + deviation * z) * density, z)
    assert bachelier(moneyness, deviation) == pytest.approx(expected, abs=1e-3 * deviation)


def test_nothing_left_to_move_is_intrinsic_value() -> None:
    assert bachelier(12.5, 0.0) == 12.5
    assert bachelier(-12.5, 0.0) == 0.0


@pytest.mark.parametrize(("value", "ticks"), [(0.0, 1), (3.0, 3), (3.0000005, 3), (3.01, 4)])
def test_rounding_up(value: float, ticks: int) -> None:
    assert round_up(value) == ticks


@pytest.mark.parametrize(
    ("ts", "expiry", "days"),
    [
        (OPENS[0], CLOSES[0], 1.0),
        (OPENS[0] + 3 * HOUR, CLOSES[0], 0.5),
        (OPENS[0] + 3 * HOUR, CLOSES[1], 1.5),
        (CLOSES[0], CLOSES[1], 1.0),  # after the close, the next session is whole
        (OPENS[1] + 3 * HOUR, CLOSES[2], 1.5),  # days 2 and 3 are closed
        (CLOSES[0], CLOSES[0], 0.0),
    ],
)
def test_trading_days(ts: int, expiry: int, days: float) -> None:
    assert trading_days(OPENS, CLOSES, ts, expiry) == pytest.approx(days)


def option(**changes: object) -> Instrument:
    fields = {
        "symbol": "X", "type": InstrumentType.OPTION, "lot_size": 5, "tick_size": Decimal("0.05"),
        "expiries": Expiries(expires_after=2),
    }  # fmt: skip
    return Instrument(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("min_days", "expected"), [(0, 0), (1, 1), (2, 2), (30, -1)])
def test_the_first_contract_far_enough_away(min_days: int, expected: int) -> None:
    import datetime as dt

    instrument = option(expiries=Expiries(dates=(dt.date(2020, 1, 1),)), min_days=min_days)
    p = make_params(instrument, 10**9, SlotLimits())[0]
    contracts = CLOSES[:5].copy()
    assert pick_expiry(p, OPENS, CLOSES, contracts, int(OPENS[0] + HOUR)) == expected
    # At the session's last bar the session is still "today".
    assert pick_expiry(p, OPENS, CLOSES, contracts, int(CLOSES[0])) == (expected if min_days else 1)


def hourly(sessions: int, move: int = 10) -> BarBlock:
    """Six flat-ish bars a session, each `2 move` ticks high."""
    ts = np.concatenate([OPENS[d] + np.arange(6) * HOUR for d in range(sessions)])
    n = len(ts)
    price = np.full(n, 4_000)
    last = (np.arange(n) % 6 == 5).astype(np.uint8)
    return BarBlock(ts, np.full(n, HOUR), price, price + move, price - move, price, price, last)


def calendar() -> Calendar:
    return Calendar(OPENS, CLOSES, np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_no_premium_until_fourteen_days_are_complete() -> None:
    engine = BacktestingEngine(option(), calendar=calendar(), capital=Decimal(10**7))
    events = engine.run(hourly(20), Script.BUY_HOLD).events
    refused = [e for e in events if isinstance(e, OrderRejected)]
    first = next(e for e in events if isinstance(e, OrderFilled))
    assert {e.reason for e in refused} == {RejectReason.PREMIUM_UNAVAILABLE}
    assert first.barrier == 14 * 6 - 1
    assert first.premium_model == "bachelier"
    # Decided at the close of day 14: two whole sessions to go, ATR of 20 ticks.
    assert first.premium == math.ceil(0.75 * 20 * math.sqrt(2) / math.sqrt(2 * math.pi))


def test_a_given_atr_needs_no_history() -> None:
    for model, expected in (
        (
            BachelierPremium(daily_atr=Decimal(10)),
            math.ceil(0.75 * 200 * math.sqrt(2 + 5 / 6) / math.sqrt(2 * math.pi)),
        ),
        (AtrPremium(daily_atr=Decimal(10)), 100),
    ):
        engine = BacktestingEngine(
            option(premium=model), calendar=calendar(), capital=Decimal(10**7)
        )
        first = engine.run(hourly(1), Script.BUY_HOLD).events[0]
        assert isinstance(first, OrderFilled)
        assert first.premium == expected


def test_no_contract_is_no_expiry() -> None:
    short = Calendar(OPENS[:1], CLOSES[:1], np.zeros(0, np.int64), np.zeros(0, np.int64))
    engine = BacktestingEngine(option(premium=AtrPremium(daily_atr=Decimal(1))), calendar=short)
    first = engine.run(hourly(1), Script.BUY_HOLD).events[0]
    assert isinstance(first, OrderRejected)
    assert first.reason == RejectReason.NO_EXPIRY


class BuyThenSell:
    def __init__(self) -> None:
        self.bars = 0

    def on_bar(self, bar: object, account: object) -> object:
        from streambot.domain.events import CLOSE, HOLD

        self.bars += 1
        return {1: buy(), 4: CLOSE}.get(self.bars, HOLD)


def test_marked_valuation_keeps_the_time_value() -> None:
    """Equity does not fall by the premium at once; theta shows at each barrier; an early exit returns it."""
    premium = BachelierPremium(daily_atr=Decimal(10))
    outcome = {}
    for valuation in Valuation:
        engine = BacktestingEngine(
            option(premium=premium, valuation=valuation),
            calendar=calendar(),
            capital=Decimal(10**6),
        )
        marks = engine.run(hourly(1, move=0), BuyThenSell()).marks
        open_ = [m.equity for m in marks if m.lots and m.cause == "barrier"]
        outcome[valuation] = (open_, engine.realized_pnl)
    intrinsic, marked = outcome[Valuation.INTRINSIC], outcome[Valuation.MARKED]
    assert intrinsic[0][0] < marked[0][0] <= 10**8
    assert marked[0] == sorted(marked[0], reverse=True)
    assert marked[0][0] > marked[0][-1]
    assert intrinsic[1] < marked[1] < 0
