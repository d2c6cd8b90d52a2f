"""What an agent sees at a close: observation and mask (`env.fields` names every number).

w is one `WORLD` record, p one `PARAMS`, s one `SLOT`, e one `ENV` record.
"""

from __future__ import annotations

from typing import Any

from streambot.domain.units import NANOS_PER_DAY
from streambot.engine.slots import NONE
from streambot.engine.valuation import risk_equity_at
from streambot.env.world import ACCOUNT_N, copy_floats
from streambot.jit import inlined

Record = Any
_BOUND = 5.0
_SHARE = 10.0
_HALF_HELD, _DAYS_SCALE = 32.0, 30.0


@inlined
def _bounded(value: float, bound: float) -> float:
    # `min` and `max` of floats ask for NaN as well; there is none here.
    return bound if value > bound else (max(value, -bound))


@inlined
def _lots_for(spare: int, cost: int, unit: int, most: int) -> int:
    """Lots that `spare` pays for, at most `most`; a division takes longer than all else here."""
    if float(cost) * float(unit) * float(most) < 0.5 * float(spare):
        return most
    return min(most, spare // (cost * unit))


@inlined
def affordable(p: Record, s: Record, quote: Record, most: int) -> tuple[int, int]:
    """Lots that the slot's cash would pay for at the last price, long and short; -1: nobody knows.

    Args:
        quote: an entry completed at this close, one `ORDER` record.
        most: not more than these.
    """
    lot_size = p.lot_size if quote.lot_size == NONE else quote.lot_size
    if lot_size < 1:
        return -1, -1
    way_out = p.brokerage_exit
    long_cost, short_cost = s.last_price + p.slippage, max(1, s.last_price - p.slippage)
    if p.is_option != 0:
        if quote.premium == NONE or quote.expiry == NONE or quote.expiry <= s.close_ts:
            return -1, -1
        way_out = max(way_out, p.brokerage_settlement)
        long_cost = short_cost = quote.premium + p.premium_slippage
    spare = s.cash - p.brokerage_entry - way_out
    if spare < 0:
        return 0, 0
    unit = lot_size * p.tick_money
    return _lots_for(spare, long_cost, unit, most), _lots_for(spare, short_cost, unit, most)


@inlined
def show(
    w: Record,
    p: Record,
    s: Record,
    e: Record,
    long: int,
    short: int,
    bar: int,
    windows: Any,
    slow: Any,
    observation: Any,
    mask: Any,
) -> None:
    """Write what the agent sees at the close of the instrument's bar `e.bar`.

    Args:
        long, short: lots that could be entered, as `affordable` says.
        bar: row of that bar in the columns.
    """
    at = 0
    missing = max(0, w.look - 1 - e.bar)
    for _ in range(missing * w.window_n):
        observation[at] = 0.0
        at += 1
    first = (bar - w.look + 1 + missing) * w.window_n
    copy_floats(observation, at, windows, first, (w.look - missing) * w.window_n)
    at += (w.look - missing) * w.window_n
    copy_floats(observation, at, slow, bar * w.slow_n, w.slow_n)
    at += w.slow_n
    for k in range(ACCOUNT_N):
        observation[at + k] = 0.0
    if s.side != 0:
        moved = s.side * (s.last_price - s.entry_price)
        observation[at] = s.side
        observation[at + 1] = s.quantity / w.quantity
        observation[at + 2] = _bounded(moved / s.width, _BOUND)
        observation[at + 3] = _bounded(_SHARE * e.unrealized / p.capital, _BOUND)
        observation[at + 6] = e.distance
        held = e.bar - e.entry_bar
        observation[at + 7] = held / (held + _HALF_HELD)
        if p.is_option != 0:
            days = (s.expiry - s.close_ts) / (_DAYS_SCALE * NANOS_PER_DAY)
            observation[at + 8] = min(_BOUND, days)
    observation[at + 4] = _bounded(_SHARE * (e.equity / p.capital - 1.0), _BOUND)
    risk = risk_equity_at(p, s, s.last_price)
    if s.peak_risk > 0:
        fall = (s.peak_risk - risk) / s.peak_risk
        observation[at + 5] = _bounded(fall * 10_000.0 / w.drawdown_bp if fall > 0.0 else 0.0, 2.0)
    observation[at + 9] = max(0, long, short) / w.quantity
    open_to = s.halted == 0 and e.ended == 0
    mask[0] = 1
    mask[1] = 1 if s.side != 0 and open_to else 0
    enters = s.side == 0 and open_to and e.bar + 1 >= w.warmup
    for q in range(1, w.quantity + 1):
        mask[1 + q] = 1 if enters and q <= long else 0
        mask[1 + w.quantity + q] = 1 if enters and q <= short else 0
