"""A benchmark compares like with like: floor, peer and engine must do the same work."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import floor_callback, floor_engine
from benchmarks.bars import random_walk
from benchmarks.engine import BROKERAGE, CAPITAL, LOT, TRAIL_BP, as_block, new_engine
from benchmarks.harness import Check, Row, SkippedError, interleave, measured, ratio
from benchmarks.peers import cross_signals
from benchmarks.report import as_markdown, sections
from examples.sma_cross import SmaCross
from streambot.domain.events import OrderFilled
from streambot.engine.scripts import Script
from streambot.engine.strategy import Bar


def floor_of(bars):
    prices = (bars.open, bars.high, bars.low, bars.close)
    return floor_engine.run(*prices, int(CAPITAL * 100), LOT, int(BROKERAGE * 100), TRAIL_BP)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_engine_and_bare_loop_end_with_the_same_cash_entries_stops_and_drawdown(seed):
    bars = random_walk(30_000, seed=seed)
    engine = new_engine(enforce=True)
    events = engine.run(as_block(bars), Script.SMA_CROSS).events
    cash, entries, stopped, _drawdown = floor_of(bars)
    fills = [event for event in events if isinstance(event, OrderFilled)]
    assert int(engine.cash * 100) == cash
    assert sum(fill.effect == "entry" for fill in fills) == entries > 100
    assert sum(fill.reason == "trailing_stop" for fill in fills) == stopped > 50


def test_signals_for_array_peers_are_the_crosses_that_the_callback_sees():
    bars = random_walk(5_000)
    up, down = cross_signals(bars.close)

    class Seen(SmaCross):
        crosses = 0

        def on_bar(self, bar, account):
            was = self.above
            answer = super().on_bar(bar, account)
            self.crosses += self.above != was and bool(self.closes[0])
            return answer

    seen = Seen()
    assert floor_callback.run(bars, Bar, seen) > 0
    assert seen.crosses == int(up.sum() + down.sum())


def test_bars_are_the_same_every_time_and_consistent():
    one, two = random_walk(10_000), random_walk(10_000)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert (one.high >= np.maximum(one.open, one.close)).all()
    assert (one.low <= np.minimum(one.open, one.close)).all()
    assert (one.low > 0).all()


def test_ratios_are_taken_within_a_round():
    """A machine that gets slower half-way must not change a ratio."""
    check = ratio({"a": [10.0, 5.0, 1.0], "b": [20.0, 10.0, 2.0]}, "a", "b", at_least=0.5)
    assert list(check.values) == [0.5, 0.5, 0.5]
    assert check.met


def test_fewer_than_three_rounds_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        interleave({"a": lambda: 1}, rounds=2)


def test_a_missed_target_and_a_skipped_row_are_said():
    def absent():
        raise SkippedError("no such peer")

    rows = [
        Row("slow", "x/s", {}, [Check("slow / fast", [0.1, 0.2, 0.3], at_least=0.5)]),
        *measured("absent", "x/s", absent),
    ]
    table = as_markdown(rows)
    assert "**missed**" in table
    assert "skipped: no such peer" in table


def test_every_row_has_something_that_measures_it():
    for _title, _unit, build in sections(3, quick=True).values():
        assert callable(build)
