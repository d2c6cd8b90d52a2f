"""Wilder's average true range, one bar at a time.

True range = max(high - low, |high - previous close|, |low - previous close|); of the first bar
high - low. The mean of the true ranges until `period` of them exist, from then on Wilder's
smoothing: atr + (true range - atr) / period (Wilder 1978).
"""

from __future__ import annotations

from streambot.jit import njit

ATR_PERIOD = 14


@njit
def true_range(high: float, low: float, prev_close: float, has_prev: bool) -> float:
    """True range of one bar, in the unit of its prices."""
    spread = high - low
    if has_prev:
        spread = max(spread, abs(high - prev_close), abs(low - prev_close))
    return spread


@njit
def update_atr(atr: float, count: int, spread: float, period: int) -> float:
    """The next ATR after `count` true ranges gave `atr` and `spread` is the new one."""
    if count < period:
        return (atr * count + spread) / (count + 1)
    # As an increment: the same average with a shorter chain of dependent operations.
    return atr + (spread - atr) * (1.0 / period)
