"""The engine and the stream task against a second, slow reading of the rules (`reference_engine`).

Random markets: several instruments with missing bars, bars cut by the session, gaps beyond
`max_gap`, ticks of one source bar, of several, or real ones. Events and marks must be equal, field
by field, through every shell: bars, ticks, frames cut anywhere, and a strategy that is run ahead.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.bars import BarBlock
from streambot.domain.events import HOLD, Action, ActionKind, EngineEvent, SubmitOrder
from streambot.domain.instruments import (
    AtrPremium,
    BachelierPremium,
    Brokerage,
    Expiries,
    Instrument,
    InstrumentType,
    LotRule,
    TrailAtr,
    TrailBp,
    Valuation,
)
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.engine.backtesting import BacktestingEngine
from streambot.engine.ordering import Calendar, SlotContext
from streambot.engine.slots import SlotLimits
from streambot.engine.strategy import Account, Bar
from streambot.processor.close_rows import CloseRows
from streambot.processor.manifest import PolicySettings, RunManifest
from streambot.processor.task import TaskCore
from streambot.streams.frame import Frame, FrameKind
from tests.reference_engine import Fact, Order, ReferenceSlot, Terms, Tick

MINUTE = 60 * 10**9
DAY = 1_440 * MINUTE
START = 1_700_000_000 * 10**9
BARS_A_DAY = 6
ACTIONS = ["BUY_LONG", "SELL_SHORT", "CLOSE"]
OHLC = tuple[int, int, int, int]


@dataclass
class Slot:
    """One instrument's share of a world: what it trades, its bars, its ticks and its orders."""

    instrument: Instrument
    terms: Terms
    bars: list[tuple[int, int, OHLC, bool]]
    ticks: list[Tick]
    orders: dict[int, list[Order]]
    answers: dict[int, tuple[str, int]]


@dataclass
class World:
    limits: SlotLimits
    closes: list[int]
    slots: list[Slot]


def path(bar: OHLC) -> OHLC:
    """Open, the extreme nearer to the open, the other one, close."""
    open_, high, low, close = bar
    to_low, to_high = open_ - low, high - open_
    low_first = to_low < to_high or (to_low == to_high and close >= open_)
    return (open_, low, high, close) if low_first else (open_, high, low, close)


