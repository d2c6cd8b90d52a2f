"""Processed bars on disk, for replays that read many files at once.

A reader of a Parquet file keeps a page of every column in memory: 5 MB a file, half a gigabyte for
a hundred. Where a run has many files, the scan, which sees every bar anyway, writes them
down in blocks, and the replay reads the blocks back. What a block holds are differences, in the
fewest bytes that hold them (about ten a bar of minutes), in a file without a name in the user's
cache folder, which is gone with the process. Without room or right to write there, the replay reads
the files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streambot.data.rows import Bars
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streambot.data.track import Track

BLOCK_ROWS = 4_096
_BYTES_PER_BAR = 48  # at most: six columns of eight bytes
_WIDTHS = ((1, 7), (2, 15), (4, 31), (8, 63))
_SPARE_BYTES = 1 << 30  # left to everybody else on that disk


class Block(NamedTuple):
    """Consecutive bars of a track.

    Attributes:
        offset: in the file, bytes.
        rows: count of bars.
        ts, open: of the first bar.
        unit: what the steps between stamps are multiples of, ns.
        widths: bytes of a value, for each of the six columns.
    """

    offset: int
    rows: int
    ts: int
    open: int
    unit: int
    widths: tuple[int, ...]


def pack(bars: Bars, offset: int) -> tuple[Block, bytes]:
    """A block of `bars` (at least one) that lies at `offset`, and its bytes."""
    steps = np.diff(bars.ts, prepend=bars.ts[:1])
    unit = max(1, int(np.gcd.reduce(steps)))
    columns = (
        steps // unit,
        np.diff(bars.open, prepend=bars.open[:1]),
        bars.high - bars.open,
        bars.open - bars.low,
        bars.close - bars.open,
        bars.volume,
    )
    parts, widths = [], []
    for column in columns:
        largest = max(int(column.max()), -int(column.min()) - 1)
        width = next(width for width, bits in _WIDTHS if largest < 1 << bits)
        parts.append(column.astype(f"<i{width}").tobytes())
        widths.append(width)
    block = Block(offset, len(bars), int(bars.ts[0]), int(bars.open[0]), unit, tuple(widths))
    return block, b"".join(parts)


def unpack(block: Block, data: bytes) -> Bars:
    """The bars of `block`."""
    columns, at = [], 0
    for width in block.widths:
        columns.append(np.frombuffer(data, f"<i{width}", block.rows, at).astype(np.int64))
        at += width * block.rows
    steps, opens, above, below, change, volume = columns
    opened = np.cumsum(opens) + block.open
    return Bars(
        np.cumsum(steps * block.unit) + block.ts,
        opened,
        opened + above,
        opened - below,
        opened + change,
        volume,
    )


class Spill:
    """Blocks of processed bars of many tracks, in one nameless file."""

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)
        """Gives the disk back; so does losing the last reference."""
        self._end = 0
        self._blocks: dict[Track, list[Block]] = {}

    @classmethod
    def opened(cls, folder: Path, bars: int) -> Spill | None:
        """A spill in `folder` with room for `bars`; None where there is no room, or no right to it."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < bars * _BYTES_PER_BAR + _SPARE_BYTES:
                return None
            with tempfile.TemporaryFile(dir=folder) as file:
                return cls(os.dup(file.fileno()))
        except OSError:
            return None

    def forget(self, track: Track) -> None:
        """Leave out what was written of `track`: it is scanned again."""
        self._blocks.pop(track, None)

    def append(self, track: Track, bars: Bars) -> None:
        """Write the next bars of `track`.

        Raises:
            DataError: the disk is full.
        """
        blocks = self._blocks.setdefault(track, [])
        for low in range(0, len(bars), BLOCK_ROWS):
            part = Bars(*(column[low : low + BLOCK_ROWS] for column in bars))
            block, data = pack(part, self._end)
            self._write(data)
            blocks.append(block)
            self._end += len(data)

    def read(self, track: Track) -> Iterator[Bars]:
        """The bars of `track`, block after block, however many read at once."""
        for block in self._blocks.get(track, []):
            size = block.rows * sum(block.widths)
            yield unpack(block, os.pread(self._file, size, block.offset))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise DataError(
                f"no room for the bars that are being read: {error.strerror}",
                where="cache folder",
                hint="free some disk, or replay fewer files at once",
            ) from error
