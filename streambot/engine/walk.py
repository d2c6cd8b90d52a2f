"""From one close of a slot to its next: a tick, a bar's close, and both in a row.

Everybody who runs a slot over ticks does it with these (`engine.drive`, the environment): the rules
are the kernel's and the barrier's, their order within a bar is here.

p is one `PARAMS` record, s one `SLOT` record, log one `LOG` record.
"""

from __future__ import annotations

from typing import Any

from streambot.domain.ticks import TickFlag
from streambot.engine.barrier import close_market, judge, revalue, stamp_close, write_due
from streambot.engine.kernel import on_tick, settle_expired
from streambot.engine.quiet import quiet_range
from streambot.engine.slots import NONE
from streambot.jit import inlined

Record = Any
_BAR_OPEN = int(TickFlag.BAR_OPEN)
_BAR_CLOSE = int(TickFlag.BAR_CLOSE)
_SESSION_CLOSE = int(TickFlag.SESSION_CLOSE)


@inlined
def open_bar(s: Record, ts: int, price: int) -> None:
    """The first tick of a bar."""
    s.bar_open_ts = ts
    s.bar_open = price
    s.bar_high = price
    s.bar_low = price
    s.bar_volume = 0


@inlined
def take_tick(
    p: Record,
    s: Record,
    log: Record,
    ts: int,
    price: int,
    size: int,
    flags: int,
    before: int,
    row: int,
    low: int,
    high: int,
    until: int,
) -> tuple[int, int, int]:
    """One tick: the rules where it can matter, and the decision bar; where nothing happens next.

    Args:
        before: close of the barrier before the tick's interval, where this slot holds options: what
            expired by it, and met no bar there, is settled first. `NONE`: nothing can have.
        low, high, until: of `quiet_range`.
    """
    if s.in_bar == 0:
        open_bar(s, ts, price)
        settle_expired(p, s, log, before, row)
        on_tick(p, s, log, ts, price, True, row)
        low, high, until = quiet_range(p, s)
    else:
        if price <= low or price >= high or ts > until:
            settle_expired(p, s, log, before, row)
            on_tick(p, s, log, ts, price, (flags & _BAR_OPEN) != 0, row)
            low, high, until = quiet_range(p, s)
        else:
            s.last_price = price
        s.bar_high = max(s.bar_high, price)
        s.bar_low = min(s.bar_low, price)
    if size > 0:
        s.bar_volume += size
    return low, high, until


@inlined
def close_bar(
    p: Record, s: Record, log: Record, barrier: int, ts: int, session_close: bool, row: int
) -> None:
    """What a bar's close causes before anybody is asked: settlement, then the bar's measures."""
    settle_expired(p, s, log, ts, row)
    stamp_close(s, barrier, ts)
    close_market(p, s, session_close)


@inlined
def advance_bar(
    p: Record,
    s: Record,
    ring: Record,
    log: Record,
    calendar: Any,
    ticks: Any,
    row: int,
    closes: Any,
) -> int:
    """Run one slot from a close to its next one: what `advance_ticks` does, for a single bar.

    No agent is asked and the log is not emptied: it must have `ROOM`.

    Args:
        calendar: a `Calendar`.
        ticks: `TICK` [n], of one instrument, its interval counted from the run's first.
        row: first tick of the bar.
        closes: close times of all barriers of the run, UTC ns, int64.

    Returns:
        The first tick behind the bar; all of them where it has no close.
    """
    low, high, until = quiet_range(p, s)
    holds_options = p.is_option != 0
    while row < len(ticks):
        tick = ticks[row]
        flags, bar = int(tick.flags), int(tick.bar)
        before = closes[bar - 1] if holds_options and bar > 0 else NONE
        low, high, until = take_tick(
            p, s, log, tick.ts, tick.price, tick.size, flags, before, row, low, high, until
        )
        row += 1
        if (flags & _BAR_CLOSE) != 0:
            session_close = (flags & _SESSION_CLOSE) != 0
            close_bar(p, s, log, bar, closes[bar], session_close, row - 1)
            if s.side != 0 and p.marked != 0:
                revalue(p, s, calendar)
            due, _, _ = judge(p, s, ring, closes[bar], session_close)
            if due != 0:
                write_due(p, s, log, closes[bar], session_close, row - 1, due)
            break
    return row
