"""Other engines on the same bars, with the same strategy: installed by `make bench` (extra `bench`).

A peer that is not installed skips its row, and the table says so.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.bars import TICK, MinuteBars
from benchmarks.floor_engine import FAST, SLOW
from benchmarks.harness import SkippedError


def load(name: str) -> Any:  # noqa: ANN401  # a module without types
    """Import a peer, or say that it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SkippedError(
            f"{name} is not installed (pip install -e '.[bench]'): {error}"
        ) from None


def _average(values: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(values)))
    out = np.zeros(len(values), np.int64)
    out[length - 1 :] = sums[length:] - sums[:-length]
    return out


def cross_signals(
    close: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Bars at whose close the averages cross, up and down: compared exactly, as the engine does."""
    above = _average(close, FAST) * SLOW > _average(close, SLOW) * FAST
    above[: SLOW - 1] = False
    change = np.diff(above.astype(np.int8), prepend=np.int8(0))
    change[:SLOW] = 0
    return change == 1, change == -1


class Raptor:
    """raptorbt on arrays: ready signals in, fills at the next open, trailing stop, 48 metrics out."""

    def __init__(self, bars: MinuteBars, trail: float) -> None:
        self._raptor = load("raptorbt")
        self._columns = [
            np.ascontiguousarray(column * TICK)
            for column in (bars.open, bars.high, bars.low, bars.close)
        ]
        self._ts = bars.ts
        self._volume = bars.volume.astype(float)
        self._signals = cross_signals(bars.close)
        self._config = self._raptor.BacktestConfig(
            initial_capital=1e9, fees=0.0001, fill_timing="next_bar_open"
        )
        self._config.set_trailing_stop(trail)
        self.result: Any = None

    def run(self) -> int:
        """One backtest; the signals are ready, which favours the peer."""
        self.result = self._raptor.run_single_backtest(
            self._ts, *self._columns, self._volume, *self._signals, 1, 1.0, "X", self._config
        )
        return len(self._ts)

    def counts(self) -> tuple[int, int]:
        """Entries, and exits by the stop, of the last run."""
        trades = self.result.trades()
        reasons = Counter(trade.exit_reason for trade in trades)
        return len(trades), reasons.get("StopLoss", 0)


class Quanter:
    """openquanter with a Python callback per tick, one tick a bar; no brokerage on this path."""

    def __init__(self, bars: MinuteBars) -> None:
        self._quanter = load("openquanter")
        tick = self._quanter.Tick
        self._ticks = [
            tick(t, c) for t, c in zip(bars.ts.tolist(), bars.close.tolist(), strict=True)
        ]
        self.result: Any = None

    def run(self) -> int:
        """One backtest in compatibility mode: a decision per tick, none of them late."""
        self.result = self._quanter.run_backtest(
            quanter_cross(self._quanter.Order),
            self._ticks,
            10**10,
            enforce_margin=False,
            contract_size=1,
        )
        return len(self._ticks)


def quanter_cross(order: Callable[..., Any]) -> Any:  # noqa: ANN401
    """The strategy of `examples/sma_cross.py`, in the peer's words."""
    from collections import deque

    class Cross:
        name = "cross"

        def __init__(self) -> None:
            self.closes = deque([0] * (SLOW + 1), maxlen=SLOW + 1)
            self.fast, self.slow, self.above = 0, 0, False

        def on_tick(self, ctx: Any) -> list[Any] | None:  # noqa: ANN401
            close = ctx.last
            self.closes.append(close)
            self.fast += close - self.closes[-11]
            self.slow += close - self.closes[0]
            was, self.above = self.above, 3 * self.fast - self.slow > 0
            if self.above == was or not self.closes[0]:
                return None
            if self.above:
                return None if ctx.position else [order("buy", 1)]
            return [order("sell", 1, "close")] if ctx.position else None

    return Cross()
