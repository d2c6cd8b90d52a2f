"""What people are told before a run: how long it will take, and which speed would take a minute."""

import msgspec
import pytest

from streambot.data.timeline import Plan
from streambot.domain.config import SimulationConfig, parse_gaps, parse_speed
from streambot.wiring.outcome import _one_minute, _wall_times

HOUR = 3_600 * 10**9
SECOND = 10**9
PLAN = Plan(
    symbols=("A",), bars=100, ticks=400, sessions=5, decision_ns=60 * SECOND, first_ns=0,
    last_ns=120 * HOUR, open_ns=30 * HOUR, closed_ns=90 * HOUR, estimated_bytes=1, instruments=(),
)  # fmt: skip


def config(speed: str, gaps: str = "skip") -> SimulationConfig:
    return SimulationConfig(speed=parse_speed(speed), gaps=parse_gaps(gaps))


def test_at_max_nobody_knows():
    assert _wall_times(config("max"), PLAN, 1.0) == (None, None, None)
    assert _one_minute(config("max"), PLAN, None, 1.0) is None


@pytest.mark.parametrize(
    ("gaps", "wall"), [("skip", 1_080), ("keep", 4_320), ("max:30s", 1_200), ("max:1h", 4_320)]
)
def test_durations_by_what_becomes_of_closed_hours(gaps, wall):
    expected, skip, keep = _wall_times(config("100x", gaps), PLAN, 1.0)
    assert (expected, skip, keep) == (wall * SECOND, 1_080 * SECOND, 4_320 * SECOND)


def test_a_resumed_run_takes_what_is_left():
    wall, _, _ = _wall_times(config("100x"), PLAN, 0.25)
    assert wall == 270 * SECOND


def test_a_long_run_comes_with_the_speed_that_takes_a_minute():
    assert _one_minute(config("100x"), PLAN, 1_080 * SECOND, 1.0) == "1800x"
    assert _one_minute(config("1x", "keep"), PLAN, 432_000 * SECOND, 1.0) == "7200x"
    assert _one_minute(config("1000x"), PLAN, 108 * SECOND, 1.0) is None
    odd = msgspec.structs.replace(PLAN, open_ns=1_234_567 * SECOND)
    assert _one_minute(config("1x"), odd, 1_234_567 * SECOND, 1.0) == "21000x"
