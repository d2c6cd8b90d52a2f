"""What a claim is: settings, one run per seed that gives lines, and a table of the lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from benchmarks.learning.intervals import Interval, interval

Line = dict[str, Any]
"""One figure or several of one run: `arm`, `market`, `seed` and what was measured."""


class Run(Protocol):
    """Runs a seed."""

    def __call__(self, config: Any, seed: int, tuned: dict[str, Any]) -> Iterator[Line]:  # noqa: ANN401
        """Lines of one seed."""
        ...


class Claim(NamedTuple):
    """A claim that can be tested.

    Attributes:
        says: in words.
        config: the settings of its experiment; quick: a smaller one.
        run: one seed.
        summary: markdown, of the lines of all seeds.
        tune: settings for each arm, chosen on validation data with seeds that are not reported;
            None: nothing is tuned.
    """

    says: str
    config: msgspec.Struct
    quick: msgspec.Struct
    run: Run
    summary: Callable[[Sequence[Line]], str]
    tune: Callable[[Any], dict[str, Any]] | None = None


TUNING_SEEDS = (1_001, 1_002)
"""Far from the reported ones, which count from 0."""


def of(lines: Iterable[Line], measure: str, **wanted: object) -> list[float]:
    """A measure of the lines that have it and what is wanted, in the order of their seeds."""
    chosen = [
        line
        for line in lines
        if measure in line and all(line.get(name) == value for name, value in wanted.items())
    ]
    return [float(line[measure]) for line in sorted(chosen, key=lambda line: int(line["seed"]))]


def differences(
    lines: Iterable[Line], measure: str, first: str, second: str, markets: Sequence[str]
) -> Interval:
    """Arm `first` less arm `second`, seed by seed on the same data, over some markets."""
    kept = list(lines)
    return interval([
        [
            a - b
            for a, b in zip(
                of(kept, measure, arm=first, market=market),
                of(kept, measure, arm=second, market=market),
                strict=True,
            )
        ]
        for market in markets
    ])  # fmt: skip


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in markdown."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
