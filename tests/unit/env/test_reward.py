"""The reward against a second computation: the formulas first, then step by step on real bars.

What is guarded: every core reward and every shaping term is what `env.reward` says, each term
appears exactly where its rule says, a coefficient of 0 gives 0, and the reward is the sum of the terms.
"""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.bars import BarBlock
from streambot.domain.events import OrderFilled, PositionSettled
from streambot.domain.instruments import Brokerage, Instrument, InstrumentType, TrailBp
from streambot.env.config import CoreReward, RewardConfig
from streambot.env.reward import (
    KINDS,
    PAID,
    REWARD,
    TERMS,
    core_reward,
    differential_sharpe,
    differential_sortino,
    pay,
    profit_factor,
)
from streambot.env.sources import ArraySource
from streambot.env.trading_env import TradingEnv
from tests.conftest import ROOT, SEED

MINUTE = 60 * 10**9
DAY = 1440 * MINUTE
HOLD, CLOSE = 0, 1


# --- the formulas, once more --------------------------------------------------------------------


def log_returns(equity: list[int]) -> list[float]:
    floored = [max(1, e) for e in equity]
    return [math.log(b / a) for a, b in pairwise(floored)]


def sharpes(returns: list[float], eta: float) -> list[float]:
    """Moody and Saffell 2001, eq. 14."""
    a = b = 0.0
    out = []
    for r in returns:
        da, db = r - a, r * r - b
        variance = b - a * a
        out.append((b * da - a * db / 2) / variance**1.5 if variance > 1e-24 else 0.0)
        a, b = a + eta * da, b + eta * db
    return out


def sortinos(returns: list[float], eta: float) -> list[float]:
    """Moody and Saffell 2001, eq. 19 and 20."""
    a = dd2 = 0.0
    out = []
    for r in returns:
        dd = math.sqrt(dd2)
        if dd2 <= 1e-24:
            out.append(0.0)
        elif r > 0:
            out.append((r - a / 2) / dd)
        else:
            out.append((dd2 * (r - a / 2) - a * r * r / 2) / dd**3)
        a += eta * (r - a)
        dd2 += eta * (min(r, 0.0) ** 2 - dd2)
    return out


def factors(equity: list[int], size: int) -> list[float]:
    changes = [b - a for a, b in pairwise(equity)]
    out = []
    for k in range(len(changes)):
        recent = changes[max(0, k + 1 - size) : k + 1]
        gains, losses = sum(c for c in recent if c > 0), -sum(c for c in recent if c < 0)
        out.append((gains - losses) / (gains + losses) if gains + losses else 0.0)
    return out


def core_rewards(equity: list[int], config: RewardConfig, capital: int) -> list[float]:
    """The core reward of every step, before its weight."""
    r = log_returns(equity)
    if config.core is CoreReward.LOG_RETURN:
        return r
    if config.core is CoreReward.PNL:
        return [(b - a) / capital for a, b in pairwise(equity)]
    if config.core is CoreReward.PROFIT_FACTOR:
        return factors(equity, config.profit_window)
    raw = (sharpes if config.core is CoreReward.DIFFERENTIAL_SHARPE else sortinos)(r, config.eta)
    return [max(-config.clip, min(config.clip, d)) for d in raw]


# --- compiled functions -------------------------------------------------------------------------


def records(config: RewardConfig) -> tuple[Any, Any, np.ndarray]:
    c, m = np.zeros(1, REWARD)[0], np.zeros(1, PAID)[0]
    for name in REWARD.names or ():
        c[name] = KINDS[config.core] if name == "kind" else getattr(config, name)
    m["entry_bar"] = -1
    return c, m, np.zeros(config.profit_window)


def compiled(equity: list[int], config: RewardConfig, capital: int) -> list[float]:
    c, m, changes = records(config)
    return [float(core_reward(c, m, changes, a, b, capital)) for a, b in pairwise(equity)]


