"""Every example runs, and does what it says."""

from __future__ import annotations

import importlib
import re
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks.bars import random_walk
from benchmarks.engine import as_block
from examples import engine_in_a_notebook
from examples.sma_cross import SmaCross
from streambot.domain.instruments import Instrument, InstrumentType
from streambot.engine.backtesting import BacktestingEngine
from streambot.engine.scripts import Script
from streambot.processor.agents import load_agent

STOCK = Instrument(symbol="X", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"))
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))


def test_the_example_strategy_gives_the_fills_of_the_built_in_one():
    bars = as_block(random_walk(20_000))
    theirs = BacktestingEngine(STOCK).run(bars, SmaCross()).events
    ours = BacktestingEngine(STOCK).run(bars, Script.SMA_CROSS).events
    assert len(ours) > 500, "the walk must cross often, or this compares nothing"
    assert theirs == ours


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_imported_without_doing_anything(path, capsys):
    importlib.import_module(f"examples.{path.stem}")
    assert capsys.readouterr().out == ""


def test_the_notebook_example_trades_the_bundled_bars(capsys):
    engine_in_a_notebook.main()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("entry") for line in lines) > 20
    assert "position 10 lots" in lines[-2]


def test_the_strategy_shown_in_the_readme_trades(tmp_path):
    """People copy it: it must load as `--policy` loads it, and give fills."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "momentum.py").write_text(code, encoding="utf-8")
    make = load_agent("momentum.py:Momentum", folder=tmp_path)
    assert callable(make)
    strategy = make()
    events = BacktestingEngine(STOCK).run(as_block(random_walk(500)), strategy).events
    assert len(events) > 50


def test_the_example_strategy_stays_short():
    """The tutorial is ten lines long, and people count."""
    text = (EXAMPLES[0].parent / "sma_cross.py").read_text(encoding="utf-8")
    body = text.partition("class SmaCross")[2].splitlines()[1:]
    code = [
        line for line in body if line.strip() and not line.strip().startswith(('"""', "def", "#"))
    ]
    assert len(code) <= 12


@pytest.mark.train
def test_the_learner_of_the_example_learns_and_is_tested(monkeypatch, capsys):
    """Two seconds of it: the whole way from bars to a table."""
    from examples import train_sb3

    monkeypatch.setattr("sys.argv", ["train_sb3.py", "2"])
    train_sb3.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "steps learnt", "learnt", "doing nothing", "buy and hold",
    ]  # fmt: skip
    assert int(lines[0].split()[2].replace(",", "")) > 100
    assert "+0.000 %" in lines[2]
