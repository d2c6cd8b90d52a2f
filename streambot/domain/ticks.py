"""Ticks as columns: what a frame carries, a replay produces and the engine consumes.

A block is a set of numpy arrays of one length. Rows are ordered by interval, then by `ts`, then by
instrument, then by source sequence. An *interval* k holds what happens after barrier k - 1 and up
to barrier k; barrier k is the k-th distinct close of a decision bar over all instruments of a run
(`docs/market-rules.md`, Time and ticks).
"""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

UNKNOWN_SIZE = -1
"""Size of a tick whose source has no volume; 0 is a volume."""


class TickFlag(IntFlag):
    """What a row is besides a price."""

    BAR_OPEN = 1
    """First tick of a bar of the source (a real tick stream sets it on the first of a bar)."""
    BAR_CLOSE = 2
    """Last tick of the instrument's decision bar: that bar closes at this interval's barrier."""
    SESSION_CLOSE = 4
    """With BAR_CLOSE: the last bar of the instrument's trading date."""


KNOWN_FLAGS = int(TickFlag.BAR_OPEN | TickFlag.BAR_CLOSE | TickFlag.SESSION_CLOSE)


TICK = np.dtype(
    [
        ("ts", "i8"),
        ("price", "i8"),
        ("size", "i8"),
        ("bar", "u4"),
        ("flags", "u4"),
    ]
)
"""One tick of one instrument, where a row is read at a time: fields as in `TickBlock`, `bar` the
interval counted from the run's first. Without padding: the same ticks are the same bytes."""


class TickBlock(NamedTuple):
    """Columns of n ticks.

    Attributes:
        instrument: uint16 [n], the instrument's number in the run (symbols sorted, from 0).
        bar: uint16 [n] in a frame, uint32 [n] in a window: interval minus the block's first one.
        flags: uint8 [n], `TickFlag`.
        ts: int64 [n], UTC nanoseconds: when the fact was knowable.
        price: int64 [n], in ticks of the instrument.
        size: int64 [n], in volume steps of the instrument; -1 where the source has none.
    """

    instrument: npt.NDArray[np.uint16]
    bar: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    flags: npt.NDArray[np.uint8]
    ts: npt.NDArray[np.int64]
    price: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]

    def __len__(self) -> int:  # a block is as long as its columns
        return len(self.ts)
