"""Reads files for many tracks at once: first the scan, then the lazy streams of a run.

A file whose rows are in the order of time, whatever their symbol, is decoded once for all its
tracks. A file of blocks, one symbol after the other, is read by one cursor a track, which starts at
the track's first row. Either way a track's bars come in the order of time, a chunk at a time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from streambot.data.days import DayWalker
from streambot.data.source import DEFAULT_BATCH_ROWS, BarFile, Batch
from streambot.domain.errors import DataError
from streambot.domain.units import NANOS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streambot.data.rows import Bars
    from streambot.data.spill import Spill
    from streambot.data.track import Track

_MARGIN = (
    2 * NANOS_PER_DAY
)  # between a stored stamp and the bar's open: zones, and dates for sessions


_HEAD_ROWS = 4_096


class FileScan:
    """What a scan learned about the layout of a file.

    Attributes:
        in_time_order: rows never go back in time, whatever their symbol.
        newest_first: the file is read from its end.
    """

    def __init__(self) -> None:
        self.in_time_order = True
        self.newest_first = False


def split(
    batch: Batch, tracks: Sequence[Track]
) -> Iterator[tuple[Track, npt.NDArray[np.intp] | None]]:
    """The tracks that have rows in `batch`, each with those rows (None: all of them)."""
    if batch.symbol is None:
        for track in tracks:
            yield track, None
        return
    rows = dict(split_by_code(batch))
    for track in tracks:
        if track.code is None:
            yield track, None
        elif track.code in rows:
            yield track, rows[track.code]


def split_by_code(batch: Batch) -> Iterator[tuple[int | None, npt.NDArray[np.intp] | None]]:
    """Every symbol's code in `batch` with its rows in order; (None, None) in a file of one."""
    if batch.symbol is None:
        yield None, None
        return
    # Counting sort: 16 bits are enough for the symbols of most files, and much faster.
    codes = (
        batch.symbol.astype(np.int16) if int(batch.symbol.max(initial=0)) < 2**15 else batch.symbol
    )
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    bounds = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield int(ordered[low]), order[low:high]


def scan_file(file: BarFile, tracks: Sequence[Track], spill: Spill | None = None) -> FileScan:
    """Check every row of `tracks`, which are all in `file`, and write their bars to `spill`.

    Raises:
        DataError: the rows of a track are not bars that can be replayed.
    """
    scan = FileScan()
    scan.newest_first = _is_newest_first(file, tracks)
    _pass(file, tracks, scan, spill)
    # What a first pass finds may change how rows are read (fillers, dates written as midnights).
    again = [track for track in tracks if track.needs_rescan()]
    if again:
        for track in tracks:
            track.restart(newest_first=scan.newest_first)
            if spill is not None:
                spill.forget(track)
        _pass(file, tracks, scan, spill)
    for track in tracks:
        track.conclude()
    return scan


def _pass(file: BarFile, tracks: Sequence[Track], scan: FileScan, spill: Spill | None) -> None:
    previous = int(np.iinfo(np.int64).min)
    scan.in_time_order = True
    for batch in file.batches(span=_span(tracks), reverse=scan.newest_first):
        if not len(batch.ts):
            continue
        ts = batch.ts
        ordered = int(ts[0]) >= previous and bool((ts[1:] >= ts[:-1]).all())
        scan.in_time_order = scan.in_time_order and ordered
        previous = int(ts[-1])
        for track, index in split(batch, tracks):
            bars = track.scan(batch, index)
            if spill is not None and bars is not None:
                spill.append(track, bars)


def _is_newest_first(file: BarFile, tracks: Sequence[Track]) -> bool:
    """Whether the first rows go back in time, which some vendors' files do from end to end.

    If a later row breaks that order, the file is just unsorted, and read as it stands it says where.
    """
    first = next(file.batches(batch_rows=_HEAD_ROWS), None)
    if first is None:
        return False
    backwards = [
        bool(ts[1] < ts[0])
        for track, index in split(first, tracks)
        if len(ts := first.ts if index is None else first.ts[index]) > 1
    ]
    if not any(backwards):
        return False
    for batch in file.batches():
        for _, index in split(batch, tracks):
            ts = batch.ts if index is None else batch.ts[index]
            if not bool((ts[1:] < ts[:-1]).all()):
                return False
    for track in tracks:
        track.restart(newest_first=True)
    return True


