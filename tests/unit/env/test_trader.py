"""A policy in the engine task: what it sees, when it is asked, and how it goes on after a crash."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streambot.domain.config import OnBreach
from streambot.domain.errors import ConfigError, DecodeError
from streambot.domain.events import HOLD, OrdersThrough
from streambot.domain.instruments import Instrument, InstrumentType
from streambot.engine.ordering import SlotContext, empty_calendar
from streambot.engine.slot_agents import SlotAgents, SlotBrief
from streambot.engine.slots import SlotLimits, make_params, new_slot
from streambot.env.core import Core
from streambot.env.fields import action_of
from streambot.env.settings import make_config
from streambot.env.trader import SlotTraders
from streambot.processor.task import TaskCore
from streambot.streams.frame import FrameKind
from streambot.wiring.preparation import Prepared
from tests.conftest import ROOT, SEED
from tests.env_world import Chart, aliases, prepared, segments_of
from tests.trained import SETTINGS, Hashing, frames_of
from tests.unit.processor.market import MINUTE, Market

BUNDLED = [
    Chart(ROOT / "replay/bars/spy_1m_2020.parquet", "SPY", "0.0001", "XNYS", "America/New_York",
          "USD", "3.9", 100),
]  # fmt: skip
LIMIT_BP = 300


def traders(policy: Any = None, **settings: Any) -> SlotTraders:
    return SlotTraders(policy or Hashing(), make_config(SETTINGS | settings), weights="abc")


def run_of(folder: Path, count: int = 6, **fields: Any) -> Prepared:
    """Stocks and options with settings at random, on the bundled bars."""
    rng = np.random.default_rng([SEED, 7])
    env = make_config(SETTINGS | {"drawdown_limit_bp": LIMIT_BP})
    return prepared(BUNDLED, aliases(BUNDLED, count, rng), env, folder, **fields)


class Done:
    """What the tasks of a run brought."""

    def __init__(self) -> None:
        self.orders: list[bytes] = []
        self.fills: list[bytes] = []
        self.pnl: list[bytes] = []

    def add(self, output: Any) -> None:
        for name in ("orders", "fills", "pnl"):
            if (lines := getattr(output, name)) is not None:
                getattr(self, name).append(lines)

    @property
    def lines(self) -> list[OrdersThrough]:
        return [msgspec.json.decode(line, type=OrdersThrough) for line in self.orders]

    @property
    def ordered(self) -> dict[tuple[str, int], Any]:
        return {(o.instrument, o.barrier): o for line in self.lines for o in line.orders}

    @property
    def said(self) -> dict[str, float]:
        return {key: value for line in self.lines for key, value in (line.policy or {}).items()}

    @property
    def events(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(e) for lines in self.fills for e in lines.splitlines()]


def drive(core: TaskCore, frame: Any) -> Any:
    return core.finish() if frame.kind is FrameKind.END else core.step(frame)


def played(run: Prepared, agents: SlotTraders, **cut: Any) -> Done:
    """A run without a disturbance."""
    manifest = run.manifest("run")
    cores = [TaskCore(manifest, p, run.context, agents) for p in range(manifest.partitions)]
    done = Done()
    for p, frame in frames_of(run, manifest, **cut):
        done.add(drive(cores[p], frame))
    return done


def in_the_environment(run: Prepared, symbol: str) -> tuple[dict[int, int], str]:
    """Joint actions by barrier of an episode from `lookback` on, and why it ended."""
    settings = SETTINGS | {"drawdown_limit_bp": LIMIT_BP, "capital": 100_000, "episode_bars": None}
    env = make_config(settings)
    core, policy = Core(segments_of(run, env), env), Hashing()
    core.ask(0, instrument=symbol, bar=env.lookback, bars=0)
    core.reset()
    answers: dict[int, int] = {}
    while not core.envs[0]["ended"]:
        action = policy.decide(core.observations, core.masks).action
        core.actions[0] = answers[int(core.slots[0]["barrier"])] = action
        core.step()
    return answers, "breach" if core.terminated[0] else "end"


def test_orders_are_those_of_the_environment(tmp_path: Path) -> None:
    """One bit of one observation or mask that differed would be another draw of the policy."""
    run = run_of(tmp_path, 8)
    done, ends, total = played(run, traders()), set(), 0
    for instrument in run.timeline.instruments:
        symbol = instrument.symbol
        answers, why = in_the_environment(run, symbol)
        ends.add(why)
        expected = {b: action_of(a, 3) for b, a in answers.items() if a}
        ordered = {b: o for (s, b), o in done.ordered.items() if s == symbol}
        if why == "breach":
            assert max(ordered) <= max(answers)  # halted: nothing is asked for any more
        assert {b: (o.action, o.quantity) for b, o in ordered.items() if b <= max(answers)} == {
            b: (a.kind, a.quantity) for b, a in expected.items()
        }
        total += len(expected)
    assert total > 300
    assert ends == {"breach", "end"}


@pytest.mark.parametrize("seed", range(4))
def test_killed_anywhere_it_goes_on_as_if_nothing_had_been(tmp_path: Path, seed: int) -> None:
    """Frames that end inside bars; orders, what the policy says, events and state, to the byte."""
    rng = np.random.default_rng([SEED, seed])
    run = run_of(tmp_path, on_breach=OnBreach.ALERT if seed % 2 else OnBreach.HALT)
    manifest, agents = run.manifest("run"), traders()
    cut = {
        "max_rows": int(rng.integers(200, 4_000)),
        "spans": (int(rng.integers(1, 40)) * MINUTE + 7,),
    }
    twins = [TaskCore(manifest, p, run.context, agents) for p in range(manifest.partitions)]
    cores = [TaskCore(manifest, p, run.context, agents) for p in range(manifest.partitions)]
    undisturbed, disturbed, deaths = Done(), Done(), 0
    for p, frame in frames_of(run, manifest, **cut):
        if rng.random() < 0.1:
            state = cores[p].snapshot()
            assert state == twins[p].snapshot()
            cores[p] = TaskCore.restore(manifest, p, run.context, traders(), state)
            assert cores[p].snapshot() == state
            deaths += 1
        undisturbed.add(drive(twins[p], frame))
        disturbed.add(drive(cores[p], frame))
    assert deaths > 5
    assert len(undisturbed.ordered) > 300
    assert disturbed.orders == undisturbed.orders
    assert (disturbed.fills, disturbed.pnl) == (undisturbed.fills, undisturbed.pnl)
    assert [c.snapshot() for c in cores] == [c.snapshot() for c in twins]


def test_its_state_is_small() -> None:
    """With the default features: 30 kB a slot, whatever the run's length."""
    slot = traders(**DEFAULTS).strategy_for(BRIEF)
    assert len(slot.state()) < 32_000


