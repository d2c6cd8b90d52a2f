"""What a person sees of a replay under control: status, speed, time left, a run that a seek left."""

from __future__ import annotations

import pytest

from streambot.cli.progress import ConsoleObserver, TimeLeft, essentials
from streambot.cli.replay_words import place, told
from streambot.streams.control import Acknowledgement, ReplayStatus
from tests.unit.cli.told import OPEN, a_plan, a_progress, a_summary

NEW_YORK = "America/New_York"
MINUTE = 60_000_000_000


def said(status: str, command: str, **changes: object) -> str:
    fields = {
        "id": "a", "sender": "b", "number": 0, "command": command, "applied": True, "barrier": 61,
        "event_time": OPEN + 61 * MINUTE, "at": 0, "status": ReplayStatus(status), "speed": "100x",
    }  # fmt: skip
    return told(Acknowledgement(**(fields | changes)), NEW_YORK, "spy")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (said("paused", "pause"), "paused at 2020-12-15 10:31 EST (barrier 61)"),
        (said("running", "resume"), "running at 2020-12-15 10:31 EST (barrier 61), speed 100x"),
        (
            said("paused", "step", reason="61 of 90 barriers"),
            "paused at 2020-12-15 10:31 EST (barrier 61): 61 of 90 barriers",
        ),
        (said("paused", "speed"), "paused at 2020-12-15 10:31 EST (barrier 61), speed 100x"),
        (
            said("sought", "seek", successor="spy.s1"),
            "run spy ended at 2020-12-15 10:31 EST (barrier 61); run spy.s1 goes on",
        ),
        (said("complete", "status"), "complete at 2020-12-15 10:31 EST (barrier 61)"),
        (said("paused", "pause", barrier=0, event_time=None), "paused at the start"),
        (said("paused", "pause", event_time=None), "paused at barrier 61"),
    ],
)
def test_an_acknowledgement_is_one_line(line: str, expected: str) -> None:
    assert line == expected


def test_seconds_are_told_where_there_are_any() -> None:
    assert place(3, OPEN + 1_000_000_000, NEW_YORK) == "at 2020-12-15 09:30:01 EST (barrier 3)"


def test_progress_shows_a_pause_and_the_speed_of_the_moment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    observer = ConsoleObserver(lambda: None, clock=iter(range(0, 10_000, 20)).__next__)
    observer.planned(a_plan())
    capsys.readouterr()
    observer.progressed(a_progress(status="paused", speed_asked="200x"))
    assert "  PAUSED (asked 200x)  " in capsys.readouterr().err
    observer.progressed(a_progress(speed_asked="max"))
    assert "  99.98x (asked max)  " in capsys.readouterr().err


def test_time_left_follows_the_plan_until_somebody_changes_the_pace() -> None:
    left = TimeLeft()
    plan = a_plan()  # 234 s at 100x
    assert left(plan, a_progress()) == "2 min 35 s left"
    assert left(plan, a_progress(status="paused")) == ""
    # Behind a pause the wall time so far says nothing any more: what is left to play does.
    assert left(plan, a_progress(wall_s=900.0, done=0.5)) == "1 min 57 s left"
    assert left(plan, a_progress(done=0.5, speed_asked="200x")) == "58 s left"
    assert left(plan, a_progress(done=0.5, speed_asked="max")) == ""
    resumed = TimeLeft()
    plan = a_plan(resumed_at_barrier=100)  # 234 s from there on
    assert resumed(plan, a_progress(done=0.5, status="paused")) == ""
    assert resumed(plan, a_progress(done=0.75)) == "1 min 57 s left"


def test_a_run_that_a_seek_left_is_told_in_short_and_the_next_one_is_announced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    observer = ConsoleObserver(lambda: None)
    observer.planned(a_plan())
    capsys.readouterr()
    summary = a_summary(stopped_by="seek", event_to="2020-12-15T15:31:00Z", barriers=61)
    observer.sought(summary, "spy-7f3a.s1")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "run spy-7f3a ended at 2020-12-15 10:31:00 EST (barrier 61), left by a seek"
    )
    assert "24 fills, net P&L +217.0000 USD" in lines[1]
    assert f"digest {summary.digest}" in lines[2]
    assert lines[-1] == "run spy-7f3a.s1 goes on"
    assert observer.plan is None  # nothing may be said of the run that is over
    observer.progressed(a_progress())
    observer.close()
    assert capsys.readouterr().err == ""


def test_a_run_that_was_left_at_once_has_no_time() -> None:
    summary = a_summary(event_from=None, event_to=None, barriers=0)
    assert essentials(summary, NEW_YORK)[0] == "run spy-7f3a ended (barrier 0), left by a seek"
