"""Bars as columns: what the engine can run directly, without making ticks of them first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class BarBlock(NamedTuple):
    """Columns of n bars of one instrument, in time order, not overlapping.

    Attributes:
        ts: int64 [n], open time, UTC ns; a bar covers [ts, ts + duration).
        duration: int64 [n], ns.
        open, high, low, close: int64 [n], ticks.
        volume: int64 [n], volume steps; -1 where the source has none.
        session_close: uint8 [n], 1 at the last bar of a trading date.
    """

    ts: npt.NDArray[np.int64]
    duration: npt.NDArray[np.int64]
    open: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    close: npt.NDArray[np.int64]
    volume: npt.NDArray[np.int64]
    session_close: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ts)
