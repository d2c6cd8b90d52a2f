"""A passage and the scripts in it are a run of the engine over the same bars: bit for bit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from streambot.data.segments import Segments
from streambot.domain.errors import ConfigError, DataError
from streambot.domain.replay_settings import parse_moment
from streambot.domain.ticks import TickBlock
from streambot.engine.backtesting import BacktestingEngine
from streambot.engine.scripts import Script, symbol_key
from streambot.engine.slots import NO_MARKS, SlotLimits
from streambot.env.config import EnvConfig
from streambot.env.passage import Passage, Stretch, stretches
from streambot.env.scripts import SCRIPTS, Scripted, most_lots, script_named
from streambot.market.feature_config import FeatureConfig
from streambot.wiring.preparation import Prepared
from tests.conftest import ROOT, SEED
from tests.env_world import CAPITAL, Chart, aliases, prepared, segments_of

CHARTS = [
    Chart(ROOT / "replay/bars/spy_1m_2020.parquet", "SPY", "0.0001", "XNYS", "America/New_York",
          "USD", "3.9", 100),
]  # fmt: skip
FEATURES = FeatureConfig(zscore_window=64, warmup=10, regime_windows=(20,))
LOTS, COUNT = 2, 32
# A drawdown limit that is broken, and a gap that every night is longer than.
ENV = EnvConfig(
    capital=CAPITAL, max_quantity=4, window=3, lookback=0, drawdown_limit_bp=60,
    max_gap_ns=3_600 * 10**9, features=FEATURES,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Segments]:
    rng = np.random.default_rng(SEED)
    run = prepared(CHARTS, aliases(CHARTS, COUNT, rng), ENV, tmp_path_factory.mktemp("world"))
    return run, segments_of(run, ENV)


def whole(segments: Segments) -> list[Stretch]:
    return stretches(segments, ENV, None, None)[0]


def ticks_of(segments: Segments, n: int, first_bar: int = 0) -> TickBlock:
    low, high = segments.rows("ticks", n)
    low += int(segments.bars_of(n)[first_bar]["tick"])
    t = segments.ticks[low:high]
    return TickBlock(
        np.zeros(len(t), np.uint16), t["bar"].copy(), t["flags"].astype(np.uint8), t["ts"].copy(),
        t["price"].copy(), t["size"].copy(),
    )  # fmt: skip


def engine_run(
    run: Prepared, segments: Segments, n: int, script: Script, first_bar: int = 0
) -> tuple[BacktestingEngine, Any]:
    """The engine's own script over the ticks of instrument `n`."""
    instrument = segments.head.instruments[n]
    engine = BacktestingEngine(
        instrument,
        capital=CAPITAL,
        limits=SlotLimits(
            max_quantity=ENV.max_quantity, max_gap_ns=ENV.max_gap_ns,
            drawdown_limit_bp=ENV.drawdown_limit_bp, mark_every_ns=NO_MARKS, seed=SEED,
        ),
        calendar=segments.calendar(n),
    )  # fmt: skip
    engine.use_script(script, lots=LOTS)
    engine._params[0]["instrument_key"] = symbol_key(instrument.symbol)
    if not first_bar:
        run.context[instrument.symbol].warm(engine._slot[0])
    found = engine.run(ticks_of(segments, n, first_bar), closes=segments.closes)
    return engine, found.event_records


def played(segments: Segments, spans: list[Stretch], script: Script) -> tuple[Passage, list[list]]:
    """The same script through a passage, and the events of every environment."""
    passage = Passage(segments, ENV, spans, 1)
    lots = np.full(len(spans), LOTS)
    scripted = Scripted(passage.core, script, first=0, count=len(spans), lots=lots, seed=SEED)
    events: list[list] = [[] for _ in spans]
    for _ in range(passage.steps):
        scripted.answer()
        live = passage.live
        passage.step()
        for i in np.flatnonzero(live).tolist():
            count = int(passage.core.envs[i]["events_n"])
            events[i] += passage.core.events[i, :count].copy().tolist()
    return passage, events


