"""The floor of the engine: one bare compiled loop over the same four ticks a bar, and nothing else.

SMA cross, market fills at the next bar's first tick, fixed brokerage, cash, equity, drawdown and an
enforced trailing stop in basis points: the same arithmetic on the same integers as the engine's
rules, for one long-only stock. No events, no marks, no orders, no checks, no other instrument types,
no state that outlives the loop. The benchmark checks that both end with the same cash.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

FAST, SLOW = 10, 30


@numba.njit(cache=False)
def run(
    opens: npt.NDArray[np.int64],
    highs: npt.NDArray[np.int64],
    lows: npt.NDArray[np.int64],
    closes: npt.NDArray[np.int64],
    capital: int,
    units: int,
    brokerage: int,
    trail_bp: int,
) -> tuple[int, int, int, int]:
    """Run the loop.

    Args:
        opens, highs, lows, closes: prices in ticks, int64 [n].
        capital: money units; one tick of one unit is one money unit.
        units: shares of an entry.
        brokerage: of an entry and of an exit, money units.
        trail_bp: width of the trailing stop in basis points of the best price, rounded up.

    Returns:
        Cash at the end, entries, exits by the stop, largest drawdown of equity.
    """
    cash, peak, drawdown = capital, capital, 0
    held, best, stop = 0, 0, 0
    order = 0  # 1 buy, -1 close: decided at a close, acts at the next bar's first tick
    above = 0
    entries, stopped = 0, 0
    fast_sum, slow_sum, at = 0, 0, 0
    ring = np.zeros(SLOW, np.int64)
    for i in range(len(closes)):
        o, h, low, c = opens[i], highs[i], lows[i], closes[i]
        to_high, to_low = h - o, o - low
        low_first = to_low < to_high or (to_low == to_high and c >= o)
        entered = False
        for tick in range(4):
            if tick == 0:
                price = o
                if order == 1 and held == 0 and cash >= o * units + 2 * brokerage:
                    cash -= o * units + brokerage
                    held = units
                    best = o
                    stop = o - (o * trail_bp + 9_999) // 10_000
                    entries += 1
                    entered = True
                elif order == -1 and held != 0:
                    cash += o * held - brokerage
                    held = 0
                order = 0
            elif tick == 3:
                price = c
            elif (tick == 1) == low_first:
                price = low
            else:
                price = h
            if held != 0 and not entered:
                if price <= stop:
                    fill = price if tick == 0 else stop
                    cash += fill * held - brokerage
                    held = 0
                    stopped += 1
                elif price > best:
                    best = price
                    stop = max(stop, best - (best * trail_bp + 9_999) // 10_000)
            entered = False
        equity = cash + held * c
        if equity > peak:
            peak = equity
        elif peak - equity > drawdown:
            drawdown = peak - equity
        leaving = at - FAST
        if leaving < 0:
            leaving += SLOW
        fast_sum += c - ring[leaving]
        slow_sum += c - ring[at]
        ring[at] = c
        at = 0 if at + 1 == SLOW else at + 1
        was = above
        above = 1 if fast_sum * SLOW > slow_sum * FAST else 0
        if i >= SLOW and above != was:
            if above == 1 and held == 0:
                order = 1
            elif above == 0 and held != 0:
                order = -1
    return cash, entries, stopped, drawdown
