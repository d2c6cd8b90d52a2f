"""Sessions of an exchange, or days of 24 hours where an instrument has none.

Rule (`docs/market-rules.md`, Time and ticks): bounds come from the pinned calendar
(`exchange_calendars`), else they are the 24 hours of a date in the instrument's zone. Importing the
calendars costs most of a second, so what they say is kept as `.npz` in the user's cache folder,
named by the exchange, the calendars' version and the format; a file that does not read back is
made again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import os
import tempfile
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.data.zones import zone_table
from streambot.domain.errors import ConfigError
from streambot.domain.suggest import did_you_mean
from streambot.domain.units import NANOS_PER_DAY

if TYPE_CHECKING:
    from streambot.domain.instruments import Instrument

Int64Array = npt.NDArray[np.int64]

CALENDAR_FIRST = "1970-01-01"
CALENDAR_LAST = "2045-12-31"
HORIZON_DAYS = 400
_FORMAT = 1


class SessionTable(NamedTuple):
    """Sessions in order.

    Attributes:
        opens: int64 [n], UTC ns.
        closes: int64 [n], UTC ns, exclusive.
        dates: int64 [n], trading date in days since 1970-01-01.
        timezone: IANA zone of the dates.
    """

    opens: Int64Array
    closes: Int64Array
    dates: Int64Array
    timezone: str

    def __len__(self) -> int:
        return len(self.opens)

    def between(self, first_ns: int, last_ns: int) -> SessionTable:
        """The sessions that end after `first_ns` and open before `last_ns`."""
        low = int(np.searchsorted(self.closes, first_ns, side="right"))
        high = int(np.searchsorted(self.opens, last_ns, side="left"))
        rows = slice(low, max(low, high))
        return SessionTable(self.opens[rows], self.closes[rows], self.dates[rows], self.timezone)


def calendars_version() -> str:
    """Version of the pinned calendars, for manifests."""
    return importlib.metadata.version("exchange_calendars")


def user_cache_folder() -> Path:
    """Where this user keeps what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "streambot" / "sessions"


def exchange_sessions(exchange: str, *, cache_folder: Path | None = None) -> SessionTable:
    """All sessions that the calendar of `exchange` knows.

    Raises:
        ConfigError: there is no such calendar.
    """
    return _exchange_sessions(exchange, cache_folder or user_cache_folder())


@lru_cache(maxsize=64)
def _exchange_sessions(exchange: str, folder: Path) -> SessionTable:
    safe = "".join(mark if mark.isalnum() else "_" for mark in exchange)
    path = folder / f"{safe}-{calendars_version()}-{_FORMAT}.npz"
    table = _read(path, exchange)
    if table is None:
        table = _from_calendar(exchange)
        _write(path, exchange, table)
    for column in (table.opens, table.closes, table.dates):
        column.flags.writeable = False
    return table


def _read(path: Path, exchange: str) -> SessionTable | None:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            names = [str(name) for name in kept["names"]]
            columns = [
                np.asarray(kept[name], dtype=np.int64) for name in ("opens", "closes", "dates")
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    table = SessionTable(columns[0], columns[1], columns[2], names[-1])
    ordered = all(
        column.ndim == 1
        and len(column) == len(table.opens) > 0
        and bool((np.diff(column) > 0).all())
        for column in columns
    )
    sane = (
        ordered
        and len(names) == 2
        and names[0] == exchange
        and bool((table.opens < table.closes).all())
    )
    return table if sane else None


def _write(path: Path, exchange: str, table: SessionTable) -> None:
    # A folder that cannot be written costs time at the next start, nothing else.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez_compressed(
                    stream,
                    opens=table.opens,
                    closes=table.closes,
                    dates=table.dates,
                    names=np.array([exchange, table.timezone]),
                )
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


def _from_calendar(exchange: str) -> SessionTable:
    # Imported here because it brings pandas: 0.7 s that a cached calendar does not cost.
    import exchange_calendars  # noqa: PLC0415
    from exchange_calendars import calendar_utils  # noqa: PLC0415

    names = exchange_calendars.get_calendar_names(include_aliases=True)
    if exchange not in names:
        raise ConfigError(
            f"no calendar for exchange {exchange!r}",
            hint=did_you_mean(exchange, names)
            + " (codes of exchange_calendars, or no exchange for 24-hour days)",
        )
    factory = calendar_utils._default_calendar_factories[  # noqa: SLF001  bounds are class methods of it
        calendar_utils.resolve_alias(exchange)
    ]
    first, last = np.datetime64(CALENDAR_FIRST, "D"), np.datetime64(CALENDAR_LAST, "D")
    earliest, latest = factory.bound_min(), factory.bound_max()
    if earliest is not None:
        first = max(first, earliest.to_datetime64().astype("datetime64[D]"))
    if latest is not None:
        last = min(last, latest.to_datetime64().astype("datetime64[D]"))
    with warnings.catch_warnings():
        # What newer pandas think of the calendars' code is no news for their users.
        warnings.simplefilter("ignore")
        calendar = factory(start=str(first), end=str(last))
    opens, closes = (
        bounds.dt.tz_convert(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
        for bounds in (calendar.opens, calendar.closes)
    )
    dates = calendar.sessions.to_numpy().astype("datetime64[D]").astype(np.int64)
    return SessionTable(opens, closes, dates, str(calendar.tz))


def zone_sessions(zone: str, first_day: int, last_day: int) -> SessionTable:
    """Days of 24 hours (23 or 25 when clocks change), `first_day` to `last_day` since 1970, inclusive."""
    table = zone_table(zone)
    days = np.arange(first_day, last_day + 2, dtype=np.int64)
    bounds = table.first_utc(days * NANOS_PER_DAY)
    return SessionTable(bounds[:-1], bounds[1:], days[:-1], zone)


def session_table(
    instrument: Instrument,
    first_ns: int,
    last_ns: int,
    *,
    horizon_days: int = HORIZON_DAYS,
    cache_folder: Path | None = None,
) -> SessionTable:
    """Sessions of `instrument` from `first_ns` to `horizon_days` after `last_ns`, by the calendar alone.

    What a calendar does not reach, it does not know: the table may end before the horizon.

    Raises:
        ConfigError: unknown exchange or zone.
    """
    until = last_ns + horizon_days * NANOS_PER_DAY
    if instrument.exchange is not None:
        return exchange_sessions(instrument.exchange, cache_folder=cache_folder).between(
            first_ns, until
        )
    zone = zone_table(instrument.timezone)
    first_day, last_day = (
        int(day) for day in zone.days(np.array([first_ns, until], dtype=np.int64))
    )
    return zone_sessions(instrument.timezone, first_day, last_day).between(first_ns, until)


def date_of(day: int) -> dt.date:
    """The date that is `day` days after 1970-01-01."""
    return dt.date(1970, 1, 1) + dt.timedelta(days=day)
