"""Where numbers get large, logs get full, and agents, pieces and orders meet in odd ways."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from streambot.domain.bars import BarBlock
from streambot.domain.errors import ConfigError, DataError, StrategyError, UsageError
from streambot.domain.events import (
    CLOSE,
    HOLD,
    Action,
    ActionKind,
    EngineEvent,
    PositionSettled,
    SubmitOrder,
    buy,
    sell,
)
from streambot.domain.instruments import (
    Brokerage,
    Expiries,
    Instrument,
    InstrumentType,
    LotRule,
    TrailBp,
)
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.engine.backtesting import BacktestingEngine, BacktestResult
from streambot.engine.scripts import Script
from streambot.engine.slots import CAPACITY, EVENT, MARK, NONE, ORDER, SlotLimits
from streambot.engine.strategy import Account, Bar, StrategyPlayer
from streambot.engine.valuation import breach_threshold
from streambot.processor.journal import LineWriter

MINUTE = 60 * 10**9
DAY = 1_440 * MINUTE
STOCK = Instrument(
    symbol="X", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"), trail=TrailBp(bp=50)
)  # fmt: skip
OPTION = Instrument(
    symbol="X", type=InstrumentType.OPTION, lot_size=1, tick_size=Decimal("0.01"),
    trail=TrailBp(bp=50), expiries=Expiries(expires_after=1),
)  # fmt: skip
CALM = SlotLimits(drawdown_limit_bp=1_000_000)


def flat(n: int, *, first: int = 0, price: int = 1_000) -> BarBlock:
    ts = (first + np.arange(n, dtype=np.int64)) * MINUTE
    prices = [np.full(n, price)] * 4
    return BarBlock(ts, np.full(n, MINUTE), *prices, np.full(n, 1), np.zeros(n, np.uint8))


def order(barrier: int, action: ActionKind = ActionKind.BUY_LONG, **more: Any) -> SubmitOrder:
    lots = 0 if action == ActionKind.CLOSE else 1
    return SubmitOrder(
        **({"instrument": "X", "barrier": barrier, "action": action, "quantity": lots} | more)
    )


def told(result: BacktestResult) -> list[str]:
    return [f"{e.barrier} {e.reason}" for e in result.events if not isinstance(e, PositionSettled)]


# Full logs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [2, CAPACITY - 9, CAPACITY, 3 * CAPACITY])
def test_second_orders_stay_duplicates_when_the_log_fills_up(many: int) -> None:
    """Of many orders for one barrier the first acts, and every other one is a duplicate."""
    for last in (3, 1):
        engine = BacktestingEngine(STOCK, limits=CALM)
        result = engine.run(flat(last + 1), [order(1) for _ in range(many)])
        assert told(result)[: many - 1] == ["1 duplicate_order"] * (many - 1)
        assert told(result)[many - 1 :] == ["1 order" if last == 3 else "1 end_of_data"]


@pytest.mark.parametrize("before", range(CAPACITY - 14, CAPACITY))
def test_two_orders_for_a_barrier_wherever_the_log_is_full(before: int) -> None:
    """`before` refusals stand in the log when the first of two orders comes."""
    orders = [order(0, ActionKind.CLOSE) for _ in range(before)] + [order(1), order(1)]
    result = BacktestingEngine(STOCK, limits=CALM).run(flat(4), orders)
    assert told(result)[before:] == ["1 duplicate_order", "1 order"]


class Restless:
    """Another answer at every bar; notes what it is told."""

    def __init__(self) -> None:
        self.told: list[EngineEvent] = []

    def on_bar(self, bar: Bar, account: Account) -> Action:
        if account.position:
            return CLOSE if bar.barrier % 3 else HOLD
        return sell() if bar.barrier % 5 == 0 else buy()

    def on_fill(self, event: EngineEvent) -> None:
        self.told.append(event)


def test_a_strategy_that_trades_at_every_bar_is_told_everything_once() -> None:
    bars = flat(3 * CAPACITY)
    strategy = Restless()
    result = BacktestingEngine(STOCK, limits=CALM).run(bars, strategy)
    assert strategy.told == result.events
    assert len(result.events) > 2 * CAPACITY
    assert [m.seq for m in result.marks] == list(range(len(result.marks)))
    assert [m.barrier for m in result.marks if m.cause == "barrier"] == list(range(len(bars)))


# Pieces ---------------------------------------------------------------------------------------


def test_on_fill_misses_nothing_between_runs_that_end() -> None:
    """Each run ends its data: the order that expires is told too, and nothing behind it is lost."""
    strategy, engine = Restless(), BacktestingEngine(STOCK, limits=CALM)
    events: list[EngineEvent] = []
    for piece in range(5):
        events += engine.run(flat(8, first=8 * piece), strategy).events
        assert strategy.told == events
    assert any(getattr(e, "reason", "") == "end_of_data" for e in events)


def test_a_strategy_is_told_what_happens_from_its_own_start_on() -> None:
    """Not what others did before it came; neither after a run with a script nor after a restore."""
    first = BacktestingEngine(STOCK, limits=CALM)
    before = first.run(flat(50), Restless(), end=False)
    assert len(before.events) > 20
    second = BacktestingEngine(STOCK, limits=CALM)
    second.restore(first.snapshot())
    for engine in (first, second):
        late = Restless()
        assert engine.run(flat(50, first=50), late).events == late.told
        assert len(late.told) > 20


def test_a_new_agent_replaces_the_one_before() -> None:
    engine = BacktestingEngine(STOCK, limits=CALM)
    engine.run(flat(5), Script.BUY_HOLD, end=False)
    assert engine.position == 1
    strategy = Restless()
    after = engine.run(flat(20, first=5), strategy, end=False)
    alone = BacktestingEngine(STOCK, limits=CALM)
    alone.run(flat(5), [order(0)], end=False)
    assert after.events == alone.run(flat(20, first=5), Restless(), end=False).events
    seen = len(strategy.told)
    engine.run(flat(20, first=25), Script.FLAT)
    assert len(strategy.told) == seen


def test_an_order_for_the_last_close_can_be_submitted_after_it() -> None:
    """And gives what it gives when it was known from the start."""
    whole = BacktestingEngine(STOCK).run(flat(4), [order(1)])
    engine = BacktestingEngine(STOCK)
    engine.run(flat(2), end=False)
    engine.submit(order(1))
    engine.submit(order(1))
    engine.submit(order(0))
    late = engine.run(flat(2, first=2))
    assert told(late) == ["1 no_bar", "1 duplicate_order", "1 order"]
    assert [e.ts_event for e in late.events] == [2 * MINUTE] * 3
    assert late.events[2].cash == whole.events[0].cash  # type: ignore[union-attr]


def test_a_second_answer_to_a_close_is_a_duplicate() -> None:
    engine = BacktestingEngine(STOCK)
    engine.run(flat(2), end=False)
    engine.act(buy(2))
    engine.act(sell(3))
    result = engine.run(flat(2, first=2))
    assert told(result) == ["1 duplicate_order", "1 order"]
    assert engine.position == 2


def test_orders_from_outside_survive_the_run_ahead_of_a_strategy() -> None:
    """The strategy's only answer takes the slot back behind orders that the run ahead had used."""

    class Once:
        def on_bar(self, bar: Bar, account: Account) -> Action:
            return buy() if bar.barrier == 2 else HOLD

    engine = BacktestingEngine(STOCK)
    engine.submit(order(5, ActionKind.CLOSE))
    assert told(engine.run(flat(10), Once())) == ["2 order", "5 order"]