def equity_walk(rng: np.random.Generator, steps: int, capital: int, noise: float) -> list[int]:
    """A random walk, with stretches in which nothing happens."""
    moves = rng.normal(0, noise, steps) * (rng.random(steps) < 0.7)
    return [capital, *(capital * np.exp(np.cumsum(moves))).astype(np.int64).tolist()]


@pytest.mark.parametrize("core", list(CoreReward))
@pytest.mark.parametrize(
    ("eta", "size", "noise"), [(0.01, 64, 1e-4), (0.2, 1, 1e-2), (0.9, 7, 0.3)]
)
def test_core_rewards_over_random_walks(
    core: CoreReward, eta: float, size: int, noise: float, rng: np.random.Generator
) -> None:
    """Every one of a thousand steps, from small moves to those that halve the account."""
    capital = 10_000_000
    config = RewardConfig(core=core, eta=eta, profit_window=size)
    equity = equity_walk(rng, 1000, capital, noise)
    expected = core_rewards(equity, config, capital)
    assert compiled(equity, config, capital) == pytest.approx(expected, rel=1e-7, abs=1e-10)
    assert np.ptp(expected) > 0


@settings(max_examples=100)
@given(
    st.lists(st.integers(-5, 40), min_size=2, max_size=30),
    st.sampled_from([CoreReward.LOG_RETURN, CoreReward.DIFFERENTIAL_SHARPE,
                     CoreReward.DIFFERENTIAL_SORTINO]),
    st.floats(0.01, 0.99), st.floats(0.5, 50),
)  # fmt: skip
def test_an_equity_of_nothing_counts_as_one_unit(
    equity: list[int], core: CoreReward, eta: float, clip: float
) -> None:
    """No logarithm of 0 or of a debt: finite, and a ratio is never beyond its clip."""
    config = RewardConfig(core=core, eta=eta, clip=clip)
    paid = compiled(equity, config, 30)
    assert np.isfinite(paid).all()
    assert paid == compiled([max(1, e) for e in equity], config, 30)
    if core is CoreReward.LOG_RETURN:
        assert sum(paid) == pytest.approx(math.log(max(1, equity[-1]) / max(1, equity[0])))
    else:
        assert np.abs(paid).max() <= clip


@settings(max_examples=100)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=60), st.integers(1, 12))
def test_the_profit_factor_lies_between_its_bounds(moves: list[int], size: int) -> None:
    """1 while only gains are in the window, -1 while only losses, 0 while nothing happened."""
    equity = np.cumsum([1000, *moves]).tolist()
    paid = compiled(equity, RewardConfig(core=CoreReward.PROFIT_FACTOR, profit_window=size), 1000)
    for k, value in enumerate(paid):
        recent = moves[max(0, k + 1 - size) : k + 1]
        ups, downs = any(c > 0 for c in recent), any(c < 0 for c in recent)
        assert -1.0 <= value <= 1.0
        if not (ups and downs):
            assert value == (1.0 if ups else -1.0 if downs else 0.0)
    assert paid == pytest.approx(factors(equity, size), abs=1e-12)


def averages(returns: list[float], eta: float) -> tuple[float, float, float]:
    """Moving averages of R, R^2 and min(R, 0)^2."""
    a = b = d = 0.0
    for r in returns:
        a, b, d = a + eta * (r - a), b + eta * (r * r - b), d + eta * (min(r, 0.0) ** 2 - d)
    return a, b, d


