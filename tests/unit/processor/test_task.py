"""The engine task as a machine: framing, partitions, order of instruments, snapshots, orders from outside."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import numpy as np
import pytest

from examples.sma_cross import SmaCross
from streambot.domain.bars import BarBlock
from streambot.domain.errors import DataError
from streambot.domain.events import (
    HOLD,
    Action,
    ActionKind,
    EngineEvent,
    OrdersThrough,
    SubmitOrder,
    buy,
)
from streambot.domain.instruments import Brokerage, Expiries, Instrument, InstrumentType, TrailBp
from streambot.domain.ticks import TickBlock
from streambot.engine.ordering import Calendar, SlotContext
from streambot.engine.scripts import Script
from streambot.engine.strategy import Account, Bar
from streambot.processor.journal import EventDigest, event_digest
from streambot.processor.manifest import PolicySettings, RunManifest
from streambot.processor.step_output import StepOutput
from streambot.processor.task import TaskCore
from streambot.streams.frame import Frame, FrameKind
from tests.scenarios import ticks_of

MINUTE = 60 * 10**9
DAY = 1_440 * MINUTE
BARS = 400


def instrument(symbol: str, *, option: bool = False, decimals: int = 2) -> Instrument:
    return Instrument(
        symbol=symbol,
        type=InstrumentType.OPTION if option else InstrumentType.STOCK,
        lot_size=5,
        tick_size=Decimal(1).scaleb(-decimals),
        brokerage=Brokerage(entry=Decimal("0.5"), exit=Decimal("0.25")),
        expiries=Expiries(expires_after=1) if option else None,
        trail=TrailBp(bp=60),
        enforce_trailing_stop=not option,
    )


INSTRUMENTS = (
    instrument("AAA"), instrument("BBB", option=True), instrument("CCC", decimals=4), instrument("DDD")
)  # fmt: skip


def walk(seed: int, skipped: float) -> BarBlock:
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(rng.random(BARS) >= skipped)
    close = 20_000 + np.cumsum(rng.integers(-30, 31, len(kept)))
    open_ = np.r_[20_000, close[:-1]]
    high, low = np.maximum(open_, close) + 9, np.minimum(open_, close) - 9
    last = (kept % 100 == 99).astype(np.uint8)
    n = len(kept)
    return BarBlock(kept * MINUTE, np.full(n, MINUTE), open_, high, low, close, np.full(n, 8), last)


def market() -> tuple[TickBlock, np.ndarray]:
    """Ticks of all instruments, each with its own missing minutes, in run-wide intervals."""
    blocks = [walk(number, 0.1 * number) for number in range(len(INSTRUMENTS))]
    closes = np.unique(np.concatenate([b.ts + b.duration for b in blocks]))
    parts = []
    for number, block in enumerate(blocks):
        ticks, own = ticks_of(block, number)
        interval = np.searchsorted(closes, own)[ticks.bar]
        parts.append(TickBlock(*ticks[:1], interval, *ticks[2:]))
    columns = [np.concatenate(c) for c in zip(*parts, strict=True)]
    order = np.lexsort((columns[0], columns[3], columns[1]))
    return TickBlock(*(c[order] for c in columns)), closes


TICKS, CLOSES = market()


def manifest(partitions: int = 1, policy: str = "sma-cross") -> RunManifest:
    n = len(INSTRUMENTS)
    return RunManifest(
        run="task-test",
        instruments=INSTRUMENTS,
        partitions=partitions,
        partition_of=tuple(k % partitions for k in range(n)),
        capital=(50_000_00, 50_000_00, 50_000_0000, 3_000_00),
        decision_ns=MINUTE,
        pnl_every_ns=15 * MINUTE,
        policy=PolicySettings(spec=policy, lots=2, fast=3, slow=8),
    )


def context() -> dict[str, SlotContext]:
    opens = np.arange(0, 50) * 100 * MINUTE
    none = np.zeros(0, np.int64)
    calendar = Calendar(opens, opens + 100 * MINUTE, none, none)
    return {"BBB": SlotContext(calendar, daily_atr=300.0, daily_count=20, daily_close=20_000)}


def frames(members: list[int], spans: list[int]) -> list[Frame]:
    """Frames of whole intervals, `spans` of them after each other, over and over."""
    out: list[Frame] = []
    lo = 0
    while lo < len(CLOSES):
        hi = min(len(CLOSES), lo + spans[len(out) % len(spans)])
        inside = (TICKS.bar >= lo) & (TICKS.bar < hi) & np.isin(TICKS.instrument, members)
        columns = dict(zip(TickBlock._fields, (c[inside] for c in TICKS), strict=True))
        columns["bar"] = (columns["bar"] - lo).astype(np.uint16)
        out.append(Frame(
            kind=FrameKind.DATA, run=b"", partition=0, frame_seq=len(out), barrier_lo=lo,
            barrier_hi=hi - 1, t_lo=0, t_hi=0, closes=CLOSES[lo:hi], ticks=TickBlock(**columns),
            digest=b"", chain=b"",
        ))  # fmt: skip
        lo = hi
    return out


def run(
    agent: object, *, partitions: int = 1, spans: tuple[int, ...] = (7,), policy: str = "sma-cross"
) -> tuple[str, dict[str, list[bytes]]]:
    """The event digest, and the lines of each stream."""
    run_of = manifest(partitions, policy)
    parts: dict[str, str] = {}
    lines: dict[str, list[bytes]] = {"orders": [], "fills": [], "pnl": []}
    for partition in range(partitions):
        core = TaskCore(run_of, partition, context(), agent)  # type: ignore[arg-type]
        outputs = [core.step(f) for f in frames(run_of.members(partition), list(spans))]
        collect(lines, [*outputs, core.finish()])
        parts |= core.digest.parts()
    return event_digest(parts), lines


def collect(lines: dict[str, list[bytes]], outputs: list[StepOutput]) -> None:
    for output in outputs:
        for stream in lines:
            lines[stream] += (getattr(output, stream) or b"").splitlines(keepends=True)


class Talker:
    """A strategy with memory that it can put into a snapshot."""

    def __init__(self) -> None:
        self.seen = 0
        self.fills = 0

    def on_bar(self, bar: Bar, account: Account) -> Action:
        self.seen += 1
        return buy(1 + self.fills % 3) if account.position == 0 and self.seen % 11 == 0 else HOLD

    def on_fill(self, event: EngineEvent) -> None:
        self.fills += 1

    def state(self) -> dict[str, int]:
        return {"seen": self.seen, "fills": self.fills}

    def restore(self, state: dict[str, int]) -> None:
        self.seen, self.fills = state["seen"], state["fills"]


AGENTS = [Script.SMA_CROSS, Script.RANDOM, Script.BUY_HOLD, SmaCross, Talker]


@pytest.mark.parametrize("agent", AGENTS, ids=str)
def test_framing_and_partitions_change_nothing(agent: object) -> None:
    expected, lines = run(agent)
    assert len(lines["fills"]) > 20
    for partitions in (1, 2, 4):
        for spans in ((1,), (3, 1, 50), (1_000,)):
            digest, _ = run(agent, partitions=partitions, spans=spans)
            assert digest == expected


def test_the_digest_sees_a_difference() -> None:
    digest, lines = run(Script.SMA_CROSS)
    again = EventDigest([i.symbol for i in INSTRUMENTS])
    again.read("fills", lines["fills"])
    again.read("pnl", lines["pnl"])
    assert event_digest(again.parts()) == digest
    less = EventDigest([i.symbol for i in INSTRUMENTS])
    less.read("fills", lines["fills"][:-1])
    less.read("pnl", lines["pnl"])
    assert event_digest(less.parts()) != digest
    assert run(Script.RANDOM)[0] != digest


@pytest.mark.parametrize("agent", AGENTS, ids=str)
@pytest.mark.parametrize("at", [0, 1, 17, 56])
def test_a_restart_from_any_snapshot_changes_nothing(agent: object, at: int) -> None:
    whole = manifest()
    expected: dict[str, list[bytes]] = {"orders": [], "fills": [], "pnl": []}
    lines: dict[str, list[bytes]] = {"orders": [], "fills": [], "pnl": []}
    core = TaskCore(whole, 0, context(), agent)  # type: ignore[arg-type]
    collect(expected, [core.step(f) for f in frames([0, 1, 2, 3], [7])])
    collect(expected, [core.finish()])

    first = TaskCore(whole, 0, context(), agent)  # type: ignore[arg-type]
    pieces = frames([0, 1, 2, 3], [7])
    collect(lines, [first.step(f) for f in pieces[:at]])
    if not first.resumable:
        assert agent is SmaCross
        return
    second = TaskCore.restore(whole, 0, context(), agent, first.snapshot())  # type: ignore[arg-type]
    assert second.snapshot() == first.snapshot()
    collect(lines, [second.step(f) for f in pieces[at:]])
    collect(lines, [second.finish()])
    assert lines == expected
    assert second.status() == core.status()


@pytest.mark.parametrize("data", [b"", b"\x00" * 40, msgspec.msgpack.encode({"version": 9})])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="snapshot"):
        TaskCore.restore(manifest(), 0, context(), Script.FLAT, data)


def test_a_snapshot_of_other_instruments_is_refused() -> None:
    snapshot = TaskCore(manifest(2), 0, context(), Script.FLAT).snapshot()
    with pytest.raises(DataError, match="other instruments"):
        TaskCore.restore(manifest(2), 1, context(), Script.FLAT, snapshot)


def test_every_line_says_what_the_record_holds() -> None:
    """The compiled writer against a plain one: names, order, decimals, nulls."""
    lines = {
        stream: run(Script.RANDOM)[1][stream] + run(Script.BUY_HOLD)[1][stream]
        for stream in ("fills", "pnl")
    }
    kinds = set()
    for line in lines["fills"]:
        fields = msgspec.json.decode(line)
        kinds.add(fields["kind"])
        assert msgspec.json.encode(fields) + b"\n" == line
        decimals = 4 if fields["instrument"] == "CCC" else 2
        for name in ("price", "premium", "option_value", "cash", "brokerage", "realized_pnl"):
            if fields.get(name) is not None:
                assert len(fields[name].partition(".")[2]) == decimals
                assert str(Decimal(fields[name])) == fields[name]
    assert {"OrderFilled", "PositionSettled"} <= kinds
    for line in lines["pnl"]:
        fields = msgspec.json.decode(line)
        assert fields["cause"] in {"barrier", "fill", "settlement", "session"}
        assert (fields["distance_to_trail"] is None) == (fields["lots"] == 0)
        flat = fields["lots"] == 0
        assert not flat or fields["equity"] == fields["cash"] == fields["risk_equity"]


def test_orders_of_a_co_located_agent_are_written_through_every_barrier() -> None:
    _, lines = run(Script.RANDOM)
    records = [msgspec.json.decode(line, type=OrdersThrough) for line in lines["orders"]]
    assert [r.through_barrier for r in records] == [*range(6, len(CLOSES) - 1, 7), len(CLOSES) - 1]
    orders = [order for record in records for order in record.orders]
    assert orders == sorted(orders, key=lambda o: (o.barrier, o.instrument))
    assert len(orders) > 20


def test_recorded_orders_give_the_same_fills_from_outside() -> None:
    """What an agent inside did, replayed as an agent outside: only the name of the model differs."""
    _, lines = run(Script.RANDOM)
    orders = [
        order
        for line in lines["orders"]
        for order in msgspec.json.decode(line, type=OrdersThrough).orders
    ]
    core = TaskCore(manifest(), 0, context(), None)
    outside: dict[str, list[bytes]] = {"orders": [], "fills": [], "pnl": []}
    for frame in frames([0, 1, 2, 3], [5]):
        hi = frame.barrier_lo + len(frame.closes)
        collect(
            outside, [core.step(frame, [o for o in orders if frame.barrier_lo <= o.barrier < hi])]
        )
    collect(outside, [core.finish()])
    assert outside["orders"] == []

    def neutral(some: list[bytes]) -> list[bytes]:
        return sorted(line.replace(b'"bachelier"', b'"given"') for line in some)

    assert neutral(outside["fills"]) == neutral(lines["fills"])
    assert neutral(outside["pnl"]) == neutral(lines["pnl"])


@pytest.mark.parametrize("span", [1, 4, 1_000])
def test_orders_without_a_bar_and_second_orders_are_rejected_at_the_barrier(span: int) -> None:
    """CCC closed no bar at `missing`; AAA gets two orders for one barrier; both in any framing."""
    closed = set(TICKS.bar[(TICKS.instrument == 2) & (TICKS.flags & 2 != 0)].tolist())
    missing = next(k for k in range(10, len(CLOSES)) if k not in closed)
    orders = [
        SubmitOrder(instrument="CCC", barrier=missing, action=ActionKind.BUY_LONG, quantity=1),
        SubmitOrder(instrument="AAA", barrier=20, action=ActionKind.BUY_LONG, quantity=1),
        SubmitOrder(instrument="AAA", barrier=20, action=ActionKind.CLOSE),
    ]
    core = TaskCore(manifest(), 0, context(), None)
    lines: dict[str, list[bytes]] = {"orders": [], "fills": [], "pnl": []}
    for frame in frames([0, 1, 2, 3], [span]):
        hi = frame.barrier_lo + len(frame.closes)
        collect(
            lines, [core.step(frame, [o for o in orders if frame.barrier_lo <= o.barrier < hi])]
        )
    rejected = {
        (e["instrument"], e["reason"]): e
        for e in map(msgspec.json.decode, lines["fills"])
        if e["kind"] == "OrderRejected"
    }
    assert rejected["CCC", "no_bar"]["ts_event"] == int(CLOSES[missing])
    assert rejected["AAA", "duplicate_order"]["ts_event"] == int(CLOSES[20])
    status = {s.symbol: s for s in core.status()}
    assert status["CCC"].rejected["no_bar"] == 1
    assert status["AAA"].fills >= 1


def test_rows_and_orders_of_another_partition_are_refused() -> None:
    core = TaskCore(manifest(2), 0, context(), None)
    with pytest.raises(DataError, match="not of this partition"):
        core.step(frames([0, 1], [5])[0])
    order = SubmitOrder(instrument="BBB", barrier=0, action=ActionKind.CLOSE)
    with pytest.raises(DataError, match="BBB"):
        core.step(frames([0, 2], [5])[0], [order])


def test_a_partition_without_instruments_does_nothing() -> None:
    run_of = msgspec.structs.replace(manifest(1), partitions=3)
    core = TaskCore(run_of, 2, {}, Script.SMA_CROSS)
    assert core.step(frames([], [9])[0]).fills is None
    assert core.status() == []
    assert TaskCore.restore(run_of, 2, {}, Script.SMA_CROSS, core.snapshot()).status() == []
