"""The timeframe of bars, from the steps between their stamps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streambot.domain.units import NANOS_PER_DAY
from streambot.jit import njit

Int64Array = npt.NDArray[np.int64]

_KEPT = 512
# A day by its stamps is 23 to 25 hours long: clocks change.
_HOUR = NANOS_PER_DAY // 24
_DAY_SPAN = (NANOS_PER_DAY - _HOUR, NANOS_PER_DAY + _HOUR)


@njit
def _count(
    ts: Int64Array,
    previous: int,
    steps: Int64Array,
    counts: Int64Array,
    used: int,
    rare: Int64Array,
) -> int:
    """Add the steps between `previous` and `ts` to the table; its new length.

    When the table is full, the steps that were seen least make room: of those only the power of two
    below them is kept, in `rare`.
    """
    last = 0
    for row in range(len(ts)):
        step = ts[row] - previous
        previous = ts[row]
        if last < used and steps[last] == step:
            counts[last] += 1
            continue
        last = 0
        while last < used and steps[last] != step:
            last += 1
        if last < used:
            counts[last] += 1
            continue
        if used == len(steps):
            least = counts.min()
            kept = 0
            for entry in range(used):
                if counts[entry] > least:
                    steps[kept], counts[kept] = steps[entry], counts[entry]
                    kept += 1
                else:
                    rare[int(np.log2(steps[entry]))] += counts[entry]
            used = kept
            last = kept
        steps[used] = step
        counts[used] = 1
        used += 1
    return used


class StepCounter:
    """Counts steps, chunk after chunk, in memory that does not grow."""

    def __init__(self) -> None:
        self._steps = np.zeros(_KEPT, dtype=np.int64)
        self._counts = np.zeros(_KEPT, dtype=np.int64)
        self._rare = np.zeros(64, dtype=np.int64)
        self._used = 0
        self._previous: int | None = None
        self.shortest = 0
        """The shortest step in ns; 0 before there is one."""

    def add(self, ts: Int64Array) -> None:
        """Count the steps of the next stamps, strictly increasing."""
        if not len(ts):
            return
        first = ts[1:] if self._previous is None else ts
        previous = int(ts[0]) if self._previous is None else self._previous
        self._used = int(_count(first, previous, self._steps, self._counts, self._used, self._rare))
        self._previous = int(ts[-1])
        if len(first):
            shortest = min(
                int(first[0]) - previous, int(np.diff(first).min(initial=np.iinfo(np.int64).max))
            )
            self.shortest = min(self.shortest or shortest, shortest)

    def add_steps(self, steps: Int64Array) -> None:
        """Count steps as they are, whatever lies between."""
        self._used = int(
            _count(np.cumsum(steps), 0, self._steps, self._counts, self._used, self._rare)
        )

    @property
    def most_common(self) -> int | None:
        """The most common step in ns (the shorter of two that are equally common); None without any.

        Steps of 23 to 25 hours are one day.
        """
        table = self._table()
        return min(table, key=lambda step: (-table[step], step)) if table else None

    def _table(self) -> dict[int, int]:
        table: dict[int, int] = {}
        for step, count in zip(
            self._steps[: self._used].tolist(), self._counts[: self._used].tolist(), strict=True
        ):
            key = NANOS_PER_DAY if _DAY_SPAN[0] <= step <= _DAY_SPAN[1] else step
            table[key] = table.get(key, 0) + count
        return table

    def shorter_than(self, timeframe: int) -> int:
        """How many steps are shorter than `timeframe`: bars that begin before the last one ended.

        Of steps that were too rare to be kept only those count that are shorter for certain.
        """
        rare = sum(int(count) for power, count in enumerate(self._rare) if 2 << power <= timeframe)
        return rare + sum(count for step, count in self._table().items() if step < timeframe)

    def share_of(self, timeframe: int) -> float:
        """Share of the steps that are `timeframe` long."""
        table = self._table()
        return table.get(timeframe, 0) / max(1, sum(table.values()))

    def longer_than(self, timeframe: int) -> int:
        """How many steps are longer than `timeframe`: gaps, nights and weekends among them."""
        return sum(count for step, count in self._table().items() if step > timeframe)
