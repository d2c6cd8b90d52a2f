"""Compiled inner loops of the timeline: where bars end, which barriers there are, ticks in order.

Bars of track k are rows `cursor[k]` to `ready[k]` of the buffers [K, capacity]. Their ticks come out
by `ts`, then by instrument, then in the order of the source; a tick's interval is the number of
closes at or before it. Where all bars that open together also end together, before any other opens
(bars of one timeframe), their ticks are written position by position, without comparing anything
else; everywhere else the next tick is searched among the tracks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streambot.data.expand import even_share, path_prices, tick_offset
from streambot.domain.ticks import TickFlag
from streambot.domain.units import NANOS_PER_DAY
from streambot.jit import njit

Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]

FOREVER = int(np.iinfo(np.int64).max)
_OPEN = int(TickFlag.BAR_OPEN)
_CLOSE = int(TickFlag.BAR_CLOSE)
_SESSION = int(TickFlag.SESSION_CLOSE)


@njit
def _bucket(t: int, opened: int, closed: int, decision: int) -> tuple[int, int]:
    """Which decision bar of its date a bar belongs to: before, in or after the session, and its number."""
    side = 0
    if t < opened:
        side = -1
    elif t >= closed:
        side = 1
    return side, (t - opened) // decision


@njit
def place_bars(
    ts: Int64Array,
    ends: Int64Array,
    closes: Int64Array,
    flags: UInt8Array,
    low: int,
    high: int,
    day: int,
    first: Int64Array,
    last: Int64Array,
    opened: Int64Array,
    closed: Int64Array,
    cut: npt.NDArray[np.bool_],
    timeframe: int,
    decision: int,
) -> tuple[int, int]:
    """Find end, decision close and flags of rows `low` to `high`; the first row not yet placed.

    The last bar of a date needs no look ahead: the dates are known. Any other needs the next bar's
    stamp. `closes` is set where `flags` has BAR_CLOSE. Returns (next row, next date).
    """
    row = low
    while row < high:
        t = ts[row]
        while day + 1 < len(first) and first[day + 1] <= t:
            day += 1
        ends_date = t == last[day]
        if ends_date:
            following = first[day + 1] if day + 1 < len(first) else FOREVER
        elif row + 1 < high:
            following = ts[row + 1]
        else:
            break
        inside = opened[day] <= t < closed[day]
        if timeframe == NANOS_PER_DAY:
            end = closed[day]
        else:
            end = t + timeframe
            if cut[day] and inside:
                end = min(end, closed[day])
        end = min(end, following)
        ends[row] = end
        flag = _CLOSE | _SESSION if ends_date else 0
        close = end
        if decision == timeframe:
            flag |= _CLOSE
        elif decision == NANOS_PER_DAY:
            close = max(end, closed[day])
        else:
            side, number = _bucket(t, opened[day], closed[day], decision)
            if not ends_date and (side, number) != _bucket(
                following, opened[day], closed[day], decision
            ):
                flag |= _CLOSE
            limit = opened[day] + (number + 1) * decision
            if side == 0:
                limit = min(limit, closed[day])
            elif side < 0:
                limit = min(limit, opened[day])
            close = max(limit, end)
        flags[row] = flag
        closes[row] = min(close, following)
        row += 1
    return row, day


@njit
def distinct_closes(
    closes: npt.NDArray[np.int64],
    flags: npt.NDArray[np.uint8],
    ready: Int64Array,
    heads: Int64Array,
    horizon: int,
    out: Int64Array,
) -> int:
    """Barriers up to `horizon`: distinct decision closes in order into `out`; moves `heads` past them."""
    tracks = len(ready)
    found = 0
    earliest = FOREVER
    for k in range(tracks):
        while heads[k] < ready[k] and not flags[k, heads[k]] & _CLOSE:
            heads[k] += 1
        if heads[k] < ready[k]:
            earliest = min(earliest, closes[k, heads[k]])
    while earliest <= horizon and earliest != FOREVER and found < len(out):
        out[found] = earliest
        found += 1
        following = FOREVER
        for k in range(tracks):
            head = heads[k]
            if head < ready[k]:
                if closes[k, head] == earliest:
                    head += 1
                    while head < ready[k] and not flags[k, head] & _CLOSE:
                        head += 1
                    heads[k] = head
                if head < ready[k]:
                    following = min(following, closes[k, head])
        earliest = following
    return found


@njit
def skip_until(
    ts: Int64Array,
    ends: Int64Array,
    ready: Int64Array,
    cursor: Int64Array,
    position: Int64Array,
    until: int,
    count: int,
) -> None:
    """Move behind all ticks before `until` without making them."""
    for k in range(len(ready)):
        row = cursor[k]
        while row < ready[k] and ends[k, row] <= until:
            row += 1
        if row != cursor[k]:
            position[k] = 0
        cursor[k] = row
        if row < ready[k] and ts[k, row] < until:
            duration = ends[k, row] - ts[k, row]
            while (
                position[k] < count
                and ts[k, row] + tick_offset(position[k], duration, count) < until
            ):
                position[k] += 1
            if position[k] == count:
                cursor[k] += 1
                position[k] = 0


@njit
def bars_before(ts: Int64Array, ready: Int64Array, cursor: Int64Array, until: int) -> Int64Array:
    """How many bars of each track open before `until`, from its cursor on."""
    counts = np.empty(len(ready), dtype=np.int64)
    for k in range(len(ready)):
        counts[k] = np.searchsorted(ts[k, cursor[k] : ready[k]], until)
    return counts


@njit
def _tick_flag(at: int, flag: int, count: int) -> int:
    """Flags of a bar's tick number `at`: the bar's own ones are its last tick's."""
    if at == 0:
        return _OPEN
    return flag if at == count - 1 else 0


