"""The portfolio against a slow computation of it, day by day, on charts whose days differ."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from math import sqrt
from statistics import fmean, stdev

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.env.passage import Stretch, stretches  # noqa: E402
from streambot.env.settings import make_config  # noqa: E402
from streambot.learning.playing import CONTROLS, Played, play, scripted  # noqa: E402
from streambot.learning.results import Result, Results, bar_dates  # noqa: E402
from tests.three_markets import (  # noqa: E402
    BARS_A_DAY,
    FIRST_DAY,
    SETTINGS,
    SYMBOLS,
    days_of,
    three_markets,
)
from tests.trained import Given  # noqa: E402

pytestmark = pytest.mark.train
ENV = make_config(SETTINGS | {"drawdown_limit_bp": 150})
DAY = 86_400 * 10**9


class World:
    """What was played, and what is measured of it."""

    def __init__(self, market: Given) -> None:
        self.segments = market.segments
        self.spans: list[Stretch] = stretches(self.segments, ENV, None, None)[0]
        contenders = {name: scripted(name, seed=4) for name in CONTROLS}
        self.played = {p.name: p for p in play(self.segments, ENV, self.spans, contenders)}
        self.results = Results(self.segments, self.spans, list(self.played.values()), seed=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(three_markets(tmp_path_factory.mktemp("three")))


def moments(played: Played) -> Iterator[tuple[int, float]]:
    """Mean ratio of all accounts to their capital, at every close of any of them."""
    ratios = [1.0] * len(played.accounts)
    events = sorted(
        (int(ts), k, int(equity) / account.capital)
        for k, account in enumerate(played.accounts)
        for ts, equity in zip(account.closes[1:], account.equity[1:], strict=True)
    )
    for at, (ts, k, ratio) in enumerate(events):
        ratios[k] = ratio
        if at + 1 == len(events) or events[at + 1][0] != ts:
            yield ts, fmean(ratios)


@pytest.mark.parametrize("name", CONTROLS)
def test_the_portfolio_by_hand(name: str, world: World) -> None:
    path = list(moments(world.played[name]))
    last = {ts // DAY: ratio for ts, ratio in path}
    returns, before = [], 1.0
    for day in sorted(last):
        returns.append(last[day] / before - 1)
        before = last[day]
    found = next(r for r in world.results.portfolio() if r.policy == name)
    assert world.results.dates.tolist() == sorted(last)
    assert found.returns == pytest.approx(returns, abs=1e-12)
    assert found.days == len(returns)
    assert found.total_return == pytest.approx(path[-1][1] - 1, abs=1e-12)
    peak, worst = 1.0, 0.0
    for _, ratio in path:
        peak = max(peak, ratio)
        worst = max(worst, 1 - ratio / peak)
    assert found.max_drawdown == pytest.approx(worst, abs=1e-12)
    if name == "flat":
        assert found.sharpe is None
        assert (found.total_return, found.turnover, found.exposure, found.brokerage) == (0, 0, 0, 0)
    else:
        assert found.sharpe == pytest.approx(sqrt(252) * fmean(returns) / stdev(returns))
    assert found.daily.mean == pytest.approx(fmean(returns), abs=1e-12)


def test_sums_and_shares_of_the_portfolio(world: World) -> None:
    """Counts add up over the instruments; shares of the capital are their mean."""
    single = world.results.by_instrument()
    assert [(r.instrument, r.policy) for r in single] == [(s, c) for s in SYMBOLS for c in CONTROLS]
    for whole in world.results.portfolio():
        own = [r for r in single if r.policy == whole.policy]
        for name in ("fills", "trades", "round_trips", "settled"):
            assert getattr(whole, name) == sum(getattr(r, name) for r in own)
        for name in ("turnover", "brokerage", "exposure", "total_return"):
            assert getattr(whole, name) == pytest.approx(fmean(getattr(r, name) for r in own))
        assert whole.breached == tuple(r.instrument for r in own if r.breached)
        for result in own:
            account = next(
                a for a in world.played[whole.policy].accounts
                if a.instrument.symbol == result.instrument
            )  # fmt: skip
            assert result.brokerage_paid == f"{account.brokerage / 100:.2f}"
            assert result.brokerage == account.brokerage / account.capital
            assert result.currency == "EUR"
            assert result.days == len(days_of(result.instrument)) - 20 // BARS_A_DAY
    assert any(r.breached for r in single)


def test_differences_are_those_of_the_days(world: World) -> None:
    for results in (world.results.portfolio(), world.results.by_instrument()[: len(CONTROLS)]):
        named: dict[str, Result] = {r.policy: r for r in results}
        held = named["buy-hold"]
        for result in results:
            assert result.less_flat == result.daily
            assert result.less_buy_hold.mean == pytest.approx(
                fmean(a - b for a, b in zip(result.returns, held.returns, strict=True)), abs=1e-12
            )
        assert (held.less_buy_hold.low, held.less_buy_hold.high) == (0, 0)
        random = named["random"]
        assert random.daily.low < random.daily.mean < random.daily.high


def test_dates_are_the_exchanges(world: World) -> None:
    for span in world.spans:
        dates = bar_dates(world.segments, span)
        symbol = world.segments.head.instruments[span.instrument].symbol
        every = np.repeat(days_of(symbol), BARS_A_DAY)
        assert dates.tolist() == every[span.first : span.last + 1].tolist()
        assert dt.date(1970, 1, 1) + dt.timedelta(days=FIRST_DAY) == dt.date(2019, 4, 14)
