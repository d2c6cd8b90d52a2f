"""A replay that is killed goes on behind its last frame: every frame once, and the run as if nothing had been."""

from __future__ import annotations

import time

import pytest

from tests.kafka.campaign import Execution, Recording, read_all, replay, resumed, tell
from tests.kafka.deaths import said
from tests.kafka.places import RAW, Process
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

KILLS = 5
LONGEST_S = 2.0
"""A life of a replay lasts so long at most, its start included."""
PACE = "3000x"
"""Frames are cut inside intervals then, and a replay that nobody kills would take 40 s."""


def kill_replay(kafka, market, processes, rng, run: str, kills: int, **how) -> tuple[int, str]:
    """Kill the replay at random times, and let it end.

    Returns:
        How often it had published something in the life that ended; what is wrong, or nothing.
    """
    working = 0
    going = replay(processes, kafka, market, run, "--speed", PACE, **how)
    until(lambda: going.commits > 0 or going.ended(), "a replay that publishes")
    for kill in range(kills):
        over_ns = going.began_ns + float(rng.uniform(0, LONGEST_S)) * 1e9
        until(lambda: going.ended() or time.monotonic_ns() > over_ns, "the end of a life")  # noqa: B023
        if kill % 2:  # some hit an open transaction for certain
            until(lambda: going.ended() or writing(going), "an open transaction")  # noqa: B023
            time.sleep(float(rng.uniform(0, 0.03)))
        if going.ended():
            return working, said(going)
        going.kill()
        working += going.commits > 0
        going = resumed(processes, market.folder, run, "--speed", PACE, **how)
    until(lambda: going.commits > 0 or going.ended(), "a replay that publishes")
    going.kill()
    last = resumed(processes, market.folder, run, "--speed", "max", **how)
    return working + 1, "" if last.end() == 0 else said(last)


def writing(process: Process) -> bool:
    """True while it has begun a transaction and not committed it."""
    return any(task.point == "begun" for task in process.tasks().values())


def killed(kafka, market, processes, simulated, rng, run: str, kills: int, **how) -> list[str]:
    """What is wrong with a run whose replay was killed."""
    working, wrong = kill_replay(kafka, market, processes, rng, run, kills, **how)
    if wrong:
        return [wrong]
    recording = Recording(kafka, run)
    frames = sum(recording.check().values())
    raw = sum(map(len, read_all(kafka, recording.ticks, RAW).values()))
    tell(
        f"kill -9 of a replay: {kills + 1} kills, {working} of them while it published; {frames} "
        f"frames, {raw - frames} aborted ones in the raw log"
    )
    assert working > 0
    execution = Execution(recording, run, processes)
    execution.run_undisturbed()
    digest = execution.outcome().event_digest
    return [] if digest == simulated else [f"event digest {digest}, not {simulated}"]


def test_killed_at_random_times(kafka, market, processes, simulated, rng):
    """The guard takes every frame of the ticks once, END says the right totals, the events are the same."""
    assert killed(kafka, market, processes, simulated, rng, "cut", KILLS) == []


@pytest.mark.nightly
@pytest.mark.parametrize("night", range(8))
def test_killed_at_random_times_all_night(kafka, market, processes, simulated, rng, night):
    assert killed(kafka, market, processes, simulated, rng, f"cut{night}", KILLS) == []


def test_kills_show_a_replay_that_begins_an_interval_again(
    kafka, market, processes, simulated, rng
):
    """Rows would be there twice: the writer stops where they go back in time, or the digest tells."""
    how = {"mutant": "forgets open rows"}
    found = killed(kafka, market, processes, simulated, rng, "begins-again", KILLS, **how)
    assert any("watermark" in wrong or "event digest" in wrong for wrong in found), found
    tell(f"kill -9 of a replay, mutant `forgets open rows`: {found[0]}")