@njit
def emit(
    ts: Int64Array,
    ends: Int64Array,
    flags: UInt8Array,
    open_: Int64Array,
    high: Int64Array,
    low: Int64Array,
    close: Int64Array,
    volume: Int64Array,
    ready: Int64Array,
    cursor: Int64Array,
    position: Int64Array,
    track_of: Int64Array,
    keys: Int64Array,
    bridge: bool,
    count: int,
    closes: Int64Array,
    until: int,
    out_instrument: npt.NDArray[np.uint16],
    out_bar: npt.NDArray[np.uint32],
    out_flags: UInt8Array,
    out_ts: Int64Array,
    out_price: Int64Array,
    out_size: Int64Array,
) -> int:
    """Write all ticks before `until`, in order; how many."""
    tracks = len(ready)
    instruments = len(track_of)
    prices = np.empty(tracks * count, dtype=np.int64)
    head = np.empty(tracks, dtype=np.int64)  # stamp of each track's next tick
    pathed = np.full(tracks, -1, dtype=np.int64)  # row whose path stands in `prices` and `sizes`
    sizes = np.empty((tracks, 2), dtype=np.int64)  # volume of a bar's last tick, and of each other
    members = np.empty(instruments, dtype=np.int64)
    stamps = np.empty(count, dtype=np.int64)
    intervals = np.empty(count, dtype=np.uint32)
    for k in range(tracks):
        head[k] = FOREVER
        if cursor[k] < ready[k]:
            row = cursor[k]
            head[k] = ts[k, row] + tick_offset(position[k], ends[k, row] - ts[k, row], count)
    written = 0
    interval = 0
    while True:
        now = FOREVER
        for k in range(tracks):
            now = min(now, head[k])
        if now >= until:
            return written
        # Do the bars that open now end together, before anything else happens?
        size = 0
        end = -1
        whole = True
        following = FOREVER
        for k in range(tracks):
            if head[k] == now:
                row = cursor[k]
                if end < 0:
                    end = ends[k, row]
                whole = whole and position[k] == 0 and ends[k, row] == end
                if row + 1 < ready[k]:
                    following = min(following, ts[k, row + 1])
            else:
                following = min(following, head[k])
        for i in range(instruments):
            if head[track_of[i]] == now:
                members[size] = i
                size += 1
        for m in range(size):
            k = track_of[members[m]]
            row = cursor[k]
            if pathed[k] != row:
                path_prices(
                    open_[k, row],
                    high[k, row],
                    low[k, row],
                    close[k, row],
                    ts[k, row],
                    keys[k],
                    bridge,
                    count,
                    prices,
                    k * count,
                )
                share = even_share(volume[k, row], count)
                sizes[k, 1] = share
                sizes[k, 0] = share if share < 0 else volume[k, row] - (count - 1) * share
                pathed[k] = row
        if whole and end <= following and end <= until:
            for at in range(count):
                stamps[at] = now + tick_offset(at, end - now, count)
                while interval < len(closes) and closes[interval] <= stamps[at]:
                    interval += 1
                intervals[at] = interval
            for m in range(size):
                i = members[m]
                k = track_of[i]
                to = written + m
                for at in range(count):
                    out_instrument[to] = i
                    out_bar[to] = intervals[at]
                    out_flags[to] = 0
                    out_ts[to] = stamps[at]
                    out_price[to] = prices[k * count + at]
                    out_size[to] = sizes[k, 1]
                    to += size
                out_flags[written + m] = _OPEN
                to -= size
                out_flags[to] = flags[k, cursor[k]]
                out_size[to] = sizes[k, 0]
            written += size * count
            for k in range(tracks):
                if head[k] == now:
                    cursor[k] += 1
                    head[k] = ts[k, cursor[k]] if cursor[k] < ready[k] else FOREVER
            continue
        while interval < len(closes) and closes[interval] <= now:
            interval += 1
        for m in range(size):
            k = track_of[members[m]]
            row = cursor[k]
            at = position[k]
            out_instrument[written] = members[m]
            out_bar[written] = interval
            out_ts[written] = now
            out_price[written] = prices[k * count + at]
            out_size[written] = sizes[k, np.int64(at < count - 1)]
            out_flags[written] = _tick_flag(at, flags[k, row], count)
            written += 1
        for k in range(tracks):
            if head[k] == now:
                position[k] += 1
                if position[k] == count:
                    position[k] = 0
                    cursor[k] += 1
                head[k] = FOREVER
                if cursor[k] < ready[k]:
                    row = cursor[k]
                    head[k] = ts[k, row] + tick_offset(
                        position[k], ends[k, row] - ts[k, row], count
                    )
