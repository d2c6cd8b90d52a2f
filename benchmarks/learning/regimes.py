"""A synthetic market with regimes, and decisions in it whose best answer is known.

Returns r_t of unit scale come in segments of 40 bars and more, each in one regime:

    trend           r_t = d + 0.7 e_t,  d = +0.4 or -0.4, of either sign by the segment
    mean reversion  r_t = -0.6 r_{t-1} + 0.8 e_t
    volatile        r_t = 2.5 e_t
    quiet           r_t = 0.15 e_t

A decision sees the last 64 returns, takes a position in [-1, 1] for the next one, and pays for its
size. Each stands by itself, so what every position would have earned is known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.agents.naming import REGIMES

Floats = npt.NDArray[np.floating]

WINDOW, EVERY = 64, 3
POSITIONS = np.linspace(-1.0, 1.0, 7, dtype=np.float32)
COST = 0.05
"""Of a position of 1, for one bar."""
TREND, REVERTING = REGIMES.index("trend"), REGIMES.index("mean-reversion")
_NOISE = np.array([0.7, 0.8, 2.5, 0.15])
_SLOW_WINDOWS = (20, 63)
_CLIP = 10.0
LAGS = tuple(range(WINDOW))
SLOW = tuple(range(WINDOW, WINDOW + 4 * len(_SLOW_WINDOWS)))
FEATURES = WINDOW + len(SLOW)


class Shape(NamedTuple):
    """What the market is like.

    Attributes:
        drift: size of d.
        reversion: how much of a return comes back.
        shortest, longer: least length of a segment, and the mean of what is added to it, bars.
        only: number of the one regime that occurs; None: all do, alike.
    """

    drift: float = 0.4
    reversion: float = 0.6
    shortest: int = 40
    longer: int = 60
    only: int | None = None


STANDARD = Shape()


class Paths(NamedTuple):
    """Paths of the market.

    Attributes:
        returns: [paths, bars].
        regime: number of the regime in `REGIMES` of each bar, [paths, bars].
        drift: d of each bar, whatever its regime, [paths, bars].
    """

    returns: npt.NDArray[np.float64]
    regime: npt.NDArray[np.int64]
    drift: npt.NDArray[np.float64]


class Decisions(NamedTuple):
    """Decisions on paths, path by path in order of time.

    Attributes:
        obs: the last returns, oldest first, and slow features of them, [n, FEATURES].
        move: the next return, [n].
        regime: of the bar whose return is the next, [n].
        told: the expected next return, for who knows the regime and its drift, [n].
        path: number of the path, [n].
    """

    obs: Floats
    move: Floats
    regime: npt.NDArray[np.int64]
    told: Floats
    path: npt.NDArray[np.int64]

    def earned(self) -> Floats:
        """What every position earns at every decision, [n, positions]."""
        return self.move[:, None] * POSITIONS - COST * np.abs(POSITIONS)

    def oracle(self) -> float:
        """Mean expected reward of the best positions for who knows the regime and its drift."""
        return float(self.expected().max(1).mean())

    def expected(self) -> Floats:
        """What every position earns in expectation, given the regime and its drift, [n, positions]."""
        return self.told[:, None] * POSITIONS - COST * np.abs(POSITIONS)


def paths(
    rng: np.random.Generator,
    count: int,
    bars: int,
    shape: Shape = Shape(),  # noqa: B008  # a value
) -> Paths:
    """Random paths.

    Args:
        rng: where chance comes from.
        count, bars: how many, how long.
        shape: what the market is like.
    """
    only = shape.only
    regime = np.empty((count, bars), np.int64)
    drift = np.empty((count, bars))
    for p in range(count):
        at, sign = 0, rng.choice([-1.0, 1.0])
        while at < bars:
            end = at + shape.shortest + int(rng.geometric(1 / shape.longer))
            regime[p, at:end] = rng.integers(len(REGIMES)) if only is None else only
            sign *= rng.choice([-1.0, 1.0])
            drift[p, at:end] = sign * shape.drift
            at = end
    shock = rng.standard_normal((count, bars)) * _NOISE[regime]
    returns = np.where(regime == TREND, drift, 0.0) + shock
    for t in range(1, bars):
        back = regime[:, t] == REVERTING
        returns[back, t] -= shape.reversion * returns[back, t - 1]
    return Paths(returns, regime, drift)


def decisions(of: Paths, shape: Shape = STANDARD, *, every: int = EVERY) -> Decisions:
    """Decisions of each path, one in so many bars, from the first on that has seen enough."""
    count, bars = of.returns.shape
    at = np.arange(WINDOW, bars - 1, every)
    seen = np.lib.stride_tricks.sliding_window_view(of.returns, WINDOW, axis=1)[:, at - WINDOW]
    lags = np.clip(seen.reshape(-1, WINDOW), -_CLIP, _CLIP)
    regime = of.regime[:, at].reshape(-1)
    told = np.select(
        [regime == TREND, regime == REVERTING],
        [of.drift[:, at].reshape(-1), -shape.reversion * of.returns[:, at - 1].reshape(-1)],
    )
    return Decisions(
        obs=np.concatenate([lags, slow_features(lags)], 1).astype(np.float32),
        move=of.returns[:, at].reshape(-1).astype(np.float32),
        regime=regime,
        told=told.astype(np.float32),
        path=np.repeat(np.arange(count), len(at)),
    )


def slow_features(lags: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Volatility, autocorrelation, drift and efficiency as an environment shows them, without z-scores.

    Args:
        lags: [n, WINDOW], oldest first.

    Returns:
        [n, 8], of scales around 1.
    """
    columns = []
    for window in _SLOW_WINDOWS:
        some = lags[:, -window:]
        mean, deviation = some.mean(1), some.std(1).clip(1e-6)
        centred = some - mean[:, None]
        together = (centred[:, 1:] * centred[:, :-1]).sum(1)
        columns += [
            np.log(deviation),
            2.0 * together / (centred**2).sum(1).clip(1e-6),
            0.5 * np.sqrt(window) * mean / deviation,
            2.0 * np.abs(some.sum(1)) / np.abs(some).sum(1).clip(1e-6),
        ]
    return np.stack(columns, 1)
