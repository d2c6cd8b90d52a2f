"""How a segment store is made: windows of a recording in, columns out, memory bounded.

The market's part of every bar is what a slot that never trades knows at its close: the engine's own
code runs one over the ticks (`engine.walk.advance_bar`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.data.segments import (
    BAR_ROW,
    FORMAT,
    SegmentHead,
    Segments,
    file_of,
    in_memory,
    open_segments,
    write_head,
)
from streambot.data.sessions import session_table
from streambot.data.timeline import Window
from streambot.domain.durations import format_duration
from streambot.domain.errors import ConfigError, DataError
from streambot.domain.instruments import Instrument
from streambot.domain.ticks import TICK, TickFlag
from streambot.engine.drive import make_log
from streambot.engine.ordering import Calendar, SlotContext, empty_calendar
from streambot.engine.slots import NO_MARKS, RING, SlotLimits, make_params, new_slot
from streambot.engine.walk import advance_bar
from streambot.jit import njit
from streambot.market.bars import TradingDates
from streambot.market.features import Features, push_features
from streambot.streams.rows import rows_by_slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from streambot.market.feature_config import FeatureConfig


Records = npt.NDArray[np.void]
_BAR_CLOSE = int(TickFlag.BAR_CLOSE)
_SESSION_CLOSE = int(TickFlag.SESSION_CLOSE)
_KEPT_BYTES = 1 << 20
"""Of one instrument's column, in memory before they are written."""
_STREAMED = ("ticks", "bars", "window", "slow")
_CALENDARS = ("session_opens", "session_closes", "expiries", "lots")


class Recording(NamedTuple):
    """What a store is made of.

    Attributes:
        instruments: by number.
        context: what each slot knows besides its ticks, by symbol.
        windows: the whole timeline, in order.
        source: what it is, with a fingerprint.
        complete: False: it may still grow.
        decision_ns: decision timeframe.
        stop_at_tick: ticks are real.
    """

    instruments: tuple[Instrument, ...]
    context: Mapping[str, SlotContext]
    windows: Iterable[Window]
    source: str
    complete: bool
    decision_ns: int
    stop_at_tick: bool = False


@njit
def _copy_ticks(block: Any, rows: Any, interval: int, out: Any) -> int:
    """Rows of one instrument, one record each; how many of them lie before its last close, with it."""
    done = 0
    for k in range(len(rows)):
        r = rows[k]
        out[k].ts = block.ts[r]
        out[k].price = block.price[r]
        out[k].size = block.size[r]
        out[k].bar = interval + block.bar[r]
        out[k].flags = block.flags[r]
        if (block.flags[r] & _BAR_CLOSE) != 0:
            done = k + 1
    return done


@njit
def _extend(
    p: Any,
    s: Any,
    ring: Any,
    log: Any,
    calendar: Any,
    ticks: Any,
    first_tick: int,
    closes: Any,
    features: Any,
    n: int,
    dates: Any,
    bars: Any,
    window: Any,
    slow: Any,
) -> int:
    """Run a slot that never trades over whole bars; how many there were.

    `ticks` are whole bars, `first_tick` the number of the first of them.
    """
    row = 0
    count = 0
    while row < len(ticks):
        begin = row
        log.n_events, log.n_marks = 0, 0
        row = advance_bar(p, s, ring, log, calendar, ticks, begin, closes)
        b = bars[count]
        b.tick = first_tick + begin
        b.open_ts, b.close_ts, b.barrier = s.bar_open_ts, s.close_ts, s.barrier
        b.open, b.high, b.low, b.close = s.bar_open, s.bar_high, s.bar_low, s.last_price
        b.volume = s.bar_volume
        b.atr, b.atr_count, b.prev_close = s.atr, s.atr_count, s.prev_close
        b.day_open, b.day_high, b.day_low = s.day_open, s.day_high, s.day_low
        b.day_prev_close = s.day_prev_close
        b.daily_atr, b.daily_count = s.daily_atr, s.daily_count
        session_close = (ticks[row - 1].flags & _SESSION_CLOSE) != 0
        push_features(
            features, n, dates.opens, dates.closes, s.bar_open_ts, s.close_ts, s.bar_open, s.bar_high,
            s.bar_low, s.last_price, s.bar_volume, session_close, window[count], slow[count],
        )  # fmt: skip
        count += 1
    return count


