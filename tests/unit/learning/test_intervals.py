"""Intervals hold what they say about as often as they say, and strata are drawn apart."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning.intervals import interval, iqm
from tests.conftest import SEED


def test_the_interquartile_mean_leaves_a_quarter_out_at_either_end() -> None:
    """Also where a quarter is no whole number of runs: the runs at the edges count in part."""
    assert float(iqm(np.array([9.0, 1.0, 3.0, -50.0]))) == 2.0
    assert float(iqm(np.arange(10.0) ** 3)) == pytest.approx(
        (0.5 * 2**3 + 3**3 + 4**3 + 5**3 + 6**3 + 0.5 * 7**3) / 5
    )
    rng = np.random.default_rng(SEED)
    for count in range(1, 30):
        values = rng.normal(size=(3, count))
        assert iqm(values + 5.0) == pytest.approx(iqm(values) + 5.0)
        assert iqm(values[:, ::-1]) == pytest.approx(iqm(values))
        assert (iqm(values) >= values.min(1)).all()
        assert (iqm(values) <= values.max(1)).all()


def test_an_interval_of_ten_seeds_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of ten normal runs: 94 of 100 in 2,000 trials, for nominally 95.

    Fewer than 358 or more than 392 of 400 come less than once in 1,000.
    """
    rng = np.random.default_rng(SEED)
    held = 0
    for _ in range(400):
        found = interval(rng.normal(size=10), draws=400)
        held += found.low <= 0.0 <= found.high
    assert 358 <= held <= 392


def test_strata_are_drawn_apart() -> None:
    """Markets that differ make no interval wide: runs are drawn within each."""
    rng = np.random.default_rng(SEED)
    table = rng.normal(size=(3, 10)) * 0.01 + np.array([[0.0], [10.0], [20.0]])
    apart = interval(table, lambda x: x.mean(-1))
    mixed = interval(table.reshape(-1), lambda x: x.mean(-1))
    assert apart.high - apart.low < 0.02
    assert mixed.high - mixed.low > 1.0
    assert apart.value == pytest.approx(mixed.value)
    assert apart.seeds == 10
