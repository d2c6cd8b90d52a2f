"""Processes that were taken over: they end and say so, and nothing that they write counts."""

from __future__ import annotations

import shutil
import signal
import time

import pytest

from tests.kafka.campaign import Execution, Recording, replay, resumed, tell
from tests.kafka.deaths import TAKEN_OVER, said, spread, take_over
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

STOPPED = [True, False, True, True, False, True, True]
"""Five zombies, and two that are awake while they are taken over."""
PACE = "3000x"
"""Slow enough to be taken over in the middle, fast enough to end soon."""


def zombies(recording, undisturbed, processes, rng, name: str, stopped: list[bool]) -> None:
    execution = Execution(recording, name, processes)
    found = take_over(execution, rng, stopped=stopped)
    aborted = execution.aborted()
    tell(
        f"workers taken over: {sum(stopped)} zombies stopped {dict(found.deaths.phases)}, "
        f"{len(stopped) - sum(stopped)} awake; gone {spread(found.seconds)} behind their waking; "
        f"aborted records in the raw log {dict(aborted)}"
    )
    assert found.deaths.checked(execution, undisturbed).complaints == []
    assert sum(aborted.values()) > 0, "no takeover met an open transaction"


def test_workers_that_wake_up_behind_their_successor(recording, undisturbed, processes, rng):
    """G3."""
    zombies(recording, undisturbed, processes, rng, "zombies", STOPPED)


@pytest.mark.nightly
@pytest.mark.parametrize("night", range(7))
def test_workers_that_wake_up_all_night(recording, undisturbed, processes, rng, night):
    """G3, 50 zombies."""
    zombies(recording, undisturbed, processes, rng, f"zombies{night}", STOPPED)


@pytest.mark.parametrize("mutant", ["never gives up", "plain"])
def test_takeovers_show_what_is_no_fence(recording, undisturbed, processes, rng, mutant):
    """G3 notices who is fenced and goes on, and a log that fences nobody."""
    execution = Execution(recording, f"zombies-{mutant.split()[0]}", processes)
    found = take_over(execution, rng, stopped=[True, True], limit_s=4.0, mutant=mutant)
    complaints = found.deaths.checked(execution, undisturbed).complaints
    assert any("goes on" in complaint for complaint in complaints), complaints
    tell(f"workers taken over, mutant `{mutant}`: {'; '.join(complaints)[:150]}")


def two_replays(kafka, market, processes, run: str, *, stopped: bool, **how):
    """One replay goes on where another one still is, as on a second machine that shares the runs.

    Returns:
        The first process, and the folder of the second.
    """
    first = replay(processes, kafka, market, run, "--speed", PACE, **how)
    until(lambda: first.commits > 5 or first.ended(), "a replay that publishes")
    elsewhere = market.folder / f"elsewhere-{run}"
    shutil.copytree(market.folder / "runs" / run, elsewhere / "runs" / run)
    if stopped:
        first.send(signal.SIGSTOP)
    second = resumed(processes, elsewhere, run, "--speed", "max", **how)
    until(lambda: second.commits > 5 or second.ended(), "a second replay that publishes")
    first.send(signal.SIGCONT)
    return first, second


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "awake"])
def test_a_replay_that_is_taken_over(kafka, market, processes, simulated, stopped):
    """Two processes that go on with one run: the first one ends, and the ticks are those of one."""
    run = f"taken-over-{'stopped' if stopped else 'awake'}"
    first, second = two_replays(kafka, market, processes, run, stopped=stopped)
    woken = time.monotonic()
    assert first.end() == 5, said(first)
    tell(f"a replay taken over, {run}: gone after {time.monotonic() - woken:.2f} s")
    assert TAKEN_OVER in first.err
    assert second.end() == 0, said(second)
    recording = Recording(kafka, run)
    recording.check()
    execution = Execution(recording, run, processes)
    execution.run_undisturbed()
    assert execution.outcome().event_digest == simulated


def test_takeovers_show_a_replay_that_nobody_fences(kafka, market, processes):
    """Without transactions the first replay goes on, and the guard meets frames of both."""
    first, second = two_replays(
        kafka, market, processes, "unfenced", stopped=True, mutant="plain replay"
    )
    assert second.end() == 0, said(second)
    published = first.commits
    until(lambda: first.commits > published + 5 or first.ended(), "that the first one goes on")
    assert first.code is None, said(first)
    first.kill()
    with pytest.raises(Exception, match="twice|wrong|expected frame"):
        Recording(kafka, "unfenced").check()
