"""What a curve of equity says of whoever made it: return, Sharpe, Sortino, drawdown, and how sure that is.

Everything is measured on the returns of days, r_d = E_d / E_{d-1} - 1, E_d the equity at the last
close of a trading date, the capital before the first; nothing is earned behind ruin. A riskless
asset earns nothing here.

    Sharpe    sqrt(252) mean(r) / s(r)                   s with n - 1 (Sharpe 1994)
    Sortino   sqrt(252) mean(r) / sqrt(mean(min(r, 0)^2))  (Sortino and Price 1994, target 0)
    drawdown  max_t (1 - E_t / max_{u <= t} E_u)         at closes, the capital included

What cannot be said (one day, no loss, no move) is None, never a number that looks like one.
"""

from __future__ import annotations

from math import e, sqrt
from statistics import NormalDist

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DAYS_A_YEAR = 252
LEAST_DAYS = 20
"""Fewer days than these give no interval: resampling so few says more than is known."""
RESAMPLES = 4_000
_EULER = 0.5772156649015329
_NORMAL = NormalDist()


def daily_returns(equity: Floats, days: npt.NDArray[np.int64]) -> Floats:
    """Simple returns of the dates in `days`.

    Args:
        equity: ratio to the capital at every close, [T].
        days: date of every close, not decreasing, [T].

    Returns:
        One number a date, in order.
    """
    last = np.append(days[1:] != days[:-1], True)
    return returns_of(equity[last])


def returns_of(equity: Floats) -> Floats:
    """Simple returns between values of equity, the first against a capital of 1."""
    values = np.append(1.0, equity)
    values[np.logical_or.accumulate(values <= 0)] = 0.0
    before = values[:-1]
    ratio: Floats = np.divide(values[1:], before, out=np.ones(len(before)), where=before > 0)
    return ratio - 1.0


def sharpe(returns: Floats) -> float | None:
    """Annualised Sharpe ratio of daily returns; None: fewer than two days, or no move."""
    daily = daily_sharpe(returns)
    return None if daily is None else sqrt(DAYS_A_YEAR) * daily


def daily_sharpe(returns: Floats) -> float | None:
    """Mean over standard deviation of daily returns, as `sharpe`."""
    if len(returns) < 2 or not _moves(returns):
        return None
    return float(returns.mean() / returns.std(ddof=1))


def _moves(returns: Floats) -> bool:
    return bool((returns != returns[0]).any())


def sortino(returns: Floats) -> float | None:
    """Annualised Sortino ratio of daily returns; None: fewer than two days, or no loss."""
    if len(returns) < 2 or not (returns < 0).any():
        return None
    downside = sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return sqrt(DAYS_A_YEAR) * float(returns.mean()) / downside


def max_drawdown(equity: Floats) -> float:
    """Largest fall from a peak, as a share of the peak; more than 1 where debts are left.

    Args:
        equity: ratio to the capital at every close, [T].
    """
    values = np.append(1.0, equity)
    return float(np.max(1.0 - values / np.maximum.accumulate(values)))


class Interval(msgspec.Struct, frozen=True):
    """A mean, and where it lies with 95 %; `low` and `high` None: too few days to tell."""

    mean: float | None
    low: float | None
    high: float | None


class Bootstrap:
    """The stationary bootstrap over days (Politis and Romano 1994).

    A resample is made of blocks of days that follow each other, round the end to the beginning;
    a block ends at each day with probability 1 / `block`. So what one day has of the day before
    is kept. Every series is resampled at the same days: differences are paired.

    Args:
        days: of the series.
        seed: of the resamples.
        block: mean length of a block, days; None: the cube root of their number.
        resamples: how many.
    """

    def __init__(
        self, days: int, *, seed: int, block: float | None = None, resamples: int = RESAMPLES
    ) -> None:
        self.days, self.resamples = days, resamples
        self.block = max(1.0, round(days ** (1 / 3))) if block is None else block
        draws = np.random.default_rng([seed, 3])
        # How often each day is in each resample: a mean needs no more.
        self._counts = np.zeros((resamples, days))
        rows, at = np.arange(resamples), draws.integers(max(1, days), size=resamples)
        for _ in range(days):
            self._counts[rows, at] += 1.0
            fresh = draws.integers(days, size=resamples)
            ends = draws.random(resamples) < 1.0 / self.block
            at = np.where(ends, fresh, (at + 1) % days)

    def mean(self, series: Floats) -> Interval:
        """The mean of a daily series, with its 95 % interval (percentiles of the resamples).

        Args:
            series: [days].
        """
        if len(series) != self.days:
            raise ValueError(f"{len(series)} days, not {self.days}")
        if not self.days:
            return Interval(None, None, None)
        mean = float(series.mean())
        if self.days < LEAST_DAYS:
            return Interval(mean, None, None)
        if not _moves(series):
            return Interval(mean, mean, mean)
        low, high = np.quantile(self._counts @ series / self.days, (0.025, 0.975))
        return Interval(mean, float(low), float(high))


def deflated_sharpe(returns: Floats, trials: int) -> float | None:
    """Probability that the Sharpe ratio is above what the best of `trials` without skill would show.

    The deflated Sharpe ratio of Bailey and Lopez de Prado (2014). Their variance of the trials'
    ratios is not known here; an estimate of a ratio of 0 has 1 / (n - 1).

    Args:
        returns: daily, [n].
        trials: configurations that were tried, more than one.

    Returns:
        0 to 1; None: fewer days than `LEAST_DAYS`, or no move.
    """
    ratio = daily_sharpe(returns)
    if ratio is None or len(returns) < LEAST_DAYS:
        return None
    centred = returns - returns.mean()
    deviation = sqrt(float(np.mean(centred**2)))
    skew = float(np.mean(centred**3)) / deviation**3
    kurtosis = float(np.mean(centred**4)) / deviation**4
    days = len(returns)
    return probabilistic_sharpe(ratio, best_of(trials, 1.0 / (days - 1)), days, skew, kurtosis)


def best_of(trials: int, variance: float) -> float:
    """The highest Sharpe ratio to expect of `trials` without skill (their equation 1).

    Args:
        trials: more than one.
        variance: of their ratios.
    """
    quantile = _NORMAL.inv_cdf
    return sqrt(variance) * (
        (1.0 - _EULER) * quantile(1.0 - 1.0 / trials) + _EULER * quantile(1.0 - 1.0 / (trials * e))
    )


def probabilistic_sharpe(
    ratio: float, benchmark: float, days: int, skew: float, kurtosis: float
) -> float:
    """Probability that a true ratio is above `benchmark` (their equation 2).

    Args:
        ratio, benchmark: of a day, not of a year.
        days: that `ratio` was measured on.
        skew, kurtosis: of the returns; 0 and 3 of a normal distribution.
    """
    spread = 1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    # Two outcomes that differ alone can make it 0: then nothing is left to chance.
    if spread <= 0:
        return 1.0 if ratio > benchmark else 0.0
    return _NORMAL.cdf((ratio - benchmark) * sqrt(days - 1) / sqrt(spread))
