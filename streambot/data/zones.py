"""Time zones as tables: the offset of many stamps at once, and the date that they fall on.

`zoneinfo` knows one stamp at a time. Its transitions between 1970 and 2100 fit in a few hundred
rows, which compiled code and numpy can search.
"""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from streambot.domain.errors import ConfigError, DataError
from streambot.domain.units import NANOS_PER_DAY, NANOS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

Int64Array = npt.NDArray[np.int64]

_FIRST_YEAR, _LAST_YEAR = 1970, 2100
_PROBE_DAYS = 14  # no zone has been seen to change twice within two weeks and back


class ZoneTable(NamedTuple):
    """Offsets of a zone from UTC.

    Attributes:
        name: IANA name.
        starts: int64 [n], UTC ns from which `offsets` hold; the first is the smallest int64.
        offsets: int64 [n], local minus UTC, ns.
    """

    name: str
    starts: Int64Array
    offsets: Int64Array

    def local(self, utc: Int64Array) -> Int64Array:
        """Local wall time of `utc`, in ns as if it were UTC."""
        index = np.searchsorted(self.starts, utc, side="right") - 1
        return np.asarray(utc + self.offsets[index], dtype=np.int64)

    def days(self, utc: Int64Array) -> Int64Array:
        """Local dates of `utc`, in days since 1970-01-01."""
        return np.asarray(self.local(utc) // NANOS_PER_DAY, dtype=np.int64)

    def utc(self, local: Int64Array) -> tuple[Int64Array, int]:
        """UTC of wall times, and the row of the first that is not exactly one instant (-1: none).

        When clocks go back an hour is there twice, when they go forward one is missing: what such
        a stamp means cannot be known.
        """
        if len(self.starts) == 1:
            return np.asarray(local - self.offsets[0], dtype=np.int64), -1
        # In local time, offset i holds from starts[i] + offsets[i] to starts[i + 1] + offsets[i].
        begins = self.starts[1:] + self.offsets[1:]
        index = np.searchsorted(begins, local, side="right")
        utc = local - self.offsets[index]
        back = np.searchsorted(self.starts, utc, side="right") - 1
        earlier = np.maximum(index - 1, 0)
        also = (index > 0) & (local < self.starts[index] + self.offsets[earlier])
        doubtful = (back != index) | also
        first = int(np.argmax(doubtful)) if doubtful.any() else -1
        return np.asarray(utc, dtype=np.int64), first

    def first_utc(self, local: Int64Array) -> Int64Array:
        """UTC of wall times: of two the first; of one that clocks skip, when they do."""
        begins = self.starts[1:] + self.offsets[1:]
        index = np.searchsorted(begins, local, side="right")
        sooner = np.maximum(index - 1, 0)
        early = local - self.offsets[sooner]
        index = np.where((index > 0) & (early < self.starts[index]), sooner, index)
        return np.asarray(local - self.offsets[index], dtype=np.int64)


def _offset(zone: ZoneInfo, moment: dt.datetime) -> dt.timedelta:
    return moment.astimezone(zone).utcoffset() or dt.timedelta(0)


@lru_cache(maxsize=64)
def zone_table(name: str) -> ZoneTable:
    """Offsets of the zone `name`.

    Raises:
        ConfigError: no such zone.
    """
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"unknown time zone {name!r}", hint="an IANA name such as `Asia/Kolkata` or `UTC`"
        ) from error
    moment = dt.datetime(_FIRST_YEAR, 1, 1, tzinfo=dt.UTC)
    end = dt.datetime(_LAST_YEAR, 1, 1, tzinfo=dt.UTC)
    step = dt.timedelta(days=_PROBE_DAYS)
    offset = _offset(zone, moment)
    rows = [(int(np.iinfo(np.int64).min), offset)]
    while moment < end:
        following = moment + step
        if _offset(zone, following) != offset:
            low, high = moment, following
            while high - low > dt.timedelta(seconds=1):
                middle = low + (high - low) // 2
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            second = round(high.timestamp())
            offset = _offset(zone, dt.datetime.fromtimestamp(second, dt.UTC))
            rows.append((second * NANOS_PER_SECOND, offset))
        moment = following
    starts = np.array([start for start, _ in rows], dtype=np.int64)
    offsets = np.array(
        [round(delta.total_seconds()) * NANOS_PER_SECOND for _, delta in rows], dtype=np.int64
    )
    starts.flags.writeable = offsets.flags.writeable = False
    return ZoneTable(name, starts, offsets)


def localized(
    naive: Int64Array,
    zone: str | None,
    *,
    place: Callable[[int], str],
    first_row: int = 0,
    row_step: int = 1,
) -> Int64Array:
    """UTC of stamps that carry no zone.

    Raises:
        DataError: there is no zone, or a stamp falls into the hour that clocks skip or repeat.
    """
    if zone is None:
        raise DataError(
            "time zone missing: the stamps have no offset and nothing says where they were written",
            where=place(first_row),
            hint="declare the instrument with its `timezone`, or pass the zone (for example UTC)",
        )
    utc, doubtful = zone_table(zone).utc(naive)
    if doubtful >= 0:
        stamp = np.datetime64(int(naive[doubtful]), "ns").astype("datetime64[s]")
        raise DataError(
            f"{stamp} happened twice or never in {zone} (clocks changed)",
            where=place(first_row + row_step * doubtful),
            hint="write the stamps in UTC or with their offset",
        )
    return utc
