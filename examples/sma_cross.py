"""Buys when the average of 10 closes passes above that of 30, closes when it falls below again.

    streambot simulate --policy examples/sma_cross.py:SmaCross

One instance per instrument, asked at every bar's close: its answer acts at the next bar's open.
It gives the same orders as the built-in `--policy sma-cross`.
"""

from __future__ import annotations

from collections import deque

from streambot.domain.events import CLOSE, HOLD, Action, buy
from streambot.engine.strategy import Account, Bar


class SmaCross:
    """Moving-average cross, long only."""

    def __init__(self) -> None:
        self.closes = deque([0.0] * 31, maxlen=31)
        self.fast, self.slow, self.above = 0.0, 0.0, False

    def on_bar(self, bar: Bar, account: Account) -> Action:
        """One answer per closed bar: `HOLD`, `CLOSE`, `buy(lots)` or `sell(lots)`."""
        self.closes.append(bar.close)
        self.fast += bar.close - self.closes[-11]
        self.slow += bar.close - self.closes[0]
        was, self.above = self.above, 3 * self.fast - self.slow > 1e-6
        if self.above == was or not self.closes[0]:
            return HOLD
        if self.above:
            return HOLD if account.position else buy(1)
        return CLOSE if account.position else HOLD
