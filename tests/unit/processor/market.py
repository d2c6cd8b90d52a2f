"""A small market for the tests of the engine task: random bars as windows of ticks, and its manifest."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import numpy as np

from streambot.domain.instruments import Brokerage, Instrument, InstrumentType
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.market.path import low_first
from streambot.processor.manifest import PolicySettings, RunManifest

MINUTE = 60_000_000_000
START = 1_606_832_000_000_000_000
NO_SPANS = np.empty((0, 2), np.int64)


class Window(NamedTuple):
    """As `data.timeline.Window`."""

    barrier_lo: int
    closes: np.ndarray
    ticks: TickBlock
    closed_spans: np.ndarray


def stock(symbol: str) -> Instrument:
    return Instrument(
        symbol=symbol, type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"),
        brokerage=Brokerage(entry=Decimal("0.50"), exit=Decimal("0.50")),
    )  # fmt: skip


class Market:
    """Random walks of minute bars, one per symbol; some bars are missing.

    A symbol's bars depend on its own seed, so that a market of permuted symbols is the same market.
    """

    def __init__(self, symbols: str = "ABCDE", bars: int = 200, *, seed: int = 1, missing=0.1):
        self.symbols = sorted(symbols)
        self.bars = bars
        self._prices = {}
        self._present = {}
        for symbol in self.symbols:
            rng = np.random.default_rng([seed, ord(symbol)])
            walk = 10_000 + np.cumsum(rng.integers(-30, 31, (bars, 4)).ravel()).reshape(bars, 4)
            self._prices[symbol] = np.maximum(walk, 100)
            self._present[symbol] = rng.random(bars) >= missing

    def windows(self, per_window: int = 25, from_barrier: int = 0):
        """Windows from a barrier on; every barrier exists, as some symbol always has a bar."""
        for lo in range(from_barrier, self.bars, per_window):
            yield self._window(lo, min(lo + per_window, self.bars))

    def manifest(self, run: str = "run", partitions: int = 2, policy: str = "random", **more):
        return RunManifest(
            run=run,
            instruments=tuple(stock(s) for s in self.symbols),
            partitions=partitions,
            partition_of=tuple(n % partitions for n in range(len(self.symbols))),
            capital=(10_000_000,) * len(self.symbols),
            decision_ns=MINUTE,
            pnl_every_ns=more.pop("pnl_every_ns", 5 * MINUTE),
            policy=PolicySettings(spec=policy, fast=3, slow=8),
            **more,
        )

    def _window(self, lo: int, hi: int) -> Window:
        rows = []
        for k in range(lo, hi):
            for number, symbol in enumerate(self.symbols):
                if self._present[symbol][k]:
                    rows += self._bar(number, symbol, k, k - lo)
        rows.sort(key=lambda r: (r[1], r[3], r[0], r[6]))
        columns = list(zip(*rows, strict=True)) if rows else [[]] * 7
        ticks = TickBlock(
            instrument=np.array(columns[0], np.uint16),
            bar=np.array(columns[1], np.uint32),
            flags=np.array(columns[2], np.uint8),
            ts=np.array(columns[3], np.int64),
            price=np.array(columns[4], np.int64),
            size=np.array(columns[5], np.int64),
        )
        closes = START + MINUTE * np.arange(lo + 1, hi + 1, dtype=np.int64)
        return Window(lo, closes, ticks, NO_SPANS)

    def _bar(self, number: int, symbol: str, k: int, bar: int) -> list[tuple]:
        open_, *rest = (int(x) for x in self._prices[symbol][k])
        close = rest[-1]
        high, low = max(open_, *rest), min(open_, *rest)
        path = (
            (open_, low, high, close)
            if low_first(open_, high, low, close)
            else (open_, high, low, close)
        )
        at = START + MINUTE * k
        times = (at, at + MINUTE // 3, at + 2 * MINUTE // 3, at + MINUTE - 1)
        session = (k + 1) % 100 == 0
        last = int(TickFlag.BAR_CLOSE) | (int(TickFlag.SESSION_CLOSE) if session else 0)
        flags = (int(TickFlag.BAR_OPEN), 0, 0, last)
        return [
            (number, bar, flag, ts, price, 1, position)
            for position, (flag, ts, price) in enumerate(zip(flags, times, path, strict=True))
        ]