def without(records: Any, *names: str) -> list[tuple]:
    """Events as tuples, less some fields."""
    kept = [k for k, name in enumerate(records.dtype.names) if name not in names]
    return [tuple(row[k] for k in kept) for row in records.tolist()]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_does_what_the_engine_does_with_it(name, world):
    """Stocks and options, stops, gaps, breaches: every event, and the last money unit."""
    run, segments = world
    spans = whole(segments)
    passage, events = played(segments, spans, SCRIPTS[name])
    breached = total = 0
    for i, span in enumerate(spans):
        engine, theirs = engine_run(run, segments, span.instrument, SCRIPTS[name])
        mine = np.array(events[i], theirs.dtype)
        # The engine also tells of the order that met no next bar, at the end.
        if len(theirs) > len(mine):
            assert theirs[-1]["kind"] == 2
            theirs = theirs[: len(mine)]
        assert without(mine, "row") == without(theirs, "row"), engine.instrument.symbol
        account = passage.account(i)
        decimals = engine.instrument.money_decimals
        assert account.equity[-1] == int(engine.equity.scaleb(decimals))
        assert passage.core.slots[i]["cash"] == int(engine.cash.scaleb(decimals))
        assert account.brokerage == int(engine.brokerage_paid.scaleb(decimals))
        trades = account.trades
        assert trades.fills == trades.entries + trades.exits == (mine["kind"] == 0).sum()
        assert trades.settled == (mine["kind"] == 3).sum()
        assert sum(trades.rejected.values()) == (mine["kind"] == 1).sum()
        assert sum(trades.expired.values()) == (mine["kind"] == 2).sum()
        breaches = mine["ts"][mine["kind"] == 4]
        assert trades.breached == (int(breaches[0]) if len(breaches) else None)
        breached, total = breached + len(breaches), total + trades.fills
    if name == "flat":
        assert total == breached == 0
    else:
        assert total >= COUNT // 2
        assert breached >= 1


def test_over_a_night_that_is_too_long_an_entry_expires_and_a_position_is_held(world):
    """The engine's rule of gaps holds, ends nothing, and is no news before it is met."""
    _, segments = world
    spans = [s for s in whole(segments) if not segments.head.instruments[s.instrument].is_option]
    limits = msgspec.structs.replace(ENV, drawdown_limit_bp=10_000)
    passage = Passage(segments, limits, spans, 2)
    core, count = passage.core, len(spans)
    closes = segments.bars_of(spans[0].instrument)["close_ts"]
    nights = np.flatnonzero(np.diff(closes) > ENV.max_gap_ns)
    assert len(nights) == 3
    for step in range(passage.steps):
        before = core.slots["side"].copy()
        # Some buy at the last close of a day alone, others one close sooner and hold.
        core.actions[:count] = 2 if step in nights else 1
        core.actions[count:] = 2 if step + 1 in nights else 1 if step - 3 in nights else 0
        if step in nights:
            assert core.masks[:count, 2].all()
            assert core.masks[count:, 1][before[count:] != 0].all()
        passage.step()
        if step in nights:
            assert (core.slots["side"][:count] == 0).all()
            kept = core.slots["side"][count:] == before[count:]
            stops = [i.enforce_trailing_stop for i in map(core.instrument_of, range(count))]
            assert (kept | stops).all()
            assert (before[count:] != 0).mean() > 0.5
    for i in range(count):
        assert passage.account(i).trades.expired == {"gap": 3}
        assert passage.account(i).trades.fills == 0
        assert passage.account(count + i).trades.entries == 3


def test_behind_a_breach_equity_stays_where_the_closing_left_it(world):
    _, segments = world
    passage, events = played(segments, whole(segments), Script.BUY_HOLD)
    seen = 0
    for i in range(passage.core.n):
        account = passage.account(i)
        if account.trades.breached is None:
            continue
        behind = account.equity[account.closes > account.trades.breached]
        if len(behind) > 1:
            seen += 1
            assert len(set(behind.tolist())) == 1
            assert events[i][-1][0] in {0, 3, 4}, "closed, settled, or flat before: then nothing"
    assert seen


