"""The rows of one symbol in the batches of its file, with their stamps in UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streambot.data.rows import RawBars
from streambot.data.stamps import StampKind
from streambot.data.zones import ZoneTable, localized
from streambot.domain.units import NANOS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.data.source import BarFile, Batch

Int64Array = npt.NDArray[np.int64]


class Selection:
    """Which rows of a file are wanted, and how their stamps are read.

    Attributes:
        dates_as_midnights: every stamp is a UTC midnight that stands for a date. Such a date, like
            one without a time, is stamped at its midnight in `date_zone`.
    """

    def __init__(
        self,
        file: BarFile,
        code: int | None,
        *,
        zone: str | None,
        date_zone: ZoneTable,
        start: int,
        end: int,
    ) -> None:
        self.dates_as_midnights = False
        self._file = file
        self._code = code
        self._zone = zone
        self._date_zone = date_zone
        self._start = start
        self._end = end

    def rows_of(self, batch: Batch) -> npt.NDArray[np.intp] | None:
        """Rows of `batch` that are wanted; None where all are."""
        if self._code is None or batch.symbol is None:
            return None
        return np.flatnonzero(batch.symbol == self._code)

    def raw(
        self, batch: Batch, index: npt.NDArray[np.intp] | None
    ) -> tuple[RawBars, Callable[[int], str]]:
        """Rows `index` of `batch` (None: all) within [start, end), and what names one of them.

        Raises:
            DataError: the stamps need a zone, or one is not a time in it.
        """
        prices = (batch.open, batch.high, batch.low, batch.close)
        volume = np.full(len(batch.ts), np.nan) if batch.volume is None else batch.volume
        ts = batch.ts
        if index is not None:
            ts, volume = ts[index], volume[index]
            prices = tuple(column[index] for column in prices)  # type: ignore[assignment]

        def place(row: int) -> str:
            within = row if index is None else int(index[row])
            return self._file.place(batch.first_row + batch.row_step * within)

        ts = self._utc(ts, place)
        low, high = 0, len(ts)
        if high and (
            ts[0] < self._start or ts[-1] >= self._end or not bool((ts[1:] > ts[:-1]).all())
        ):
            inside = np.flatnonzero((ts >= self._start) & (ts < self._end))
            low, high = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        part = slice(low, high)
        open_, high_, low_, close = (column[part] for column in prices)
        raw = RawBars(ts[part], open_, high_, low_, close, volume[part])
        return raw, lambda row: place(low + row)

    def _utc(self, ts: Int64Array, place: Callable[[int], str]) -> Int64Array:
        stamps = self._file.stamps
        if stamps is StampKind.INSTANT and not self.dates_as_midnights:
            return ts
        if stamps is StampKind.NAIVE:
            return localized(ts, self._zone, place=place)
        return self._date_zone.first_utc(ts // NANOS_PER_DAY * NANOS_PER_DAY)
