"""Indicators of finished bars: log return, Wilder's ATR, z-score of the log return.

One series per instrument and timeframe, as `market.bars` builds them. Everything is incremental and
compiled; state is a record per series, its bytes are the snapshot. Prices are in ticks, so a
return has no unit and an ATR counts ticks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streambot.jit import njit
from streambot.market.atr import ATR_PERIOD, true_range, update_atr
from streambot.market.packed import pack_arrays, unpack_arrays
from streambot.market.zscore import STATE as ZSCORE_STATE
from streambot.market.zscore import push_zscore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.market.bars import Records

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

STATE = np.dtype([
    ("count", np.int64),  # bars so far
    ("close", np.float64),  # of the last one
    ("atr", np.float64),
])  # fmt: skip

INDICATORS = np.dtype([
    ("log_return", np.float64),  # log(close / close before); NaN at the first bar
    ("atr", np.float64),  # Wilder's; the mean of the true ranges while there are fewer than its period
    ("zscore", np.float64),  # of the log return in its window; NaN at the first bar
])  # fmt: skip
"""Indicators of one bar, known at its close."""


@njit
def log_return(close: float, before: float) -> float:
    """log(close / before); NaN unless both are positive."""
    return np.log(close / before) if close > 0.0 and before > 0.0 else np.nan


@njit
def _push(state: Any, zscore: Any, window: Float64Array, bar: Any, period: int, out: Any) -> None:
    """Take the next bar of one series."""
    high, low, close = float(bar.high), float(bar.low), float(bar.close)
    known = state.count > 0
    spread = true_range(high, low, state.close, known)
    state.atr = update_atr(state.atr, state.count, spread, period)
    out.atr = state.atr
    out.log_return = log_return(close, state.close) if known else np.nan
    out.zscore = push_zscore(zscore, window, out.log_return)
    state.count += 1
    state.close = close


@njit
def _push_all(
    states: Any,
    zscores: Any,
    windows: Float64Array,
    bars: Any,
    timeframes: Int64Array,
    period: int,
    out: Any,
) -> None:
    """Take bars in order; all their timeframes are known."""
    for n in range(len(bars)):
        k = 0
        while timeframes[k] != bars[n].timeframe:
            k += 1
        row = bars[n].instrument * len(timeframes) + k
        _push(states[row], zscores[row], windows[row], bars[n], period, out[n])


class Indicators:
    """Indicators of the bars that a `BarBuilder` completes.

    Args:
        instruments: how many instruments the run has.
        timeframes: those of the builder.
        window: values of the z-score's window.
        atr_period: of Wilder's ATR.
    """

    def __init__(
        self,
        instruments: int,
        timeframes: Sequence[int],
        *,
        window: int = 100,
        atr_period: int = ATR_PERIOD,
    ) -> None:
        rows = instruments * len(timeframes)
        if rows < 1 or window < 2 or atr_period < 1:
            raise ValueError(
                "at least one instrument and timeframe, a window of two, a period of one"
            )
        self._instruments = instruments
        self._timeframes = np.array(timeframes, dtype=np.int64)
        self._period = atr_period
        self._state = np.zeros(rows, dtype=STATE)
        self._zscore = np.zeros(rows, dtype=ZSCORE_STATE)
        self._windows = np.zeros((rows, window), dtype=np.float64)

    def update(self, bars: Records) -> npt.NDArray[np.void]:
        """Take finished bars (`market.bars.BAR`), in order; their `INDICATORS`.

        Raises:
            ValueError: a bar of an instrument or timeframe that is not followed here.
        """
        if (
            len(bars)
            and not 0
            <= int(bars["instrument"].min())
            <= int(bars["instrument"].max())
            < self._instruments
        ):
            raise ValueError(f"an instrument outside 0 to {self._instruments - 1}")
        if not np.isin(bars["timeframe"], self._timeframes).all():
            raise ValueError(f"a timeframe other than {self._timeframes.tolist()}")
        out = np.empty(len(bars), dtype=INDICATORS)
        _push_all(
            self._state, self._zscore, self._windows, bars, self._timeframes, self._period, out
        )
        return out

    def snapshot(self) -> bytes:
        """The state as bytes."""
        return pack_arrays((self._state, self._zscore, self._windows))

    def restore(self, snapshot: bytes) -> None:
        """Go on from a `snapshot` of indicators with the same settings.

        Raises:
            DecodeError: of other ones, or damaged.
        """
        unpack_arrays(snapshot, (self._state, self._zscore, self._windows))
