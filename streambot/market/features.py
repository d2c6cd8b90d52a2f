"""Market features of decision bars: what a policy may see of the market, from the past only.

They depend on the bars alone, never on what anybody did: every slot on an instrument shares them,
in the segment store, in the environment and in the stream. State is arrays, fed bar by bar by
compiled code; the features of bar k are a function of the bars 0 to k.

Per bar, the *window* fields (`feature_config.WINDOW_FIELDS`); a policy sees those of its last `window` bars:

    log_return     log(close / close before)                                           z-score
    range          log(high / low)                                                     z-score
    volume         log(1 + volume)                                                     z-score
    atr_ratio      Wilder's ATR(14) / close                                            z-score
    session_time   time since the session's first tick / length of the session before, at most 2

and the *slow* fields, seen for the last bar only. For every regime window of R bars
(`feature_config.REGIME_FIELDS`), over its R last log returns r (from the 16th on those there are):

    volatility       log of the standard deviation of r                                z-score
    autocorrelation  of r, lag 1
    drift            t-statistic of the mean of r: mean / sd x sqrt(R)                 clipped
    efficiency       |sum r| / sum |r|          (Kaufman 1995, efficiency ratio)

and for every coarser timeframe the first four window fields of its last complete bar.

A z-score is taken in a rolling window of `zscore_window` values, the value itself among them
(`market.zscore`), and clipped to [-clip, clip]. What cannot be told yet is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.domain.errors import DecodeError
from streambot.domain.units import NANOS_PER_DAY
from streambot.jit import njit
from streambot.market.atr import ATR_PERIOD, true_range, update_atr
from streambot.market.bars import bucket
from streambot.market.feature_config import SCORED
from streambot.market.indicators import log_return
from streambot.market.packed import pack_arrays, unpack_arrays
from streambot.market.zscore import STATE as ZSCORE
from streambot.market.zscore import push_zscore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.market.bars import TradingDates
    from streambot.market.feature_config import FeatureConfig

_FEWEST_RETURNS, _LONGEST_SESSION = 16, 2.0
_NEVER = np.iinfo(np.int64).max
_CHANGING = 6  # the first arrays of `FeatureArrays` are state, the others settings

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

SERIES = np.dtype(
    [
        ("bars", "i8"),
        ("close", "f8"),
        ("atr", "f8"),
        ("session_open", "i8"),
        ("session_length", "i8"),
        ("session_over", "i8"),
    ],
    align=True,
)
"""State of one instrument's decision bars."""

COARSE = np.dtype(
    [
        ("start", "i8"),
        ("end", "i8"),
        ("open", "i8"),
        ("high", "i8"),
        ("low", "i8"),
        ("close", "i8"),
        ("volume", "i8"),
        ("begun", "i8"),
        ("bars", "i8"),
        ("before", "f8"),
        ("atr", "f8"),
    ],
    align=True,
)
"""State of one instrument's bars of a coarser timeframe: the open one, and those before it."""


class FeatureArrays(NamedTuple):
    """State of n instruments as arrays, for compiled code.

    Attributes:
        series: `SERIES` [n].
        returns: last log returns, float64 [n, longest regime window].
        scores: `ZSCORE` [n, z-scored series].
        windows: float64 [n, z-scored series, `zscore_window`].
        coarse: `COARSE` [n, timeframes].
        shown: float32 [n, 4 x timeframes], features of the last complete coarser bars.
        regimes: `regime_windows`, int64.
        timeframes: int64.
        clip: float64 [1].
    """

    series: npt.NDArray[np.void]
    returns: Float64Array
    scores: npt.NDArray[np.void]
    windows: Float64Array
    coarse: npt.NDArray[np.void]
    shown: npt.NDArray[np.float32]
    regimes: Int64Array
    timeframes: Int64Array
    clip: Float64Array


@njit
def _clipped(value: float, clip: float) -> float:
    """0 for what cannot be told."""
    if np.isnan(value):
        return 0.0
    return min(clip, max(-clip, value))


@njit
def _scored(
    scores: Any,
    windows: Any,
    at: int,
    change: float,
    high: int,
    low: int,
    close: int,
    volume: int,
    atr: float,
    clip: float,
    out: Any,
) -> None:
    """The four z-scored fields of one bar; prices in ticks, volume in steps."""
    spread = np.log(high / low) if low > 0 else np.nan
    share = atr / close if close > 0 else np.nan
    out[0] = _clipped(push_zscore(scores[at], windows[at], change), clip)
    out[1] = _clipped(push_zscore(scores[at + 1], windows[at + 1], spread), clip)
    size = np.log1p(float(max(0, volume)))
    out[2] = _clipped(push_zscore(scores[at + 2], windows[at + 2], size), clip)
    out[3] = _clipped(push_zscore(scores[at + 3], windows[at + 3], share), clip)


