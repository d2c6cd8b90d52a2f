"""What looking through a recording finds: bars, sessions, and where it ends. No waiting, no log."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.data.recorded_rows import NO_TIME, note_rows
from streambot.data.spans import union

if TYPE_CHECKING:
    from streambot.streams.frame import Frame

Int64Array = npt.NDArray[np.int64]
NO_LIMIT = 1 << 62


class Looked(NamedTuple):
    """What looking through a recording found.

    Attributes:
        barriers: closed by each partition.
        complete: every partition has its END.
        chains: hash of each partition at its end, or at its last frame that counts.
        counts: int64 [n, 2]: bars of the source and decision bars of each instrument.
        first, last: int64 [n]: first tick, and close of the last session or bar; 0 without ticks.
        spans: int64 [k, 2]: sessions of all instruments.
        sessions: most sessions that an instrument has.
    """

    barriers: tuple[int, ...]
    complete: bool
    chains: tuple[bytes, ...]
    rows: int
    counts: Int64Array
    first: Int64Array
    last: Int64Array
    spans: Int64Array
    sessions: int
    last_close: int


class Look:
    """Counts the rows of one partition."""

    def __init__(
        self,
        instruments: int,
        limit: int,
        counts: Int64Array,
        first: Int64Array,
        last: Int64Array,
        sessions: Int64Array,
    ) -> None:
        self._limit = limit
        self._counts, self._first, self._last, self._sessions = counts, first, last, sessions
        self._opened = np.full(instruments, NO_TIME, np.int64)
        self._spans: list[Int64Array] = []
        self._waiting = np.empty((0, 3), np.int64)
        self.barriers = self.rows = self.last_close = 0
        self.chain = b""
        self.ended = False

    def add(self, frame: Frame) -> None:
        """The next frame."""
        self.barriers += len(frame.closes)
        self.ended = frame.totals is not None
        if frame.barrier_lo >= self._limit:
            return
        self.chain = frame.chain
        counted = min(len(frame.closes), self._limit - frame.barrier_lo)
        if counted > 0:
            self.last_close = int(frame.closes[counted - 1])
        ticks = frame.ticks
        if not len(ticks) and not len(self._waiting):
            return
        closing = np.empty((len(ticks), 3), np.int64)
        rows, found = note_rows(
            ticks.instrument, np.asarray(ticks.bar, np.uint16), ticks.flags, ticks.ts, frame.barrier_lo, self._limit,
            self._counts, self._first, self._opened, closing,
        )  # fmt: skip
        self.rows += rows
        self._settle(np.concatenate([self._waiting, closing[:found]]), frame)

    def spans(self) -> Int64Array:
        """Sessions of its instruments; one that is open ends with the last barrier."""
        opened = self._opened[self._opened != NO_TIME]
        rest = np.stack([opened, np.full(len(opened), self.last_close)], axis=1)
        spans = np.concatenate([*self._spans, rest[rest[:, 1] > rest[:, 0]]])
        return np.asarray(spans, np.int64)

    def _settle(self, closing: Int64Array, frame: Frame) -> None:
        """Bars close at their barrier, whose time may stand in a later frame.

        A row of `closing` is [instrument, begin of its session or `NO_TIME`, interval].
        """
        at = closing[:, 2] - frame.barrier_lo
        known = at < len(frame.closes)
        self._waiting = closing[~known]
        done = closing[known]
        if not len(done):
            return
        ends = frame.closes[at[known]]
        self._last[done[:, 0]] = ends
        whole = done[:, 1] != NO_TIME
        np.add.at(self._sessions, done[whole, 0], 1)
        self._spans.append(union([np.stack([done[whole, 1], ends[whole]], axis=1)]))
