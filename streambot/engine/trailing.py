"""The trailing stop (`docs/market-rules.md`, Trailing stop).

`stop = best - side x width`: it follows the best price since the entry and only ever moves in the
position's favour. It informs; it closes the position only where the instrument enforces it.
"""

from __future__ import annotations

from math import ceil, nan
from typing import Any

from streambot.jit import njit

Record = Any
CLIP = 3.0
WIDEST = 10**12
"""No price gets there: a wider stop from outside would only leave the integers."""


@njit
def width_from_bp(best: int, basis_points: int) -> int:
    """`basis_points` of the best price, rounded up to a tick, at least 1."""
    return max(1, (best * basis_points + 9_999) // 10_000)


@njit
def width_from_atr(multiple: float, atr_ticks: float) -> int:
    """`multiple` x ATR, rounded up to a tick (float noise below 1e-6 forgiven), at least 1."""
    return max(1, int(ceil(multiple * atr_ticks - 1e-6)))


@njit
def start_trail(p: Record, s: Record, width: int) -> None:
    """At the entry the best price is the fill price."""
    s.best = s.entry_price
    s.width = width_from_bp(s.best, p.trail_bp) if p.trail_bp > 0 else min(max(1, width), WIDEST)
    s.stop = s.best - s.side * s.width


@njit
def follow(p: Record, s: Record, price: int) -> None:
    """Take `price` as the new best price if it is one, and move the stop behind it."""
    if s.side * (price - s.best) > 0:
        s.best = price
        if p.trail_bp > 0:
            s.width = width_from_bp(price, p.trail_bp)
        moved = price - s.side * s.width
        if s.side * (moved - s.stop) > 0:
            s.stop = moved


@njit
def is_met(s: Record, price: int) -> bool:
    """True where `price` is at or beyond the stop."""
    return bool(s.side * (price - s.stop) <= 0)


@njit
def distance_to_trail(side: int, price: int, stop: int, width: int) -> float:
    """1 at the best price, 0 at the stop, negative beyond it, clipped to [-3, 3]; NaN when flat."""
    if side == 0:
        return nan
    distance = float(side * (price - stop)) / float(width)
    return min(CLIP, max(-CLIP, distance))