DEFAULTS = {
    "window": 10, "zscore_window": 512, "warmup": 64, "regime_windows": [64, 256], "timeframes": [],
}  # fmt: skip
STOCK = Instrument(
    symbol="S", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"), max_lots=2
)
CALENDAR = SlotContext(empty_calendar())
BRIEF = SlotBrief(STOCK, CALENDAR, 10_000_000, SlotLimits(), MINUTE)


def test_where_a_breach_only_alerts_it_goes_on(tmp_path: Path) -> None:
    halted = played(run_of(tmp_path), traders())
    alerted = played(run_of(tmp_path, on_breach=OnBreach.ALERT), traders())
    for done, goes_on in ((halted, False), (alerted, True)):
        first: dict[str, int] = {}
        for event in done.events:
            if event["kind"] == "SlotBreached":
                first.setdefault(event["instrument"], event["barrier"])
        assert len(first) > 1
        after = [(s, b) for s, b in done.ordered if s in first and b > first[s]]
        assert (len(after) > 20) is goes_on
        assert not any(e.get("reason") == "halted" for e in done.events)


def test_weights_of_the_experts_travel_with_the_orders(tmp_path: Path) -> None:
    done = played(run_of(tmp_path, 2), traders(), max_rows=100)
    weights = {key for key in done.said if "@" in key}
    asked = {f"{s}@{b}.{name}" for s, b in done.ordered for name in Hashing.experts}
    assert asked < weights  # and of the last close of every frame
    assert all(sum(done.said[f"{s}@{b}.{n}"] for n in Hashing.experts) == pytest.approx(1, abs=3e-4)
               for s, b in done.ordered)  # fmt: skip
    assert done.said["weights"] == 3
    quiet = played(run_of(tmp_path, 2), traders(Quiet()), max_rows=100)
    assert quiet.fills == done.fills
    assert quiet.pnl == done.pnl  # what it says of itself decides nothing
    assert not quiet.said


class Quiet(Hashing):
    experts = ()
    version = None

    def decide(self, observation: Any, mask: Any) -> Any:
        return super().decide(observation, mask)._replace(gate=())


