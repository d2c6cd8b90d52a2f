"""Bars -> ticks, along a path (`docs/market-rules.md`, Time and ticks).

`ohlc`: open, first extreme, other extreme, close. `bridge:N`: a seeded path of N ticks through the
open, both extremes and the close, which stays between the extremes. Tick j of N happens at
t + floor(j d / (N - 1)), the last one at t + d - 1 ns; the volume is split evenly, the remainder on
the close. Rebuilding bars from ticks gives the bars back exactly.

A bridge depends on seed, symbol and the bar's open time alone, so neither chunks nor resuming can
change it. It uses no function whose last bit depends on the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.data.philox import philox, stream_key
from streambot.domain.replay_settings import BarPath, BridgePath, OhlcPath
from streambot.jit import njit
from streambot.market.path import PATH_TICKS, low_first

if TYPE_CHECKING:
    from streambot.data.rows import Bars

Int64Array = npt.NDArray[np.int64]

_UNIFORM_SD = 0.5773502691896258  # of the sum of four uniforms in [-0.5, 0.5]: sqrt(4 / 12)
_SPREAD = 0.4  # of the range: standard deviation of a bridge in the middle of its path


def ticks_per_bar(path: BarPath) -> int:
    """How many ticks every bar becomes."""
    return path.ticks if isinstance(path, BridgePath) else PATH_TICKS


@njit
def tick_offset(position: int, duration: int, count: int) -> int:
    """Nanoseconds from the open of a bar to its tick number `position` of `count`."""
    if position == count - 1:
        return duration - 1
    return position * duration // (count - 1)


@njit
def even_share(volume: int, count: int) -> int:
    """Volume of each of a bar's ticks but the last, which has the rest; -1 stays -1."""
    if volume < 0:
        return -1
    # A division takes as long as everything else that a tick costs.
    return volume >> 2 if count == 4 else volume // count


@njit
def _bridge(
    open_: int,
    high: int,
    low: int,
    close: int,
    ts: int,
    key: int,
    count: int,
    out: Int64Array,
    at: int,
) -> None:
    """Prices of a seeded path through open, the extremes and close."""
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    t0, t1 = ts & 0xFFFFFFFF, (ts >> 32) & 0xFFFFFFFF
    w0, w1, w2, _ = philox(t0, t1, 0, 0, k0, k1)
    # Two of the inside positions, in order, are the extremes.
    inside = count - 2
    first = w0 % inside
    second = w1 % (inside - 1)
    if second >= first:
        second += 1
    first, second = min(first, second) + 1, max(first, second) + 1
    # The nearer an extreme is to the open, the sooner it is likely to be met.
    to_high, to_low = high - open_, open_ - low
    reach = to_high + to_low
    lower_first = (w2 % reach) < to_high if reach > 0 else True
    out[at] = open_
    out[at + first] = low if lower_first else high
    out[at + second] = high if lower_first else low
    out[at + count - 1] = close
    scale = _SPREAD * (high - low) / np.sqrt(float(count)) / _UNIFORM_SD
    begin = 0
    for end in (first, second, count - 1):
        for position in range(begin + 1, end):
            a, b, c, d = philox(t0, t1, position, 1, k0, k1)
            noise = (float(a) + float(b) + float(c) + float(d)) / 4294967296.0 - 2.0
            left = end - position
            price = float(out[at + position - 1])
            price += (float(out[at + end]) - price) / (left + 1) + noise * scale * np.sqrt(
                left / (left + 1.0)
            )
            out[at + position] = min(max(int(np.floor(price + 0.5)), low), high)
        begin = end


@njit
def path_prices(
    open_: int,
    high: int,
    low: int,
    close: int,
    ts: int,
    key: int,
    bridge: bool,
    count: int,
    out: Int64Array,
    at: int,
) -> None:
    """Write the prices of a bar's `count` ticks into `out`, from place `at` on."""
    if bridge:
        _bridge(open_, high, low, close, ts, key, count, out, at)
        return
    # Arithmetic instead of a branch that no processor can predict.
    first = high - (high - low) * np.int64(low_first(open_, high, low, close))
    out[at] = open_
    out[at + 1] = first
    out[at + 2] = high + low - first
    out[at + 3] = close


class Ticks(NamedTuple):
    """Ticks of one instrument.

    Attributes:
        ts: int64 [n], UTC ns.
        price: int64 [n], ticks.
        size: int64 [n], volume steps; -1 unknown.
        bar: int64 [n], row of the bar.
    """

    ts: Int64Array
    price: Int64Array
    size: Int64Array
    bar: Int64Array


@njit
def _expand(
    ts: Int64Array,
    open_: Int64Array,
    high: Int64Array,
    low: Int64Array,
    close: Int64Array,
    volume: Int64Array,
    ends: Int64Array,
    key: int,
    bridge: bool,
    count: int,
    out_ts: Int64Array,
    out_price: Int64Array,
    out_size: Int64Array,
    out_bar: Int64Array,
) -> None:
    for bar in range(len(ts)):
        at = bar * count
        path_prices(
            open_[bar], high[bar], low[bar], close[bar], ts[bar], key, bridge, count, out_price, at
        )
        share = even_share(volume[bar], count)
        for position in range(count):
            out_ts[at + position] = ts[bar] + tick_offset(position, ends[bar] - ts[bar], count)
            out_size[at + position] = share
            out_bar[at + position] = bar
        if share >= 0:
            out_size[at + count - 1] = volume[bar] - (count - 1) * share


def expand(
    bars: Bars, ends: Int64Array, *, path: BarPath | None = None, seed: int = 0, symbol: str = ""
) -> Ticks:
    """The ticks of `bars`, which end at `ends` (int64 [n], UTC ns, exclusive).

    Args:
        path: how a bar becomes ticks; None: `ohlc`.
        seed: of the bridges.
        symbol: whose bars they are: two symbols have different bridges.
    """
    chosen = path or OhlcPath()
    count = ticks_per_bar(chosen)
    out = [np.empty(len(bars) * count, dtype=np.int64) for _ in range(4)]
    _expand(*bars, ends, stream_key(seed, symbol), isinstance(chosen, BridgePath), count, *out)
    return Ticks(*out)
