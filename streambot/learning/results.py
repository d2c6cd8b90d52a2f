"""Measures of contenders on every instrument, and on the portfolio of them.

The portfolio gives every instrument the same capital at the start and shifts nothing afterwards: its
equity is the mean of the instruments' ratios to their capital, each in its own currency. An
instrument that has not begun counts 1, one that is over keeps its last value.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.data.days import DayWalker, clock_of
from streambot.data.rows import Bars
from streambot.domain.units import exact_decimal
from streambot.learning.measures import (
    Bootstrap,
    Interval,
    daily_returns,
    max_drawdown,
    returns_of,
    sharpe,
    sortino,
)
from streambot.learning.playing import BUY_HOLD, FLAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streambot.data.segments import Segments
    from streambot.env.passage import Account, Stretch
    from streambot.learning.playing import Played

Floats = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one contender did on one instrument, or on all of them.

    Attributes:
        policy: its name.
        instrument: symbol; None: the portfolio.
        days: trading dates.
        total_return, max_drawdown: shares of the capital, and of the peak.
        sharpe, sortino: see `measures`; None: cannot be said.
        turnover: value of all fills / capital.
        fills, trades, round_trips, settled: fills; positions opened; closed by a fill; settled.
        brokerage: share of the capital.
        brokerage_paid: with `currency`, exact; None on the portfolio.
        exposure: share of the bars at whose close a position was open.
        rejected, expired: orders by reason.
        breached: symbols whose drawdown went beyond the limit; they were halted.
        daily: mean return of a day.
        less_buy_hold, less_flat: mean difference of a day to these controls; None: they did not play.
        returns: of the days.
    """

    policy: str
    instrument: str | None
    currency: str | None
    days: int
    total_return: float
    sharpe: float | None
    sortino: float | None
    max_drawdown: float
    turnover: float
    fills: int
    trades: int
    round_trips: int
    settled: int
    brokerage: float
    brokerage_paid: str | None
    exposure: float
    rejected: dict[str, int]
    expired: dict[str, int]
    breached: tuple[str, ...]
    daily: Interval
    less_buy_hold: Interval | None
    less_flat: Interval | None
    returns: tuple[float, ...]


def bar_dates(segments: Segments, span: Stretch) -> Int64Array:
    """Trading date of every bar of a stretch, days since 1970-01-01, by the rule of `data.days`."""
    bars = segments.bars_of(span.instrument)
    walker = DayWalker(clock_of(segments.head.instruments[span.instrument]), drop_fillers=False)
    walker.add(
        Bars(*(
            np.ascontiguousarray(bars[name][span.first : span.last + 1])
            for name in ("open_ts", "open", "high", "low", "close", "volume")
        ))
    )  # fmt: skip
    days = walker.days()
    return np.repeat(days[:, 0], days[:, 3])


class Results:
    """Measures what was played.

    Args:
        segments, spans: of the play.
        played: its outcome.
        seed: of the bootstrap.

    Attributes:
        dates: trading dates of any instrument, days since 1970-01-01, int64.
        lots: see `Account.lots`, of every stretch.
    """

    def __init__(
        self, segments: Segments, spans: Sequence[Stretch], played: Sequence[Played], *, seed: int
    ) -> None:
        self._played, self._seed = played, seed
        self._dates = [bar_dates(segments, span)[1:] for span in spans]
        self._closes = [account.closes[1:] for account in played[0].accounts]
        self.dates = np.unique(np.concatenate(self._dates))
        self.lots = tuple(account.lots for account in played[0].accounts)
        self._bootstraps: dict[int, Bootstrap] = {}

    def bootstrap(self, days: int) -> Bootstrap:
        """The resamples for series of so many days."""
        if days not in self._bootstraps:
            self._bootstraps[days] = Bootstrap(days, seed=self._seed)
        return self._bootstraps[days]

    def portfolio(self) -> list[Result]:
        """Every contender on all instruments together."""
        returns = {p.name: self.daily(p.name) for p in self._played}
        return [
            self._result(p, p.accounts, None, returns, self._portfolio_curve(p))
            for p in self._played
        ]

    def daily(self, name: str) -> Floats:
        """Returns of a contender's portfolio, of every date."""
        return self._portfolio_returns(next(p for p in self._played if p.name == name))

    def by_instrument(self) -> list[Result]:
        """Every contender on every instrument, instrument by instrument."""
        results = []
        for k, dates in enumerate(self._dates):
            returns = {p.name: daily_returns(_ratio(p.accounts[k]), dates) for p in self._played}
            for p in self._played:
                account = p.accounts[k]
                results.append(
                    self._result(p, [account], account.instrument.symbol, returns, _ratio(account))
                )
        return results

    def _portfolio_returns(self, played: Played) -> Floats:
        total = np.zeros(len(self.dates))
        for account, dates in zip(played.accounts, self._dates, strict=True):
            total += _carried(self.dates, dates, _ratio(account))
        return returns_of(total / len(played.accounts))

    def _portfolio_curve(self, played: Played) -> Floats:
        """At every close of any instrument."""
        moments = np.unique(np.concatenate(self._closes))
        total = np.zeros(len(moments))
        for account, closes in zip(played.accounts, self._closes, strict=True):
            total += _carried(moments, closes, _ratio(account))
        return total / len(played.accounts)

    def _result(
        self,
        played: Played,
        accounts: Sequence[Account],
        symbol: str | None,
        returns: Mapping[str, Floats],
        curve: Floats,
    ) -> Result:
        own, count = returns[played.name], len(accounts)
        mean = self.bootstrap(len(own)).mean
        trades = [account.trades for account in accounts]
        one = accounts[0]

        def less(control: str) -> Interval | None:
            return mean(own - returns[control]) if control in returns else None

        return Result(
            policy=played.name,
            instrument=symbol,
            currency=None if symbol is None else one.instrument.currency,
            days=len(own),
            total_return=float(curve[-1]) - 1.0,
            sharpe=sharpe(own),
            sortino=sortino(own),
            max_drawdown=max_drawdown(curve),
            turnover=sum(a.trades.traded / a.capital for a in accounts) / count,
            fills=sum(t.fills for t in trades),
            trades=sum(t.entries for t in trades),
            round_trips=sum(t.exits for t in trades),
            settled=sum(t.settled for t in trades),
            brokerage=sum(a.brokerage / a.capital for a in accounts) / count,
            brokerage_paid=(
                None
                if symbol is None
                else exact_decimal(one.brokerage, one.instrument.money_decimals)
            ),
            exposure=sum(a.held for a in accounts) / count,
            rejected=_summed(t.rejected for t in trades),
            expired=_summed(t.expired for t in trades),
            breached=tuple(a.instrument.symbol for a in accounts if a.trades.breached is not None),
            daily=mean(own),
            less_buy_hold=less(BUY_HOLD),
            less_flat=less(FLAT),
            returns=tuple(own.tolist()),
        )


def _ratio(account: Account) -> Floats:
    """Equity / capital at every close behind the first decision."""
    ratio: Floats = account.equity[1:] / account.capital
    return ratio


def _carried(moments: Int64Array, own: Int64Array, values: Floats) -> Floats:
    """The last of `values`, known at `own`, at each of `moments`; 1 before there is any."""
    at = np.searchsorted(own, moments, "right")
    return np.append(1.0, values)[at]


def _summed(counters: Iterable[Counter[str]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return dict(sorted(total.items()))
