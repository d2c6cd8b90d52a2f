"""Indicators of finished bars against a slow, plain reading of their formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from streambot.domain.errors import DecodeError
from streambot.market.bars import BAR
from streambot.market.indicators import Indicators

HOUR = 3600 * 10**9


def bars(n: int, seed: int = 0, instrument: int = 0, timeframe: int = HOUR) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, dtype=BAR)
    rows["instrument"], rows["timeframe"] = instrument, timeframe
    rows["open"] = 50_000 + rng.integers(-50, 51, n).cumsum()
    rows["close"] = rows["open"] + rng.integers(-40, 41, n)
    rows["high"] = np.maximum(rows["open"], rows["close"]) + rng.integers(0, 30, n)
    rows["low"] = np.minimum(rows["open"], rows["close"]) - rng.integers(0, 30, n)
    return rows


def plain_atr(rows: np.ndarray, period: int) -> list[float]:
    """Wilder 1978: the mean of the first `period` true ranges, then (atr (period - 1) + tr) / period."""
    ranges: list[int] = []
    out: list[float] = []
    for i, row in enumerate(rows):
        high, low = int(row["high"]), int(row["low"])
        before = int(rows[i - 1]["close"]) if i else None
        ranges.append(high - low if before is None else max(high, before) - min(low, before))
        if len(ranges) <= period:
            out.append(sum(ranges) / len(ranges))
        else:
            out.append((out[-1] * (period - 1) + ranges[-1]) / period)
    return out


def test_returns_and_atr_and_zscore_of_one_series():
    rows = bars(700)
    got = Indicators(1, [HOUR], window=30).update(rows)
    closes = rows["close"].tolist()
    returns = [math.nan] + [math.log(b / a) for a, b in itertools.pairwise(closes)]
    assert np.isnan(got["log_return"][0])
    np.testing.assert_allclose(got["log_return"][1:], returns[1:], rtol=0, atol=1e-16)
    np.testing.assert_allclose(got["atr"], plain_atr(rows, 14), rtol=1e-13)
    assert np.isnan(got["zscore"][0])
    for i in range(2, len(rows)):
        window = np.array(returns[max(1, i - 29) : i + 1])
        assert got["zscore"][i] == pytest.approx(
            (window[-1] - window.mean()) / window.std(), abs=1e-9
        )


def test_series_are_apart_by_instrument_and_timeframe():
    parts = [
        bars(200, 1),
        bars(200, 2, instrument=1),
        bars(200, 3, timeframe=24 * HOUR),
        bars(200, 4, 1, 24 * HOUR),
    ]
    mixed = np.stack(parts, axis=1).ravel()
    got = Indicators(2, [HOUR, 24 * HOUR]).update(mixed)
    for k, part in enumerate(parts):
        alone = Indicators(2, [HOUR, 24 * HOUR]).update(part)
        assert got[k::4].tobytes() == alone.tobytes()


def test_a_snapshot_goes_on_as_if_nothing_had_happened():
    rows = bars(500)
    one, first, second = (Indicators(1, [HOUR]) for _ in range(3))
    whole = one.update(rows)
    head = first.update(rows[:217])
    second.restore(first.snapshot())
    assert np.concatenate([head, second.update(rows[217:])]).tobytes() == whole.tobytes()
    assert second.snapshot() == one.snapshot()
    with pytest.raises(DecodeError):
        Indicators(1, [HOUR], window=99).restore(first.snapshot())


def test_the_past_alone_decides():
    """Changing later bars changes no earlier indicator."""
    rows = bars(300)
    changed = rows.copy()
    changed["close"][200:] += 17
    changed["high"][200:] += 17
    before, after = (Indicators(1, [HOUR]).update(x) for x in (rows, changed))
    assert before[:200].tobytes() == after[:200].tobytes()
    assert before[200:].tobytes() != after[200:].tobytes()


def test_bars_of_something_else_are_refused_and_nothing_is_taken():
    indicators = Indicators(1, [HOUR])
    before = indicators.snapshot()
    for rows in (bars(5, instrument=1), bars(5, instrument=-1), bars(5, timeframe=5)):
        with pytest.raises(ValueError, match="other than|outside"):
            indicators.update(rows)
    assert indicators.snapshot() == before
    assert len(indicators.update(bars(0))) == 0
    with pytest.raises(ValueError, match="at least one"):
        Indicators(0, [HOUR])
