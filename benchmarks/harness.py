"""How a row is measured: interleaved rounds, medians, ratios.

The rate of a machine moves from minute to minute, so a figure means something only beside another
one taken at the same time. In each round every contestant runs once; the ratio is taken within the
round; the row shows the median over the rounds, and the lowest and highest.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

MIN_ROUNDS = 3


class SkippedError(Exception):
    """A row cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One figure against its target.

    Attributes:
        what: what is compared, `streambot / raptorbt` or a quantity.
        values: the figure of each round.
        at_least, at_most: the target; None: reported only.
        unit: shown behind the figure.
    """

    what: str
    values: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.median >= self.at_least
        below = self.at_most is None or self.median <= self.at_most
        return above and below

    @property
    def target(self) -> str:
        """The target in words."""
        parts = []
        if self.at_least is not None:
            parts.append(f">= {format_figure(self.at_least)}")
        if self.at_most is not None:
            parts.append(f"<= {format_figure(self.at_most)}")
        return f"{', '.join(parts)} {self.unit}".strip() if parts else "reported"


@dataclass(frozen=True)
class Row:
    """One line of `targets`: rates of all contestants, and the checks on them."""

    what: str
    unit: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""


def format_figure(value: float) -> str:
    """Three significant digits, with k and M."""
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def rate_of(work: Callable[[], int], clock: Callable[[], float] = time.process_time) -> float:
    """Units of work per second of one call; `work` returns how many units it did.

    The clock is the CPU time of all threads of this process, if nothing else is asked for: what
    else the machine does takes nothing off it, and a peer that uses two cores gains nothing by it.
    """
    gc.collect()
    start = clock()
    units = work()
    return units / (clock() - start)


def interleave(
    contestants: dict[str, Callable[[], int]],
    rounds: int = MIN_ROUNDS,
    between: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Rates of all contestants, round by round, after each was called once to warm up.

    Args:
        contestants: callables that do the work once and return the units done.
        rounds: at least three.
        between: called before each piece of work, outside the time: puts results of the last one away.
        clock: see `rate_of`.
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"a median of {rounds} rounds says nothing: at least {MIN_ROUNDS}")
    for work in contestants.values():
        between()
        work()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            between()
            rates[name].append(rate_of(work, clock))
    between()
    return rates


def ratio(
    rates: dict[str, list[float]],
    subject: str,
    against: str,
    *,
    at_least: float | None = None,
) -> Check:
    """`subject` over `against`, within each round."""
    values = [a / b for a, b in zip(rates[subject], rates[against], strict=True)]
    return Check(f"{subject} / {against}", values, at_least=at_least, unit="x")


def measured(what: str, unit: str, build: Callable[[], Iterator[Row] | Row]) -> list[Row]:
    """Rows of `build`; a row that says it cannot be measured here stays in the table, skipped."""
    try:
        rows = build()
        return [rows] if isinstance(rows, Row) else list(rows)
    except SkippedError as reason:
        return [Row(what, unit, skipped=str(reason))]
