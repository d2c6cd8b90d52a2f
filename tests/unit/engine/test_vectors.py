"""The engine reproduces every solved scenario, event for event and mark for mark."""

from __future__ import annotations

from decimal import Decimal

import pytest

from streambot.engine.backtesting import BacktestingEngine
from tests.scenarios import (
    Scenario,
    bars_of,
    difference,
    instrument_of,
    limits_of,
    load_scenarios,
    orders_of,
    ticks_of,
)

SCENARIOS = load_scenarios()


def engine_of(scenario: Scenario) -> BacktestingEngine:
    return BacktestingEngine(
        instrument_of(scenario),
        capital=Decimal(scenario["capital"]).scaleb(-2),
        limits=limits_of(scenario),
    )


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 280


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: str(s["name"]).replace(" ", "_"))
def test_over_bars(scenario: Scenario) -> None:
    result = engine_of(scenario).run(bars_of(scenario), orders_of(scenario))
    assert difference(scenario, result.events, result.marks) == ""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: str(s["name"]).replace(" ", "_"))
def test_over_ticks(scenario: Scenario) -> None:
    ticks, closes = ticks_of(bars_of(scenario))
    result = engine_of(scenario).run(ticks, orders_of(scenario), closes=closes)
    assert difference(scenario, result.events, result.marks) == ""


def test_a_wrong_expectation_is_seen() -> None:
    """The comparison can fail: a scenario with one altered amount differs."""
    scenario = next(s for s in SCENARIOS if s["events"] and s["events"][0]["kind"] == "OrderFilled")
    changed = {
        **scenario,
        "events": [{**scenario["events"][0], "cash": -1}, *scenario["events"][1:]],
    }
    result = engine_of(scenario).run(bars_of(scenario), orders_of(scenario))
    assert "cash" in difference(changed, result.events, result.marks)
