"""One stream of processed bars: rows of one symbol of one file, on one tick grid, by one calendar.

Two instruments on one chart share a track where grid and calendar agree. A track is scanned once
before a run: every row is checked, so that a run never stops in the middle for a fault that was
there at its start; then it is read again, lazily, as the run advances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streambot.data.days import (
    FILLER,
    JUMP,
    NO_VOLUME,
    OUTSIDE,
    TRADED,
    UNKNOWN_DATE,
    ZERO_VOLUME,
    DayTable,
    DayWalker,
    clock_of,
    day_table,
)
from streambot.data.feed import Feed, FeedReport
from streambot.data.rows import Bars, Grid, RawBars, check_rows, onto_grid
from streambot.data.selection import Selection
from streambot.data.stamps import StampKind
from streambot.data.steps import StepCounter
from streambot.data.ticksize import suggested_tick
from streambot.domain.durations import format_duration
from streambot.domain.errors import DataError
from streambot.domain.units import NANOS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.data.source import BarFile, Batch

Int64Array = npt.NDArray[np.int64]

_SMALLEST = int(np.iinfo(np.int64).min)
_SHORTEST_STEP = 10_000
"""Bars closer than 10 us leave no room for the ticks inside a bar."""
_LONGEST_FRAME = NANOS_PER_DAY
_REFUSED_SHARE = 0.01


class Track:
    """Rows of one symbol, from file numbers to ticks; what a scan knows about them.

    Attributes:
        file: where the rows are.
        name: symbol in messages.
        code: its code in `file`; None in a file of one instrument.
        start, end: [from, to) of the bars' opens, UTC ns.
        first_row, last_row: rows of the file that hold it (after a scan).
        rows: bars that replay (after a scan).
        days: their trading dates (after a scan).
        timeframe: length of a bar, ns (after a scan).
    """

    def __init__(
        self,
        file: BarFile,
        feed: Feed,
        code: int | None,
        start: int,
        end: int,
        *,
        round_prices: bool,
    ) -> None:
        instrument = feed.instrument
        self.file = file
        self.feed = feed
        self.name = instrument.chart
        self.code = code
        self.start = start
        self.end = end
        self.clock = clock_of(instrument)
        self._tick = Grid.of(instrument.tick_size)
        self._step = Grid.of(instrument.volume_step)
        self._round = round_prices
        # Dates are the exchange's; wall times are the instrument's, unless the feed says.
        zone = feed.timezone or instrument.timezone
        self.selection = Selection(
            file, code, zone=zone, date_zone=self.clock.zone, start=start, end=end
        )
        self.drop_fillers = False
        self.newest_first = False
        self._reset()

    def _reset(self) -> None:
        self.first_row = self.last_row = -1
        self.rows = 0
        self.timeframe = 0
        self.days: DayTable | None = None
        self._walker = DayWalker(self.clock, drop_fillers=self.drop_fillers)
        self._steps = StepCounter()
        self._rounded = self._rounded_volume = self._crossed = self._seen = 0
        self._previous = _SMALLEST
        self._midnights = True

    def process(
        self, batch: Batch, index: npt.NDArray[np.intp] | None, walker: DayWalker | None = None
    ) -> Bars:
        """The track's bars in `batch` (`index`: its rows; None: all), in ticks, within [start, end).

        With `walker` fillers are dropped by what it knows of the bars before.
        """
        bars, _, _ = self._onto_grid(*self.selection.raw(batch, index))
        if walker is not None:
            keep = walker.add(bars)
            if not keep.all():
                bars = Bars(*(column[keep] for column in bars))
        return bars

    def scan(self, batch: Batch, index: npt.NDArray[np.intp] | None) -> Bars | None:
        """Check the track's rows in `batch` and note what they are; the bars that replay.

        Raises:
            DataError: a row is no bar, or does not follow the one before.
        """
        raw, place = self.selection.raw(batch, index)
        if not len(raw):
            return None
        check_rows(raw, self._previous, place, self.name)
        self._previous = int(raw.ts[-1])
        bars, rounded, rounded_volume = self._onto_grid(raw, place)
        self._rounded += rounded
        self._rounded_volume += rounded_volume
        self._seen += len(bars)
        keep = self._walker.add(bars)
        self._midnights = self._midnights and not bool((bars.ts % NANOS_PER_DAY).any())
        if not keep.all():
            bars = Bars(*(column[keep] for column in bars))
        self._steps.add(bars.ts)
        self.rows += len(bars)
        if batch.other_close is not None:
            other = batch.other_close if index is None else batch.other_close[index]
            close = batch.close if index is None else batch.close[index]
            bid, ask = (close, other) if self.feed.quote_side == "bid" else (other, close)
            self._crossed += int(np.count_nonzero(bid > ask))
        rows = (0, len(batch.ts) - 1) if index is None else (int(index[0]), int(index[-1]))
        ends = sorted(batch.first_row + batch.row_step * row for row in rows)
        self.first_row = ends[0] if self.first_row < 0 else min(self.first_row, ends[0])
        self.last_row = max(self.last_row, ends[1])
        return bars

    def needs_rescan(self) -> bool:
        """After a scan: whether something that it found changes how rows are read.

        Then the track is set back, and the caller scans again.
        """
        counts = self._walker.counts
        fillers = bool(counts[FILLER]) and bool(counts[TRADED]) and not self.drop_fillers
        # Dates written as UTC midnights are labels: in New York they would fall on the day before.
        labels = (
            not self.selection.dates_as_midnights
            and self._midnights
            and self.rows > 1
            and self.file.stamps is StampKind.INSTANT
            and self._inferred() == NANOS_PER_DAY
            and self.clock.zone.name != "UTC"
        )
        if not (fillers or labels):
            return False
        self.drop_fillers = self.drop_fillers or fillers
        self.selection.dates_as_midnights = self.selection.dates_as_midnights or labels
        self._reset()
        return True

    def restart(self, *, newest_first: bool) -> None:
        """Forget the scan: the file is read in the other direction."""
        self.newest_first = newest_first
        self._reset()

    def conclude(self) -> None:
        """End the scan: the timeframe, the dates, and whether the whole can be trusted.

        Raises:
            DataError: no timeframe, a timeframe that does not fit the rows, or rows off the grid.
        """
        where = str(self.file.path)
        if self._seen and self._rounded > _REFUSED_SHARE * self._seen and not self._round:
            raise self._off_grid(where)
        self.timeframe = self.feed.timeframe_ns or self._inferred() or 0
        if not self.rows:
            return
        if not self.timeframe:
            raise DataError(
                f"{self.name}: one bar has no timeframe to be seen",
                where=where,
                hint="give the timeframe, or more bars",
            )
        if self.timeframe > _LONGEST_FRAME:
            raise DataError(
                f"{self.name}: bars of {format_duration(self.timeframe)}; the longest is a day",
                where=where,
                hint="use daily bars, or finer",
            )
        if self._steps.shortest and self._steps.shortest < _SHORTEST_STEP:
            raise DataError(
                f"{self.name}: rows {self._steps.shortest} ns apart are ticks, not bars",
                where=where,
                hint="aggregate them into bars",
            )
        days = self._walker.days()
        if self.timeframe == NANOS_PER_DAY and int(days[:, 3].max()) > 1:
            day = int(days[int(np.argmax(days[:, 3])), 0])
            raise DataError(
                f"{self.name}: two daily bars for {np.datetime64(day, 'D')} in {self.clock.zone.name}",
                where=where,
                hint="keep one row for every date",
            )
        overlapping = self._steps.shorter_than(self.timeframe)
        if overlapping > _REFUSED_SHARE * self.rows:
            raise DataError(
                f"{self.name}: {overlapping} of {self.rows} bars begin before the one before them ends "
                f"({format_duration(self.timeframe)})",
                where=where,
                hint="split the file by timeframe, or give the timeframe",
            )
        self.days = day_table(days, self.clock, self.timeframe)

    def report(self, symbol: str) -> FeedReport:
        """What the scan found, for the instrument `symbol`."""
        counts = self._walker.counts
        days = self.days
        daily = self.timeframe == NANOS_PER_DAY
        missing = 0
        if days is not None and self.clock.has_calendar:
            dates = self.clock.sessions.dates
            between = np.searchsorted(dates, days.day[-1], "right") - np.searchsorted(
                dates, days.day[0]
            )
            missing = int(between) - int(np.count_nonzero(days.known))
        last = 0
        if days is not None:
            last = int(days.close[-1]) if daily else int(days.last[-1]) + self.timeframe
            if days.cut[-1]:
                last = min(last, int(days.close[-1]))
        unknown = 0 if days is None else int(np.count_nonzero(~days.known))
        name = f"{self.file.path}" + (f":{self.name}" if self.code is not None else "")
        return FeedReport(
            symbol=symbol,
            source=name,
            bars=self.rows,
            first_ns=int(days.first[0]) if days is not None else 0,
            last_ns=last,
            timeframe_ns=self.timeframe,
            timeframe_inferred=self.feed.timeframe_ns is None,
            sessions=len(days.day) if days is not None else 0,
            rounded=self._rounded,
            volume_rounded=self._rounded_volume,
            newest_first=self.newest_first,
            outside_session=0
            if daily
            else int(counts[OUTSIDE]) - (int(counts[FILLER]) if self.drop_fillers else 0),
            unknown_dates=unknown,
            unknown_date_bars=int(days.rows[~days.known].sum())
            if daily and days is not None
            else int(counts[UNKNOWN_DATE]),
            missing_sessions=missing,
            zero_volume=int(counts[ZERO_VOLUME]),
            no_volume=int(counts[NO_VOLUME]),
            overlapping=self._steps.shorter_than(self.timeframe),
            crossed=self._crossed,
            jumps=int(counts[JUMP]),
            rejected={"filler": int(counts[FILLER]) if self.drop_fillers else 0},
        )

    def _inferred(self) -> int | None:
        return self._steps.most_common

    def _off_grid(self, where: str) -> DataError:
        tick = self.feed.instrument.tick_size
        suggestion = suggested_tick(self._sample())
        return DataError(
            f"{self.name}: {self._rounded} of {self._seen} bars have prices off the tick grid of {tick}",
            where=where,
            hint=(
                f"declare `tick_size: {suggestion:f}`"
                if suggestion is not None
                else "declare a finer `tick_size`"
            )
            + ", or round the prices with --round",
        )

    def _sample(self) -> RawBars:
        chosen = (
            self.selection.raw(batch, self.rows_of(batch))[0]
            for batch in self.file.batches(rows=(0, self.last_row + 1))
        )
        for raw in chosen:
            if len(raw):
                return raw
        raise DataError("the file changed while it was read", where=str(self.file.path))

    def rows_of(self, batch: Batch) -> npt.NDArray[np.intp] | None:
        """Rows of `batch` that are the track's; None where all are."""
        return self.selection.rows_of(batch)

    def _onto_grid(self, raw: RawBars, place: Callable[[int], str]) -> tuple[Bars, int, int]:
        return onto_grid(raw, self._tick, self._step, place, self.name)
