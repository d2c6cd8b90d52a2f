"""The floor of a Python callback per bar: a plain loop that makes a bar and asks the strategy.

No engine, no account that changes, no orders: what is left when everything but the strategy's own
code and the call is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.bars import TICK, MinuteBars


class FlatAccount:
    """An account that is always flat; the strategies here read `position` only."""

    position = 0


def run(bars: MinuteBars, make_bar: Callable[..., Any], strategy: Any) -> int:  # noqa: ANN401
    """Call `strategy.on_bar` once a bar.

    Args:
        bars: what to loop over.
        make_bar: makes the bar that the strategy sees from ts, open, high, low, close, volume, number.
        strategy: object with `on_bar(bar, account)`.

    Returns:
        How many answers were not the first answer.
    """
    account = FlatAccount()
    on_bar = strategy.on_bar
    columns = (
        bars.ts.tolist(),
        *((column * TICK).tolist() for column in (bars.open, bars.high, bars.low, bars.close)),
        bars.volume.astype(float).tolist(),
        range(len(bars.ts)),
    )
    first = None
    others = 0
    for bar in map(make_bar, *columns):
        answer = on_bar(bar, account)
        if first is None:
            first = answer
        elif answer is not first:
            others += 1
    return others
