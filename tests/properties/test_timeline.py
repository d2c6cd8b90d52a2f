"""The timeline against a slow, plain reading of its rules, and what must not change it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streambot.data.feed import Feed
from streambot.data.timeline import Timeline
from tests.unit.data.bar_files import (
    DAY,
    HOUR,
    MINUTE,
    Rows,
    collected,
    plain_timeline,
    random_rows,
    stock,
    write_parquet,
)

MONDAY = 1_704_067_200 * 10**9  # 2024-01-01T00:00Z
MUMBAI = {"exchange": "XBOM", "timezone": "Asia/Kolkata"}


@st.composite
def charts(draw):
    """Two to four instruments of mixed exchanges, timeframes, spans and holes; a decision timeframe."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    out = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["24h", "mumbai", "mumbai", "kolkata", "daily"]))
        step = draw(st.sampled_from([MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR]))
        keep = draw(st.sampled_from([1.0, 0.7, 0.2]))
        count = draw(st.integers(1, 60))
        shift = draw(st.integers(0, 3)) * DAY + draw(st.integers(0, 30)) * step
        if kind == "daily":
            rows = random_rows(
                rng, MONDAY + draw(st.integers(0, 2)) * DAY, draw(st.integers(1, 6)), DAY
            )
            out.append((stock(f"I{number}", timezone="UTC"), rows, DAY))
            continue
        opened = MONDAY + (3 * HOUR + 45 * MINUTE - 10 * MINUTE if kind == "mumbai" else 0)
        fields = {"24h": {}, "mumbai": MUMBAI, "kolkata": {"timezone": "Asia/Kolkata"}}[kind]
        rows = random_rows(rng, opened + shift, count, step, keep=keep)
        out.append((stock(f"I{number}", **fields), rows, step))
    out = [chart for chart in out if chart[1].rows] or [
        (stock("I9"), random_rows(rng, MONDAY, 3, HOUR), HOUR)
    ]
    coarsest = max(step for *_, step in out)
    coarser = [t for t in (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, DAY) if t >= coarsest]
    return out, draw(st.sampled_from(coarser))


def timeline_of(folder: Path, parts, decision, *, group: int = 7, long: bool = False, **settings_):
    feeds = []
    if long:
        table = pa.concat_tables([rows.table(instrument.symbol) for instrument, rows, _ in parts])
        path = write_parquet(
            folder / "all.parquet",
            table.sort_by([("ts", "ascending"), ("symbol", "ascending")]),
            group=group,
        )
        feeds = [Feed(instrument, path, timeframe_ns=step) for instrument, _, step in parts]
    else:
        for instrument, rows, step in parts:
            path = write_parquet(folder / f"{instrument.symbol}.parquet", rows.table(), group=group)
            feeds.append(Feed(instrument, path, timeframe_ns=step))
    return Timeline(feeds, decision_ns=decision, **settings_)


@settings(max_examples=150)
@given(charts(), st.sampled_from([1, 40, 200_000]), st.booleans())
def test_ticks_barriers_and_flags_are_those_of_the_plain_rules(case, window_ticks, long) -> None:
    parts, decision = case
    expected = plain_timeline(parts, decision)
    with tempfile.TemporaryDirectory() as name:
        timeline = timeline_of(Path(name), parts, decision, long=long, window_ticks=window_ticks)
        got = collected(timeline.windows())
    assert got.closes == expected.closes
    assert got.ticks == expected.ticks


@settings(max_examples=40)
@given(charts(), st.data())
def test_resuming_at_a_barrier_gives_the_tail_of_the_straight_run(case, data) -> None:
    parts, decision = case
    with tempfile.TemporaryDirectory() as name:
        timeline = timeline_of(Path(name), parts, decision, window_ticks=40)
        whole = collected(timeline.windows())
        barrier = data.draw(st.integers(0, len(whole.closes)))
        tail = collected(timeline.windows(from_barrier=barrier))
    assert tail.closes == whole.closes[barrier:]
    assert tail.ticks == [tick for tick in whole.ticks if tick[0] >= barrier]


@settings(max_examples=30)
@given(charts(), st.randoms(use_true_random=False), st.integers(1, 500), st.integers(1, 30))
def test_order_of_feeds_windows_and_row_groups_change_nothing(
    case, random, window_ticks, group
) -> None:
    parts, decision = case
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        straight = collected(timeline_of(Path(one), parts, decision).windows())
        shuffled = list(parts)
        random.shuffle(shuffled)
        again = collected(
            timeline_of(
                Path(other), shuffled, decision, group=group, window_ticks=window_ticks
            ).windows()
        )
    assert again == straight


@settings(max_examples=30)
@given(charts(), st.integers(1, 300))
def test_closed_spans_add_up_whatever_the_windows(case, window_ticks) -> None:
    parts, decision = case
    with tempfile.TemporaryDirectory() as name:
        timeline = timeline_of(Path(name), parts, decision, window_ticks=window_ticks)
        spans = [
            tuple(span) for window in timeline.windows() for span in window.closed_spans.tolist()
        ]
        joined: list[tuple[int, int]] = []
        for low, high in spans:
            assert high > low
            assert not joined or low >= joined[-1][1]
            if joined and joined[-1][1] == low:
                joined[-1] = (joined[-1][0], high)
            else:
                joined.append((low, high))
        whole = timeline_of(Path(name), parts, decision)
        straight = [
            tuple(span) for window in whole.windows() for span in window.closed_spans.tolist()
        ]
        last = max(window.closes[-1] for window in whole.windows())
    assert joined == straight
    plan = timeline.plan()
    within = sum(min(high, plan.last_ns) - low for low, high in joined if low < plan.last_ns)
    assert within == plan.closed_ns
    assert plan.open_ns + plan.closed_ns == plan.last_ns - plan.first_ns
    assert last >= plan.last_ns


@pytest.mark.parametrize("path", ["ohlc", "bridge:7"])
@settings(max_examples=25)
@given(case=charts(), window_ticks=st.integers(1, 300))
@example(case=([(stock("A"), Rows([(MONDAY, 10, 10, 10, 10, 0)]), MINUTE)], MINUTE), window_ticks=1)
def test_bars_rebuilt_from_ticks_are_the_original_bars(path, case, window_ticks) -> None:
    from streambot.domain.replay_settings import parse_bar_path

    parts, decision = case
    with tempfile.TemporaryDirectory() as name:
        timeline = timeline_of(
            Path(name),
            parts,
            decision,
            window_ticks=window_ticks,
            bar_path=parse_bar_path(path),
            seed=3,
        )
        ticks = collected(timeline.windows()).ticks
        symbols = timeline.symbols
    for number, symbol in enumerate(symbols):
        bars: list[list[int]] = []
        for _, ts, instrument, price, size, flags in ticks:
            if instrument != number:
                continue
            if flags & 1:
                bars.append([ts, price, price, price, price, size])
                continue
            bar = bars[-1]
            bar[2], bar[3], bar[4] = max(bar[2], price), min(bar[3], price), price
            bar[5] = bar[5] + size if size >= 0 else -1
        ((rows, step),) = (
            (rows, step) for instrument, rows, step in parts if instrument.symbol == symbol
        )
        assert [bar[1:] for bar in bars] == [list(row[1:]) for row in rows.rows]
        if step < DAY:
            assert [bar[0] for bar in bars] == [row[0] for row in rows.rows]
