"""Quantiles are right to 2.2 %, from memory that does not grow."""

import numpy as np
import pytest

from streambot.report.quantiles import WallTimes


def test_quantiles_are_near_the_exact_ones():
    times = WallTimes()
    values = np.random.default_rng(1).lognormal(14, 1.5, 20_000).astype(int)
    for value in values.tolist():
        times.add(value)
    for share in (0.5, 0.99):
        exact = np.quantile(values, share) / 1e6
        assert times.quantile_ms(share) == pytest.approx(exact, rel=0.03)
    latency = times.latency()
    assert latency.max == pytest.approx(values.max() / 1e6, abs=0.001)
    assert latency.p50 <= latency.p99 <= latency.max


def test_nothing_measured_is_none_not_zero():
    assert WallTimes().latency().p50 is None
    assert WallTimes().latency().max is None


def test_extremes_fit():
    times = WallTimes()
    for value in (-5, 0, 1, 10**18):
        times.add(value)
    assert times.quantile_ms(0.25) == 0.001
    assert times.latency().max == 10**12
