"""Names for experts, after training, from the regimes that they turn out to serve.

Nobody tells an expert what to be. When the mixture is trained, the gate's weight of each expert in
each regime is measured, and the names are given so that together they fit best (an assignment, as by
the Hungarian method; four experts have 24).
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from streambot.agents.experts import EXPERTS
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

REGIMES = tuple(expert.kind for expert in EXPERTS)
"""`trend`, `mean-reversion`, `volatility`, `consolidation`."""


def usage_by_regime(
    gate: npt.NDArray[np.floating], regime: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Mean weight of each expert in each regime, [experts, regimes].

    Args:
        gate: weights of the experts at n observations, [n, experts].
        regime: number of the regime at each, [n], in the order of `REGIMES`.

    Raises:
        DataError: a regime never occurs: what serves it cannot be told.
    """
    missing = [name for k, name in enumerate(REGIMES) if not (regime == k).any()]
    if missing:
        raise DataError(f"no observation of the regime {', '.join(missing)}")
    return np.stack(
        [gate[regime == k].mean(axis=0, dtype=np.float64) for k in range(len(REGIMES))], axis=1
    )


def named(usage: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """A name for each expert: the assignment under which they serve their regimes most.

    An expert that is used everywhere alike is named by what the others leave over.

    Args:
        usage: [experts, regimes], see `usage_by_regime`; as many experts as regimes.

    Raises:
        DataError: another shape, or numbers that are none.
    """
    size = len(REGIMES)
    if usage.shape != (size, size) or not np.isfinite(usage).all():
        raise DataError(f"usage of {size} experts in {size} regimes is needed")
    # How much more than elsewhere: an expert that does most of everything serves nothing by that.
    relative = usage - usage.mean(axis=1, keepdims=True)
    best = max(
        permutations(range(size)),
        key=lambda order: sum(relative[k, r] for k, r in enumerate(order)),
    )
    return tuple(REGIMES[r] for r in best)
