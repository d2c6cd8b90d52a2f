"""The `ohlc` path: which extreme of a bar comes first, and when its four ticks happen.

Rule (`docs/market-rules.md`, Time and ticks): open, first extreme, other extreme, close, always
four ticks, at t, t + floor(d/3), t + floor(2d/3) and t + d - 1 ns. The extreme nearer to the open
comes first; at a tie the low comes first if close >= open, else the high.
"""

from __future__ import annotations

from streambot.jit import njit

PATH_TICKS = 4


@njit
def low_first(open_: int, high: int, low: int, close: int) -> bool:
    """True where the low comes before the high; prices in ticks."""
    to_high = high - open_
    to_low = open_ - low
    # Not `or` and `and`: no processor can predict those branches.
    return (to_low < to_high) | ((to_low == to_high) & (close >= open_))


@njit
def path_offset(position: int, duration: int) -> int:
    """Nanoseconds from the open of a bar to its tick number `position` (0 to 3)."""
    if position == 0:
        return 0
    if position == 3:
        return duration - 1
    return position * duration // 3
