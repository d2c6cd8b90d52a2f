"""The run-wide timeline: ticks of all instruments in one order, cut at barriers.

Rules: `docs/market-rules.md`, Time and ticks. Barrier k is the k-th distinct close of a decision bar
over all instruments; an interval holds the ticks after barrier k - 1 and before the close of
barrier k. The order of ticks is (interval, ts, instrument, source), which is the order of time. It
depends on the bars and the settings alone: not on the order of the feeds, the size of windows, the
layout of files, or where a replay is resumed.

Everything is lazy: files are checked once, row by row, then read again as the run goes, and memory
does not grow with the length of the replay.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.data.buffers import TrackBuffers
from streambot.data.expand import ticks_per_bar
from streambot.data.feed import Feed, FeedReport
from streambot.data.files import open_bars, symbol_code
from streambot.data.merge import FOREVER, bars_before, emit
from streambot.data.philox import stream_key
from streambot.data.reading import FileScan, open_streams, readers_needed, scan_file
from streambot.data.sessions import (
    HORIZON_DAYS,
    SessionTable,
    session_table,
    user_cache_folder,
)
from streambot.data.spans import gaps_within, open_hours, union
from streambot.data.spill import Spill
from streambot.data.track import Track
from streambot.domain.durations import format_duration
from streambot.domain.errors import ConfigError, DataError
from streambot.domain.replay_settings import BarPath, BridgePath, Moment, OhlcPath
from streambot.domain.ticks import TickBlock
from streambot.domain.units import NANOS_PER_DAY
from streambot.market.bars import TradingDates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streambot.data.source import BarFile
    from streambot.domain.instruments import Instrument

Int64Array = npt.NDArray[np.int64]

WINDOW_TICKS = 200_000
MOST_READERS = 12
"""More files than these are not read twice, but kept on disk as processed bars."""
BYTES_PER_TICK = 29
"""Of a row in a frame: instrument 2, bar 2, flags 1, ts, price and size 8 each."""
_BUFFERED_BARS = 262_144  # read ahead, over all tracks together
_FEWEST_ROWS, _MOST_ROWS = 2_048, 65_536
_EARLIEST, _LATEST = -(2**62), 2**62


class Window(NamedTuple):
    """A stretch of the timeline that holds whole intervals of all instruments.

    Attributes:
        barrier_lo: number of its first interval, and of the barrier that closes it.
        closes: int64 [m], closes of the barriers `barrier_lo` to `barrier_lo + m - 1`, UTC ns.
        ticks: all ticks before the last of them; `bar` is uint32, interval minus `barrier_lo`.
        closed_spans: int64 [g, 2], stretches between the end of the window before (at the start:
            the first tick) and the window's last close, in which no instrument's session is open.
    """

    barrier_lo: int
    closes: Int64Array
    ticks: TickBlock
    closed_spans: Int64Array


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay will be, known before its first tick.

    Attributes:
        symbols: of the instruments, in the order of their numbers.
        bars, ticks: over all instruments.
        sessions: distinct trading dates with bars.
        decision_ns: the decision timeframe.
        first_ns, last_ns: first tick, and last close, UTC ns.
        open_ns: market time between them in which at least one session is open.
        closed_ns: the rest: nights, weekends, holidays, dates without bars.
        estimated_bytes: of the ticks stream.
        instruments: what the scan of each instrument's bars found.
    """

    symbols: tuple[str, ...]
    bars: int
    ticks: int
    sessions: int
    decision_ns: int
    first_ns: int
    last_ns: int
    open_ns: int
    closed_ns: int
    estimated_bytes: int
    instruments: tuple[FeedReport, ...]