def test_averages_know_the_closes_before_the_first_decision(world):
    """A passage that begins later has the averages of a run that began as far back as they reach."""
    run, segments = world
    at, slow = 200, 30
    chosen = [
        n for n, i in enumerate(segments.head.instruments)
        if not i.is_option and hasattr(i.trail, "bp")
    ]  # fmt: skip
    assert chosen
    spans = [Stretch(n, at, len(segments.bars_of(n)) - 1) for n in chosen]
    passage, events = played(segments, spans, Script.SMA_CROSS)
    happened = 0
    for i, n in enumerate(chosen):
        engine, theirs = engine_run(run, segments, n, Script.SMA_CROSS, at - slow)
        mine = np.array(events[i], theirs.dtype)
        assert without(mine, "row") == without(theirs[: len(mine)], "row")
        happened += len(mine)
        assert passage.account(i).equity[-1] == int(
            engine.equity.scaleb(engine.instrument.money_decimals)
        )
    assert happened >= 10


def test_turnover_and_exposure_by_hand(world):
    _, segments = world
    spans = whole(segments)
    passage, events = played(segments, spans, Script.RANDOM)
    names = np.zeros(0, passage.core.events.dtype).dtype.names
    for i in range(len(spans)):
        instrument, traded, held, open_ = passage.core.instrument_of(i), 0, 0, False
        by_barrier: dict[int, list[dict]] = {}
        for row in events[i]:
            event = dict(zip(names, row, strict=True))
            by_barrier.setdefault(event["barrier"], []).append(event)
        account = passage.account(i)
        # An event carries the barrier before the bar that it happened in.
        for barrier in segments.bars_of(spans[i].instrument)["barrier"][:-1].tolist():
            for event in by_barrier.get(barrier, ()):
                if event["kind"] == 0:
                    entry = event["effect"] == 0
                    option = "premium" if entry else "option_value"
                    each = event[option if instrument.is_option else "price"]
                    units = event["quantity"] * event["lot_size"]
                    traded += each * units * instrument.tick_money
                    open_ = entry
                elif event["kind"] == 3:
                    open_ = False
            held += open_
        assert account.trades.traded == traded
        assert account.held == held / (len(account.closes) - 1)


def test_ranges_are_those_of_the_environment(world):
    """Which bars an episode may have is decided in one place; what has none is left out."""
    _, segments = world
    start, end = parse_moment("2020-12-15T10:30"), parse_moment("2020-12-16")
    looking = EnvConfig(lookback=20, features=FEATURES)
    found, short = stretches(segments, looking, start, end)
    assert short == []
    for span in found:
        closes = segments.bars_of(span.instrument)["close_ts"]
        inside = (closes >= start.start_ns("America/New_York")) & (
            closes <= end.end_ns("America/New_York")
        )
        assert (span.first, span.last) == (
            max(20, int(np.argmax(inside))), int(np.flatnonzero(inside)[-1])
        )  # fmt: skip
    late = stretches(segments, looking, parse_moment("2031-01-01"), None)
    assert late == ([], [i.symbol for i in segments.head.instruments])
    with pytest.raises(DataError, match="no instrument has bars"):
        Passage(segments, ENV, [], 1)


def test_lots_that_the_capital_buys(world):
    """As many as the policy may order, fewer where money is short, never none."""
    _, segments = world
    spans = whole(segments)
    stock = next(
        k for k, s in enumerate(spans) if not segments.head.instruments[s.instrument].is_option
    )
    instrument = segments.head.instruments[spans[stock].instrument]
    core = Passage(segments, ENV, spans, 1).core
    worth = float(core.slots[stock]["last_price"] * instrument.tick_size * instrument.lot_size)
    for capital, lots in ((100 * worth, 4), (3.5 * worth, 3), (3.05 * worth, 2), (1.04 * worth, 1)):
        config = EnvConfig(
            capital=Decimal(round(capital)), max_quantity=4, lookback=0, features=FEATURES,
            drawdown_limit_bp=9_000,
        )  # fmt: skip
        passage = Passage(segments, config, [spans[stock]], 1)
        assert most_lots(passage.core, 0) == passage.lots[0] == lots


def test_scripts_that_cannot_be_are_refused(world):
    _, segments = world
    core = Passage(segments, ENV, whole(segments), 1).core
    with pytest.raises(ConfigError, match="5 lots, where 4 is the most"):
        Scripted(core, Script.RANDOM, first=0, count=1, lots=np.array([5]))
    with pytest.raises(ConfigError, match="fast < slow"):
        Scripted(core, Script.SMA_CROSS, first=0, count=1, lots=np.array([1]), fast=30, slow=30)
    with pytest.raises(ConfigError, match="no script `buyhold`") as refused:
        script_named("buyhold")
    assert "buy-hold" in refused.value.hint