@pytest.mark.parametrize("kind", ["sharpe", "sortino"])
@pytest.mark.parametrize("eta", [0.01, 0.1, 0.5])
def test_a_differential_ratio_is_the_derivative_of_its_ratio(
    kind: str, eta: float, rng: np.random.Generator
) -> None:
    """S_t = S_{t-1} + eta D_t + O(eta^2): D_t is dS_t / d eta at eta = 0 (Moody and Saffell).

    S_t(x) is the ratio of the averages after R_t was taken at the rate x; the difference quotient
    around 0, by Richardson's extrapolation, and the error of the expansion falls with the square.
    """
    for _ in range(30):
        returns = rng.normal(rng.uniform(-0.5, 0.5), 1, 40).tolist()
        a, b, d = averages(returns[:-1], eta)
        r = returns[-1]

        def ratio(x: float, a: float = a, b: float = b, d: float = d, r: float = r) -> float:
            mean = a + x * (r - a)
            if kind == "sharpe":
                return mean / math.sqrt(b + x * (r * r - b) - mean * mean)
            return mean / math.sqrt(d + x * (min(r, 0.0) ** 2 - d))

        def quotient(h: float, ratio: Any = ratio) -> float:
            return (ratio(h) - ratio(-h)) / (2 * h)

        m = np.zeros(1, PAID)[0]
        function = differential_sharpe if kind == "sharpe" else differential_sortino
        for value in returns[:-1]:
            function(m, value, eta)
        derivative = float(function(m, r, eta))
        h = 1e-5
        slope = (4 * quotient(h) - quotient(2 * h)) / 3
        assert derivative == pytest.approx(slope, rel=1e-6, abs=1e-7)
        errors = [abs(ratio(x) - ratio(0) - x * derivative) for x in (1e-3, 1e-4)]
        assert errors[1] < max(errors[0] / 50, 1e-12)
        # What it keeps are the averages themselves.
        a, b, d = averages(returns, eta)
        kept = (m["mean"], m["square"]) if kind == "sharpe" else (m["sortino_mean"], m["downside"])
        assert kept == pytest.approx((a, b) if kind == "sharpe" else (a, d))


def test_a_ratio_is_zero_while_its_denominator_is() -> None:
    """Nothing has happened, or no loss has: nothing is divided by nothing."""
    for returns in ([0.0] * 5, [0.0, 0.0, 1e-3]):
        for function in (differential_sharpe, differential_sortino):
            m = np.zeros(1, PAID)[0]
            assert [float(function(m, r, 0.1)) for r in returns] == [0.0] * len(returns)
    m = np.zeros(1, PAID)[0]
    assert [float(differential_sortino(m, r, 0.1)) for r in [1e-3] * 6] == [0.0] * 6
    assert float(differential_sortino(m, -1e-3, 0.1)) == 0.0  # its own loss is not yet in
    assert float(differential_sortino(m, -1e-3, 0.1)) < 0.0


class Step(NamedTuple):
    """What `pay` is told of one step."""

    bar: int
    before: int
    after: int
    net: int
    flat: bool
    entered: bool
    moved: float
    early: bool
    terminated: bool


STEP = st.builds(
    Step, st.integers(0, 50), st.integers(1, 10**7), st.integers(-(10**5), 10**7),
    st.integers(-(10**5), 10**5), st.booleans(), st.booleans(), st.floats(0, 3), st.booleans(),
    st.booleans(),
)  # fmt: skip
COEFFICIENT = st.one_of(st.just(0.0), st.floats(1e-6, 1e3))


