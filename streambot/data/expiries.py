"""When an option's contracts end, and how many units their lots have.

Rule (`docs/market-rules.md`, Expiry): a contract ends at the session close of its date; a date
without a session moves to the session before it; lot sizes follow the contract's expiry. Only what
the calendar knows exists: the table ends with it.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.data.sessions import SessionTable, date_of
from streambot.domain.instruments import ExpiryRule, Instrument, LotRule, Series

Int64Array = npt.NDArray[np.int64]

_EPOCH = dt.date(1970, 1, 1)
_WEEKDAYS = {"MON": 0, "TUE": 1, "WED": 2, "THU": 3, "FRI": 4}


class ExpiryTable(NamedTuple):
    """Contracts of an option in the order of their ends.

    Attributes:
        ts: int64 [k], expiry in UTC ns: the close of its session.
        lot: int64 [k], units per lot.
        min_days: trading days that lie between a decision and its contract's expiry, at least. With
            `expires_after: N` every session ends a contract, and this is N.
    """

    ts: Int64Array
    lot: Int64Array
    min_days: int


def expiries(instrument: Instrument, sessions: SessionTable) -> ExpiryTable:
    """Resolve the contracts of `instrument` that end in `sessions`.

    A contract for which no row of `lot_size` holds does not exist. A stock has none.
    """
    rule = instrument.expiries
    if not instrument.is_option or rule is None or not len(sessions):
        return ExpiryTable(np.empty(0, np.int64), np.empty(0, np.int64), instrument.min_days)
    if rule.expires_after is not None:
        contracts: list[tuple[int, Series | None]] = [(int(day), None) for day in sessions.dates]
        return _table(instrument, sessions, contracts, rule.expires_after)
    if rule.dates is not None:
        scheduled: list[tuple[dt.date, Series | None]] = [
            (date, None) for date in sorted(rule.dates)
        ]
    else:
        scheduled = _scheduled(
            rule.rules or (), date_of(int(sessions.dates[0])), date_of(int(sessions.dates[-1]))
        )
    by_day: dict[int, Series | None] = {}
    for date, series in scheduled:
        index = int(np.searchsorted(sessions.dates, (date - _EPOCH).days, side="right")) - 1
        # Behind the calendar's end nothing can be said, not even that the date is no holiday.
        if index < 0 or (date - _EPOCH).days > int(sessions.dates[-1]):
            continue
        day = int(sessions.dates[index])
        if by_day.get(day) is not Series.MONTHLY:
            by_day[day] = series
    return _table(instrument, sessions, sorted(by_day.items()), instrument.min_days)


def _scheduled(
    rules: tuple[ExpiryRule, ...], first: dt.date, last: dt.date
) -> list[tuple[dt.date, Series | None]]:
    """Dates of the rules before holidays move them; the monthly contract is its week's weekly one."""
    weekly: dict[dt.date, Series | None] = {}
    monthly: dict[dt.date, Series | None] = {}
    for rule in rules:
        begin = max(first, rule.from_date or first)
        # A holiday may move a date of the month after `last` back into it, but never by a month.
        end = min(last, rule.to_date or last)
        date = begin + dt.timedelta(days=(_WEEKDAYS[rule.weekday.value] - begin.weekday()) % 7)
        while date <= end:
            if rule.series is Series.WEEKLY:
                weekly[date] = Series.WEEKLY
            elif (date + dt.timedelta(days=7)).month != date.month:
                monthly[date] = Series.MONTHLY
            date += dt.timedelta(days=7)
    return sorted((weekly | monthly).items())


def _table(
    instrument: Instrument,
    sessions: SessionTable,
    contracts: list[tuple[int, Series | None]],
    min_days: int,
) -> ExpiryTable:
    ends: list[int] = []
    lots: list[int] = []
    for day, series in contracts:
        lot = lot_of(instrument.lot_size, date_of(day), series)
        if lot is not None:
            ends.append(int(sessions.closes[int(np.searchsorted(sessions.dates, day))]))
            lots.append(lot)
    return ExpiryTable(np.array(ends, dtype=np.int64), np.array(lots, dtype=np.int64), min_days)


def lot_of(
    lot_size: int | tuple[LotRule, ...], expiry: dt.date, series: Series | None
) -> int | None:
    """Units per lot of a contract; None where no row holds. The first row that holds counts."""
    if isinstance(lot_size, int):
        return lot_size
    for rule in lot_size:
        of_series = rule.series is None or series is None or rule.series is series
        begun = rule.from_expiry is None or expiry >= rule.from_expiry
        if of_series and begun and (rule.to_expiry is None or expiry <= rule.to_expiry):
            return rule.lot
    return None
