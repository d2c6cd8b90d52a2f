"""Every bundled scenario is a valid configuration of bundled bars and bundled instruments."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from streambot.domain.config import SETTINGS, find_config, resolve
from streambot.domain.registry import bundled_registry

SCENARIOS = sorted((Path(__file__).resolve().parents[2] / "replay" / "scenarios").glob("*.yaml"))


def test_the_default_scenario_is_there():
    assert "default" in {path.stem for path in SCENARIOS}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_is_a_configuration_of_things_that_exist(path):
    config = resolve({}, {}, find_config(path, path.parent)).config
    registry = bundled_registry()
    charts = set()
    for data in config.data:
        charts |= set(pq.read_table((path.parent / data).resolve())["symbol"].to_pylist())
    assert config.instruments, "a scenario names what it trades"
    for symbol in config.instruments:
        assert registry[symbol].chart in charts
    assert config.lots <= config.max_quantity


def test_the_default_scenario_is_one_session_as_stock_and_as_option():
    path = next(path for path in SCENARIOS if path.stem == "default")
    config = resolve({}, {}, find_config(path, path.parent)).config
    assert set(config.instruments) == {"SPY", "SPY_OPT"}
    assert config.start == config.end
    assert config.start is not None
    assert config.start.is_date
    assert config.speed == resolve({"speed": "100x"}, {}, None).config.speed


def test_keys_of_scenarios_are_settings():
    """A guard against a scenario that passes only because nobody reads it."""
    assert {"data", "instruments", "from", "to", "policy", "lots", "speed"} <= set(SETTINGS)