# Data -----------------------------------------------------------------------------------------


def one_bar(bar: int) -> TickBlock:
    flags = np.array([TickFlag.BAR_OPEN, TickFlag.BAR_CLOSE], np.uint8)
    column = np.array([10, 20], np.int64)
    return TickBlock(
        np.zeros(2, np.uint16), np.full(2, bar, np.uint32), flags, column, column, column
    )


@pytest.mark.parametrize("bar", [1, 2, 70_000])
def test_a_bar_that_closes_at_an_unknown_time_is_refused(bar: int) -> None:
    with pytest.raises(DataError, match="1 close times"):
        BacktestingEngine(STOCK).run(one_bar(bar), closes=np.array([30], np.int64))


def test_intervals_that_go_back_are_refused() -> None:
    ticks = one_bar(1)
    ticks.bar[1] = 0
    with pytest.raises(DataError, match="time order"):
        BacktestingEngine(STOCK).run(ticks, closes=np.array([30, 40], np.int64))


@pytest.mark.parametrize("closed", [True, False])
def test_a_tick_at_the_time_of_the_expiry(closed: bool) -> None:
    """It comes behind a barrier of that time, also of another's; without one it still counts."""
    expiry = 3 * MINUTE
    closes = [MINUTE, 2 * MINUTE, *([expiry] if closed else []), 4 * MINUTE]
    rows = [(0, 0, 1_000, 2), (1, MINUTE, 1_000, 2), (len(closes) - 1, expiry, 1_500, 2)]
    bar, ts, price, flags = (np.array(column) for column in zip(*rows, strict=True))
    ticks = TickBlock(
        np.zeros(3, np.uint16), bar.astype(np.uint32), flags.astype(np.uint8), ts, price, np.ones(3, int)
    )  # fmt: skip
    bought = order(0, premium_ticks=10, expiry_ts=expiry)
    result = BacktestingEngine(OPTION).run(ticks, [bought], closes=np.array(closes))
    settled = result.events[1]
    assert isinstance(settled, PositionSettled)
    assert (settled.ts_event, settled.price) == (expiry, 1_000 if closed else 1_500)