@njit
def _regime(returns: Any, last: int, count: int) -> tuple[float, float, float, float]:
    """Log sd, autocorrelation, t-statistic and efficiency of the `count` returns up to `last`.

    Computed from the values themselves each time: no rounding is carried from bar to bar.
    """
    size = len(returns)
    total = 0.0
    path = 0.0
    for j in range(count):
        r = returns[(last - j) % size]
        total += r
        path += abs(r)
    mean = total / count
    squares = 0.0
    products = 0.0
    newer = 0.0
    for j in range(count):
        distance = returns[(last - j) % size] - mean
        squares += distance * distance
        if j > 0:
            products += distance * newer
        newer = distance
    efficiency = abs(total) / path if path > 0.0 else 0.0
    # What is left of equal returns is rounding, not spread.
    if squares <= 1e-24 * count * (1.0 + mean * mean):
        return np.nan, 0.0, 0.0, efficiency
    deviation = np.sqrt(squares / count)
    correlation = min(1.0, max(-1.0, products / squares))
    return np.log(deviation), correlation, mean / deviation * np.sqrt(count), min(1.0, efficiency)


@njit
def _session_time(state: Any, open_ts: int, close_ts: int, session_close: bool) -> float:
    if state.bars == 0 or state.session_over != 0:
        state.session_open = open_ts
        state.session_over = 0
    elapsed = close_ts - state.session_open
    share = 0.0
    if state.session_length > 0:
        share = min(_LONGEST_SESSION, elapsed / state.session_length)
    if session_close:
        state.session_length = elapsed
        state.session_over = 1
    return share


@njit
def _push_coarse(
    bar: Any,
    scores: Any,
    windows: Any,
    at: int,
    start: int,
    end: int,
    open_: int,
    high: int,
    low: int,
    close: int,
    volume: int,
    close_ts: int,
    clip: float,
    shown: Any,
) -> None:
    """Take a decision bar into the coarser bar of its bucket; `shown` changes when one is complete."""
    if bar.begun != 0 and bar.start != start:
        _complete(bar, scores, windows, at, clip, shown)
    if bar.begun == 0:
        bar.begun = 1
        bar.start, bar.end = start, end
        bar.open, bar.high, bar.low, bar.close = open_, high, low, close
        bar.volume = max(0, volume)
    else:
        bar.high = max(bar.high, high)
        bar.low = min(bar.low, low)
        bar.close = close
        bar.volume += max(0, volume)
    if close_ts >= bar.end:
        _complete(bar, scores, windows, at, clip, shown)


@njit
def _complete(bar: Any, scores: Any, windows: Any, at: int, clip: float, shown: Any) -> None:
    known = bar.bars > 0
    spread = true_range(float(bar.high), float(bar.low), bar.before, known)
    bar.atr = update_atr(bar.atr, bar.bars, spread, ATR_PERIOD)
    change = log_return(float(bar.close), bar.before) if known else np.nan
    _scored(
        scores, windows, at, change, bar.high, bar.low, bar.close, bar.volume, bar.atr, clip, shown
    )  # fmt: skip
    bar.before = float(bar.close)
    bar.bars += 1
    bar.begun = 0


@njit
def push_features(
    arrays: Any,
    n: int,
    opens: Int64Array,
    ends: Int64Array,
    open_ts: int,
    close_ts: int,
    open_: int,
    high: int,
    low: int,
    close: int,
    volume: int,
    session_close: bool,
    window_out: Any,
    slow_out: Any,
) -> None:
    """Take the next decision bar of instrument `n`.

    Args:
        arrays: `FeatureArrays`.
        opens, ends: sessions of the instrument by its calendar, UTC ns, int64; used only where
            coarser timeframes are observed.
        open_ts: first tick, UTC ns.
        close_ts: close of its barrier, UTC ns.
        open_, high, low, close: ticks.
        volume: volume steps; unknown counts as 0.
        session_close: the last bar of its trading date.
        window_out: float32 [window fields], written.
        slow_out: float32 [slow fields], written.
    """
    state, scores, windows = arrays.series[n], arrays.scores[n], arrays.windows[n]
    returns, clip = arrays.returns[n], arrays.clip[0]
    known = state.bars > 0
    change = log_return(float(close), state.close) if known else np.nan
    spread = true_range(float(high), float(low), state.close, known)
    state.atr = update_atr(state.atr, state.bars, spread, ATR_PERIOD)
    _scored(scores, windows, 0, change, high, low, close, volume, state.atr, clip, window_out)
    window_out[SCORED] = _session_time(state, open_ts, close_ts, session_close)
    last = state.bars - 1  # of the returns: the first bar has none
    if known:
        returns[last % len(returns)] = 0.0 if np.isnan(change) else change
    at, out = SCORED, 0
    for k in range(len(arrays.regimes)):
        count = min(state.bars, arrays.regimes[k])
        deviation, correlation, drift, efficiency = np.nan, 0.0, 0.0, 0.0
        if count >= _FEWEST_RETURNS:
            deviation, correlation, drift, efficiency = _regime(returns, last, count)
        slow_out[out] = _clipped(push_zscore(scores[at], windows[at], deviation), clip)
        slow_out[out + 1] = correlation
        slow_out[out + 2] = _clipped(drift, clip)
        slow_out[out + 3] = efficiency
        at += 1
        out += 4
    for k in range(len(arrays.timeframes)):
        shown = arrays.shown[n, SCORED * k : SCORED * (k + 1)]
        start, end = _coarse_bucket(open_ts, arrays.timeframes[k], opens, ends)
        _push_coarse(
            arrays.coarse[n, k], scores, windows, at, start, end, open_, high, low, close, volume,
            close_ts, clip, shown,
        )  # fmt: skip
        slow_out[out : out + SCORED] = shown
        at += SCORED
        out += SCORED
    state.close = float(close)
    state.bars += 1


