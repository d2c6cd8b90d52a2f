"""`DataLoader`: bars of a file, raw or processed, whole, in chunks, or one segment of them.

    loader = DataLoader(Path("spy_1m.parquet"))
    for bars in loader.raw("SPY"):            # numbers as the file has them, checked
        ...
    segment = loader.segment("SPY", start_ns, end_ns)

    loader = DataLoader(path, instruments={"SPY": spy})
    for bars in loader.bars("SPY"):           # prices in ticks, volume in steps, rounding counted
        ...

Nothing is read before it is asked for, and no more of it than a chunk at a time: row groups of a
Parquet file that lie outside the times asked for are not touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streambot.data.feed import Feed
from streambot.data.files import open_bars, symbol_code, symbol_of_file
from streambot.data.reading import open_streams, scan_file
from streambot.data.rows import Bars, RawBars, check_rows
from streambot.data.selection import Selection
from streambot.data.source import DEFAULT_BATCH_ROWS
from streambot.data.steps import StepCounter
from streambot.data.track import Track
from streambot.data.zones import zone_table
from streambot.domain.errors import ConfigError, DataError
from streambot.domain.units import NANOS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streambot.data.columns import ColumnMap
    from streambot.data.feed import FeedReport
    from streambot.data.reading import FileScan
    from streambot.domain.instruments import Instrument

EARLIEST, LATEST = -(2**62), 2**62
HEAD_ROWS = 4_096  # tell which way a file runs
_MARGIN = 2 * NANOS_PER_DAY


class DataLoader:
    """Bars of one file, of one instrument or many.

    Args:
        path: a Parquet or CSV file; stamps are the bars' opens.
        instruments: declarations by symbol, for processed bars and for the zone of naive stamps.
        timezone: zone of stamps that carry none; None: the instrument's.
        timeframe_ns: length of a bar; None: the most common step.
        quote_side: `bid` or `ask`, for files of quotes.
        columns: the file's names of the parts of a bar, where they are no usual ones.
        time_format: `strptime` pattern of stamps that two conventions could write.
        round_prices: go on where more than 1 % of the bars are off the tick grid.

    Raises:
        DataError: the file is missing, unreadable, empty, or has no bars.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        instruments: Mapping[str, Instrument] | None = None,
        timezone: str | None = None,
        timeframe_ns: int | None = None,
        quote_side: str = "bid",
        columns: Mapping[str, str] | None = None,
        time_format: str | None = None,
        round_prices: bool = False,
    ) -> None:
        self.path = Path(path)
        self._file = open_bars(
            self.path, quote_side=quote_side, columns=columns, time_format=time_format
        )
        self._instruments = dict(instruments or {})
        self._timezone = timezone
        self._timeframe = timeframe_ns
        self._round = round_prices
        self._quote_side = quote_side

    @property
    def columns(self) -> ColumnMap:
        """Which column is what."""
        return self._file.columns

    @property
    def symbols(self) -> tuple[str, ...]:
        """Instruments of the file, sorted."""
        if self._file.columns.symbol is None:
            return (symbol_of_file(self.path, self._file),)
        return tuple(sorted(self._file.symbols()))

    def __iter__(self) -> Iterator[RawBars]:
        """Raw chunks of the only instrument.

        Raises:
            DataError: there are several.
        """
        return self.raw()

    def raw(
        self,
        symbol: str | None = None,
        *,
        start: int | None = None,
        end: int | None = None,
        rows: int = DEFAULT_BATCH_ROWS,
    ) -> Iterator[RawBars]:
        """Chunks of about `rows` bars as the file has them, checked, oldest first.

        Args:
            symbol: which instrument; None: the only one.
            start, end: [from, to) of the bars' opens, UTC ns.

        Raises:
            DataError: a row is no bar, rows are not in the order of time, or stamps need a zone.
        """
        name = self._only(symbol)
        low, high = EARLIEST if start is None else start, LATEST if end is None else end
        zone = self._zone(name)
        dates = zone_table(zone or "UTC")
        selection = Selection(
            self._file,
            symbol_code(self._file, name),
            zone=zone,
            date_zone=dates,
            start=low,
            end=high,
        )
        previous = int(np.iinfo(np.int64).min)
        newest_first = self._is_newest_first(selection)
        span = (low - _MARGIN, high + _MARGIN)
        for batch in self._file.batches(batch_rows=rows, span=span, reverse=newest_first):
            index = selection.rows_of(batch)
            bars, place = selection.raw(batch, index)
            if len(bars):
                check_rows(bars, previous, place, name)
                previous = int(bars.ts[-1])
                yield bars
            stamps = batch.ts if index is None else batch.ts[index]
            if len(stamps) and int(stamps[-1]) >= span[1]:
                return

    def bars(
        self,
        symbol: str | None = None,
        *,
        start: int | None = None,
        end: int | None = None,
        rows: int = DEFAULT_BATCH_ROWS,
    ) -> Iterator[Bars]:
        """Chunks of processed bars: prices in ticks, volume in steps; all rows are checked first.

        Raises:
            ConfigError: no declaration of the instrument.
            DataError: bars that cannot be trusted.
        """
        track, scan = self._scanned(self._only(symbol), start, end)
        [stream] = open_streams([track], {self._file: scan}, batch_rows=rows)
        left = track.rows
        while left:
            bars = stream.pull()
            left -= len(bars)
            yield bars

    def report(
        self, symbol: str | None = None, *, start: int | None = None, end: int | None = None
    ) -> FeedReport:
        """What a scan of the bars finds: counts of what was rounded, flagged and rejected.

        Raises:
            ConfigError: no declaration of the instrument.
            DataError: bars that cannot be trusted.
        """
        name = self._only(symbol)
        track, _ = self._scanned(name, start, end)
        return track.report(name)

    def segment(self, symbol: str | None, start: int, end: int) -> RawBars:
        """The bars that open in [start, end), UTC ns, as the file has them: nothing else is read."""
        return _joined_raw(list(self.raw(symbol, start=start, end=end)))

    def processed_segment(self, symbol: str | None, start: int, end: int) -> Bars:
        """The bars that open in [start, end), UTC ns, in ticks and volume steps."""
        chunks = list(self.bars(symbol, start=start, end=end))
        if not chunks:
            return Bars(*(np.empty(0, dtype=np.int64) for _ in Bars._fields))
        return Bars(*(np.concatenate(column) for column in zip(*chunks, strict=True)))

    def timeframe(self, symbol: str | None = None) -> int:
        """Length of a bar, ns: given, or the most common step of the whole file.

        Raises:
            DataError: one bar alone has none.
        """
        if self._timeframe is not None:
            return self._timeframe
        counter = StepCounter()
        for bars in self.raw(symbol):
            counter.add(bars.ts)
        found = counter.most_common
        if found is None:
            raise DataError(
                "one bar has no timeframe to be seen",
                where=str(self.path),
                hint="give the timeframe",
            )
        return found

    def _only(self, symbol: str | None) -> str:
        if symbol is not None:
            return symbol
        if len(self.symbols) > 1:
            raise DataError(
                f"{len(self.symbols)} instruments: {', '.join(self.symbols[:8])}",
                where=str(self.path),
                hint="name one of them",
            )
        return self.symbols[0]

    def _zone(self, symbol: str) -> str | None:
        if self._timezone is not None:
            return self._timezone
        instrument = self._instruments.get(symbol)
        return instrument.timezone if instrument is not None else None

    def _is_newest_first(self, selection: Selection) -> bool:
        first = next(self._file.batches(batch_rows=HEAD_ROWS), None)
        if first is None:
            return False
        index = selection.rows_of(first)
        stamps = first.ts if index is None else first.ts[index]
        return len(stamps) > 1 and bool((stamps[1:] < stamps[:-1]).all())

    def _scanned(self, symbol: str, start: int | None, end: int | None) -> tuple[Track, FileScan]:
        instrument = self._instruments.get(symbol)
        if instrument is None:
            raise ConfigError(
                f"no declaration of {symbol}: processed bars need its tick size",
                where=str(self.path),
                hint="pass instruments={...}, for example from load_registry(); or read raw bars",
            )
        feed = Feed(
            instrument,
            self.path,
            timeframe_ns=self._timeframe,
            timezone=self._timezone,
            quote_side=self._quote_side,
        )
        low, high = EARLIEST if start is None else start, LATEST if end is None else end
        code = symbol_code(self._file, symbol)
        track = Track(self._file, feed, code, low, high, round_prices=self._round)
        return track, scan_file(self._file, [track])


def _joined_raw(chunks: list[RawBars]) -> RawBars:
    if not chunks:
        floats = [np.empty(0, dtype=np.float64) for _ in RawBars._fields[1:]]
        return RawBars(np.empty(0, dtype=np.int64), *floats)
    if len(chunks) == 1:
        return chunks[0]
    return RawBars(*(np.concatenate(column) for column in zip(*chunks, strict=True)))
