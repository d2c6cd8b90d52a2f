"""Where the data of an environment come from, behind one port: whatever opens as `Segments`.

A source is small and travels between processes: the data do not. Recorded runs and bar files become
a segment store on disk first (`wiring.environments`), and are a `StoredSource` from then on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streambot.data.expand import expand
from streambot.data.rows import Bars
from streambot.data.segment_build import Recording, build_segments
from streambot.data.segments import open_segments
from streambot.data.timeline import Window
from streambot.domain.bars import BarBlock
from streambot.domain.errors import DataError
from streambot.domain.instruments import Instrument
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.engine.backtesting import is_sorted
from streambot.engine.ordering import SlotContext, empty_calendar

if TYPE_CHECKING:
    from streambot.data.segments import Segments
    from streambot.market.feature_config import FeatureConfig


class Source(Protocol):
    """Data of an environment."""

    def open(self, features: FeatureConfig) -> Segments:
        """The segments, with these features.

        Raises:
            DataError: the data cannot be used.
        """
        ...


class StoredSource(NamedTuple):
    """A segment store on disk.

    Attributes:
        folder: where it lies.
        planned_ns: of a recording that is still written, the close of the last bar that it will
            have, UTC ns; None: it is whole.
    """

    folder: Path
    planned_ns: int | None = None

    def open(self, features: FeatureConfig) -> Segments:
        """Map it into memory.

        Raises:
            DataError: it is not there (any more), damaged, or has other features.
        """
        segments = open_segments(self.folder)
        if segments.head.features != features:
            raise DataError(
                "the segment store has other features than were asked for",
                where=str(self.folder),
                hint="make the environment from its data again",
            )
        return segments


class ArraySource(NamedTuple):
    """Bars, or ticks, of one instrument, in memory.

    Attributes:
        instrument: what is traded.
        data: bars, each closing a barrier; or ticks, whose interval is their `bar`.
        closes: with ticks: close of every interval, UTC ns.
        context: sessions, contracts and daily bars before; an option needs them.
        stop_at_tick: ticks are real, not made from bars.
    """

    instrument: Instrument
    data: BarBlock | TickBlock
    closes: npt.NDArray[np.int64] | None = None
    context: SlotContext | None = None
    stop_at_tick: bool = False

    def open(self, features: FeatureConfig) -> Segments:
        """Build the segments, in memory.

        Raises:
            DataError: the data go back in time, or ticks without the closes of their intervals.
        """
        block, closes = self._ticks()
        window = Window(0, closes, block, np.empty((0, 2), np.int64))
        symbol = self.instrument.symbol
        if self.instrument.is_option and self.context is None:
            raise DataError(
                f"{symbol} is an option: without sessions and contracts nothing could be entered",
                hint="context=SlotContext(calendar)",
            )
        context = self.context or SlotContext(empty_calendar())
        recording = Recording(
            instruments=(self.instrument,),
            context={symbol: context},
            windows=[window],
            source=f"arrays of {symbol}",
            complete=True,
            decision_ns=int(np.median(np.diff(closes))) if len(closes) > 1 else 1,
            stop_at_tick=self.stop_at_tick,
        )
        return build_segments(recording, features, None)

    def _ticks(self) -> tuple[TickBlock, npt.NDArray[np.int64]]:
        data = self.data
        if any(len(column) != len(data.ts) for column in data) or not len(data.ts):
            raise DataError("columns of different lengths, or of none")
        if isinstance(data, TickBlock):
            return self._given_ticks(data)
        ends = data.ts + data.duration
        if not is_sorted(data.ts) or not is_sorted(ends) or bool((data.ts[1:] < ends[:-1]).any()):
            raise DataError(
                "bars must come in time order and not overlap", hint="sort them by `ts`"
            )
        top, bottom = np.maximum(data.open, data.close), np.minimum(data.open, data.close)
        if bool(((data.low < 1) | (data.low > bottom) | (data.high < top)).any()):
            raise DataError(
                "a bar whose low or high are not, or whose prices are below one tick",
                hint="prices are whole ticks: 1 <= low <= open, close <= high",
            )
        bars = Bars(data.ts, data.open, data.high, data.low, data.close, data.volume)
        made = expand(bars, ends)
        flags = np.zeros(len(made.ts), np.uint8)
        count = len(made.ts) // len(data)
        flags[::count] = TickFlag.BAR_OPEN
        flags[count - 1 :: count] |= np.uint8(TickFlag.BAR_CLOSE)
        last = flags[count - 1 :: count]
        last[data.session_close != 0] |= np.uint8(TickFlag.SESSION_CLOSE)
        block = TickBlock(
            np.zeros(len(made.ts), np.uint16), made.bar.astype(np.uint32), flags, made.ts,
            made.price, made.size,
        )  # fmt: skip
        return block, ends

    def _given_ticks(self, data: TickBlock) -> tuple[TickBlock, npt.NDArray[np.int64]]:
        if self.closes is None:
            raise DataError("ticks need `closes`, the close time of every interval")
        closes = np.asarray(self.closes, np.int64)
        if not is_sorted(data.ts) or not is_sorted(data.bar):
            raise DataError("ticks must come in time order", hint="sort them by `ts`")
        if int(data.bar[-1]) >= len(closes) or not bool((np.diff(closes) > 0).all()):
            raise DataError(
                f"ticks reach interval {int(data.bar[-1])}, `closes` has {len(closes)} times, which "
                "must increase",
                hint="give the close time of every interval, each later than the one before",
            )
        if bool((data.price < 1).any()):
            raise DataError("a price below one tick")
        # Not `_replace`: a block is as long as its columns, which it does not expect.
        block = TickBlock(
            np.zeros(len(data), np.uint16), data.bar, data.flags, data.ts, data.price, data.size
        )
        return block, closes