def test_barriers_behind_the_last_row_settle_and_refuse() -> None:
    """In the order of the barriers: what was asked for before the expiry is refused before it."""
    price = np.array([1_000, 1_000])
    block = TickBlock(*one_bar(0)[:4], price, price)
    engine = BacktestingEngine(OPTION)
    engine.run(block, closes=np.array([30], np.int64), end=False)
    engine.submit(order(0, premium_ticks=10, expiry_ts=95))
    second = TickBlock(*block[:3], np.array([40, 50]), price, price)
    engine.submit(order(2))
    engine.submit(order(3))
    result = engine.run(second, closes=np.array([60, 90, 100], np.int64))
    kinds = [(type(e).__name__, e.ts_event) for e in result.events]
    assert kinds == [
        ("OrderFilled", 40), ("OrderRejected", 90), ("PositionSettled", 95), ("OrderRejected", 100)
    ]  # fmt: skip


# Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [{"lot_size": 2**61}, {"lot_size": 2**62 - 1}, {"premium_ticks": 2**62 - 1}]
)
@pytest.mark.parametrize("lots", [1, 4, 10])
def test_an_absurd_size_does_not_become_affordable(more: dict[str, int], lots: int) -> None:
    slipping = msgspec.structs.replace(OPTION, premium_slippage_ticks=3)
    complete = {"premium_ticks": 1, "expiry_ts": DAY, "quantity": lots} | more
    result = BacktestingEngine(slipping).run(flat(4), [order(1, **complete)])
    assert told(result) == ["1 insufficient_cash"]
    if "premium_ticks" not in more:
        result = BacktestingEngine(STOCK).run(flat(4), [order(1, quantity=lots, **more)])
        assert told(result) == ["1 insufficient_cash"]


@pytest.mark.parametrize("side", [ActionKind.BUY_LONG, ActionKind.SELL_SHORT])
def test_a_stop_further_than_any_price_is_never_met(side: ActionKind) -> None:
    stopped = Instrument(
        symbol="X", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"),
        enforce_trailing_stop=True,
    )  # fmt: skip
    engine = BacktestingEngine(stopped)
    result = engine.run(flat(4), [order(1, side, trail_width_ticks=2**62 - 1)])
    assert told(result) == ["1 order"]
    assert result.marks[-1].distance_to_trail == 1.0


@pytest.mark.parametrize(
    "more",
    [
        {"lot_size": 0}, {"lot_size": -5}, {"premium_ticks": -1}, {"trail_width_ticks": 0},
        {"quantity": 2**70}, {"expiry_ts": -(2**62)}, {"quantity": 1.5}, {"lot_size": "1"},
    ],
)  # fmt: skip
def test_numbers_that_no_order_can_carry_are_refused_at_once(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(more))):
        BacktestingEngine(STOCK).submit(order(0, **more))


def test_an_order_without_the_lot_size_of_its_contract_has_no_contract() -> None:
    ruled = msgspec.structs.replace(OPTION, lot_size=(LotRule(lot=25),))
    asked = [order(1, premium_ticks=5, expiry_ts=DAY)]
    assert told(BacktestingEngine(ruled).run(flat(4), asked)) == ["1 no_expiry"]
    asked = [order(1, premium_ticks=5, expiry_ts=DAY, lot_size=25)]
    assert told(BacktestingEngine(ruled).run(flat(4), asked)) == ["1 order"]


def test_capital_beyond_the_integers_is_a_clear_error() -> None:
    fine = msgspec.structs.replace(STOCK, tick_size=Decimal("0.00000001"))
    with pytest.raises(ConfigError, match="`capital` of X"):
        BacktestingEngine(fine, capital=Decimal(10**12))
    dear = msgspec.structs.replace(fine, brokerage=Brokerage(exit=Decimal(10**11)))
    with pytest.raises(ConfigError, match=r"`brokerage.exit` of X"):
        BacktestingEngine(dear)


