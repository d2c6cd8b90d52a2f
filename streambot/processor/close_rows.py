"""Brings the last row of a bar together with the close time of its barrier.

A frame may end inside an interval, and a bar may have its last tick well before the barrier at
which it closes: then the row says BAR_CLOSE, and the close time comes in a later frame. A bar
closes at its barrier, so such a row waits for the frame that closes its interval. It is the last row
of its instrument in the interval, so nothing overtakes it. At a closed barrier no row waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streambot.domain.ticks import TickBlock, TickFlag

if TYPE_CHECKING:
    import numpy.typing as npt

    from streambot.streams.frame import Frame

_BAR_CLOSE = int(TickFlag.BAR_CLOSE)


class CloseRows:
    """Holds back rows of one partition that close a bar of an interval still open."""

    def __init__(self) -> None:
        self._held: TickBlock | None = None

    @property
    def held(self) -> TickBlock | None:
        """The rows that wait: part of a snapshot."""
        return self._held

    def hold(self, rows: TickBlock | None) -> None:
        """Go on with the rows of a snapshot."""
        self._held = rows

    def settle(self, frame: Frame) -> Frame:
        """The frame with the rows that may be processed now, held ones first."""
        ticks = frame.ticks
        closes = len(frame.closes)
        if self._held is not None and closes:
            ticks = _joined(self._held, ticks)
            self._held = None
        if len(ticks) and int(ticks.bar[-1]) >= closes:
            waits = (ticks.bar >= closes) & (ticks.flags & _BAR_CLOSE != 0)
            if waits.any():
                rows = _picked(ticks, waits)
                rows.bar[:] = 0  # the next frame begins with the interval that is open now
                self._held = rows if self._held is None else _joined(self._held, rows)
                ticks = _picked(ticks, ~waits)
        if ticks is frame.ticks:
            return frame
        for column in ticks:
            # As in a decoded frame: compiled code would be compiled again for columns to write.
            column.flags.writeable = False
        return msgspec.structs.replace(frame, ticks=ticks)


def _picked(ticks: TickBlock, rows: npt.NDArray[np.bool_]) -> TickBlock:
    return TickBlock(
        instrument=ticks.instrument[rows],
        bar=ticks.bar[rows],
        flags=ticks.flags[rows],
        ts=ticks.ts[rows],
        price=ticks.price[rows],
        size=ticks.size[rows],
    )


def _joined(first: TickBlock, second: TickBlock) -> TickBlock:
    return TickBlock(
        instrument=np.concatenate((first.instrument, second.instrument)),
        bar=np.concatenate((first.bar, second.bar)),  # type: ignore[arg-type]
        flags=np.concatenate((first.flags, second.flags)),
        ts=np.concatenate((first.ts, second.ts)),
        price=np.concatenate((first.price, second.price)),
        size=np.concatenate((first.size, second.size)),
    )
