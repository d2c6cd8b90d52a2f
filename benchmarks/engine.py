"""The engine alone: against its floor, array and callback peers, and against its own history."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import psutil

from benchmarks import floor_callback, floor_engine
from benchmarks.bars import MINUTE_NS, MinuteBars, random_walk
from benchmarks.harness import Check, Row, SkippedError, interleave, rate_of, ratio
from benchmarks.peers import Quanter, Raptor
from examples.sma_cross import SmaCross
from streambot.domain.bars import BarBlock
from streambot.domain.events import OrderFilled
from streambot.domain.instruments import Brokerage, Instrument, InstrumentType, TrailBp
from streambot.engine.backtesting import BacktestingEngine, BacktestResult
from streambot.engine.scripts import Script
from streambot.engine.slots import SlotLimits
from streambot.engine.strategy import Bar

TRAIL_BP = 20
LOT = 10
BROKERAGE = Decimal(20)
CAPITAL = Decimal(1_000_000_000)
NO_LIMIT_BP = 1_000_000
QUARTER_HOUR_NS = 15 * MINUTE_NS


def stock(*, enforce: bool) -> Instrument:
    """The instrument of these rows: a stock in cents with a trailing stop of 20 basis points."""
    return Instrument(
        symbol="X",
        type=InstrumentType.STOCK,
        lot_size=LOT,
        tick_size=Decimal("0.01"),
        brokerage=Brokerage(entry=BROKERAGE, exit=BROKERAGE),
        trail=TrailBp(bp=TRAIL_BP),
        enforce_trailing_stop=enforce,
    )


def as_block(bars: MinuteBars) -> BarBlock:
    """The bars as the engine takes them; a session is a day of 24 hours."""
    count = len(bars.ts)
    last_of_day = np.zeros(count, np.uint8)
    last_of_day[1_439::1_440] = 1
    duration = np.full(count, MINUTE_NS, np.int64)
    return BarBlock(
        bars.ts, duration, bars.open, bars.high, bars.low, bars.close, bars.volume, last_of_day
    )


def part(block: BarBlock, lo: int, hi: int) -> BarBlock:
    """Bars `lo` to `hi` of a block; views, not copies."""
    rows = slice(lo, hi)
    return BarBlock(
        block.ts[rows],
        block.duration[rows],
        block.open[rows],
        block.high[rows],
        block.low[rows],
        block.close[rows],
        block.volume[rows],
        block.session_close[rows],
    )


def new_engine(*, enforce: bool) -> BacktestingEngine:
    """An engine with marks every 15 minutes of event time, the default of a run."""
    limits = SlotLimits(drawdown_limit_bp=NO_LIMIT_BP, mark_every_ns=QUARTER_HOUR_NS)
    return BacktestingEngine(stock(enforce=enforce), capital=CAPITAL, limits=limits)


def _entries(result: BacktestResult) -> int:
    fills = (event for event in result.events if isinstance(event, OrderFilled))
    return sum(fill.effect == "entry" for fill in fills)


def against_the_loop(bars: MinuteBars, rounds: int) -> Iterator[Row]:
    """Engine with a compiled strategy, against the bare loop and raptorbt; equal results are checked."""
    block = as_block(bars)
    capital, fee = int(CAPITAL * 100), int(BROKERAGE * 100)
    floor_args = (bars.open, bars.high, bars.low, bars.close, capital, LOT, fee, TRAIL_BP)
    ours_done: list[tuple[BacktestingEngine, BacktestResult]] = []
    floor_done: list[tuple[int, int, int, int]] = []

    def ours() -> int:
        engine = new_engine(enforce=True)
        ours_done[:] = [(engine, engine.run(block, Script.SMA_CROSS))]
        return len(bars.ts)

    def floor() -> int:
        floor_done[:] = [floor_engine.run(*floor_args)]
        return len(bars.ts)

    def check_and_forget() -> None:
        """Results are compared, and freed, outside the time."""
        if ours_done and floor_done:
            (cash, entries, *_rest), (engine, result) = floor_done[0], ours_done[0]
            assert int(engine.cash * 100) == cash, (
                "engine and bare loop must end with the same cash"
            )
            assert _entries(result) == entries
        ours_done.clear()

    contestants = {"streambot": ours, "bare loop": floor}
    notes = []
    raptor = None
    try:
        raptor = Raptor(bars, TRAIL_BP / 10_000)
        contestants["raptorbt"] = raptor.run
    except SkippedError as reason:
        notes.append(str(reason))
    rates = interleave(contestants, rounds, check_and_forget)
    _cash, entries, stopped, _drawdown = floor_done[0]
    checks = [ratio(rates, "streambot", "bare loop", at_least=0.5)]
    notes.append(f"{entries:,} entries, {stopped:,} stops, same cash to the cent as the bare loop")
    if raptor is not None:
        checks.append(ratio(rates, "streambot", "raptorbt", at_least=3.0))
        theirs = raptor.counts()
        notes.append(f"raptorbt: {theirs[0]:,} entries, {theirs[1]:,} stops")
    yield Row("engine alone, SMA cross, trailing stop", "bars per CPU second", rates, checks, notes)


def with_a_callback(bars: MinuteBars, rounds: int) -> Iterator[Row]:
    """A Python strategy asked at every bar, against a plain loop and openquanter."""
    block = as_block(bars)
    results: list[BacktestResult] = []
    entries: list[int] = []

    def ours() -> int:
        results.append(new_engine(enforce=False).run(block, SmaCross()))
        return len(bars.ts)

    def count_and_forget() -> None:
        entries.extend(_entries(result) for result in results)
        results.clear()

    def floor() -> int:
        floor_callback.run(bars, Bar, SmaCross())
        return len(bars.ts)

    contestants = {"streambot": ours, "plain loop": floor}
    notes = []
    try:
        contestants["openquanter"] = Quanter(bars).run
    except SkippedError as reason:
        notes.append(str(reason))
    rates = interleave(contestants, rounds, count_and_forget)
    checks = [ratio(rates, "streambot", "plain loop", at_least=0.5)]
    if "openquanter" in rates:
        checks.append(ratio(rates, "streambot", "openquanter", at_least=1.0))
    notes.append(f"{entries[-1]:,} entries")
    yield Row(
        "the same with a Python callback per bar", "bars per CPU second", rates, checks, notes
    )


def as_history_grows(largest: int, rounds: int) -> Iterator[Row]:
    """Time per bar and memory from 10^4 to 10^7 bars: both must stay where they are."""
    sizes = [10**power for power in range(4, 8) if 10**power <= largest]
    bars = random_walk(sizes[-1])
    whole = as_block(bars)
    process = psutil.Process(os.getpid())
    chunk = 10_000
    rates: dict[str, list[float]] = {f"{size:,} bars": [] for size in sizes}
    grown: list[float] = []

    def play(size: int) -> int:
        engine = new_engine(enforce=True)
        engine.use_script(Script.SMA_CROSS)
        for lo in range(0, size, chunk):
            engine.run(part(whole, lo, lo + chunk), end=lo + chunk >= size)
        return size

    play(sizes[0])
    for _ in range(rounds):
        for size in sizes:
            repeats = max(1, 200_000 // size)

            def again(size: int = size, repeats: int = repeats) -> int:
                return sum(play(size) for _ in range(repeats))

            rates[f"{size:,} bars"].append(rate_of(again))
        before = process.memory_info().rss
        play(sizes[-1])
        grown.append((process.memory_info().rss - before) / 2**20)
    first, last = f"{sizes[0]:,} bars", f"{sizes[-1]:,} bars"
    checks = [
        ratio(rates, last, first, at_least=0.9),
        Check(f"memory after {last}, more than before", grown, at_most=16.0, unit="MiB"),
    ]
    yield Row("cost per bar as history grows", "bars per CPU second", rates, checks)