@njit
def _coarse_bucket(t: int, timeframe: int, opens: Int64Array, ends: Int64Array) -> tuple[int, int]:
    """Bucket of a bar that opens at `t`, by the calendar alone.

    A date that the calendar does not know keeps the grid of the session before it: what its own
    session will be, nobody knows while it lasts.
    """
    if len(opens) == 0:
        return t // timeframe * timeframe, (t // timeframe + 1) * timeframe
    session = max(0, int(np.searchsorted(opens, t, side="right")) - 1)
    if timeframe == NANOS_PER_DAY and t >= ends[session]:
        following = opens[session + 1] if session + 1 < len(opens) else _NEVER
        return ends[session], following
    return bucket(t, timeframe, opens[session], ends[session])


class Features:
    """Features of the decision bars of n instruments, fed bar by bar.

    Args:
        config: which.
        dates: sessions of each instrument by its calendar, in the order of their numbers.
    """

    def __init__(self, config: FeatureConfig, dates: Sequence[TradingDates]) -> None:
        n, regimes, coarser = len(dates), len(config.regime_windows), len(config.timeframes)
        series = SCORED * (1 + coarser) + regimes
        self.config = config
        self.dates = tuple(dates)
        self.arrays = FeatureArrays(
            series=np.zeros(n, SERIES),
            returns=np.zeros((n, max([1, *config.regime_windows]))),
            scores=np.zeros((n, series), ZSCORE),
            windows=np.zeros((n, series, config.zscore_window)),
            coarse=np.zeros((n, coarser), COARSE),
            shown=np.zeros((n, SCORED * coarser), np.float32),
            regimes=np.array(config.regime_windows, np.int64),
            timeframes=np.array(config.timeframes, np.int64),
            clip=np.array([config.clip]),
        )

    def push(
        self,
        n: int,
        *,
        open_ts: int,
        close_ts: int,
        prices: tuple[int, int, int, int],
        volume: int,
        session_close: bool,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Take the next decision bar of instrument `n`; its window fields and its slow fields.

        Args as `push_features`; `prices`: open, high, low and close, ticks.
        """
        window = np.zeros(len(self.config.window_fields), np.float32)
        slow = np.zeros(len(self.config.slow_fields), np.float32)
        dates = self.dates[n]
        push_features(
            self.arrays, n, dates.opens, dates.closes, open_ts, close_ts, *prices, volume,
            session_close, window, slow,
        )  # fmt: skip
        return window, slow

    def snapshot(self) -> bytes:
        """The state as bytes."""
        return pack_arrays([self._digest(), *self._state()])

    def restore(self, snapshot: bytes) -> None:
        """Go on from a `snapshot` of features with the same settings.

        Raises:
            DecodeError: of other ones, or damaged.
        """
        packed = [self._digest(), *(np.empty_like(array) for array in self._state())]
        unpack_arrays(snapshot, packed)
        if packed[0].tobytes() != self._digest().tobytes():
            raise DecodeError("a state of features with other settings", reason="foreign")
        for array, kept in zip(self._state(), packed[1:], strict=True):
            array[...] = kept

    def _state(self) -> tuple[npt.NDArray[Any], ...]:
        """What changes from bar to bar."""
        return self.arrays[:_CHANGING]

    def _digest(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(bytes.fromhex(self.config.digest), np.uint8).copy()
