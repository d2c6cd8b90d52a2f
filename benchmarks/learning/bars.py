"""Synthetic bars with a known drift, and the same without, for the product's own environment.

    log(close_k / close_{k-1}) = s_k mu + sigma e_k - sigma^2 / 2

s_k is +1 or -1, changes sides after random lengths of time, and is told to nobody. With `mu` 0 the
close is a martingale: no policy can earn anything but what it pays in brokerage. A bar opens where
the last one closed, so what was decided at a close fills at that price.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.data.segments import Segments
from streambot.domain.bars import BarBlock
from streambot.domain.instruments import Brokerage, Instrument, InstrumentType
from streambot.env.sources import ArraySource
from streambot.market.feature_config import FeatureConfig

MINUTE_NS = 60 * 10**9
START_TICKS = 1_000_000
SIGMA = 1e-3
MU = 4e-4
CAPITAL = 100_000
BROKERAGE = 20
"""Of every order: 0.1 % of the most that is traded, two and a half times the drift of a bar."""


def stock(brokerage: int) -> Instrument:
    """What is traded."""
    each = Decimal(brokerage)
    return Instrument(
        symbol="SYNTHETIC", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"),
        brokerage=Brokerage(entry=each, exit=each),
    )  # fmt: skip


class Market(NamedTuple):
    """Bars and what drives them.

    Attributes:
        data: the bars.
        side: s_k of each, int64; what a policy would like to know.
    """

    data: BarBlock
    side: npt.NDArray[np.int64]

    def source(self, brokerage: int = BROKERAGE) -> ArraySource:
        """For an environment."""
        return ArraySource(stock(brokerage), self.data)


def market(rng: np.random.Generator, count: int, *, mu: float = MU) -> Market:
    """`count` bars.

    Args:
        rng: where chance comes from.
        mu: drift per bar; 0: a random walk.
    """
    lengths = 60 + rng.geometric(1 / 60, size=count // 60 + 1)
    sides = rng.choice([-1, 1]) * (1 - 2 * (np.arange(len(lengths)) % 2))
    side = np.repeat(sides, lengths)[:count]
    moves = side * mu + SIGMA * rng.standard_normal(count) - 0.5 * SIGMA**2
    close = START_TICKS * np.exp(np.cumsum(moves))
    opens = np.concatenate([[START_TICKS], close[:-1]])
    reach = np.abs(rng.standard_normal((2, count))) * SIGMA * 0.5
    top = np.maximum(opens, close) * (1 + reach[0])
    bottom = np.minimum(opens, close) * (1 - reach[1])
    opened, high, low, closed = (
        np.rint(column).astype(np.int64) for column in (opens, top, bottom, close)
    )
    ts = np.arange(count, dtype=np.int64) * MINUTE_NS
    data = BarBlock(
        ts, np.full(count, MINUTE_NS), opened, high, low, closed, rng.integers(1, 1_000, count),
        np.zeros(count, np.uint8),
    )  # fmt: skip
    return Market(data, side)


class LeakingSource(NamedTuple):
    """A source whose market features are those of the next bar: the cheat that must be seen.

    Attributes:
        honest: the source.
    """

    honest: ArraySource

    def open(self, features: FeatureConfig) -> Segments:
        """Its segments, with every bar's features moved to the bar before."""
        found = self.honest.open(features)
        return found._replace(
            window=np.concatenate([found.window[1:], found.window[-1:]]),
            slow=np.concatenate([found.slow[1:], found.slow[-1:]]),
        )