@settings(max_examples=150)
@given(
    st.lists(STEP, min_size=1, max_size=12), st.sampled_from(list(CoreReward)),
    st.tuples(*[COEFFICIENT] * 7), st.integers(1, 40),
)  # fmt: skip
def test_every_term_of_any_step(
    steps: list[Step], core: CoreReward, coefficients: tuple[float, ...], bars: int
) -> None:
    """Each by its own rule alone, 0 with a coefficient of 0, and the reward is their sum."""
    weight, idleness, realized, overtrading, trail, early, termination = coefficients
    config = RewardConfig(
        core=core, core_weight=weight, idleness=idleness, realized_profit=realized,
        overtrading=overtrading, overtrading_bars=bars, trail=trail, early_close=early,
        termination=termination,
    )  # fmt: skip
    capital, last_entry = 10**6, None
    c, m, changes = records(config)
    other, n, more = records(config)
    steps = [
        s._replace(bar=bar) for s, bar in zip(steps, sorted(s.bar for s in steps), strict=True)
    ]
    for s in steps:
        terms = np.full(len(TERMS), np.nan)
        reward = float(pay(
            c, m, changes, terms, capital, s.bar, s.before, s.after, s.net, s.flat, s.entered,
            s.moved, s.early, s.terminated,
        ))  # fmt: skip
        told = dict(zip(TERMS, terms.tolist(), strict=True))
        expected = {
            "core": weight * float(core_reward(other, n, more, s.before, s.after, capital)),
            "idleness": -idleness * s.flat,
            "realized_profit": realized * (s.net / capital if s.net > 0 else 0.0),
            "overtrading": 0.0,
            "trail": trail * min(s.moved, 1.0),
            "early_close": -early * s.early,
            "termination": -termination * s.terminated,
        }
        if s.entered:
            if last_entry is not None and s.bar - last_entry < bars:
                expected["overtrading"] = -overtrading * (1 - (s.bar - last_entry) / bars)
            last_entry = s.bar
        assert told == pytest.approx(expected, rel=1e-12, abs=1e-15)
        total = 0.0
        for name in TERMS:
            total += told[name]
        assert reward == total
        for coefficient, name in zip(coefficients, TERMS, strict=True):
            assert coefficient != 0.0 or told[name] == 0.0


def test_the_profit_factor_begins_anew_with_an_episode() -> None:
    """Room that an episode before has used is not read."""
    m, changes = np.zeros(1, PAID)[0], np.full(8, 1e9)
    assert [float(profit_factor(m, changes, x)) for x in (-1.0, 1.0, 2.0)] == [-1.0, 0.0, 0.5]


# --- in the environment -------------------------------------------------------------------------

LOUD: dict[str, Any] = {
    "core_weight": 1.5, "idleness": 0.013, "realized_profit": 3.0, "overtrading": 0.21,
    "overtrading_bars": 9, "trail": 0.37, "early_close": 0.41, "early_distance": 0.2,
    "termination": 0.59, "profit_window": 16, "eta": 0.05,
}  # fmt: skip


def stock(**fields: Any) -> Instrument:
    made = {
        "symbol": "SPY", "type": InstrumentType.STOCK, "lot_size": 1, "tick_size": Decimal("0.01"),
        "currency": "USD", "timezone": "America/New_York",
        "brokerage": Brokerage(entry=Decimal("0.50"), exit=Decimal("0.25")),
        "trail": TrailBp(bp=20),
    }  # fmt: skip
    return Instrument(**{**made, **fields})


