"""Trading dates of bars, and where the bars of a date begin and end.

Rules (`docs/market-rules.md`, Sessions): a bar inside a session belongs to its date; a bar outside
belongs to the date of its stamp in the exchange's zone, and anchors nothing. On a date that the
calendar does not know, the session is the first open to the last close of the data: data wins. A
daily row becomes [session open, session close) of its date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.data.sessions import SessionTable, exchange_sessions, zone_sessions
from streambot.data.zones import ZoneTable, zone_table
from streambot.domain.units import NANOS_PER_DAY
from streambot.jit import njit

if TYPE_CHECKING:
    from streambot.data.rows import Bars
    from streambot.domain.instruments import Instrument

Int64Array = npt.NDArray[np.int64]

_JUMP = 0.15
OUTSIDE, FILLER, ZERO_VOLUME, NO_VOLUME, JUMP, UNKNOWN_DATE, TRADED = range(7)
COUNTS = 7
_FIRST_DAY, _LAST_DAY = 0, 36_524  # 1970 to 2069: days of 24 hours are made for these


class Clock(NamedTuple):
    """What tells the date of a stamp.

    Attributes:
        sessions: all sessions of the calendar, or every day of the zone.
        zone: offsets of the exchange's zone.
        has_calendar: False: sessions are days of 24 hours.
    """

    sessions: SessionTable
    zone: ZoneTable
    has_calendar: bool


def clock_of(instrument: Instrument) -> Clock:
    """Sessions and zone by which the bars of `instrument` get their dates.

    Raises:
        ConfigError: unknown exchange or zone.
    """
    if instrument.exchange is None:
        return Clock(
            zone_sessions(instrument.timezone, _FIRST_DAY, _LAST_DAY),
            zone_table(instrument.timezone),
            False,
        )
    sessions = exchange_sessions(instrument.exchange)
    return Clock(sessions, zone_table(sessions.timezone), True)


@njit
def _walk(
    ts: Int64Array,
    open_: Int64Array,
    high: Int64Array,
    low: Int64Array,
    close: Int64Array,
    volume: Int64Array,
    opens: Int64Array,
    closes: Int64Array,
    dates: Int64Array,
    starts: Int64Array,
    offsets: Int64Array,
    drop: bool,
    state: Int64Array,
    counts: Int64Array,
    out: Int64Array,
    keep: npt.NDArray[np.bool_],
) -> int:
    """Give every row its date.

    `state` = [session pointer, zone pointer, current day, previous close]. `out` [n, 4] gets
    (day, first stamp, last stamp, rows) of each date met, in order; `keep` which rows count. Returns
    how many dates.
    """
    session, zone, current, before = state[0], state[1], state[2], state[3]
    found = 0
    for row in range(len(ts)):
        t = ts[row]
        while session + 1 < len(opens) and opens[session + 1] <= t:
            session += 1
        while zone + 1 < len(starts) and starts[zone + 1] <= t:
            zone += 1
        inside = session >= 0 and t < closes[session]
        if inside:
            day = dates[session]
            known = True
        else:
            day = (t + offsets[zone]) // NANOS_PER_DAY
            near = np.searchsorted(dates, day)
            known = near < len(dates) and dates[near] == day
        day = max(
            day, current
        )  # dates never go back, also where a night session names the next one
        keep[row] = True
        if not inside:
            flat = high[row] == low[row]
            if known:
                counts[OUTSIDE] += 1
                if flat and volume[row] == 0:
                    counts[FILLER] += 1
                    if drop:
                        keep[row] = False
                        continue
            else:
                counts[UNKNOWN_DATE] += 1
        if volume[row] == 0:
            counts[ZERO_VOLUME] += 1
        elif volume[row] < 0:
            counts[NO_VOLUME] += 1
        else:
            counts[TRADED] += 1
        if (before > 0 and abs(open_[row] - before) > _JUMP * before) or abs(
            close[row] - open_[row]
        ) > _JUMP * open_[row]:
            counts[JUMP] += 1
        before = close[row]
        if found == 0 or out[found - 1, 0] != day:
            out[found, 0] = day
            out[found, 1] = t
            out[found, 3] = 0
            found += 1
        out[found - 1, 2] = t
        out[found - 1, 3] += 1
        current = day
    state[0], state[1], state[2], state[3] = session, zone, current, before
    return found


class DayWalker:
    """Walks over the bars of one instrument, chunk after chunk, and notes their dates."""

    def __init__(self, clock: Clock, *, drop_fillers: bool) -> None:
        self._clock = clock
        self._drop = drop_fillers
        self._state = np.array([-1, 0, np.iinfo(np.int64).min, 0], dtype=np.int64)
        self._blocks: list[Int64Array] = []
        self.counts = np.zeros(COUNTS, dtype=np.int64)

    def add(self, bars: Bars) -> npt.NDArray[np.bool_]:
        """Note the next bars; which of them count (all, unless fillers are dropped)."""
        sessions, zone, _ = self._clock
        keep = np.empty(len(bars), dtype=np.bool_)
        if not len(bars):
            return keep
        if self._state[0] < 0:
            self._state[0] = int(np.searchsorted(sessions.opens, bars.ts[0], side="right")) - 1
            self._state[1] = int(np.searchsorted(zone.starts, bars.ts[0], side="right")) - 1
        out = np.empty((len(bars), 4), dtype=np.int64)
        found = _walk(
            *bars,
            sessions.opens,
            sessions.closes,
            sessions.dates,
            zone.starts,
            zone.offsets,
            self._drop,
            self._state,
            self.counts,
            out,
            keep,
        )
        block = out[:found].copy()
        if self._blocks and found and self._blocks[-1][-1, 0] == block[0, 0]:
            last = self._blocks[-1][-1]
            last[2] = block[0, 2]
            last[3] += block[0, 3]
            block = block[1:]
        if len(block):
            self._blocks.append(block)
        return keep

    def days(self) -> Int64Array:
        """int64 [k, 4]: day, first stamp, last stamp, rows of each date so far."""
        return np.concatenate(self._blocks) if self._blocks else np.empty((0, 4), dtype=np.int64)


class DayTable(NamedTuple):
    """Dates of the bars of an instrument, in order.

    Attributes:
        day: int64 [k], trading date in days since 1970-01-01.
        first, last: int64 [k], stamps of its first and last bar as they replay (a daily row opens
            with its session).
        rows: int64 [k], bars.
        open, close: int64 [k], bounds of its session, UTC ns.
        known: bool [k], whether the calendar knows the date.
        cut: bool [k], whether a bar that runs over the session's close ends there: nothing trades
            after it.
    """

    day: Int64Array
    first: Int64Array
    last: Int64Array
    rows: Int64Array
    open: Int64Array
    close: Int64Array
    known: npt.NDArray[np.bool_]
    cut: npt.NDArray[np.bool_]


def day_table(days: Int64Array, clock: Clock, timeframe: int) -> DayTable:
    """Sessions of the dates in `days` (`DayWalker.days`), for bars of `timeframe` ns."""
    sessions = clock.sessions
    day, first, last, rows = (np.ascontiguousarray(days[:, column]) for column in range(4))
    near = np.minimum(np.searchsorted(sessions.dates, day), max(len(sessions) - 1, 0))
    known = sessions.dates[near] == day
    if timeframe >= NANOS_PER_DAY:
        opens, closes = _borrowed(day, near, known, clock)
        return DayTable(day, opens, opens.copy(), rows, opens, closes, known, np.ones_like(known))
    opens = np.where(known, sessions.opens[near], first)
    closes = np.where(known, sessions.closes[near], last + timeframe)
    cut = known & (last < closes) if clock.has_calendar else np.zeros_like(known)
    return DayTable(day, first, last, rows, opens, closes, known, cut)


def _borrowed(
    day: Int64Array, near: Int64Array, known: npt.NDArray[np.bool_], clock: Clock
) -> tuple[Int64Array, Int64Array]:
    """Bounds of the days' sessions; an unknown date takes the local hours of the session before it."""
    sessions, zone, _ = clock
    lender = np.where(known, near, np.maximum(near - 1, 0))
    opens, closes = sessions.opens[lender], sessions.closes[lender]
    if not known.all():
        shift = (day - sessions.dates[lender]) * NANOS_PER_DAY
        for bounds in (opens, closes):
            moved = zone.first_utc(zone.local(bounds) + shift)
            bounds[~known] = moved[~known]
    return opens, closes