def test_cash_that_buys_nothing_yet_is_held_until_it_does() -> None:
    market, capital, done = Market("A", 1_500, seed=7, missing=0.0), 9_500, Done()
    manifest = msgspec.structs.replace(market.manifest(partitions=1), capital=(capital,))
    agents = traders(Hashing(2), timeframes=[], lookback=0, warmup=0)
    core = TaskCore(manifest, 0, {}, agents)
    for _, frame in frames_of(_Windows(market), manifest):  # type: ignore[arg-type]
        done.add(drive(core, frame))
    needed = market._prices["A"][:, 3] + 100  # both brokerages are paid for too
    entries = [b for (_, b), o in done.ordered.items() if o.quantity]
    assert len(entries) > 10
    assert needed[min(entries)] <= capital < needed[: min(entries) - 1].max()
    waited = np.flatnonzero(needed > capital)
    assert min(entries) < waited.max() < max(entries)  # poor again in between, and back


class _Windows:
    """A market of windows in the place of a prepared run."""

    def __init__(self, market: Market) -> None:
        self.context: dict[str, SlotContext] = {}
        self.timeline = self
        self.windows = market.windows


class Asked(Hashing):
    """Notes the masks that it is asked with."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[bytes] = []

    def decide(self, observation: Any, mask: Any) -> Any:
        self.masks.append(mask.tobytes())
        return super().decide(observation, mask)


def closes_of(agents: SlotTraders, brief: SlotBrief = BRIEF) -> Any:
    """Shows closes to a trader by hand; the slot is as asked."""
    trader = agents.strategy_for(brief)
    params = make_params(brief.instrument, brief.capital, brief.limits)
    view = {
        "open_ts": 0, "close_ts": MINUTE, "open": 9, "high": 11, "low": 9, "close": 10, "volume": 1,
        "session_close": 0,
    }  # fmt: skip

    class Close:
        barrier = 0

    def show(**fields: int) -> Any:
        slot = new_slot(params)
        slot["last_price"], slot["close_ts"] = 10, MINUTE
        for name, value in fields.items():
            slot[name] = value
        account = type("A", (), {"view": view, "slot": slot})
        return trader.on_bar(Close, account)  # type: ignore[arg-type]

    return trader, show


def test_it_waits_for_a_position_that_is_not_its_own() -> None:
    policy = Asked()
    _, show = closes_of(traders(policy, timeframes=[], lookback=2, warmup=0))
    open_ = {"side": 1, "quantity": 1, "units": 1, "entry_price": 9, "width": 3, "stop": 6}
    for fields in ({}, {}, open_, open_):  # two to look back on, two with a position of somebody's
        assert show(**fields) is HOLD
    assert not policy.masks
    show()
    assert len(policy.masks) == 1
    show(**open_)  # its own now
    assert len(policy.masks) == 2


@pytest.mark.parametrize(
    ("run_q", "lots_q", "legal"), [(10, 100, 3), (2, 100, 2), (10, 1, 1), (1, 2, 1)]
)
def test_more_lots_than_run_or_instrument_take_are_illegal(
    run_q: int, lots_q: int, legal: int
) -> None:
    policy = Asked()
    brief = BRIEF._replace(
        instrument=msgspec.structs.replace(STOCK, max_lots=lots_q),
        limits=SlotLimits(max_quantity=run_q),
    )
    _, show = closes_of(traders(policy, timeframes=[], lookback=0, warmup=0), brief)
    show()
    (mask,) = policy.masks
    side = bytes(k < legal for k in range(3))
    assert mask == bytes([1, 0]) + side + side


def test_a_state_of_another_slot_or_policy_is_refused() -> None:
    agents = traders(timeframes=[])
    state = agents.strategy_for(BRIEF).state()
    other = BRIEF._replace(capital=5_000_000)
    for wrong in (agents.strategy_for(other), traders(window=8, timeframes=[]).strategy_for(BRIEF)):
        with pytest.raises(DecodeError):
            wrong.restore(state)
    flipped = state[:-9] + bytes([state[-9] ^ 1]) + state[-8:]
    for damaged in (b"", state[:-1], flipped, msgspec.msgpack.encode([1])):
        with pytest.raises(DecodeError):
            agents.strategy_for(BRIEF).restore(damaged)


def test_bars_that_the_policy_observes_must_be_made_of_the_runs() -> None:
    agents = traders()
    assert isinstance(agents, SlotAgents)
    agents.check(MINUTE)
    with pytest.raises(ConfigError, match="observe bars of 5m, 30m") as caught:
        agents.strategy_for(BRIEF._replace(decision_ns=2 * MINUTE))
    assert caught.value.where == "--timeframe"


def test_what_it_sees_has_a_digest() -> None:
    one = traders().sees
    assert traders().sees == one
    for changed in ({"window": 8}, {"lookback": 31}, {"max_quantity": 2}, {"regime_windows": [20]}):
        assert traders(**changed).sees != one
    assert traders(capital=5, drawdown_limit_bp=7).sees == one  # those are the run's