class Timeline:
    """Ticks of a run.

    Args:
        feeds: one for every instrument, in any order; instruments may share a chart.
        decision_ns: the decision timeframe; None: the coarsest of the feeds.
        start, end: [from, to) of the bars' opens: UTC ns, or a `Moment`, which each instrument
            reads in its own zone; None: everything.
        bar_path: how bars become ticks.
        seed: of the seeded path.
        round_prices: go on where more than 1 % of an instrument's bars are off its tick grid.
        window_ticks: about how many ticks a window has; more where one interval has more.

    Raises:
        ConfigError: no feeds, two for one symbol, an unknown exchange or zone.
        DataError: a file cannot be read, or has no bars of an instrument.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        *,
        decision_ns: int | None = None,
        start: int | Moment | None = None,
        end: int | Moment | None = None,
        bar_path: BarPath | None = None,
        seed: int = 0,
        round_prices: bool = False,
        window_ticks: int = WINDOW_TICKS,
    ) -> None:
        if not feeds:
            raise ConfigError(
                "there is nothing to replay", hint="name at least one instrument and its bars"
            )
        self._feeds = sorted(feeds, key=lambda feed: feed.instrument.symbol)
        self.instruments: tuple[Instrument, ...] = tuple(feed.instrument for feed in self._feeds)
        self.symbols: tuple[str, ...] = tuple(instrument.symbol for instrument in self.instruments)
        for symbol, following in zip(self.symbols, self.symbols[1:], strict=False):
            if symbol == following:
                raise ConfigError(
                    f"{symbol} has two sources of bars", hint="give each instrument one"
                )
        self._path: BarPath = bar_path or OhlcPath()
        self._count = ticks_per_bar(self._path)
        self._seed = seed
        self._window_ticks = max(1, window_ticks)
        self._asked = decision_ns
        self._files: dict[tuple[object, ...], BarFile] = {}
        self._scans: dict[BarFile, FileScan] = {}
        self._open_hours: Int64Array = np.empty((0, 2), dtype=np.int64)
        self._decision = 0
        self._plan: Plan | None = None
        self._spill: Spill | None = None
        tracks: dict[tuple[object, ...], Track] = {}
        track_of = []
        for feed in self._feeds:
            key, track = self._track(feed, start, end, tracks, round_prices=round_prices)
            tracks[key] = track
            track_of.append(list(tracks).index(key))
        self._tracks = list(tracks.values())
        self._track_of = np.array(track_of, dtype=np.int64)

    @property
    def decision_ns(self) -> int:
        """The decision timeframe (scans the files, once)."""
        self.plan()
        return self._decision

    def plan(self) -> Plan:
        """Check every row, once, and say what the replay will be.

        Raises:
            DataError: bars that cannot be trusted.
            ConfigError: the decision timeframe is finer than an instrument's bars.
        """
        if self._plan is None:
            by_file: dict[BarFile, list[Track]] = {}
            for track in self._tracks:
                by_file.setdefault(track.file, []).append(track)
            if readers_needed(self._tracks) > MOST_READERS:
                bars = sum(file.rows_at_most for file in by_file)
                self._spill = Spill.opened(user_cache_folder(), bars)
            for file, tracks in by_file.items():
                self._scans[file] = scan_file(file, tracks, self._spill)
            self._decision = self._decision_timeframe()
            self._plan = self._planned()
        return self._plan

    def windows(self, from_barrier: int = 0) -> Iterator[Window]:
        """The windows in order, from the interval `from_barrier` on.

        Resuming gives what the straight run gives from there: the bars before are read for the
        numbers of their barriers, and become no ticks.
        """
        plan = self.plan()
        rows = min(max(_BUFFERED_BARS // len(self._tracks), _FEWEST_ROWS), _MOST_ROWS)
        streams = open_streams(self._tracks, self._scans, spill=self._spill, batch_rows=rows)
        buffers = TrackBuffers(self._tracks, streams, self._decision)
        keys = np.array(
            [stream_key(self._seed, track.name) for track in self._tracks], dtype=np.int64
        )
        quota = max(1, self._window_ticks // (self._count * len(self._feeds)))
        barrier, covered = 0, plan.first_ns
        while True:
            horizon = buffers.horizon(quota if barrier >= from_barrier else FOREVER)
            closes = buffers.take_closes(horizon)
            if not len(closes):
                if buffers.complete:
                    return
                buffers.read_on(int(buffers.known_until.min()))
                continue
            if barrier < from_barrier:
                skipped = min(len(closes), from_barrier - barrier)
                covered = int(closes[skipped - 1])
                buffers.skip(covered, self._count)
                barrier += skipped
                closes = closes[skipped:]
                if not len(closes):
                    continue
            until = int(closes[-1])
            yield Window(
                barrier,
                closes,
                self._emit(buffers, keys, closes, until),
                gaps_within(self._open_hours, covered, until),
            )
            barrier += len(closes)
            covered = until

    def sessions(self, symbol: str, *, horizon_days: int = HORIZON_DAYS) -> SessionTable:
        """Calendar sessions of `symbol` over its bars and `horizon_days` beyond."""
        report = self.plan().instruments[self.symbols.index(symbol)]
        instrument = self.instruments[self.symbols.index(symbol)]
        first, last = report.first_ns, report.last_ns
        if not report.bars:
            first, last = self.plan().first_ns, self.plan().last_ns
        return session_table(instrument, first - NANOS_PER_DAY, last, horizon_days=horizon_days)

    def trading_dates(self, symbol: str) -> TradingDates:
        """Dates of the bars of `symbol` with their bounds, where the data win over the calendar."""
        self.plan()
        days = self._tracks[self._track_of[self.symbols.index(symbol)]].days
        if days is None:
            none = np.empty(0, dtype=np.int64)
            return TradingDates(none, none, none)
        return TradingDates(days.first, days.open, days.close)

    def _track(
        self,
        feed: Feed,
        start: int | Moment | None,
        end: int | Moment | None,
        tracks: dict[tuple[object, ...], Track],
        *,
        round_prices: bool,
    ) -> tuple[tuple[object, ...], Track]:
        instrument = feed.instrument
        columns = tuple(sorted((feed.columns or {}).items()))
        source = (feed.path.resolve(), feed.quote_side, columns, feed.time_format)
        if source not in self._files:
            self._files[source] = open_bars(
                Path(feed.path),
                quote_side=feed.quote_side,
                columns=feed.columns,
                time_format=feed.time_format,
            )
        file = self._files[source]
        code = symbol_code(file, feed.symbol or instrument.chart)
        low = start.start_ns(instrument.timezone) if isinstance(start, Moment) else start
        high = end.end_ns(instrument.timezone) if isinstance(end, Moment) else end
        low, high = _EARLIEST if low is None else low, _LATEST if high is None else high
        if low >= high:
            raise ConfigError(
                "the end of the replay is not after its start", hint="swap --from and --to"
            )
        key = (
            source,
            code,
            instrument.tick_size,
            instrument.volume_step,
            instrument.exchange,
            instrument.timezone,
            feed.timezone,
            feed.timeframe_ns,
            low,
            high,
        )
        track = tracks.get(key) or Track(file, feed, code, low, high, round_prices=round_prices)
        return key, track

    def _decision_timeframe(self) -> int:
        with_bars = [track for track in self._tracks if track.rows]
        if not with_bars:
            names = ", ".join(self.symbols[:5])
            raise DataError(
                f"no bars of {names} between the start and the end of the replay",
                where=str(self._feeds[0].path),
                hint="`streambot data inspect FILE` shows the span of a file",
            )
        coarsest = max(with_bars, key=lambda track: track.timeframe)
        decision = self._asked or coarsest.timeframe
        if decision < coarsest.timeframe:
            raise ConfigError(
                f"decisions every {format_duration(decision)} are finer than the bars of {coarsest.name} "
                f"({format_duration(coarsest.timeframe)})",
                hint=f"--timeframe {format_duration(coarsest.timeframe)} or coarser",
            )
        if decision > NANOS_PER_DAY:
            raise ConfigError(
                f"decisions every {format_duration(decision)}; the coarsest is one day",
                hint="--timeframe 1d",
            )
        return decision

    def _planned(self) -> Plan:
        reports = tuple(
            self._tracks[track].report(symbol)
            for symbol, track in zip(self.symbols, self._track_of, strict=True)
        )
        parts, dates = [], []
        for track in self._tracks:
            if track.days is not None:
                parts.append(
                    open_hours(track.days, track.timeframe, has_calendar=track.clock.has_calendar)
                    if track.timeframe < NANOS_PER_DAY
                    else np.stack([track.days.open, track.days.close], axis=1)
                )
                dates.append(track.days.day)
        self._open_hours = union(parts)
        first = min(report.first_ns for report in reports if report.bars)
        last = max(report.last_ns for report in reports if report.bars)
        closed = gaps_within(self._open_hours, first, last)
        closed_ns = int((closed[:, 1] - closed[:, 0]).sum())
        bars = sum(report.bars for report in reports)
        return Plan(
            symbols=self.symbols,
            bars=bars,
            ticks=bars * self._count,
            sessions=len(np.unique(np.concatenate(dates))),
            decision_ns=self._decision,
            first_ns=first,
            last_ns=last,
            open_ns=last - first - closed_ns,
            closed_ns=closed_ns,
            estimated_bytes=bars * self._count * BYTES_PER_TICK,
            instruments=reports,
        )

    def _emit(
        self, buffers: TrackBuffers, keys: Int64Array, closes: Int64Array, until: int
    ) -> TickBlock:
        columns = buffers.columns
        counts = bars_before(columns[0], buffers.ready, buffers.cursor, until)
        room = int(counts[self._track_of].sum()) * self._count
        instrument, bar = np.empty(room, dtype=np.uint16), np.empty(room, dtype=np.uint32)
        flags = np.empty(room, dtype=np.uint8)
        ts, price, size = (np.empty(room, dtype=np.int64) for _ in range(3))
        written = emit(
            columns[0],
            columns[1],
            buffers.flags,
            columns[3],
            columns[4],
            columns[5],
            columns[6],
            columns[7],
            buffers.ready,
            buffers.cursor,
            buffers.position,
            self._track_of,
            keys,
            isinstance(self._path, BridgePath),
            self._count,
            closes,
            until,
            instrument,
            bar,
            flags,
            ts,
            price,
            size,
        )
        rows = slice(written)
        return TickBlock(
            instrument[rows], bar[rows], flags[rows], ts[rows], price[rows], size[rows]
        )
