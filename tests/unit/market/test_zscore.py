"""Running z-scores against numpy over the window, in long double: also after ten million values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.market.zscore import RollingZScore


def plain(window: np.ndarray) -> float:
    wide = window.astype(np.longdouble)
    wide -= wide[-1]  # else the mean of large values rounds, in long double too
    sd = np.sqrt(((wide - wide.mean()) ** 2).mean())
    return float((wide[-1] - wide.mean()) / sd) if sd > 0 else 0.0


def worst_error(series: np.ndarray, scores: np.ndarray, window: int, at: np.ndarray) -> float:
    return max(abs(float(scores[i]) - plain(series[max(0, i + 1 - window) : i + 1])) for i in at)


def run(series: np.ndarray, window: int) -> np.ndarray:
    return RollingZScore(1, window).update(np.zeros(len(series), np.int64), series)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("returns", 1e-12),
        ("prices", 1e-10),
        ("small spread on a large value", 1e-10),
        ("outliers that leave", 1e-10),
        ("many magnitudes", 1e-10),
    ],
)
def test_the_error_does_not_grow_over_ten_million_values(kind, tolerance):
    rng = np.random.default_rng(11)
    n, window = 10_000_000, 128
    noise = rng.standard_normal(n)
    series = {
        "returns": lambda: noise * 1e-4,
        "prices": lambda: 1e6 + noise.cumsum(),
        "small spread on a large value": lambda: 1e9 + noise * 1e-3,
        "outliers that leave": lambda: noise * np.where(rng.random(n) < 1e-4, 1e9, 1.0),
        "many magnitudes": lambda: np.exp(5.0 * noise),
    }[kind]()
    scores = run(series, window)
    early = worst_error(series, scores, window, rng.integers(2, 10_000, 400))
    late = worst_error(series, scores, window, rng.integers(n - 10_000, n, 400))
    assert early < tolerance
    assert late < tolerance


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(-1e6, 1e6), st.integers(-3, 3).map(float), st.sampled_from([1e12, -1e12])
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(2, 9),
)
def test_every_value_of_a_short_series_against_numpy(values, window):
    series = np.array(values)
    scores = run(series, window)
    assert np.isfinite(scores).all()
    for i in range(len(series)):
        part = series[max(0, i + 1 - window) : i + 1]
        if np.ptp(part) > 1e-6 * max(1.0, float(np.abs(part).max())):
            assert scores[i] == pytest.approx(plain(part), abs=1e-6)


def test_equal_values_have_no_score_also_after_others():
    series = np.concatenate(
        [np.random.default_rng(1).standard_normal(500) * 1e6, np.full(300, 0.1)]
    )
    scores = run(series, 100)
    assert scores[0] == 0.0
    assert (scores[-200:] == 0.0).all()


def test_what_is_not_finite_gets_nan_and_leaves_no_trace():
    series = np.random.default_rng(2).standard_normal(300)
    dirty = np.insert(series, [5, 100, 200], [np.nan, np.inf, -np.inf])
    scores = run(dirty, 50)
    bad = ~np.isfinite(dirty)
    assert np.isnan(scores[bad]).all()
    assert np.array_equal(scores[~bad], run(series, 50))


def test_rows_do_not_know_each_other_and_a_snapshot_goes_on():
    rng = np.random.default_rng(3)
    values = rng.standard_normal(4000)
    rows = rng.integers(0, 3, 4000)
    one = RollingZScore(3, 20)
    whole = one.update(rows, values)
    for row in range(3):
        assert np.array_equal(whole[rows == row], run(values[rows == row], 20))
    first, second = RollingZScore(3, 20), RollingZScore(3, 20)
    head = first.update(rows[:1234], values[:1234])
    second.restore(first.snapshot())
    assert np.array_equal(np.concatenate([head, second.update(rows[1234:], values[1234:])]), whole)
    assert second.snapshot() == one.snapshot()
    with pytest.raises(DecodeError):
        RollingZScore(3, 21).restore(first.snapshot())


def test_a_window_of_one_is_refused():
    with pytest.raises(ValueError, match="window of two"):
        RollingZScore(1, 1)
