"""Scripted agents: their randomness is keyed, their averages exact, and a strategy can equal them."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.sma_cross import SmaCross
from streambot.domain.bars import BarBlock
from streambot.domain.errors import StrategyError, UsageError
from streambot.domain.events import HOLD, Action, EngineEvent, OrderFilled, buy
from streambot.domain.instruments import Brokerage, Instrument, InstrumentType, TrailBp
from streambot.engine.backtesting import BacktestingEngine
from streambot.engine.scripts import Script, philox
from streambot.engine.slots import SlotLimits
from streambot.engine.strategy import Account, Bar

MINUTE = 60 * 10**9
STOCK = Instrument(
    symbol="X", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"),
    brokerage=Brokerage(entry=Decimal("0.5"), exit=Decimal("0.5")),
    trail=TrailBp(bp=30), enforce_trailing_stop=True,
)  # fmt: skip


def walk(n: int, seed: int = 3) -> BarBlock:
    rng = np.random.default_rng(seed)
    close = 20_000 + np.cumsum(rng.integers(-15, 16, n))
    open_ = np.r_[20_000, close[:-1]]
    high, low = np.maximum(open_, close) + 4, np.minimum(open_, close) - 4
    ts = np.arange(n, dtype=np.int64) * MINUTE
    return BarBlock(
        ts, np.full(n, MINUTE), open_, high, low, close, np.full(n, 7), np.zeros(n, np.uint8)
    )


@given(*[st.integers(0, 2**64 - 1)] * 3)
def test_philox_is_numpys(key0: int, key1: int, counter: int) -> None:
    # numpy steps its counter, word by word, before it draws.
    words = [counter - 1, 0, 0, 0] if counter else [2**64 - 1] * 4
    numpys = np.random.Philox(
        key=np.array([key0, key1], np.uint64), counter=np.array(words, np.uint64)
    )
    ours = philox(np.uint64(key0), np.uint64(key1), np.uint64(counter))
    assert int(ours) == int(numpys.random_raw())


def test_the_random_agent_depends_on_seed_symbol_and_barrier_only() -> None:
    def fills(seed: int, cut: int) -> list[EngineEvent]:
        engine = BacktestingEngine(STOCK, limits=SlotLimits(seed=seed, drawdown_limit_bp=10**6))
        engine.use_script(Script.RANDOM, lots=3)
        bars = walk(2_000)
        head = engine.run(BarBlock(*(c[:cut] for c in bars)), end=False).events
        return head + engine.run(BarBlock(*(c[cut:] for c in bars))).events

    assert fills(1, 500) == fills(1, 1_234)
    assert fills(1, 500) != fills(2, 500)
    assert len(fills(1, 500)) > 20


def test_a_python_strategy_equals_the_script() -> None:
    """Run ahead, rewind and all: same orders, same events, same marks."""
    bars = walk(30_000)
    ours = BacktestingEngine(STOCK).run(bars, SmaCross())
    script = BacktestingEngine(STOCK).run(bars, Script.SMA_CROSS)
    assert len(script.events) > 500
    assert ours.events == script.events
    assert ours.marks == script.marks


class Listener:
    """Trades at every flat bar, and notes what it was told and what it saw."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def on_bar(self, bar: Bar, account: Account) -> Action:
        self.log.append(f"bar {bar.barrier} {account.position} {account.equity:.2f}")
        return buy() if account.position == 0 and bar.barrier % 7 == 0 else HOLD

    def on_fill(self, event: EngineEvent) -> None:
        self.log.append(f"event {event.seq} {type(event).__name__}")


@pytest.mark.parametrize("cuts", [[], [1], [100, 101, 900], list(range(50, 1_500, 37))])
def test_what_a_strategy_sees_does_not_depend_on_pieces(cuts: list[int]) -> None:
    bars = walk(1_500)
    whole = Listener()
    expected = BacktestingEngine(STOCK).run(bars, whole)
    listener, engine, events = Listener(), BacktestingEngine(STOCK), []
    for lo, hi in zip([0, *cuts], [*cuts, len(bars)], strict=True):
        part = BarBlock(*(c[lo:hi] for c in bars))
        events += engine.run(part, listener, end=hi == len(bars)).events
    assert listener.log == whole.log
    assert events == expected.events
    told = [line for line in whole.log if line.startswith("event")]
    assert len(told) == len(expected.events) > 50


def test_on_fill_comes_before_the_bar_that_shows_it() -> None:
    listener = Listener()
    BacktestingEngine(STOCK).run(walk(20), listener)
    first = listener.log.index("event 0 OrderFilled")
    assert listener.log[first - 1].startswith("bar 0 0")
    assert listener.log[first + 1].startswith("bar 1 1")


class Broken:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def on_bar(self, bar: Bar, account: Account) -> Action:
        if bar.barrier == 40:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer  # type: ignore[return-value]  # that is the test
        return HOLD


@pytest.mark.parametrize("answer", [None, "BUY", 1, ZeroDivisionError("division by zero")])
def test_a_broken_strategy_is_named_with_its_line(answer: object) -> None:
    with pytest.raises(StrategyError, match=r"Broken failed at barrier 40 of X") as caught:
        BacktestingEngine(STOCK).run(walk(60), Broken(answer))
    if isinstance(answer, Exception):
        assert "test_scripts.py:" in caught.value.where


def test_impossible_averages_are_refused() -> None:
    with pytest.raises(UsageError, match="fast < slow"):
        BacktestingEngine(STOCK).use_script(Script.SMA_CROSS, fast=30, slow=10)


def test_buy_hold_buys_once() -> None:
    engine = BacktestingEngine(Instrument(
        symbol="X", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01")
    ))  # fmt: skip
    events = engine.run(walk(500), Script.BUY_HOLD).events
    assert [type(e) for e in events] == [OrderFilled]
    assert engine.position == 1
