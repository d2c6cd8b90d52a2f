"""Processed bars of all tracks of a run, as far as they are read: what the merge works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streambot.data.merge import FOREVER, bars_before, distinct_closes, place_bars, skip_until
from streambot.domain.units import NANOS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.data.reading import BarStream
    from streambot.data.rows import Bars
    from streambot.data.track import Track

Int64Array = npt.NDArray[np.int64]

_COLUMNS = 8  # ts, end, decision close, open, high, low, close, volume
_TS, _END, _CLOSE, _OPEN = range(4)


class TrackBuffers:
    """Rows of every track between the oldest that is still needed and the newest that was read.

    Attributes:
        cursor: int64 [K], first bar with ticks to come.
        position: int64 [K], how many of that bar's ticks are behind.
        heads: int64 [K], first row that may close a barrier to come.
        ready: int64 [K], rows whose end and close are known.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        streams: Sequence[BarStream],
        decision: int,
    ) -> None:
        self._tracks = tracks
        self._streams = streams
        self._decision = decision
        count = len(tracks)
        self._columns = np.empty((_COLUMNS, count, 1024), dtype=np.int64)
        self.flags = np.empty((count, 1024), dtype=np.uint8)
        self.cursor, self.position, self.heads, self.ready, self._filled = (
            np.zeros(count, dtype=np.int64) for _ in range(5)
        )
        self._day = np.zeros(count, dtype=np.int64)
        self._delivered = np.zeros(count, dtype=np.int64)
        self.known_until = np.array(
            [FOREVER if track.days is None else int(track.days.first[0]) for track in tracks],
            dtype=np.int64,
        )
        """int64 [K]: every bar that opens before this time is ready."""

    @property
    def columns(self) -> npt.NDArray[np.int64]:
        """int64 [8, K, capacity]: ts, end, decision close, open, high, low, close, volume."""
        return self._columns

    @property
    def complete(self) -> bool:
        """True once every bar of the run is at hand."""
        return bool((self.known_until == FOREVER).all())

    def read_on(self, until: int) -> None:
        """Read the next chunk of every track that is not known beyond `until`."""
        for k in range(len(self._tracks)):
            if self.known_until[k] <= until:
                self._append(k, self._streams[k].pull())

    def horizon(self, quota: int) -> int:
        """How far the next `quota` bars of the track with the most bars reach; reads on until they are at hand."""
        while True:
            known = int(self.known_until.min())
            counts = bars_before(self._columns[_TS], self.ready, self.cursor, known)
            most = int(counts.argmax())
            if counts[most] > quota:
                return int(self._columns[_TS, most, int(self.cursor[most]) + quota])
            if known == FOREVER or counts[most] == quota or quota == FOREVER:
                return known
            self.read_on(known)

    def take_closes(self, horizon: int) -> Int64Array:
        """The barriers up to `horizon` or, where there is none, up to all that is known; each once."""
        out = np.empty(int((self.ready - self.heads).sum()), dtype=np.int64)
        for until in (horizon, int(self.known_until.min())):
            found = distinct_closes(
                self._columns[_CLOSE], self.flags, self.ready, self.heads, until, out
            )
            if found:
                return out[:found].copy()
        return out[:0]

    def skip(self, until: int, count: int) -> None:
        """Leave out all ticks before `until`, of bars of `count` ticks."""
        columns = self._columns
        skip_until(
            columns[_TS], columns[_END], self.ready, self.cursor, self.position, until, count
        )

    def _append(self, k: int, bars: Bars) -> None:
        track = self._tracks[k]
        days = track.days
        if days is None:  # a track without bars is complete from the start
            return
        self._make_room(k, len(bars))
        at = slice(int(self._filled[k]), int(self._filled[k]) + len(bars))
        ts = bars.ts
        if track.timeframe == NANOS_PER_DAY:
            done = int(self._delivered[k])
            ts = days.open[done : done + len(bars)]
        self._delivered[k] += len(bars)
        columns = self._columns
        columns[_TS, k, at] = ts
        for number, column in enumerate(bars[1:], _OPEN):
            columns[number, k, at] = column
        self._filled[k] = at.stop
        ready, day = place_bars(
            columns[_TS, k],
            columns[_END, k],
            columns[_CLOSE, k],
            self.flags[k],
            int(self.ready[k]),
            at.stop,
            int(self._day[k]),
            days.first,
            days.last,
            days.open,
            days.close,
            days.cut,
            track.timeframe,
            self._decision,
        )
        self.ready[k], self._day[k] = ready, day
        if ready < at.stop:
            self.known_until[k] = columns[_TS, k, ready]
        elif day + 1 < len(days.first):
            self.known_until[k] = days.first[day + 1]
        else:
            self.known_until[k] = FOREVER

    def _make_room(self, k: int, rows: int) -> None:
        """Drop what is behind, and grow where that is not enough."""
        used = int(min(self.cursor[k], self.heads[k]))
        filled = int(self._filled[k])
        if used:
            kept = slice(0, filled - used)
            self._columns[:, k, kept] = self._columns[:, k, used:filled].copy()
            self.flags[k, kept] = self.flags[k, used:filled].copy()
            for pointer in (self.cursor, self.heads, self.ready, self._filled):
                pointer[k] -= used
            filled -= used
        capacity = self.flags.shape[1]
        if filled + rows > capacity:
            wider = max(filled + rows, 2 * capacity) // 16 * 16 + 24
            columns = np.empty((_COLUMNS, len(self._tracks), wider), dtype=np.int64)
            columns[:, :, :capacity] = self._columns
            flags = np.empty((len(self._tracks), wider), dtype=np.uint8)
            flags[:, :capacity] = self.flags
            self._columns, self.flags = columns, flags