class SegmentBuilder:
    """Takes windows, gives columns.

    Args:
        instruments: by number.
        context: what each slot knows besides its ticks, by symbol.
        config: which features.
        stop_at_tick: ticks are real.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        context: Mapping[str, SlotContext],
        config: FeatureConfig,
        *,
        stop_at_tick: bool = False,
    ) -> None:
        limits = SlotLimits(mark_every_ns=NO_MARKS, stop_at_tick=stop_at_tick)
        self.instruments = tuple(instruments)
        self.features = Features(config, [trading_dates(i, config) for i in self.instruments])
        self._params = [make_params(i, 1, limits) for i in self.instruments]
        self._slots = [new_slot(p) for p in self._params]
        self._ring, self._log = np.zeros(1, RING), make_log()
        self.contexts = [
            context.get(i.symbol, SlotContext(empty_calendar())) for i in self.instruments
        ]
        for slot, known in zip(self._slots, self.contexts, strict=True):
            known.warm(slot[0])
        self._pending = [np.empty(0, TICK) for _ in self.instruments]
        self.ticks = np.zeros(len(self.instruments), np.int64)
        self._numbers = np.arange(max(1, len(self.instruments)), dtype=np.int64)
        self._closes = np.empty(1024, np.int64)
        self.barriers = 0

    @property
    def closes(self) -> npt.NDArray[np.int64]:
        """Close times of the barriers so far."""
        return self._closes[: self.barriers]

    def add(self, window: Window) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
        """Take the next window; for each instrument with new bars its number and new rows by column."""
        self._add_closes(window.closes)
        block, count = window.ticks, len(self.instruments)
        rows, starts = rows_by_slot(block.instrument, self._numbers, count)
        for n in range(count):
            own = rows[starts[n] : starts[n + 1]]
            if not len(own):
                continue
            fresh = np.empty(len(own), TICK)
            done = int(_copy_ticks(block, own, window.barrier_lo, fresh))
            if not done:
                self._pending[n] = np.concatenate([self._pending[n], fresh])
                continue
            whole = np.concatenate([self._pending[n], fresh[:done]])
            self._pending[n] = fresh[done:]
            yield n, self._bars(n, whole)

    def _bars(self, n: int, ticks: Records) -> dict[str, npt.NDArray[Any]]:
        config = self.features.config
        most = int(np.count_nonzero(ticks["flags"] & _BAR_CLOSE))
        bars = np.zeros(most, BAR_ROW)
        window = np.zeros((most, len(config.window_fields)), np.float32)
        slow = np.zeros((most, len(config.slow_fields)), np.float32)
        _extend(
            self._params[n][0], self._slots[n][0], self._ring[0], self._log[0],
            self.contexts[n].calendar, ticks, int(self.ticks[n]), self.closes,
            self.features.arrays, n, self.features.dates[n], bars, window, slow,
        )  # fmt: skip
        self.ticks[n] += len(ticks)
        return {"ticks": ticks, "bars": bars, "window": window, "slow": slow}

    def _add_closes(self, closes: npt.NDArray[np.int64]) -> None:
        while self.barriers + len(closes) > len(self._closes):
            self._closes = np.concatenate([self._closes, np.empty_like(self._closes)])
        self._closes[self.barriers : self.barriers + len(closes)] = closes
        self.barriers += len(closes)


def trading_dates(instrument: Instrument, config: FeatureConfig) -> TradingDates:
    """All sessions of `instrument` that its calendar knows, where coarser timeframes need them."""
    none = np.empty(0, np.int64)
    if not config.timeframes:
        return TradingDates(none, none.copy(), none.copy())
    table = session_table(instrument, 0, _LATEST_NS, horizon_days=0)
    return TradingDates(table.opens.copy(), table.opens.copy(), table.closes.copy())


_LATEST_NS = 2_398_291_200_000_000_000  # 2045-12-31: what the calendars reach


class _Parts:
    """Rows of each instrument and column, in memory or in files of their own."""

    def __init__(self, count: int, folder: Path | None) -> None:
        self._folder = folder
        self._kept: dict[str, list[list[npt.NDArray[Any]]]] = {
            name: [[] for _ in range(count)] for name in _STREAMED
        }
        self._bytes = {name: [0] * count for name in _STREAMED}
        self.rows = {name: [0] * count for name in _STREAMED}

    def add(self, n: int, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        for name, rows in columns.items():
            self._kept[name][n].append(rows)
            self._bytes[name][n] += rows.nbytes
            self.rows[name][n] += len(rows)
            if self._folder is not None and self._bytes[name][n] > _KEPT_BYTES:
                self._flush(self._folder, name, n)

    def in_memory(self, name: str) -> list[npt.NDArray[Any]]:
        return [part for parts in self._kept[name] for part in parts]

    def write(self, folder: Path, name: str) -> None:
        """Put the instruments' rows of a column one behind the other."""
        with file_of(folder, name).open("wb") as column:
            for n in range(len(self._kept[name])):
                part = folder / f"{name}.{n}.part"
                if part.exists():
                    self._flush(folder, name, n)
                    with part.open("rb") as rows:
                        shutil.copyfileobj(rows, column, 1 << 20)
                    part.unlink()
                else:
                    column.writelines(rows.tobytes() for rows in self._kept[name][n])
                    self._kept[name][n] = []

    def _flush(self, folder: Path, name: str, n: int) -> None:
        with (folder / f"{name}.{n}.part").open("ab") as part:
            part.writelines(rows.tobytes() for rows in self._kept[name][n])
        self._kept[name][n] = []
        self._bytes[name][n] = 0