def make_world(seed: int, *, slots: int, one_source: bool, days: int = 6) -> World:
    """A random market and what is asked of it; equal seeds give equal worlds.

    Args:
        slots: instruments in it.
        one_source: every decision bar is one bar of the source, with its four ticks.
    """
    rng = random.Random(seed)
    sessions = _sessions(rng, days)
    real = not one_source and rng.random() < 0.3
    limits = SlotLimits(
        max_quantity=rng.choice([1, 10, 10, 10]),
        max_gap_ns=rng.choice([7 * DAY, 7 * DAY, 7 * DAY, 0, MINUTE, 3 * MINUTE]),
        drawdown_limit_bp=rng.choice([100, 500, 2_000, 30_000]),
        halt_on_breach=rng.random() < 0.5,
        stop_at_tick=real,
        mark_every_ns=rng.choice([0, MINUTE, 4 * MINUTE, 7 * MINUTE // 2]),
    )
    drafts = []
    for number in range(slots):
        bars = _bars(rng, sessions, offset=rng.choice([0, 0, MINUTE // 2]))
        drafts.append((number, bars, [_ticks(rng, bar, one_source, real) for bar in bars]))
    closes = sorted({t + d for _, bars, _ in drafts for t, d, _, _ in bars})
    world = World(limits, closes, [])
    for number, bars, inside in drafts:
        instrument, terms = _instrument(rng, f"S{number}", limits, sessions)
        ticks = [
            Tick(bisect_right(closes, ts), ts, price, opens, at == len(of_bar) - 1,
                 at == len(of_bar) - 1 and bar[3])
            for bar, of_bar in zip(bars, inside, strict=True)
            for at, (ts, price, opens) in enumerate(of_bar)
        ]  # fmt: skip
        orders, answers = _asked(rng, closes, [t + d for t, d, _, _ in bars], terms.option)
        world.slots.append(Slot(instrument, terms, bars, ticks, orders, answers))
    return world


def _sessions(rng: random.Random, days: int) -> tuple[tuple[int, int], ...]:
    """Sessions that touch each other, lie apart, or far apart; one more than is traded."""
    out, at = [], START
    for _ in range(days + 3):
        out.append((at, at + BARS_A_DAY * MINUTE))
        at += BARS_A_DAY * MINUTE + rng.choice([0, 0, 0, 3, 30, 9 * 1_440]) * MINUTE
    return tuple(out)


def _bars(
    rng: random.Random, sessions: tuple[tuple[int, int], ...], offset: int
) -> list[tuple[int, int, OHLC, bool]]:
    bars: list[tuple[int, int, OHLC, bool]] = []
    price, wild = rng.choice([60, 400, 4_000]), rng.choice([2, 15, 60])
    missing = rng.choice([0.0, 0.2, 0.5])
    for opens, closes in sessions[:-3]:
        kept = [t for t in range(opens + offset, closes, MINUTE) if rng.random() >= missing] or [
            opens + offset
        ]
        for t in kept:
            open_ = max(1, price + rng.choice([0, 0, rng.randint(-wild, wild)]))
            if rng.random() < 0.02:
                # Over night a short can lose more than there is.
                open_ *= rng.randint(2, 4)
            price = max(1, open_ + rng.randint(-wild, wild))
            high = max(open_, price) + rng.randint(0, wild)
            low = max(1, min(open_, price) - rng.randint(0, wild))
            duration = min(MINUTE, closes - t)
            bars.append((t, duration, (open_, high, low, price), t == kept[-1]))
    return bars


def _ticks(
    rng: random.Random, bar: tuple[int, int, OHLC, bool], one_source: bool, real: bool
) -> list[tuple[int, int, bool]]:
    """Time, price and whether a bar of the source opens, of each tick inside a decision bar."""
    t, d, (open_, high, low, close), _ = bar
    offsets = (0, d // 3, 2 * d // 3, d - 1)
    if one_source:
        prices = path((open_, high, low, close))
        return [(t + o, p, o == 0) for o, p in zip(offsets, prices, strict=True)]
    if real:
        times = [*sorted(rng.choices(range(d), k=rng.randint(0, 5))), d - 1]
        return [(t + o, rng.randint(low, high), k == 0) for k, o in enumerate(times)]
    parts = rng.randint(1, 3)
    out = []
    for part in range(parts):
        inner = d // parts
        ends = (rng.randint(low, high), rng.randint(low, high))
        own = (ends[0], rng.randint(max(ends), high), rng.randint(low, min(ends)), ends[1])
        begin = t + part * inner
        stops = (0, inner // 3, 2 * inner // 3, inner - 1)
        out += [(begin + o, p, o == 0) for o, p in zip(stops, path(own), strict=True)]
    out[-1] = (t + d - 1, *out[-1][1:])
    return out


def _instrument(
    rng: random.Random, symbol: str, limits: SlotLimits, sessions: tuple[tuple[int, int], ...]
) -> tuple[Instrument, Terms]:
    option = rng.random() < 0.6
    fees = [rng.choice([0, 50, rng.randint(0, 4_000)]) for _ in range(3)]
    bp = rng.choice([None, 40, 900, 10_000])
    rules = option and rng.random() < 0.2
    after = rng.choice([None, 1, 2]) if option else None
    contracts: list[tuple[int, int | None]] = []
    if option and after is None:
        ends = sorted(rng.sample([close for _, close in sessions], k=rng.randint(1, 6)))
        contracts = [(end, rng.choice([None, 2, 30])) for end in ends]
    tick_money = rng.choice([1, 5])
    model = rng.choice(["atr", "bachelier"])
    atr = rng.choice([Decimal(2), Decimal("0.35"), None])
    capital = rng.choice([500, 4_000, 20_000, 100_000, 1_000_000, 5_000_000])
    terms = Terms(
        option=option, marked=option and rng.random() < 0.5,
        lot_size=0 if rules else rng.randint(1, 20), tick_money=tick_money,
        fee_entry=fees[0], fee_exit=fees[1], fee_settlement=fees[2],
        slippage=rng.choice([0, 1, 4]), premium_slippage=rng.choice([0, 1, 6]),
        most_lots=min(limits.max_quantity, 5), max_gap=limits.max_gap_ns,
        limit_bp=limits.drawdown_limit_bp, halts=limits.halt_on_breach,
        fills_at_tick=limits.stop_at_tick, enforced=rng.random() < 0.5,
        trail_bp=bp, trail_atr=rng.choice([0.5, 3.0]), mark_every=limits.mark_every_ns,
        capital=capital, model=model, k=rng.choice([0.5, 2.0]),
        daily_atr=None if atr is None else float(atr / (Decimal(tick_money) / 100)),
        min_days=rng.choice([0, 1, 2]), expires_after=after, sessions=sessions,
        contracts=tuple(contracts),
    )  # fmt: skip
    make = AtrPremium if model == "atr" else BachelierPremium
    dates = Expiries(dates=()) if after is None else Expiries(expires_after=after)
    instrument = Instrument(
        symbol=symbol,
        type=InstrumentType.OPTION if option else InstrumentType.STOCK,
        lot_size=(LotRule(lot=1),) if rules else terms.lot_size,
        tick_size=Decimal(tick_money).scaleb(-2),
        brokerage=Brokerage(
            entry=Decimal(fees[0]).scaleb(-2), exit=Decimal(fees[1]).scaleb(-2),
            settlement=Decimal(fees[2]).scaleb(-2),
        ),
        slippage_ticks=terms.slippage, premium_slippage_ticks=terms.premium_slippage,
        premium=make(k=terms.k, daily_atr=atr),
        valuation=Valuation.MARKED if terms.marked else Valuation.INTRINSIC,
        expiries=dates if option else None, min_days=terms.min_days,
        trail=TrailAtr(atr=terms.trail_atr) if bp is None else TrailBp(bp=bp),
        enforce_trailing_stop=terms.enforced, max_lots=5,
    )  # fmt: skip
    return instrument, terms


def _asked(
    rng: random.Random, closes: list[int], own: list[int], option: bool
) -> tuple[dict[int, list[Order]], dict[int, tuple[str, int]]]:
    """Orders from outside by barrier, and answers of an agent inside at the slot's own closes."""
    orders: dict[int, list[Order]] = {}
    busy = rng.choice([0.1, 0.4])
    for barrier, close in enumerate(closes):
        while rng.random() < busy:
            action = rng.choice(ACTIONS)
            near = closes[min(len(closes) - 1, barrier + rng.randint(0, 6))]
            expiry = rng.choice(
                [None, near, near, near, near, near + rng.randint(-MINUTE, MINUTE), close + 1]
            )
            orders.setdefault(barrier, []).append(
                Order(
                    action,
                    0 if action == "CLOSE" else rng.choice([rng.randint(1, 4)] * 9 + [-1, 0, 6]),
                    rng.choice([None, 0, 1, 1, 5, 5, 5, 40, 40]) if option else None,
                    expiry if option else None,
                    rng.choice([None, 1, 9, 80]),
                    rng.choice([None, None, 1, 15]),
                )
            )
    answers = {
        bisect_left(closes, ts): (rng.choice(ACTIONS), rng.randint(1, 4))
        for ts in own
        if rng.random() < busy
    }
    return orders, answers


# Through the shells ---------------------------------------------------------------------------


def calendar_of(terms: Terms) -> Calendar:
    def column(values: list[int]) -> np.ndarray:
        return np.array(values, np.int64)

    return Calendar(
        column([o for o, _ in terms.sessions]), column([c for _, c in terms.sessions]),
        column([e for e, _ in terms.contracts]), column([lot or 0 for _, lot in terms.contracts]),
    )  # fmt: skip


def engine_of(slot: Slot, limits: SlotLimits) -> BacktestingEngine:
    capital = Decimal(slot.terms.capital).scaleb(-2)
    return BacktestingEngine(
        slot.instrument, capital=capital, limits=limits, calendar=calendar_of(slot.terms)
    )


def bars_of(slot: Slot) -> BarBlock:
    rows = [(t, d, *ohlc, 1, last) for t, d, ohlc, last in slot.bars]
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    return BarBlock(*columns[:7], columns[7].astype(np.uint8))


def block_of(slots: list[Slot], lo: int = 0) -> TickBlock:
    rows = [
        (t.interval, t.ts, number, at, t) for number, s in enumerate(slots) for at, t in enumerate(s.ticks)
    ]  # fmt: skip
    rows.sort(key=lambda row: row[:4])
    flags = [
        TickFlag.BAR_OPEN * t.opens_source_bar
        | TickFlag.BAR_CLOSE * t.closes_bar
        | TickFlag.SESSION_CLOSE * t.closes_session
        for *_, t in rows
    ]
    return TickBlock(
        np.array([number for _, _, number, _, _ in rows], np.uint16),
        np.array([interval - lo for interval, *_ in rows], np.uint32),
        np.array(flags, np.uint8),
        np.array([t.ts for *_, t in rows], np.int64),
        np.array([t.price for *_, t in rows], np.int64),
        np.ones(len(rows), np.int64),
    )


def submitted(slot: Slot) -> list[SubmitOrder]:
    return [
        SubmitOrder(
            instrument=slot.instrument.symbol, barrier=barrier, action=ActionKind(o.action),
            quantity=o.quantity, premium_ticks=o.premium, expiry_ts=o.expiry,
            trail_width_ticks=o.width, lot_size=o.lot_size,
        )
        for barrier, orders in slot.orders.items()
        for o in orders
    ]  # fmt: skip


def plain(items: list[Any]) -> list[Fact]:
    """Events or marks as the reference tells them."""
    facts = [msgspec.to_builtins(item) for item in items]
    for fact in facts:
        del fact["instrument"]
    return facts


def assert_same(ours: list[Fact], theirs: list[Fact], where: str) -> None:
    for at, (own, expected) in enumerate(zip(ours, theirs, strict=False)):
        different = {k: (own.get(k), expected.get(k)) for k in own | expected
                     if own.get(k) != expected.get(k)}  # fmt: skip
        assert not different, f"{where} {at}: (ours, expected) {different}\n{own}\n{expected}"
    assert len(ours) == len(theirs), f"{where}: {ours[len(theirs) :]} {theirs[len(ours) :]}"


def reference(slot: Slot, closes: list[int], *, inside: bool = False) -> ReferenceSlot:
    played = ReferenceSlot(slot.terms)
    played.run(slot.ticks, closes, {} if inside else slot.orders, slot.answers if inside else None)
    return played


def check_engine(seed: int, *, one_source: bool) -> None:
    """One slot through `BacktestingEngine`, over ticks, and over bars where each has its own four."""
    world = make_world(seed, slots=1, one_source=one_source)
    slot = world.slots[0]
    expected = reference(slot, world.closes)
    shells: list[tuple[str, Any, dict[str, Any]]] = [
        ("ticks", block_of(world.slots), {"closes": np.array(world.closes, np.int64)})
    ]
    if one_source:
        shells.append(("bars", bars_of(slot), {}))
    for name, data, more in shells:
        result = engine_of(slot, world.limits).run(data, submitted(slot), **more)
        assert_same(plain(result.events), expected.events, f"event over {name}")
        assert_same(plain(result.marks), expected.marks, f"mark over {name}")


class Planned:
    """Answers by plan, and notes what it is shown and told."""

    def __init__(self, answers: dict[int, tuple[str, int]]) -> None:
        self.answers = answers
        self.shown: list[tuple[int, float, int, float, float]] = []
        self.told: list[EngineEvent] = []

    def on_bar(self, bar: Bar, account: Account) -> Action:
        self.shown.append((bar.barrier, bar.close, account.position, account.cash, account.equity))
        kind, lots = self.answers.get(bar.barrier, ("HOLD", 0))
        return HOLD if kind == "HOLD" else Action(ActionKind(kind), lots)

    def on_fill(self, event: EngineEvent) -> None:
        self.told.append(event)


def check_strategy(world: World) -> None:
    """The same answers from an agent inside: orders are completed, closes shown, events told."""
    slot = world.slots[0]
    expected = reference(slot, world.closes, inside=True)
    strategy = Planned(slot.answers)
    result = engine_of(slot, world.limits).run(
        block_of(world.slots), strategy, closes=np.array(world.closes, np.int64)
    )
    assert_same(plain(result.events), expected.events, "event")
    assert_same(plain(result.marks), expected.marks, "mark")
    assert plain(strategy.told) == expected.events
    tick = float(slot.instrument.tick_size)
    for shown, (barrier, price, lots, cash, equity) in zip(
        strategy.shown, expected.shown, strict=True
    ):
        assert shown == pytest.approx((barrier, price * tick, lots, cash / 100, equity / 100))


def frames_of(world: World, rng: random.Random) -> list[Frame]:
    """Frames that end at barriers and inside intervals."""
    block = block_of(world.slots)
    out: list[Frame] = []
    lo = row = 0
    while lo < len(world.closes):
        hi = min(len(world.closes), lo + rng.choice([0, 1, 1, 2, 5, 40]))
        whole = int(np.searchsorted(block.bar, hi))
        rest = int(np.searchsorted(block.bar, hi, side="right")) - max(row, whole)
        end = max(row, whole) + (rng.randint(0, rest) if rng.random() < 0.4 else 0)
        columns = dict(zip(TickBlock._fields, (c[row:end] for c in block), strict=True))
        columns["bar"] = (columns["bar"] - lo).astype(np.uint16)
        out.append(Frame(
            kind=FrameKind.DATA, run=b"", partition=0, frame_seq=len(out), barrier_lo=lo,
            barrier_hi=hi, t_lo=0, t_hi=0, closes=np.array(world.closes[lo:hi], np.int64),
            ticks=TickBlock(**columns), digest=b"", chain=b"",
        ))  # fmt: skip
        lo, row = hi, end
    return out


def read_lines(data: list[bytes], slot: Slot) -> list[Fact]:
    """Lines of one slot as facts in ticks and money units."""
    tick = slot.instrument.tick_size
    facts = []
    for line in b"".join(data).splitlines():
        fact = msgspec.json.decode(line)
        if fact.pop("instrument") != slot.instrument.symbol:
            continue
        for name in ("price", "premium", "option_value", "trailing_stop_price"):
            if fact.get(name) is not None:
                ticks = Decimal(fact[name]) / tick
                assert ticks == int(ticks)
                fact[name] = int(ticks)
        for name in (
            "cash",
            "equity",
            "risk_equity",
            "brokerage",
            "brokerage_paid",
            "realized_pnl",
        ):
            if fact.get(name) is not None:
                fact[name] = int(Decimal(fact[name]).scaleb(2))
        facts.append(fact)
    return facts


def check_task(world: World, framing: int, *, inside: bool) -> None:
    """All slots through the stream task, with frames cut anywhere and one restart in between."""
    rng = random.Random(framing)
    limits, slots = world.limits, world.slots
    manifest = RunManifest(
        run="reference", instruments=tuple(s.instrument for s in slots), partitions=1,
        partition_of=(0,) * len(slots), capital=tuple(s.terms.capital for s in slots),
        decision_ns=MINUTE, stop_fill="tick" if limits.stop_at_tick else "stop",
        pnl_every_ns=limits.mark_every_ns, max_quantity=limits.max_quantity,
        max_gap_ns=limits.max_gap_ns, drawdown_limit_bp=limits.drawdown_limit_bp,
        on_breach="halt" if limits.halt_on_breach else "alert", policy=PolicySettings(),
    )  # fmt: skip
    context = {s.instrument.symbol: SlotContext(calendar_of(s.terms)) for s in slots}
    strategies = [Planned(s.answers) for s in slots]
    factory = iter(strategies).__next__ if inside else None
    core = TaskCore(manifest, 0, context, factory)
    orders = [] if inside else [order for slot in slots for order in submitted(slot)]
    outputs = []
    frames = frames_of(world, rng)
    restart = rng.randrange(len(frames)) if not inside else -1
    rows = CloseRows()
    for at, frame in enumerate(frames):
        if at == restart and len(frames[at - 1].closes):
            core = TaskCore.restore(manifest, 0, context, None, core.snapshot())
        hi = frame.barrier_lo + len(frame.closes)
        outputs.append(
            core.step(rows.settle(frame), [o for o in orders if frame.barrier_lo <= o.barrier < hi])
        )
    outputs.append(core.finish())
    for number, slot in enumerate(slots):
        expected = reference(slot, world.closes, inside=inside)
        if inside:
            assert plain(strategies[number].told) == expected.events
        for mark in expected.marks:
            if mark["distance_to_trail"] is not None:
                mark["distance_to_trail"] = pytest.approx(mark["distance_to_trail"], abs=6e-7)
        fills = read_lines([o.fills or b"" for o in outputs], slot)
        marks = read_lines([o.pnl or b"" for o in outputs], slot)
        assert_same(fills, expected.events, f"{slot.instrument.symbol}: event")
        assert_same(marks, expected.marks, f"{slot.instrument.symbol}: mark")


SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.booleans())
@settings(max_examples=250)
def test_the_engine_reads_the_rules_as_the_reference_does(seed: int, one_source: bool) -> None:
    check_engine(seed, one_source=one_source)


@given(SEEDS, st.sampled_from([6, 20]))
@settings(max_examples=200)
def test_orders_of_an_agent_inside_are_completed_as_the_rules_say(seed: int, days: int) -> None:
    check_strategy(make_world(seed, slots=1, one_source=False, days=days))


@given(SEEDS, SEEDS, st.integers(1, 3), st.booleans())
@settings(max_examples=250)
def test_the_task_reads_the_rules_as_the_reference_does(
    seed: int, framing: int, slots: int, inside: bool
) -> None:
    check_task(make_world(seed, slots=slots, one_source=False, days=4), framing, inside=inside)


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_many_worlds() -> None:
    for seed in range(20_000):
        check_engine(seed, one_source=seed % 2 == 0)
        check_strategy(make_world(seed, slots=1, one_source=False, days=20))
        check_task(
            make_world(seed, slots=1 + seed % 3, one_source=False), seed, inside=seed % 5 == 0
        )
