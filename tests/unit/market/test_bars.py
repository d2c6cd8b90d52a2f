"""Bars from ticks: the original bars come back exactly, coarser ones follow the session."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.market.bars import DAY, SOURCE, BarBuilder, TradingDates
from streambot.market.path import low_first, path_offset

MINUTE = 60 * 10**9
OPEN, CLOSE = 555 * MINUTE, 930 * MINUTE  # 09:15 to 15:30


def dates(days: int = 3, *, opened: int = OPEN, closed: int = CLOSE) -> TradingDates:
    starts = np.arange(days, dtype=np.int64) * DAY
    return TradingDates(starts, starts + opened, starts + closed)


def ticks_of(bars: list[tuple[int, ...]]) -> TickBlock:
    """Ticks of bars (instrument, ts, duration, open, high, low, close, volume), in time order."""
    rows = []
    for sequence, (number, ts, duration, open_, high, low, close, volume) in enumerate(bars):
        first, second = (low, high) if low_first(open_, high, low, close) else (high, low)
        share = volume // 4
        sizes = [share, share, share, volume - 3 * share] if volume >= 0 else [-1] * 4
        for j, price in enumerate((open_, first, second, close)):
            flag = TickFlag.BAR_OPEN if j == 0 else 0
            rows.append(
                (ts + path_offset(j, duration), number, sequence, j, int(flag), price, sizes[j])
            )
    rows.sort(key=lambda row: row[:4])
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    return TickBlock(
        np.array(columns[1], np.uint16), np.zeros(len(rows), np.uint32), np.array(columns[4], np.uint8),
        np.array(columns[0], np.int64), np.array(columns[5], np.int64), np.array(columns[6], np.int64),
    )  # fmt: skip


def cut(ticks: TickBlock, points: list[int]) -> list[TickBlock]:
    edges = [0, *sorted(p % (len(ticks) + 1) for p in points), len(ticks)]
    return [TickBlock(*(column[a:b] for column in ticks)) for a, b in itertools.pairwise(edges)]


@st.composite
def price_bars(draw, instruments: int = 2):
    """Bars of a few instruments on a minute grid with holes, some outside the session."""
    bars = []
    for number in range(instruments):
        step = draw(st.sampled_from([1, 5])) * MINUTE
        count = draw(st.integers(1, 25))
        slots = draw(
            st.lists(
                st.integers(0, 3 * DAY // step - 1), min_size=count, max_size=count, unique=True
            )
        )
        duration = draw(st.sampled_from([step, step // 2, 5, 1]))
        for slot in sorted(slots):
            low = draw(st.integers(1, 10**6))
            high = low + draw(st.integers(0, 4))
            inner = st.integers(low, high)
            volume = draw(st.one_of(st.just(-1), st.integers(0, 10**9)))
            bars.append(
                (number, slot * step, duration, draw(inner), high, low, draw(inner), volume)
            )
    return bars


@settings(max_examples=200, deadline=None)
@given(price_bars(), st.lists(st.integers(0, 10**6), max_size=4))
def test_bars_rebuilt_from_their_path_are_the_original_bars(bars, points):
    builder = BarBuilder([SOURCE], [dates(), dates()])
    built = [builder.update(part) for part in cut(ticks_of(bars), points)]
    rows = np.concatenate([*built, builder.flush()])
    back = sorted(
        (int(r["instrument"]), int(r["start"]), int(r["end"] - r["start"]),
         *(int(r[name]) for name in ("open", "high", "low", "close", "volume")))
        for r in rows
    )  # fmt: skip
    assert back == sorted(bars)
    assert (rows["count"] == 4).all()


def plain_bucket(ts: int, timeframe: int, table: TradingDates) -> tuple[int, int]:
    """The rule, read slowly: date, then before, in or after its session, then the grid of its open."""
    day = max(0, sum(int(s) <= ts for s in table.starts) - 1)
    opened, closed = int(table.opens[day]), int(table.closes[day])
    if timeframe == DAY:
        return opened, closed
    start = opened
    while start > ts:
        start -= timeframe
    while start + timeframe <= ts:
        start += timeframe
    end = start + timeframe
    if ts < opened:
        return start, min(end, opened)
    return (start, min(end, closed)) if ts < closed else (max(start, closed), end)


def plain_bars(bars, timeframe, table):
    """Aggregate bars by the bucket that they open in."""
    groups: dict[tuple[int, int, int], list[tuple[int, ...]]] = {}
    for bar in sorted(bars):
        start, end = plain_bucket(bar[1], timeframe, table)
        groups.setdefault((bar[0], start, end), []).append(bar)
    return [
        (number, timeframe, start, end, group[0][3], max(b[4] for b in group), min(b[5] for b in group),
         group[-1][6], sum(b[7] for b in group) if all(b[7] >= 0 for b in group) else -1, 4 * len(group))
        for (number, start, end), group in sorted(groups.items())
    ]  # fmt: skip


FIELDS = (
    "instrument",
    "timeframe",
    "start",
    "end",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "count",
)


def tuples(rows):
    return sorted(tuple(int(row[name]) for name in FIELDS) for row in rows)


@settings(max_examples=200, deadline=None)
@given(price_bars(), st.lists(st.integers(0, 10**6), max_size=4), st.sampled_from([5, 7, 15, 60]))
def test_coarser_bars_are_those_of_a_plain_reading_of_the_rule(bars, points, minutes):
    tables = [dates(), dates(opened=570 * MINUTE, closed=957 * MINUTE)]
    timeframes = [minutes * MINUTE, DAY]
    builder = BarBuilder(timeframes, tables)
    rows = [builder.update(part) for part in cut(ticks_of(bars), points)]
    expected = [
        row for number in (0, 1) for t in timeframes
        for row in plain_bars([b for b in bars if b[0] == number], t, tables[number])
    ]  # fmt: skip
    assert tuples(np.concatenate([*rows, builder.flush()])) == sorted(expected)


@settings(max_examples=50, deadline=None)
@given(price_bars(), st.integers(0, 10**6))
def test_restore_from_any_snapshot_changes_nothing(bars, point):
    ticks = ticks_of(bars)
    whole = BarBuilder([SOURCE, 5 * MINUTE, DAY], [dates(), dates()])
    expected = np.concatenate([whole.update(ticks), whole.flush()])
    first, second = (BarBuilder([SOURCE, 5 * MINUTE, DAY], [dates(), dates()]) for _ in range(2))
    head, tail = cut(ticks, [point])
    begun = first.update(head)
    second.restore(first.snapshot())
    rows = np.concatenate([begun, second.update(tail), second.flush()])
    assert rows.tobytes() == expected.tobytes()


def test_buckets_hang_on_the_session_s_open_and_end_at_its_close():
    # an hour from 09:15; the last one of the session has 15 minutes
    bars = [(0, OPEN + m * MINUTE, MINUTE, 10, 10, 10, 10, 1) for m in range(375)]
    builder = BarBuilder([60 * MINUTE], [dates()])
    rows = np.concatenate([builder.update(ticks_of(bars)), builder.flush()])
    assert [int(r["start"] - OPEN) // MINUTE for r in rows] == [0, 60, 120, 180, 240, 300, 360]
    assert [int(r["end"] - r["start"]) // MINUTE for r in rows] == [60] * 6 + [15]
    assert rows["volume"].tolist() == [60] * 6 + [15]


def test_a_bar_outside_the_session_never_joins_one_inside():
    # 09:07 would fall into the grid's 09:00 to 09:15; 15:30 and later begin a bucket at the close
    times = [547 * MINUTE, OPEN, CLOSE - MINUTE, CLOSE, CLOSE + 20 * MINUTE]
    builder = BarBuilder([15 * MINUTE, 60 * MINUTE, DAY], [dates()])
    rows = np.concatenate(
        [builder.update(ticks_of([(0, t, MINUTE, 5, 5, 5, 5, 1) for t in times])), builder.flush()]
    )
    spans = {
        int(t) // MINUTE: [
            (int(r["start"]) // MINUTE, int(r["end"]) // MINUTE)
            for r in rows
            if r["timeframe"] == t
        ]
        for t in (15 * MINUTE, 60 * MINUTE, DAY)
    }
    assert spans[15] == [(540, 555), (555, 570), (915, 930), (930, 945), (945, 960)]
    assert spans[60] == [(495, 555), (555, 615), (915, 930), (930, 975)]
    # of a day there is one bar, whatever came before the open and after the close
    assert spans[1440] == [(555, 930)]
    assert int(rows[rows["timeframe"] == DAY]["count"][0]) == 20


def test_a_source_bar_is_never_torn():
    # hours at :00 against a session from 09:15: each belongs to the bucket in which it opens
    bars = [(0, h * 60 * MINUTE, 60 * MINUTE, h, h, h, h, 4) for h in range(10, 14)]
    builder = BarBuilder([30 * MINUTE, 60 * MINUTE], [dates()])
    rows = np.concatenate([builder.update(ticks_of(bars)), builder.flush()])
    for timeframe in (30 * MINUTE, 60 * MINUTE):
        assert rows[rows["timeframe"] == timeframe]["volume"].tolist() == [4, 4, 4, 4]


def test_close_completes_what_ends_by_then_and_nothing_else():
    builder = BarBuilder([5 * MINUTE, 15 * MINUTE], [dates()])
    bars = [(0, OPEN + m * MINUTE, MINUTE, 10, 12, 9, 11, 1) for m in range(5)]
    assert len(builder.update(ticks_of(bars))) == 0
    assert len(builder.close(OPEN + 5 * MINUTE - 1)) == 0
    done = builder.close(OPEN + 5 * MINUTE)
    assert done["timeframe"].tolist() == [5 * MINUTE]
    assert len(builder.close(OPEN + 5 * MINUTE)) == 0
    assert [int(bar["count"]) for bar in builder.open_bars()[0]] == [0, 20]
    # and the next bar begins afresh
    builder.update(ticks_of([(0, OPEN + 5 * MINUTE, MINUTE, 20, 20, 20, 20, 1)]))
    assert builder.open_bars()[0, 0]["low"] == 20


def test_an_unknown_volume_makes_the_sum_unknown_and_zero_is_a_volume():
    def volume(*volumes: int) -> int:
        builder = BarBuilder([60 * MINUTE], [dates()])
        bars = [(0, OPEN + m * MINUTE, MINUTE, 1, 1, 1, 1, v) for m, v in enumerate(volumes)]
        return int(np.concatenate([builder.update(ticks_of(bars)), builder.flush()])[0]["volume"])

    assert volume(0, 0) == 0
    assert volume(3, 0, 5) == 8
    assert volume(-1, -1) == -1
    assert volume(3, -1, 5) == -1
    assert volume(-1, 3) == -1


def test_ticks_before_the_first_mark_belong_to_no_bar():
    builder = BarBuilder([SOURCE], [dates()])
    block = ticks_of([(0, OPEN, MINUTE, 7, 7, 7, 7, 1)])
    assert len(builder.update(TickBlock(*(column[1:] for column in block)))) == 0
    assert len(builder.flush()) == 0


def test_real_ticks_count_one_by_one():
    n = 1000
    block = TickBlock(
        np.zeros(n, np.uint16), np.zeros(n, np.uint32), np.full(n, int(TickFlag.BAR_OPEN), np.uint8),
        OPEN + np.arange(n, dtype=np.int64) * 10**9, np.arange(n, dtype=np.int64), np.ones(n, np.int64),
    )  # fmt: skip
    builder = BarBuilder([SOURCE, 5 * MINUTE], [dates()])
    rows = np.concatenate([builder.update(block), builder.flush()])
    assert (rows["timeframe"] == SOURCE).sum() == n
    assert rows[rows["timeframe"] == 5 * MINUTE]["count"].tolist() == [300, 300, 300, 100]


def test_a_snapshot_of_another_builder_or_a_damaged_one_is_refused():
    builder = BarBuilder([5 * MINUTE], [dates()])
    builder.update(ticks_of([(0, OPEN, MINUTE, 7, 7, 7, 7, 1)]))
    snapshot = builder.snapshot()
    with pytest.raises(DecodeError):
        BarBuilder([5 * MINUTE, DAY], [dates()]).restore(snapshot)
    damaged = bytearray(snapshot)
    damaged[-1] ^= 1
    with pytest.raises(DecodeError):
        builder.restore(bytes(damaged))
    with pytest.raises(DecodeError):
        builder.restore(b"")
    assert builder.snapshot() == snapshot


def test_settings_that_make_no_sense_are_refused():
    for timeframes in ([], [-1], [5, 5]):
        with pytest.raises(ValueError, match="timeframes"):
            BarBuilder(timeframes, [dates()])
    with pytest.raises(ValueError, match="trading date"):
        BarBuilder([5], [TradingDates(*(np.empty(0, np.int64),) * 3)])