def check_timeframes(config: FeatureConfig, decision_ns: int) -> None:
    """Raise `ConfigError` where a coarser timeframe is not made of whole decision bars."""
    for timeframe in config.timeframes:
        if timeframe % decision_ns:
            raise ConfigError(
                f"bars of {format_duration(timeframe)} are not made of whole bars of "
                f"{format_duration(decision_ns)}, on which decisions are taken",
                where="timeframes",
                hint=f"multiples of {format_duration(decision_ns)}",
            )


def build_segments(recording: Recording, config: FeatureConfig, folder: Path | None) -> Segments:
    """Consume a recording, once.

    Args:
        config: which features.
        folder: where the columns go, an empty folder; None: they stay in memory.

    Raises:
        DataError: there is no whole bar in it.
        ConfigError: see `check_timeframes`.
    """
    check_timeframes(config, recording.decision_ns)
    builder = SegmentBuilder(
        recording.instruments, recording.context, config, stop_at_tick=recording.stop_at_tick
    )
    parts = _Parts(len(recording.instruments), folder)
    for window in recording.windows:
        for n, columns in builder.add(window):
            parts.add(n, columns)
    return _finish(recording, config, builder, parts, folder)


def _finish(
    recording: Recording,
    config: FeatureConfig,
    builder: SegmentBuilder,
    parts: _Parts,
    folder: Path | None,
) -> Segments:
    calendars = [_columns_of(context.calendar) for context in builder.contexts]
    counts: dict[str, list[int]] = dict(parts.rows)
    for name in _CALENDARS:
        counts[name] = [len(calendar[name]) for calendar in calendars]
    head = SegmentHead(
        format=FORMAT,
        source=recording.source,
        complete=recording.complete,
        instruments=builder.instruments,
        features=config,
        decision_ns=recording.decision_ns,
        stop_at_tick=recording.stop_at_tick,
        starts={name: (0, *np.cumsum(rows).tolist()) for name, rows in counts.items()},
        barriers=builder.barriers,
    )
    if not head.starts["bars"][-1]:
        raise DataError(f"{recording.source}: no whole bar to make an episode of")
    whole: dict[str, Sequence[npt.NDArray[Any]]] = {"closes": [builder.closes]}
    for name in _CALENDARS:
        whole[name] = [calendar[name] for calendar in calendars]
    if folder is None:
        return in_memory(head, {**whole, **{name: parts.in_memory(name) for name in _STREAMED}})
    for name, arrays in whole.items():
        with file_of(folder, name).open("wb") as column:
            column.writelines(array.tobytes() for array in arrays)
    for name in _STREAMED:
        parts.write(folder, name)
    write_head(folder, head)
    return open_segments(folder)


def _columns_of(calendar: Calendar) -> dict[str, npt.NDArray[np.int64]]:
    return dict(zip(_CALENDARS, calendar, strict=True))
