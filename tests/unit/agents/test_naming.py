"""Experts are named by what they serve, whatever their order, and by nothing else."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

pytest.importorskip("torch")

from streambot.agents.naming import REGIMES, named, usage_by_regime
from streambot.domain.errors import DataError
from tests.conftest import SEED

pytestmark = pytest.mark.train


def test_every_order_of_experts_gets_its_names() -> None:
    """Also where one of them has most of the weight everywhere."""
    rng = np.random.default_rng(SEED)
    for order in permutations(range(4)):
        regime = rng.integers(0, 4, 4_000)
        gate = rng.random((4_000, 4)) * 0.5
        gate[np.arange(4_000), np.array([order.index(r) for r in range(4)])[regime]] += 0.4
        gate[:, 2] += 2.0
        gate /= gate.sum(axis=1, keepdims=True)
        assert named(usage_by_regime(gate, regime)) == tuple(REGIMES[r] for r in order)


def test_what_was_never_seen_cannot_be_named() -> None:
    gate = np.full((10, 4), 0.25)
    with pytest.raises(DataError, match="volatility"):
        usage_by_regime(gate, np.array([0, 1, 3] * 3 + [0]))
    for usage in (np.full((3, 4), 0.25), np.full((4, 4), np.nan)):
        with pytest.raises(DataError):
            named(usage)
