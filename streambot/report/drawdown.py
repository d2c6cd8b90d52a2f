"""Drawdown of a portfolio: the largest fall of a currency's equity from its peak, at its marks.

Partitions run apart from each other, so marks arrive out of order. They are put in order by
barrier: what a barrier added is counted once every partition has closed it. So the figure does not
depend on speed, framing or partitions. Memory holds only what the slowest partition holds up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Int64Array = npt.NDArray[np.int64]
_SETTLE_MARKS = 4_096


class SlotCapital(NamedTuple):
    """A slot as the portfolio sees it: currency, initial capital in money units, their decimals."""

    currency: str
    capital: int
    decimals: int


class Fall(NamedTuple):
    """Largest fall of a currency's equity, in units of 10^-decimals, and the peak it fell from."""

    amount: int
    peak: int
    decimals: int


class PortfolioDrawdown:
    """Follows the sum of the slots' equity, by currency.

    Args:
        slots: by instrument number.
        partitions: count of partitions.
    """

    def __init__(self, slots: Sequence[SlotCapital], partitions: int) -> None:
        decimals: dict[str, int] = {}
        for slot in slots:
            decimals[slot.currency] = max(decimals.get(slot.currency, 0), slot.decimals)
        self._decimals = dict(sorted(decimals.items()))
        currencies = list(self._decimals)
        self._currency = np.array([currencies.index(s.currency) for s in slots], np.int64)
        self._scale = np.array([10 ** (decimals[s.currency] - s.decimals) for s in slots], np.int64)
        self._equity = np.array([s.capital for s in slots], np.int64) * self._scale
        self._peaks = self._sums()
        self._falls = [
            Fall(0, int(peak), places)
            for peak, places in zip(self._peaks, self._decimals.values(), strict=True)
        ]
        self._waiting: list[list[Int64Array]] = [[] for _ in range(partitions)]
        self._closed = [0] * partitions
        self._new = 0

    def add(self, partition: int, marks: Int64Array | None, closed: int) -> None:
        """Count marks of one partition, those of an instrument in the order they were made.

        Args:
            partition: where they come from.
            marks: last barrier closed before each mark, number of its instrument, equity in money
                units of that instrument, [3, n]; None: no marks.
            closed: barriers that the partition has closed now.
        """
        if marks is not None and marks.shape[1]:
            marks = marks[:, np.argsort(marks[0], kind="stable")]
            marks[2] *= self._scale[marks[1]]
            self._waiting[partition].append(marks)
            self._new += marks.shape[1]
        self._closed[partition] = closed
        if self._new >= _SETTLE_MARKS:
            self._new = 0
            # A fill's mark carries the last barrier closed before it: that one is not over yet.
            self._settle(min(self._closed) - 1)

    def finish(self) -> dict[str, Fall]:
        """Count what is left, and return the largest fall of every currency."""
        self._settle(None)
        return dict(zip(self._decimals, self._falls, strict=True))

    @property
    def waiting(self) -> int:
        """Marks that are held until every partition has closed their barriers."""
        return sum(marks.shape[1] for waiting in self._waiting for marks in waiting)

    def _sums(self) -> Int64Array:
        sums = np.zeros(len(self._decimals), np.int64)
        np.add.at(sums, self._currency, self._equity)
        return sums

    def _settle(self, until: int | None) -> None:
        """Apply the marks of all barriers below `until`; None: of all there are."""
        ready: list[Int64Array] = []
        for waiting in self._waiting:
            if not waiting:
                continue
            marks = waiting[0] if len(waiting) == 1 else np.concatenate(waiting, axis=1)
            cut = marks.shape[1] if until is None else int(np.searchsorted(marks[0], until))
            ready.append(marks[:, :cut])
            waiting[:] = [marks[:, cut:]] if cut < marks.shape[1] else []
        if not ready:
            return
        marks = np.concatenate(ready, axis=1)
        marks = marks[:, np.argsort(marks[0], kind="stable")]
        self._apply(marks)

    def _apply(self, marks: Int64Array) -> None:
        barrier, instrument, equity = marks
        if not len(barrier):
            return
        # What each mark changes: against the mark of its instrument before it.
        order = np.argsort(instrument, kind="stable")
        sorted_instrument = instrument[order]
        before = np.empty(len(order), np.int64)
        before[1:] = equity[order][:-1]
        first = np.ones(len(order), bool)
        first[1:] = sorted_instrument[1:] != sorted_instrument[:-1]
        before[first] = self._equity[sorted_instrument[first]]
        change = np.empty(len(order), np.int64)
        change[order] = equity[order] - before
        over = np.ones(len(barrier), bool)
        over[:-1] = barrier[1:] != barrier[:-1]
        sums = self._sums()
        for number, fall in enumerate(self._falls):
            own = np.where(self._currency[instrument] == number, change, 0)
            path = (int(sums[number]) + np.cumsum(own))[over]
            peaks = np.maximum(np.maximum.accumulate(path), self._peaks[number])
            falls = peaks - path
            worst = int(np.argmax(falls))
            if falls[worst] > fall.amount:
                self._falls[number] = Fall(int(falls[worst]), int(peaks[worst]), fall.decimals)
            self._peaks[number] = peaks[-1]
        last = np.ones(len(order), bool)
        last[:-1] = first[1:]
        self._equity[sorted_instrument[last]] = equity[order][last]
