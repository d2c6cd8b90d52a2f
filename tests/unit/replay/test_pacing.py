"""The schedule is absolute, in integers, and closed hours are taken out of it exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.replay.pacing import GapClock, Ratio, Schedule, durations, kept_of_gap

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND


def spans(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def at(clock: GapClock, *times: int) -> list[int]:
    return clock.at(np.array(times, np.int64)).tolist()


@given(
    numerator=st.integers(1, 10**6),
    denominator=st.integers(1, 10**6),
    anchor=st.integers(0, 10**15),
    steps=st.lists(st.integers(0, 10**12), min_size=1, max_size=50),
)
def test_due_is_exact_at_any_distance_so_a_replay_cannot_drift(
    numerator, denominator, anchor, steps
):
    schedule = Schedule(anchor, 10**18, Ratio(numerator, denominator))
    at_ns = 10**18
    for step in steps:
        at_ns += step
        exact = (at_ns - 10**18) * denominator / numerator
        due = schedule.due(at_ns)
        # Never early, and never a whole nanosecond late, whatever came before.
        assert (due - anchor) * numerator >= (at_ns - 10**18) * denominator
        assert due - anchor <= exact + max(1.0, exact * 1e-9)


def test_a_hundred_years_at_an_odd_speed_lose_no_nanosecond():
    schedule = Schedule(0, 0, Ratio(3, 7))
    century = 100 * 365 * 24 * HOUR
    assert schedule.due(3 * century) == 7 * century


def test_skip_removes_closed_hours_and_keeps_what_is_open():
    clock = GapClock(kept_ns=0)
    clock.extend(spans((10 * HOUR, 20 * HOUR)))
    assert at(clock, 9 * HOUR, 10 * HOUR, 20 * HOUR, 21 * HOUR) == [
        9 * HOUR, 10 * HOUR, 10 * HOUR, 11 * HOUR,
    ]  # fmt: skip


def test_a_tick_inside_a_closed_span_stays_in_order():
    clock = GapClock(kept_ns=HOUR)
    clock.extend(spans((10 * HOUR, 20 * HOUR)))
    inside = at(clock, 10 * HOUR + 1, 11 * HOUR, 15 * HOUR, 20 * HOUR, 20 * HOUR + 1)
    assert inside == [10 * HOUR + 1, 11 * HOUR, 11 * HOUR, 11 * HOUR, 11 * HOUR + 1]


def test_spans_of_earlier_windows_still_count():
    clock = GapClock(kept_ns=0)
    clock.extend(spans((1 * HOUR, 2 * HOUR)))
    clock.extend(spans())
    clock.extend(spans((5 * HOUR, 9 * HOUR)))
    assert at(clock, 4 * HOUR, 10 * HOUR) == [3 * HOUR, 5 * HOUR]


def test_keep_changes_nothing():
    clock = GapClock(kept_ns=None)
    clock.extend(spans((1 * HOUR, 2 * HOUR)))
    assert at(clock, 0, 3 * HOUR) == [0, 3 * HOUR]


@given(
    edges=st.lists(st.integers(1, 1000), min_size=0, max_size=20),
    kept=st.one_of(st.none(), st.integers(0, 50)),
    times=st.lists(st.integers(0, 25_000), min_size=1, max_size=50),
    cut=st.integers(0, 10),
)
def test_schedule_time_never_goes_back_and_never_runs_faster_than_event_time(
    edges, kept, times, cut
):
    bounds = np.cumsum(np.array(edges, np.int64))[: len(edges) // 2 * 2].reshape(-1, 2)
    clock = GapClock(kept)
    clock.extend(bounds[:cut])
    first_end = int(bounds[:cut][-1, 1]) if len(bounds[:cut]) else 0
    clock.extend(bounds[cut:])
    ordered = np.array(sorted(t for t in times if t >= first_end), np.int64)
    steps = np.diff(clock.at(ordered))
    assert np.all(steps >= 0)
    assert np.all(steps <= np.diff(ordered))


@pytest.mark.parametrize(
    ("speed", "kept"), [(Ratio(1, 1), 30 * SECOND), (Ratio(100, 1), 3_000 * SECOND)]
)
def test_the_limit_of_a_gap_is_wall_time(speed, kept):
    assert kept_of_gap(30 * SECOND, speed) == kept
    assert kept_of_gap(None, speed) is None


def test_both_durations_of_the_banner():
    both = durations(open_ns=6 * HOUR, closed_ns=18 * HOUR, speed=Ratio(100, 1))
    assert both.skip == 216 * SECOND
    assert both.keep == 864 * SECOND
