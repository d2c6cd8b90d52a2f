"""Bars to ticks: both paths give the bars back, and a bridge depends on nothing but its bar."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streambot.data.expand import expand
from streambot.data.philox import philox, stream_key
from streambot.data.rows import Bars
from streambot.domain.replay_settings import BridgePath, OhlcPath
from tests.unit.data.bar_files import MINUTE


def bars_of(rows: list[tuple[int, ...]]) -> Bars:
    return Bars(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)))


@st.composite
def some_bars(draw):
    rows = []
    for number in range(draw(st.integers(1, 12))):
        prices = sorted(draw(st.lists(st.integers(1, 10**7), min_size=4, max_size=4)))
        low, *middle, high = prices
        middle = draw(st.permutations(middle))
        volume = draw(st.one_of(st.just(-1), st.just(0), st.integers(1, 10**12)))
        rows.append((number * MINUTE, middle[0], high, low, middle[1], volume))
    return bars_of(rows)


@given(
    some_bars(),
    st.one_of(st.just(OhlcPath()), st.integers(4, 60).map(BridgePath)),
    st.integers(0, 9),
)
def test_bars_rebuilt_from_ticks_are_the_bars(bars, path, seed) -> None:
    ends = bars.ts + MINUTE
    ticks = expand(bars, ends, path=path, seed=seed, symbol="X")
    count = len(ticks.ts) // len(bars)
    shape = (len(bars), count)
    prices, sizes, times = (column.reshape(shape) for column in (ticks.price, ticks.size, ticks.ts))
    assert prices[:, 0].tolist() == bars.open.tolist()
    assert prices[:, -1].tolist() == bars.close.tolist()
    assert prices.max(axis=1).tolist() == bars.high.tolist()
    assert prices.min(axis=1).tolist() == bars.low.tolist()
    unknown = bars.volume < 0
    assert (sizes[unknown] == -1).all()
    assert sizes[~unknown].sum(axis=1).tolist() == bars.volume[~unknown].tolist()
    assert (sizes[~unknown] >= 0).all()
    assert (times[:, 0] == bars.ts).all()
    assert (times[:, -1] == ends - 1).all()
    assert (np.diff(times, axis=1) > 0).all()
    assert ticks.bar.reshape(shape)[:, 0].tolist() == list(range(len(bars)))


@given(some_bars(), st.integers(4, 40))
def test_a_bridge_depends_on_seed_symbol_and_bar_alone(bars, count) -> None:
    ends = bars.ts + MINUTE
    whole = expand(bars, ends, path=BridgePath(count), seed=7, symbol="X").price.reshape(-1, count)
    for row in range(len(bars)):
        alone = Bars(*(column[row : row + 1] for column in bars))
        part = expand(alone, ends[row : row + 1], path=BridgePath(count), seed=7, symbol="X")
        assert part.price.tolist() == whole[row].tolist()


def test_seeds_and_symbols_have_bridges_of_their_own() -> None:
    bars = bars_of([(n * MINUTE, 1000, 1100, 900, 1010, 5) for n in range(50)])
    ends = bars.ts + MINUTE
    paths = {
        key: expand(bars, ends, path=BridgePath(30), seed=key[0], symbol=key[1]).price.tolist()
        for key in [(0, "A"), (1, "A"), (0, "B")]
    }
    assert len({tuple(path) for path in paths.values()}) == 3
    prices = np.array(paths[0, "A"]).reshape(50, 30)
    assert len({tuple(row) for row in prices.tolist()}) == 50
    low_first = (prices.argmin(axis=1) < prices.argmax(axis=1)).mean()
    assert 0.2 < low_first < 0.8
    assert len(np.unique(prices)) > 100  # a path, not two straight lines


def test_the_four_ticks_of_a_bar_stand_where_the_rules_say() -> None:
    bars = bars_of([(0, 10, 12, 9, 11, 10), (10, 10, 12, 8, 11, 3), (20, 10, 12, 8, 9, 0)])
    ticks = expand(bars, np.array([10, 20, 30]))
    assert ticks.price.tolist() == [10, 9, 12, 11, 10, 8, 12, 11, 10, 12, 8, 9]
    assert ticks.ts.tolist() == [0, 3, 6, 9, 10, 13, 16, 19, 20, 23, 26, 29]
    assert ticks.size.tolist() == [2, 2, 2, 4, 0, 0, 0, 3, 0, 0, 0, 0]


def test_philox_gives_the_published_numbers() -> None:
    # Known answers of Random123 (Salmon et al.), kat_vectors, philox4x32 with 10 rounds.
    ones = 0xFFFFFFFF
    assert philox(0, 0, 0, 0, 0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox(ones, ones, ones, ones, ones, ones) == (
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    )
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
    assert philox(*pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
    assert stream_key(0, "A") != stream_key(0, "B")
