"""Where nothing can happen: so that a driver need not ask the rules at every tick.

Both answers come from the state alone and hold until something happens. They leave ticks out, never
rules: tests hold runs over bars and over their ticks to the same events.
"""

from __future__ import annotations

from typing import Any

from streambot.engine.kernel import liquidation_due
from streambot.engine.slots import NONE
from streambot.engine.trailing import follow, is_met
from streambot.jit import njit

Record = Any


@njit
def quiet_range(p: Record, s: Record) -> tuple[int, int, int]:
    """Prices strictly between the first two, at or before the third time, change nothing here.

    It holds while nothing happens: after any event ask again. It lets the drivers walk through
    quiet stretches without calling `on_tick` for each tick.
    """
    low, high, until = 0, -NONE, -NONE
    if s.side == 0:
        return low, high, until
    if p.is_option != 0:
        # A tick at the expiry itself may belong to the bar behind a barrier that settles.
        until = s.expiry - 1
    if s.side > 0:
        high = s.best
        if p.enforce_stop != 0:
            low = max(low, s.stop)
    else:
        low = s.best
        if p.enforce_stop != 0:
            high = min(high, s.stop)
        if p.is_option == 0:
            # value <= brokerage  <=>  2 S0 - S <= floor(brokerage / money per tick)
            spare = p.brokerage_exit // (s.units * p.tick_money)
            high = min(high, 2 * s.entry_price - spare)
    return low, high, until


@njit
def stays_quiet(p: Record, s: Record, high: int, low: int, close_ts: int) -> bool:
    """Whether no path through a bar can end or change the position, except for the best price.

    True: the best price and the stop have followed the bar's better extreme, as they would have on
    any path. False: nothing has changed, and the bar must be walked tick by tick.
    """
    if s.side == 0:
        return True
    if p.is_option != 0 and s.expiry <= close_ts:
        return False
    good, bad = (high, low) if s.side > 0 else (low, high)
    if liquidation_due(p, s, bad):
        return False
    if p.enforce_stop == 0:
        follow(p, s, good)
        return True
    best, stop, width = s.best, s.stop, s.width
    follow(p, s, good)
    if is_met(s, bad):
        s.best, s.stop, s.width = best, stop, width
        return False
    return True
