"""What one step of an engine task brings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class StepOutput(NamedTuple):
    """What one frame brought, as record values: whole lines, or None for no record.

    Attributes:
        orders: what the co-located agent answered, through the last barrier of the frame.
        fills: events of the engine.
        pnl: marks.
        events, marks: counts of lines.
        equity: int64 [3, marks]: barrier, instrument number and equity of each mark, slot by slot.
    """

    orders: bytes | None
    fills: bytes | None
    pnl: bytes | None
    events: int = 0
    marks: int = 0
    equity: npt.NDArray[np.int64] | None = None
