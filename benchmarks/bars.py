"""Bars for measurements of speed: a seeded random walk, in ticks. Nothing is learned from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SEED = 7
MINUTE_NS = 60_000_000_000
START_NS = 1_577_836_800_000_000_000  # 2020-01-01 UTC
TICK = 0.01


class MinuteBars(NamedTuple):
    """Columns of n one-minute bars, int64; prices in ticks of 0.01, stamped at their open."""

    ts: npt.NDArray[np.int64]
    open: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    close: npt.NDArray[np.int64]
    volume: npt.NDArray[np.int64]


def random_walk(count: int, seed: int = SEED, start_ticks: int = 2_000_000) -> MinuteBars:
    """`count` bars around 20,000.00 with 3 basis points a minute; each opens where the last closed.

    The walk is reflected at half and at one and a half times its start, so that a long one neither
    dies nor explodes.
    """
    rng = np.random.default_rng(seed)
    sigma = 3e-4 * start_ticks
    width = float(start_ticks)
    way = (np.cumsum(rng.standard_normal(count) * sigma) + 0.5 * width) % (2.0 * width)
    close = 0.5 * start_ticks + np.minimum(way, 2.0 * width - way)
    opens = np.concatenate(([float(start_ticks)], close[:-1]))
    reach = np.abs(rng.standard_normal((2, count))) * sigma * 0.6
    high = np.maximum(opens, close) + reach[0]
    low = np.minimum(opens, close) - reach[1]
    whole = [np.rint(column).astype(np.int64) for column in (opens, high, low, close)]
    ts = START_NS + np.arange(count, dtype=np.int64) * MINUTE_NS
    volume = rng.integers(1, 5_000, count, dtype=np.int64) * 4
    opened, top, bottom, closed = whole
    return MinuteBars(ts, opened, top, bottom, closed, volume)
