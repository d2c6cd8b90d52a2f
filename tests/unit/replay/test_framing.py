"""However frames are cut, a partition sees the same rows and the same closes in the same order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.replay.framing import MAX_BARRIERS, MAX_ROWS, Draft, Framing, Position
from streambot.replay.pacing import GapClock
from tests.unit.replay.windows import STEP, make_window, window_runs


def content(drafts: list[Draft], partitions: int) -> list[tuple[list, list]]:
    """Rows (interval, instrument, ts, price) and closes (barrier, time) of each partition."""
    out = [([], []) for _ in range(partitions)]
    for d in drafts:
        rows, closes = out[d.partition]
        rows += zip(
            (d.ticks.bar.astype(np.int64) + d.barrier_lo).tolist(),
            d.ticks.instrument.tolist(),
            d.ticks.ts.tolist(),
            d.ticks.price.tolist(),
            strict=True,
        )
        closes += [(d.barrier_lo + n, t) for n, t in enumerate(d.closes.tolist())]
    return out


def expected(windows, partition_of: list[int], partitions: int) -> list[tuple[list, list]]:
    """The same, straight from the windows."""
    out = [([], []) for _ in range(partitions)]
    for w in windows:
        for i, bar, ts, price in zip(
            w.ticks.instrument.tolist(), w.ticks.bar.tolist(), w.ticks.ts.tolist(),
            w.ticks.price.tolist(), strict=True,
        ):  # fmt: skip
            out[partition_of[i]][0].append((w.barrier_lo + bar, i, ts, price))
        for _, closes in out:
            closes += [(w.barrier_lo + n, t) for n, t in enumerate(w.closes.tolist())]
    return out


def well_formed(drafts: list[Draft], max_rows: int, max_barriers: int) -> None:
    """What every frame promises."""
    for d in drafts:
        assert len(d.ticks) <= max_rows
        assert len(d.closes) <= max_barriers
        assert len(d.ticks) + len(d.closes) > 0
        assert d.ticks.bar.dtype == np.uint16
        inside = len(d.ticks) and int(d.ticks.bar[-1]) >= len(d.closes)
        assert d.barrier_hi == d.barrier_lo + len(d.closes) - (0 if inside else 1)
        times = d.ticks.ts.tolist() + d.closes.tolist()
        assert (d.t_lo, d.t_hi) == (min(times), max(times))
        if len(d.ticks):
            assert 0 <= d.barrier_lo <= d.barrier_lo + int(d.ticks.bar[-1]) <= d.barrier_hi


@settings(max_examples=150, deadline=None)
@given(
    run=window_runs(),
    partitions=st.integers(1, 4),
    max_rows=st.integers(1, 40),
    max_barriers=st.integers(1, 12),
    spans=st.lists(st.integers(0, 5 * STEP), min_size=1, max_size=5),
)
def test_any_framing_gives_the_same_rows_and_closes(run, partitions, max_rows, max_barriers, spans):
    instruments, windows = run
    owner = [i % partitions for i in range(instruments)]
    framing = Framing(owner, partitions, max_rows=max_rows, max_barriers=max_barriers)

    fast = [d for w in windows for d in framing.open(w).all()]
    well_formed(fast, max_rows, max_barriers)

    clock = GapClock(None)
    paced: list[Draft] = []
    releases: list[int] = []
    n = 0
    for w in windows:
        frames = framing.open(w)
        frames.schedule(clock)
        while (batch := frames.due(spans[n % len(spans)])) is not None:
            n += 1
            assert batch.drafts
            assert batch.release == max(d.t_hi for d in batch.drafts)
            releases.append(batch.release)
            paced += batch.drafts
            if n % 3 == 0:
                paced += frames.rest_of_interval()
                assert frames.rest_of_interval() == []
    well_formed(paced, max_rows, max_barriers)
    assert releases == sorted(releases)

    assert content(fast, partitions) == expected(windows, owner, partitions)
    assert content(paced, partitions) == expected(windows, owner, partitions)


@settings(max_examples=100, deadline=None)
@given(run=window_runs(), partitions=st.integers(1, 3), data=st.data())
def test_a_resumed_stream_goes_on_at_the_very_row(run, partitions, data):
    instruments, windows = run
    owner = [i % partitions for i in range(instruments)]
    whole = Framing(owner, partitions, max_rows=5)
    drafts = [d for w in windows for d in whole.open(w).all()]
    start, before = [], []
    for p in range(partitions):
        mine = [d for d in drafts if d.partition == p]
        kept = mine[: data.draw(st.integers(0, len(mine)))]
        before += kept
        rows, closes = content(kept, partitions)[p]
        barrier = len(closes)
        start.append(Position(barrier, sum(1 for row in rows if row[0] == barrier)))
    rest = Framing(owner, partitions, start=start)
    after = [d for w in windows for d in rest.open(w).all()]
    assert content(before + after, partitions) == expected(windows, owner, partitions)


def test_at_full_speed_a_frame_holds_whole_intervals_only():
    window = make_window(0, [[3, 3]] * 10)
    drafts = Framing([0, 1], 2, max_rows=10).open(window).all()
    assert [len(d.ticks) for d in drafts if d.partition == 0] == [9, 9, 9, 3]
    assert all(d.barrier_hi == d.barrier_lo + len(d.closes) - 1 for d in drafts)


def test_an_interval_larger_than_a_frame_is_split_and_closes_in_its_last_frame():
    window = make_window(0, [[25], [2]])
    drafts = Framing([0], 1, max_rows=10).open(window).all()
    assert [len(d.ticks) for d in drafts] == [10, 10, 7]
    assert [len(d.closes) for d in drafts] == [0, 0, 2]


def test_a_run_of_empty_barriers_is_one_frame():
    window = make_window(5, [[4, 0]] * 50)
    empty = [d for d in Framing([0, 1], 2).open(window).all() if d.partition == 1]
    assert len(empty) == 1
    assert (empty[0].barrier_lo, len(empty[0].closes), len(empty[0].ticks)) == (5, 50, 0)


def test_a_frame_ends_before_its_intervals_overflow_their_column():
    window = make_window(0, [[0]] * (MAX_BARRIERS + 10) + [[1]])
    drafts = Framing([0], 1).open(window).all()
    assert [len(d.closes) for d in drafts] == [MAX_BARRIERS, 11]
    assert int(drafts[1].ticks.bar[0]) == 10


def test_the_largest_frame_stays_below_what_brokers_take():
    rows = MAX_ROWS * (2 + 2 + 1 + 8 + 8 + 8)
    assert rows + MAX_BARRIERS * 8 + 4_096 < 900_000


def test_at_pace_a_frame_that_closes_a_barrier_ends_there():
    window = make_window(0, [[4], [4]], step=60 * STEP)
    frames = Framing([0], 1).open(window)
    frames.schedule(GapClock(None))
    sizes = []
    while (batch := frames.due(2 * STEP)) is not None:
        sizes.append([(len(d.ticks), len(d.closes)) for d in batch.drafts])
    # Ticks at 0, 15, 30, 45 s; the close at 60 s is due together with the next open.
    assert sizes == [[(1, 0)]] * 4 + [[(0, 1), (1, 0)]] + [[(1, 0)]] * 3 + [[(0, 1)]]


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_stop_at_pace_publishes_the_rest_of_the_interval_and_nothing_of_the_next(after):
    window = make_window(0, [[4, 4], [4, 4]], step=60 * STEP)
    frames = Framing([0, 1], 2).open(window)
    frames.schedule(GapClock(None))
    drafts = []
    for _ in range(after):
        drafts += frames.due(2 * STEP).drafts
    drafts += frames.rest_of_interval()
    closed = 1 if after < 5 else 2
    for rows, closes in content(drafts, 2):
        assert len(closes) == closed
        assert len(rows) == 4 * closed
