"""G12: crash schedules of the engine task on a simulated log. See `campaign` for what must hold.

A schedule that fails names its seed; `python -m tests.simulation.campaign SEED` runs it again and
tells everything that happens in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import Schedule, run_schedule, run_schedules

EVERY_CHANGE = 2_000
NIGHTLY = 100_000
PIECES = 8
ROOT = Path(__file__).resolve().parents[2]


def pieces(schedules: int, of: int = PIECES) -> list[range]:
    """Seeds in pieces, so that progress is seen and no test comes near the time limit."""
    size = schedules // of
    return [range(n * size, (n + 1) * size) for n in range(of)]


@pytest.mark.parametrize("seeds", pieces(EVERY_CHANGE), ids=lambda s: f"{s.start}-{s.stop}")
def test_no_schedule_breaks_a_promise(seeds):
    run_schedules(seeds)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", pieces(NIGHTLY, 100), ids=lambda s: f"{s.start}-{s.stop}")
def test_no_schedule_of_many_breaks_a_promise(seeds):
    run_schedules(seeds)


def test_a_seed_is_a_schedule():
    """The same seed gives the same schedule to the last message, in another process too."""
    seeds = (3, 46, 107)
    here = [run_schedule(seed) for seed in seeds]
    assert here == [run_schedule(seed) for seed in seeds]
    code = (
        f"from tests.simulation.campaign import run_schedule as r\nprint([r(s) for s in {seeds}])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77"},
    )  # fmt: skip
    assert said.stdout.strip() == str(here)


def test_the_schedules_are_full_of_trouble():
    """A campaign in which nothing happens would pass as well: this one has every kind of trouble."""
    said: list[str] = []
    lives = []
    for seed in range(0, EVERY_CHANGE, 5):
        schedule = Schedule(seed)
        schedule.tell = said.append
        schedule.run()
        lives += schedule.lives
    text = "\n".join(said)
    assert len(lives) > 1_000
    assert sum(life.runner.reopened for life in lives) > 300
    for what, least in {
        "crashes": 200,
        "is stopped": 100,
        "gives up": 40,
        "another process took over": 200,
        "no answer": 200,
    }.items():
        assert text.count(what) >= least, what