def _span(tracks: Sequence[Track]) -> tuple[int, int]:
    """Stored stamps that can belong to the tracks' bars."""
    low = min(track.start for track in tracks)
    high = max(track.end for track in tracks)
    limits = np.iinfo(np.int64)
    return max(low, int(limits.min) + _MARGIN) - _MARGIN, min(
        high, int(limits.max) - _MARGIN
    ) + _MARGIN


class BarStream(Protocol):
    """The bars of one track, chunk after chunk."""

    def pull(self) -> Bars:
        """The next chunk; as many are pulled as the track has bars.

        Raises:
            DataError: the file has other rows than at its scan.
        """


class SpillStream:
    """A track's bars from a spill."""

    def __init__(self, track: Track, spill: Spill) -> None:
        self._blocks = spill.read(track)

    def pull(self) -> Bars:
        """See `BarStream.pull`."""
        return next(self._blocks)


class TrackStream:
    """A track's bars from its file, through a reader that it may share."""

    def __init__(self, track: Track) -> None:
        self.track = track
        self.reader: FileReader | None = None
        self._queue: deque[Bars] = deque()
        self._walker = DayWalker(track.clock, drop_fillers=True) if track.drop_fillers else None
        self._left = track.rows

    def offer(self, batch: Batch, index: npt.NDArray[np.intp] | None) -> None:
        """Take the track's rows of `batch`, to be pulled later."""
        bars = self.track.process(batch, index, self._walker)
        if len(bars):
            self._queue.append(bars)

    def pull(self) -> Bars:
        """See `BarStream.pull`."""
        while not self._queue:
            if self.reader is None or not self.reader.advance():
                raise self._changed()
        bars = self._queue.popleft()
        self._left -= len(bars)
        if self._left < 0:
            raise self._changed()
        return bars

    def _changed(self) -> DataError:
        return DataError(
            "the file changed while it was replayed",
            where=str(self.track.file.path),
            hint="replay it again once nothing writes to it",
        )


class FileReader:
    """Reads a file forward for the streams of one or more of its tracks."""

    def __init__(
        self,
        file: BarFile,
        streams: Sequence[TrackStream],
        scan: FileScan,
        batch_rows: int,
    ) -> None:
        self._streams = {stream.track: stream for stream in streams}
        self._tracks = tracks = list(self._streams)
        for stream in streams:
            stream.reader = self
        rows = (min(t.first_row for t in tracks), max(t.last_row for t in tracks) + 1)
        self._batches = file.batches(
            batch_rows=batch_rows, span=_span(tracks), rows=rows, reverse=scan.newest_first
        )

    def advance(self) -> bool:
        """Read one batch and hand its rows out; False at the end."""
        batch = next(self._batches, None)
        if batch is None:
            return False
        for track, index in split(batch, self._tracks):
            self._streams[track].offer(batch, index)
        return True


def open_streams(
    tracks: Sequence[Track],
    scans: dict[BarFile, FileScan],
    *,
    spill: Spill | None = None,
    batch_rows: int = DEFAULT_BATCH_ROWS,
) -> list[BarStream]:
    """A stream for every track, in their order."""
    if spill is not None:
        return [SpillStream(track, spill) for track in tracks]
    streams = [TrackStream(track) for track in tracks]
    by_file: dict[BarFile, list[TrackStream]] = {}
    for stream in streams:
        by_file.setdefault(stream.track.file, []).append(stream)
    for file, members in by_file.items():
        scan = scans[file]
        if len(members) == 1 or scan.in_time_order or all(m.track.code is None for m in members):
            together = min(DEFAULT_BATCH_ROWS, batch_rows * len(members))
            FileReader(file, members, scan, together)
        else:
            for member in members:
                FileReader(file, [member], scan, batch_rows)
    return list(streams)


def readers_needed(tracks: Sequence[Track]) -> int:
    """How many readers would be open at once: one a file, or one a track where symbols come in blocks."""
    by_file: dict[BarFile, list[Track]] = {}
    for track in tracks:
        by_file.setdefault(track.file, []).append(track)
    needed = 0
    for file, members in by_file.items():
        codes = {track.code for track in members}
        if len(codes) > 1:
            head = next(file.batches(batch_rows=_HEAD_ROWS), None)
            together = (
                head is not None and len({code for code, _ in split_by_code(head)} & codes) > 1
            )
            needed += 1 if together else len(codes)
        else:
            needed += 1
    return needed
