"""Run slots over ticks or bars: the one loop behind the stream task, the environment and the engine.

Both drivers call the same rules (`kernel`), build the decision bars from the same ticks, and at
every close let the slot's agent decide: a script in here, an order given from outside, or a Python
agent. For the last, the loop *runs ahead* as if every answer were HOLD, keeps the state after each
close and shows it to the agent bar by bar; the first other answer takes the slot back to that
close (`back_to`) with the order, and the run ahead begins anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.domain.ticks import TickFlag
from streambot.engine.barrier import close_market, judge, revalue, stamp_close, write_due
from streambot.engine.kernel import on_tick
from streambot.engine.ordering import submit, submit_stock, take_given
from streambot.engine.quiet import quiet_range, stays_quiet
from streambot.engine.slots import ACT_HOLD, CAPACITY, LOG, NONE, ROOM, SLOT, VIEW_FIELDS
from streambot.engine.valuation import equity_at, unrealized_at
from streambot.engine.walk import close_bar, take_tick
from streambot.jit import njit
from streambot.market.path import low_first, path_offset

Record = Any
_BAR_OPEN = int(TickFlag.BAR_OPEN)
_BAR_CLOSE = int(TickFlag.BAR_CLOSE)
_SESSION_CLOSE = int(TickFlag.SESSION_CLOSE)


class Ahead(NamedTuple):
    """What a run ahead keeps for a Python agent; both of length 0 without one.

    Attributes:
        views: int64 [fields, n], `slots.VIEW_FIELDS` at each close.
        states: `SLOT` [n], the slot after each close.
    """

    views: npt.NDArray[np.int64]
    states: npt.NDArray[np.void]


def make_ahead(closes: int) -> Ahead:
    """Room to run ahead `closes` closes."""
    return Ahead(np.zeros((len(VIEW_FIELDS), closes), np.int64), np.zeros(closes, SLOT))


NO_VIEWS = make_ahead(0)


def make_log() -> npt.NDArray[np.void]:
    """An empty log, as an array of one `LOG` record."""
    return np.zeros(1, LOG)


@njit
def _view(p: Record, s: Record, views: Any, at: int, position: int, session_close: bool) -> None:
    """What a Python agent may see at this close; fields in the order of `VIEW_FIELDS`."""
    price = s.last_price
    views[0, at] = s.bar_open_ts
    views[1, at] = s.close_ts
    views[2, at] = s.barrier
    views[3, at] = s.bar_open
    views[4, at] = s.bar_high
    views[5, at] = s.bar_low
    views[6, at] = price
    views[7, at] = s.bar_volume
    views[8, at] = s.cash
    views[9, at] = equity_at(p, s, price)
    views[10, at] = s.side * s.quantity
    views[11, at] = s.entry_price if s.side != 0 else NONE
    views[12, at] = s.stop if s.side != 0 else NONE
    views[13, at] = s.width
    views[14, at] = unrealized_at(p, s, price)
    views[15, at] = s.halted
    views[16, at] = position
    views[17, at] = 1 if session_close else 0


@njit
def _is_full(log: Record) -> bool:
    return bool(
        log.n_events + ROOM > CAPACITY
        or log.n_marks + ROOM > CAPACITY
        or log.n_orders + 1 > CAPACITY
    )


@njit
def _begin(
    p: Record,
    slots: Record,
    i: int,
    calendar: Any,
    log: Record,
    states: Record,
    given: Record,
    back_to: int,
    action: int,
    quantity: int,
) -> None:
    if back_to >= 0:
        slots[i] = states[back_to]
        # Orders from outside that the run ahead used are to come again.
        while log.n_given > 0 and given[log.n_given - 1].barrier > slots[i].barrier:
            log.n_given -= 1
    if action != ACT_HOLD:
        submit(p, slots[i], calendar, log, action, quantity)


@njit
def advance_ticks(
    params: Record,
    slots: Record,
    rings: Record,
    i: int,
    calendar: Any,
    logs: Record,
    ahead: Any,
    given: Record,
    block: Any,
    closes: Any,
    barrier_lo: int,
    rows: Any,
    start: int,
    back_to: int,
    action: int,
    quantity: int,
    most_views: int,
) -> int:
    """Run slot i over its rows of a block of ticks.

    Args:
        rings: closes for the scripts, `RING` [slots].
        logs: `LOG` [1], where events, marks and completed orders go.
        ahead: room for the views of a Python agent.
        given: orders from outside, `ORDER` [n], by barrier; length 0 without.
        block: a `TickBlock`.
        closes: close times of the barriers `barrier_lo`, `barrier_lo` + 1, …, UTC ns, int64.
        rows: rows of the slot in the block, int64 [n].
        start: first position in `rows` to run.
        back_to: take the slot back to this view first; -1: go on from where it is.
        action, quantity: answer of a Python agent at the close that the slot is at.
        most_views: run ahead at most so many closes; 0: no views.

    Returns:
        The first position in `rows` that was not run: `len(rows)`, or less where a buffer is full
        or `most_views` closes were seen. Empty the buffers and call again.
    """
    p = params[i]
    log = logs[0]
    _begin(p, slots, i, calendar, log, ahead.states, given, back_to, action, quantity)
    s, ring = slots[i], rings[i]
    # Locals, because each attribute of a tuple of arrays counts references in the loop.
    shown, states = ahead.views, ahead.states
    n_given = len(given)
    views = 0
    low, high, until = quiet_range(p, s)
    j = start
    tick_ts, tick_price, tick_size = block.ts, block.price, block.size
    tick_flags, tick_bar = block.flags, block.bar
    holds_options = p.is_option != 0
    while j < len(rows):
        r = rows[j]
        ts, price, flags = tick_ts[r], tick_price[r], tick_flags[r]
        if log.n_given < n_given and given[log.n_given].barrier < barrier_lo + tick_bar[r]:
            if _is_full(log):
                break
            take_given(p, s, given, log, barrier_lo + tick_bar[r], r)
            continue
        matters = s.in_bar == 0 or price <= low or price >= high or ts > until
        if matters and _is_full(log):
            break
        before = NONE
        if matters and holds_options and tick_bar[r] > 0:
            before = closes[tick_bar[r] - 1]
        low, high, until = take_tick(
            p, s, log, ts, price, tick_size[r], flags, before, r, low, high, until
        )
        j += 1
        if (flags & _BAR_CLOSE) != 0:
            k = int(tick_bar[r])
            close_ts = closes[k]
            session_close = (flags & _SESSION_CLOSE) != 0
            close_bar(p, s, log, barrier_lo + k, close_ts, session_close, r)
            if s.side != 0 and p.marked != 0:
                revalue(p, s, calendar)
            due, act, lots = judge(p, s, ring, close_ts, session_close)
            if due != 0:
                write_due(p, s, log, close_ts, session_close, r, due)
            if act != ACT_HOLD:
                if p.is_option != 0:
                    submit(p, s, calendar, log, act, lots)
                else:
                    submit_stock(p, s, log, act, lots)
            if log.n_given < n_given:
                take_given(p, s, given, log, s.barrier + 1, r)
            low, high, until = quiet_range(p, s)
            if most_views > 0:
                _view(p, s, shown, views, j, session_close)
                states[views] = s
                views += 1
                if views == most_views:
                    break
    log.n_views = views
    return j


@njit
def _walk_bar(
    p: Record,
    s: Record,
    log: Record,
    t: int,
    d: int,
    o: int,
    h: int,
    lo: int,
    c: int,
    row: int,
) -> None:
    """The four ticks of the `ohlc` path."""
    first, second = (lo, h) if low_first(o, h, lo, c) else (h, lo)
    on_tick(p, s, log, t, o, True, row)
    on_tick(p, s, log, t + path_offset(1, d), first, False, row)
    on_tick(p, s, log, t + path_offset(2, d), second, False, row)
    on_tick(p, s, log, t + path_offset(3, d), c, False, row)


@njit
def advance_bars(
    params: Record,
    slots: Record,
    rings: Record,
    i: int,
    calendar: Any,
    logs: Record,
    ahead: Any,
    given: Record,
    bars: Any,
    barrier_lo: int,
    start: int,
    back_to: int,
    action: int,
    quantity: int,
    most_views: int,
) -> int:
    """Run slot i over whole decision bars by the `ohlc` path: the same events as over its ticks.

    Args and return value as `advance_ticks`; `bars` is a `BarBlock`, bar b closes barrier
    `barrier_lo + b`. A bar inside which nothing can happen is not walked tick by tick.
    """
    p = params[i]
    log = logs[0]
    _begin(p, slots, i, calendar, log, ahead.states, given, back_to, action, quantity)
    s, ring = slots[i], rings[i]
    # Locals, because each attribute of a tuple of arrays counts references in the loop.
    shown, states = ahead.views, ahead.states
    n_given = len(given)
    views = 0
    b = start
    opens, durations, session_close = bars.ts, bars.duration, bars.session_close
    open_, highs, lows, closes, volumes = bars.open, bars.high, bars.low, bars.close, bars.volume
    always_leave = most_views > 0 or n_given > 0
    # Who looks at a whole bar: an ATR, a daily bar, a Python agent.
    needs_bar = p.trail_bp == 0 or p.is_option != 0 or most_views > 0
    while b < len(opens) and not _is_full(log):
        if log.n_given < n_given and given[log.n_given].barrier < barrier_lo + b:
            # Of a barrier before these bars, or left over when the log was full.
            take_given(p, s, given, log, barrier_lo + b, b)
            continue
        due, act, lots = 0, ACT_HOLD, 0
        quiet = True
        # The quiet stretch: bars at which nothing is written.
        while True:
            t, last_of_day = opens[b], session_close[b] != 0
            close_ts = t + durations[b]
            o, h, lo, c = open_[b], highs[b], lows[b], closes[b]
            quiet = (
                s.order_action == ACT_HOLD
                and s.breach_close == 0
                and (s.side == 0 or (p.marked == 0 and stays_quiet(p, s, h, lo, close_ts)))
            )
            if not quiet:
                break
            s.last_price = c
            if needs_bar:
                s.bar_open_ts, s.bar_open, s.bar_high, s.bar_low = t, o, h, lo
                s.bar_volume = max(0, volumes[b])
            stamp_close(s, barrier_lo + b, close_ts)
            close_market(p, s, last_of_day)
            due, act, lots = judge(p, s, ring, close_ts, last_of_day)
            if due != 0 or act != ACT_HOLD or always_leave or b + 1 == len(opens):
                break
            b += 1
        if not quiet:
            _walk_bar(p, s, log, t, durations[b], o, h, lo, c, b)
            s.bar_open_ts, s.bar_open, s.bar_high, s.bar_low = t, o, h, lo
            s.bar_volume = max(0, volumes[b])
            close_bar(p, s, log, barrier_lo + b, close_ts, last_of_day, b)
            if s.side != 0 and p.marked != 0:
                revalue(p, s, calendar)
            due, act, lots = judge(p, s, ring, close_ts, last_of_day)
        if due != 0:
            write_due(p, s, log, close_ts, last_of_day, b, due)
        if act != ACT_HOLD:
            if p.is_option != 0:
                submit(p, s, calendar, log, act, lots)
            else:
                submit_stock(p, s, log, act, lots)
        if log.n_given < n_given:
            take_given(p, s, given, log, s.barrier + 1, b)
        b += 1
        if most_views > 0:
            _view(p, s, shown, views, b, last_of_day)
            states[views] = s
            views += 1
            if views == most_views:
                break
    log.n_views = views
    return b