def test_a_limit_that_cannot_be_reached_stays_out_of_reach() -> None:
    """A drawdown of 100 times a huge capital leaves 64 bits: that must be no breach."""
    for peak in (10**6, 10**14, 10**17, 4 * 10**18):
        assert breach_threshold(peak, 1_000_000) < 0
    fine = msgspec.structs.replace(STOCK, tick_size=Decimal("0.00000001"))
    engine = BacktestingEngine(fine, capital=Decimal(10**10), limits=CALM)
    assert engine.run(flat(4), [order(0)]).events[0].cash == 10**18 - 1_000  # type: ignore[union-attr]
    assert not engine.run(flat(4, first=4)).events


# Strategies -----------------------------------------------------------------------------------


class Answers:
    def __init__(self, answer: Action) -> None:
        self.answer = answer

    def on_bar(self, bar: Bar, account: Account) -> Action:
        return self.answer if bar.barrier == 1 else HOLD


@pytest.mark.parametrize("lots", [1.5, "2", None])
def test_lots_that_are_no_whole_number_are_no_action(lots: Any) -> None:
    """1.5 lots must not become 1 in silence."""
    with pytest.raises(StrategyError, match="whole lots"):
        BacktestingEngine(STOCK).run(flat(4), Answers(buy(lots)))


@pytest.mark.parametrize("lots", [-3, 0, 11, 2**40, 2**70, -(2**70), np.int64(77)])
def test_lots_out_of_range_are_refused_by_the_rules(lots: int) -> None:
    result = BacktestingEngine(STOCK).run(flat(4), Answers(buy(lots)))
    assert told(result) == ["1 invalid_quantity"]


def test_the_account_cannot_be_written() -> None:
    class Cheat:
        def on_bar(self, bar: Bar, account: Account) -> Action:
            account.cash = 10**9  # type: ignore[misc]  # that is the test
            return HOLD

    with pytest.raises(StrategyError, match="AttributeError"):
        BacktestingEngine(STOCK).run(flat(4), Cheat())


def test_a_strategy_that_cannot_be_restored_is_named_with_its_line() -> None:
    class Forgetful(Restless):
        def state(self) -> dict[str, int]:
            return {"a": 1}

        def restore(self, state: dict[str, int]) -> None:
            raise KeyError(state["b"])

    player = StrategyPlayer(Forgetful(), STOCK)
    with pytest.raises(StrategyError, match=r"Forgetful\.restore\(\) failed") as caught:
        player.restore(player.state())
    assert "test_edges.py:" in caught.value.where


def test_an_error_in_on_fill_is_told_at_the_end_of_the_data_too() -> None:
    class Fussy(Restless):
        def on_fill(self, event: EngineEvent) -> None:
            raise ValueError(event.seq)

    with pytest.raises(StrategyError, match=r"on_fill failed at event 0"):
        BacktestingEngine(STOCK).run(flat(1), Fussy())


# Lines ----------------------------------------------------------------------------------------

LONGEST = "A" * 64
MOST = 2**62 - 1


@pytest.mark.parametrize("value", [MOST, 1 - 2**62, 0, -1, 5, NONE])
@pytest.mark.parametrize("tick", [Decimal("0.00000001"), Decimal("0.01"), Decimal(1)])
def test_lines_of_the_longest_names_and_numbers(value: int, tick: Decimal) -> None:
    """They fit into their room, are JSON, and say every number to the last digit."""
    named = msgspec.structs.replace(STOCK, symbol=LONGEST, tick_size=tick)
    writer = LineWriter(named, halts=True)
    n = 5
    events, marks, orders = np.zeros(n, EVENT), np.zeros(n, MARK), np.zeros(n, ORDER)
    for records in (events, marks, orders):
        for name in records.dtype.names or ():
            if records.dtype[name] == np.int64:
                records[name] = value
    orders["model"] = 2
    orders["action"] = marks["cause"] = marks["halted"] = events["gap_fill"] = 1
    events["kind"], events["detail"], events["effect"] = np.arange(n), 1, 1
    events["action"], events["premium_model"] = 2, 2
    marks["distance"], marks["lots"] = -3.0, 1

    def scaled(text: str | None, decimals: int) -> int:
        return NONE if text is None else int(Decimal(text).scaleb(decimals))

    for made, name in (
        (writer.events(events), "cash"), (writer.marks(marks), "price"), (writer.orders(orders), "")
    ):  # fmt: skip
        lines = bytes(made.data).splitlines() if name else bytes(made.data)[:-1].split(b"},")
        for line in lines:
            fact = msgspec.json.decode(line if line.endswith(b"}") else line + b"}")
            assert fact["instrument"] == LONGEST
            if name in fact:
                places = named.money_decimals if name == "cash" else named.price_decimals
                assert scaled(fact[name], places) == value
            else:
                assert fact.get("seq", value) == fact["barrier"] == value