def bundled() -> BarBlock:
    """The minutes of SPY that come with the package, in cents."""
    table = pq.read_table(ROOT / "replay" / "bars" / "spy_1m_2020.parquet")
    ts = table["ts"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    o, h, lo, c = (
        np.rint(table[name].to_numpy() * 100).astype(np.int64)
        for name in ("open", "high", "low", "close")
    )
    last = np.append(ts[1:] // DAY != ts[:-1] // DAY, True)
    volume = table["volume"].to_numpy().astype(np.int64)
    return BarBlock(ts, np.full(len(ts), MINUTE), o, h, lo, c, volume, last.astype(np.uint8))


def bars(*rows: tuple[int, int, int, int] | int, gap: tuple[int, int] | None = None) -> BarBlock:
    """Minutes of (open, high, low, close), or of one price; `gap`: (index, extra ns before it)."""
    count = len(rows)
    ts = np.arange(count, dtype=np.int64) * MINUTE
    if gap is not None:
        ts[gap[0] :] += gap[1]
    quads = [row if isinstance(row, tuple) else (row,) * 4 for row in rows]
    prices = [np.array(column, np.int64) for column in zip(*quads, strict=True)]
    return BarBlock(
        ts, np.full(count, MINUTE), *prices, np.full(count, 9), np.zeros(count, np.uint8)
    )  # fmt: skip


def make(data: BarBlock, instrument: Instrument | None = None, **given: Any) -> TradingEnv:
    reward = {"core": "log_return", **LOUD, **given.pop("reward", {})}
    fields = {
        "capital": "1000", "max_quantity": 3, "lookback": 0, "warmup": 0, "regime_windows": (16,),
        "window": 2, "episode_bars": None, "max_gap": "400d", "reward": reward,
    }  # fmt: skip
    return TradingEnv(ArraySource(instrument or stock(), data), **{**fields, **given})


def buy(lots: int = 1) -> int:
    return 1 + lots


def sell(lots: int = 1) -> int:
    return 4 + lots


class Shot(NamedTuple):
    """A stock position at a close, from the engine's slot, and equity in money units."""

    side: int
    units: int
    entry: int
    stop: int
    width: int
    price: int
    cash: int

    @property
    def equity(self) -> int:
        worth = self.price if self.side > 0 else 2 * self.entry - self.price
        return self.cash + (worth * self.units if self.side else 0)

    @property
    def unrealized(self) -> int:
        return self.side * (self.price - self.entry) * self.units

    @property
    def distance(self) -> float:
        if not self.side:
            return -math.inf
        return max(-3.0, min(3.0, self.side * (self.price - self.stop) / self.width))


def shot(env: TradingEnv) -> Shot:
    """At a tick of one cent, whose money unit is one cent."""
    s = env.core.slots[0]
    names = ("side", "units", "entry_price", "stop", "width", "last_price", "cash")
    return Shot(*(int(s[name]) for name in names))


class Account:
    """The second computation of an episode, fed with shots and events."""

    def __init__(self, config: RewardConfig, first: Shot) -> None:
        self.config, self.capital = config, first.cash
        self.shots = [first]
        self.entry: int | None = None
        self.fee = 0

    def step(self, now: Shot, events: list[Any], *, terminated: bool) -> dict[str, float]:
        """The shaping terms of the step that ends with `now`."""
        c, before = self.config, self.shots[-1]
        self.shots.append(now)
        step = len(self.shots) - 1
        ends = [e for e in events if isinstance(e, PositionSettled)]
        fills = [e for e in events if isinstance(e, OrderFilled)]
        entered = any(e.effect == "entry" for e in fills)
        ends += [e for e in fills if e.effect == "exit"]
        net = 0
        for event in events:
            if event in ends:
                net += (event.realized_pnl or 0) - event.brokerage - self.fee
            elif isinstance(event, OrderFilled):
                self.fee = event.brokerage
        ordered = any(isinstance(e, OrderFilled) and e.reason == "order" for e in ends)
        held = before.side != 0 and now.side == before.side and not ends
        terms = dict.fromkeys(TERMS[1:], 0.0)
        if now.side == 0:
            terms["idleness"] = -c.idleness
        if net > 0:
            terms["realized_profit"] = c.realized_profit * net / self.capital
        if entered:
            if self.entry is not None and step - self.entry < c.overtrading_bars:
                terms["overtrading"] = -c.overtrading * (
                    1 - (step - self.entry) / c.overtrading_bars
                )
            self.entry = step
        if held and now.unrealized > 0:
            moved = now.side * (now.stop - before.stop) / now.width
            terms["trail"] = c.trail * min(1.0, moved)
        if ordered and before.unrealized > 0 and before.distance >= c.early_distance:
            terms["early_close"] = -c.early_close
        if terminated:
            terms["termination"] = -c.termination
        return terms

    def cores(self) -> list[float]:
        """The core term of every step so far."""
        equity = [s.equity for s in self.shots]
        return [
            self.config.core_weight * r for r in core_rewards(equity, self.config, self.capital)
        ]


def added(terms: dict[str, float]) -> float:
    """In the order of the terms: what a step adds up."""
    total = 0.0
    for name in TERMS:
        total += terms[name]
    return total


def play(env: TradingEnv, actions: Any, **options: Any) -> list[dict[str, float]]:
    """An episode, every step checked against the second computation; its terms.

    Args:
        actions: joint actions; or a generator, and the actions are drawn.
    """
    _, info = env.reset(seed=SEED, options=options or None)
    assert info["reward_terms"] == dict.fromkeys(TERMS, 0.0)
    account = Account(env.config.reward, shot(env))
    told = []
    rng = actions if isinstance(actions, np.random.Generator) else None
    given = iter([] if rng is not None else actions)
    over = False
    while not over:
        if rng is not None:
            draw, mask = rng.random(), env.action_masks()
            action = HOLD if draw < 0.6 else int(rng.choice(np.flatnonzero(mask)))
        else:
            action = next(given, HOLD)
        _, reward, terminated, truncated, info = env.step(action)
        terms = info["reward_terms"]
        assert tuple(terms) == TERMS
        now = shot(env)
        assert info["equity"] == pytest.approx(now.equity / 100)
        expected = account.step(now, env.events, terminated=terminated)
        assert {n: terms[n] for n in TERMS[1:]} == pytest.approx(expected, rel=1e-9, abs=1e-12), (
            len(told), action,
        )  # fmt: skip
        assert reward == added(terms)
        told.append(terms)
        over = terminated or truncated
    assert [terms["core"] for terms in told] == pytest.approx(account.cores(), rel=1e-7, abs=1e-10)
    return told


def nonzero(told: list[dict[str, float]], name: str) -> list[int]:
    """Steps, from 0, at which a term is not 0."""
    return [k for k, terms in enumerate(told) if terms[name] != 0.0]


@pytest.mark.parametrize("core", list(CoreReward))
def test_an_episode_on_real_bars(core: CoreReward) -> None:
    """Random play over all the bundled bars: every term of every step, and every term occurs."""
    rng = np.random.default_rng([SEED, KINDS[core]])
    seen: set[str] = set()
    for enforced in (False, True):
        instrument = stock(enforce_trailing_stop=enforced, slippage_ticks=int(enforced))
        env = make(bundled(), instrument, reward={"core": core}, drawdown_limit_bp=400)
        for _ in range(4):
            bar = int(rng.integers(1000))
            told = play(env, rng, bar=bar, bars=500)
            seen |= {name for name in TERMS if nonzero(told, name)}
    assert seen >= set(TERMS) - {"termination"}


@pytest.mark.parametrize("core", list(CoreReward))
def test_coefficients_of_zero_leave_nothing(core: CoreReward) -> None:
    """No shaping, no core: rewards of exactly 0, whatever is done."""
    quiet = dict.fromkeys(TERMS[1:], 0.0) | {"core_weight": 0.0}
    env = make(bundled(), reward={"core": core, **quiet})
    told = play(env, np.random.default_rng(SEED), bar=5, bars=300)
    assert all(value == 0.0 for terms in told for value in terms.values())


def test_log_returns_add_up_to_the_return_of_the_episode() -> None:
    """And pnl to its P&L: nothing is paid twice, nothing is lost between two steps."""
    for core in ("log_return", "pnl"):
        env = make(bundled(), reward={"core": core, "core_weight": 1.0})
        told = play(env, np.random.default_rng(SEED), bar=0, bars=1000)
        last = shot(env).equity
        total = math.fsum(terms["core"] for terms in told)
        wanted = math.log(last / 100_000) if core == "log_return" else (last - 100_000) / 100_000
        assert total == pytest.approx(wanted, rel=1e-9)
        assert wanted != 0.0


def test_a_second_episode_remembers_nothing_of_the_first() -> None:
    """Averages, window of gains, and the last entry begin anew."""
    for core in CoreReward:
        env = make(bundled(), reward={"core": core})
        rng = np.random.default_rng(SEED)
        actions = rng.choice([HOLD, CLOSE, buy(), sell(2)], 200, p=[0.5, 0.2, 0.15, 0.15]).tolist()
        first = play(env, actions, bar=30, bars=200)
        play(env, np.random.default_rng(7), bar=700, bars=100)
        assert play(env, actions, bar=30, bars=200) == first


def test_idle_is_a_step_that_ends_flat() -> None:
    """Whatever happened in it: the step of the entry is none, that of the exit is one."""
    env = make(bars(*[10_000] * 8))
    told = play(env, [HOLD, buy(), HOLD, CLOSE])
    assert nonzero(told, "idleness") == [0, 3, 4, 5, 6]
    assert {told[k]["idleness"] for k in (0, 3, 6)} == {-LOUD["idleness"]}


def test_only_a_realised_net_profit_is_paid() -> None:
    """At the exit alone, less both brokerages: 50 and 25 units leave nothing of 75, and 1 of 76."""
    for profit in (-10, 0, 75, 76, 400):
        told = play(make(bars(*[10_000] * 3, *[10_000 + profit] * 4)), [buy(), HOLD, HOLD, CLOSE])
        paid = LOUD["realized_profit"] * max(0, profit - 75) / 100_000
        assert [terms["realized_profit"] for terms in told] == pytest.approx([0, 0, 0, paid, 0, 0])
        assert nonzero(told, "realized_profit") == ([3] if profit > 75 else [])


def test_a_stop_that_closes_with_a_profit_is_realised_too_but_not_early() -> None:
    """Whoever closed it; only an order can be early."""
    rising = [(10_000, 10_000, 10_000, 10_000)] * 2 + [(10_000, 10_500, 10_000, 10_500)]
    falling = [(10_500, 10_500, 10_300, 10_300), (10_300,) * 4]
    env = make(bars(*rising, *falling), stock(enforce_trailing_stop=True))
    told = play(env, [buy()])
    assert nonzero(told, "realized_profit") == [2]
    assert not nonzero(told, "early_close")


def test_an_entry_soon_after_another_costs_the_more_the_sooner() -> None:
    """The first is free; the bars between two entries count, and beyond `overtrading_bars` nothing."""
    for wait in range(2, 12):
        actions = [buy(), CLOSE, *[HOLD] * (wait - 2), sell(), HOLD]
        told = play(make(bars(*[10_000] * 16)), actions)
        cost = LOUD["overtrading"] * max(0.0, 1 - wait / LOUD["overtrading_bars"])
        assert nonzero(told, "overtrading") == ([wait] if wait < 9 else [])
        assert told[wait]["overtrading"] == pytest.approx(-cost)


def test_a_rejected_entry_is_none() -> None:
    """What the engine refuses costs nothing and starts no clock."""
    env = make(bars(*[10_000] * 12))
    told = play(env, [buy(), buy(), buy(), CLOSE, HOLD, sell()])
    assert nonzero(told, "overtrading") == [5]
    assert told[5]["overtrading"] == pytest.approx(-LOUD["overtrading"] * (1 - 5 / 9))


def test_the_trail_is_paid_while_it_moves_and_the_position_earns() -> None:
    """In widths, at most one; not at the entry, not standing still, not below the entry price."""
    width = 21  # 20 basis points of 10,000 to 10,500, rounded up: 20 to 21 ticks
    path = [10_000, 10_000, 10_010, 10_010, 10_005, 10_200, 9_990, 9_995]
    told = play(make(bars(*path)), [buy()])
    assert nonzero(told, "trail") == [1, 4]
    assert told[1]["trail"] == pytest.approx(LOUD["trail"] * 9 / width)  # the wider stop: 10 - 1
    assert told[4]["trail"] == LOUD["trail"]
    falling = [10_000, 10_000, 9_990, 9_990, 9_995, 9_800, 10_010, 10_005]
    told = play(make(bars(*falling)), [sell()])
    assert nonzero(told, "trail") == [1, 4]
    assert told[1]["trail"] == pytest.approx(LOUD["trail"] * 10 / 20)


def test_a_trail_that_moved_for_a_loss_is_not_paid() -> None:
    """The best price of the bar moves the stop; at its close the position does not earn."""
    path = [10_000, 10_000, (10_000, 10_015, 9_990, 9_995), 9_995]
    env = make(bars(*path))
    told = play(env, [buy()])
    assert not nonzero(told, "trail")


def test_closing_early_is_closing_far_from_the_stop_with_a_profit() -> None:
    """As it stood when the order was given, not when it was filled."""
    width = 21
    for fall, early in [(0, True), (int(0.8 * width), True), (width, False)]:
        # The best price 10,100 first, then back by `fall`: distance 1 - fall / width.
        path = [10_000, 10_000, 10_100, 10_100 - fall, 9_000, 9_000]
        told = play(make(bars(*path)), [buy(), HOLD, HOLD, CLOSE])
        assert nonzero(told, "early_close") == ([3] if early else []), fall
    told = play(make(bars(10_000, 10_000, 9_999, 10_100, 10_100)), [buy(), HOLD, CLOSE])
    assert not nonzero(told, "early_close"), "without a profit at the decision"
    told = play(make(bars(10_000, 10_000, 10_100, 10_100, 10_100)), [buy(), HOLD])
    assert not nonzero(told, "early_close"), "nobody closed it"


def test_termination_by_drawdown_is_paid_once_and_truncation_never() -> None:
    """Strictly beyond the limit; the end of the data costs nothing."""
    at_limit = make(bars(10_000, 10_000, 8_000, 8_000), stock(brokerage=Brokerage()),
                    capital="100", drawdown_limit_bp=2000)  # fmt: skip
    told = play(at_limit, [buy()])
    assert len(told) == 3
    assert not nonzero(told, "termination")
    beyond = make(bars(10_000, 10_000, 7_999, 8_000), stock(brokerage=Brokerage()),
                  capital="100", drawdown_limit_bp=2000)  # fmt: skip
    told = play(beyond, [buy()])
    assert len(told) == 2
    assert nonzero(told, "termination") == [1]
    assert told[1]["termination"] == -LOUD["termination"]


def test_termination_by_ruin_without_equity() -> None:
    """A short that a gap takes below nothing: the log return is floored at one unit."""
    env = make(
        bars(10_000, 10_000, 21_000, 21_000), stock(brokerage=Brokerage()), capital="100",
        drawdown_limit_bp=1_000_000,
    )  # fmt: skip
    told = play(env, [sell()])
    assert nonzero(told, "termination") == [1]
    assert shot(env).equity < 1
    assert told[1]["core"] == pytest.approx(LOUD["core_weight"] * math.log(1 / 10_000))
    _, info = env.reset(options={"bar": 0})
    for action in (sell(), HOLD):
        *_, terminated, _, info = env.step(action)
    assert terminated
    assert info["end_reason"] == "ruin"


def test_termination_by_ruin_with_cash_for_no_lot() -> None:
    """Flat, and not one lot of the cheaper side can be paid: nothing can happen any more."""
    env = make(
        bars(9_900, 9_900, 9_500, 9_500, 9_500, 9_900), stock(brokerage=Brokerage()), capital="100",
        drawdown_limit_bp=9_999,
    )  # fmt: skip
    told = play(env, [buy(), HOLD, CLOSE])
    assert nonzero(told, "termination") == [4], "cash of 9,600 buys at 9,500, not at 9,900"
    assert nonzero(told, "idleness") == [2, 3, 4]


def test_a_gap_truncates_and_costs_nothing() -> None:
    """Running out of data, or of an order's life, is no failure of the policy."""
    env = make(bars(*[10_000] * 6, gap=(4, 9 * DAY)), max_gap="7d")
    told = play(env, [buy()])
    assert len(told) == 3
    assert not nonzero(told, "termination")
