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
    from streambot.streams.frame import Frame

_BAR_CLOSE = int(TickFlag.BAR_CLOSE)


class CloseRows:
    """Holds back rows of one partition that close a bar of an interval still open."""

    def __init__(self) -> None:
        self._held: TickBlock | None = None

    def settle(self, frame: Frame) -> Frame:
        """The frame with the rows that may be processed now, held ones first."""
        ticks = frame.ticks
        closes = len(frame.closes)
        if self._held is not None and closes:
            ticks = TickBlock(
                *(np.concatenate(pair) for pair in zip(self._held, ticks, strict=True))  # type: ignore[arg-type]
            )
            self._held = None
        if len(ticks) and int(ticks.bar[-1]) >= closes:
            waits = (ticks.bar >= closes) & (ticks.flags & _BAR_CLOSE != 0)
            if waits.any():
                self._hold(
                    TickBlock(
                        instrument=ticks.instrument[waits],
                        bar=np.zeros(int(waits.sum()), np.uint16),
                        flags=ticks.flags[waits],
                        ts=ticks.ts[waits],
                        price=ticks.price[waits],
                        size=ticks.size[waits],
                    )
                )
                ticks = TickBlock(*(column[~waits] for column in ticks))  # type: ignore[arg-type]
        return frame if ticks is frame.ticks else msgspec.structs.replace(frame, ticks=ticks)

    def _hold(self, rows: TickBlock) -> None:
        if self._held is not None:
            rows = TickBlock(
                *(np.concatenate(pair) for pair in zip(self._held, rows, strict=True))
            )
        self._held = rows
