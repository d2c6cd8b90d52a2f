"""The life of a replay: every transition of the table, every other one refused in words."""

import itertools

import pytest

from streambot.domain.errors import UsageError
from streambot.domain.replay_settings import MAX_SPEED, Speed
from streambot.replay.control import (
    LIVING,
    TRANSITIONS,
    ReplayControl,
    Trigger,
    diagram,
    next_status,
)
from streambot.streams.control import (
    AskStatus,
    Pause,
    ReplayStatus,
    Resume,
    Seek,
    SetSpeed,
    Step,
)

RUNNING, PAUSED, STEPPING = ReplayStatus.RUNNING, ReplayStatus.PAUSED, ReplayStatus.STEPPING
COMMANDS = {
    Trigger.PAUSE: Pause(id="a", sender="s"),
    Trigger.RESUME: Resume(id="b", sender="s"),
    Trigger.STEP: Step(id="c", sender="s", count=3),
    Trigger.SPEED: SetSpeed(id="d", sender="s", speed="7x"),
    Trigger.SEEK: Seek(id="e", sender="s", time="2020-12-15"),
}


def control_in(status: ReplayStatus) -> ReplayControl:
    """A control that came to `status` by itself."""
    control = ReplayControl(Speed(100))
    ways = {
        RUNNING: (), PAUSED: (Trigger.PAUSE,), STEPPING: (Trigger.STEP,),
        ReplayStatus.SOUGHT: (Trigger.SEEK,),
    }  # fmt: skip
    for trigger in ways.get(status, ()):
        control.apply(COMMANDS[trigger], 10)
    if status in {ReplayStatus.COMPLETE, ReplayStatus.STOPPED}:
        control.end(Trigger.END if status is ReplayStatus.COMPLETE else Trigger.STOP, 10)
    assert control.status is status
    return control


def state(control: ReplayControl):
    return (control.status, control.speed, control.step_until, control.target)


@pytest.mark.parametrize(("status", "trigger"), list(itertools.product(ReplayStatus, Trigger)))
def test_every_pair_moves_as_the_table_says_or_is_refused(status, trigger):
    after = TRANSITIONS[status].get(trigger)
    if after is not None:
        assert next_status(status, trigger) is after
    else:
        with pytest.raises(UsageError, match=r"^(the replay|it) .{8,}"):
            next_status(status, trigger)


@pytest.mark.parametrize(("status", "trigger"), list(itertools.product(ReplayStatus, COMMANDS)))
def test_every_command_in_every_status(status, trigger):
    control = control_in(status)
    before = state(control)
    answers = control.apply(COMMANDS[trigger], 10)
    after = TRANSITIONS[status].get(trigger)
    if after is None:
        [refused] = answers
        assert not refused.applied
        assert refused.reason
        assert state(control) == before
    else:
        assert control.status is after
        assert all(answer.applied for answer in answers)
        assert (control.speed == Speed(7)) == (trigger is Trigger.SPEED)
        assert (control.target is not None) == (trigger is Trigger.SEEK)
        own = [a for a in answers if a.command is COMMANDS[trigger]]
        # A step is answered when it is done; one that another command ends is answered too.
        assert bool(own) == (trigger is not Trigger.STEP)
        interrupted = status is STEPPING and trigger not in {Trigger.STEP, Trigger.SPEED}
        assert len(answers) == len(own) + interrupted


def test_the_living_are_those_with_a_way_on():
    assert {status for status, moves in TRANSITIONS.items() if moves} == LIVING
    assert set(TRANSITIONS) == set(ReplayStatus)


def test_steps_add_up_and_each_is_answered_at_its_own_end():
    control = ReplayControl(MAX_SPEED)
    first, second = COMMANDS[Trigger.STEP], Step(id="f", sender="s", count=2)
    assert control.apply(first, 10) == control.apply(second, 10) == []
    assert control.step_until == 13
    assert control.reached(12) == []
    assert [a.command for a in control.reached(13)] == [first]
    assert (control.status, control.step_until) == (STEPPING, 15)
    assert [a.command for a in control.reached(15)] == [second]
    assert (control.status, control.step_until) == (PAUSED, None)


def test_a_step_that_is_interrupted_says_how_far_it_came():
    control = control_in(STEPPING)
    control.apply(Step(id="f", sender="s", count=2), 10)
    stepped, never, paused = control.apply(COMMANDS[Trigger.PAUSE], 12)
    assert (stepped.reason, never.reason, paused.reason) == (
        "2 of 3 barriers", "0 of 2 barriers", "",
    )  # fmt: skip


def test_what_changes_nothing_is_answered_before_any_barrier():
    control = control_in(PAUSED)
    assert control.answered_at_once(AskStatus(id="q", sender="s")).applied
    assert not control.answered_at_once(COMMANDS[Trigger.PAUSE]).applied
    assert control.answered_at_once(SetSpeed(id="r", sender="s", speed="100")).applied
    assert all(
        control.answered_at_once(COMMANDS[t]) is None
        for t in (Trigger.RESUME, Trigger.STEP, Trigger.SPEED, Trigger.SEEK)
    )


def test_the_diagram_has_every_transition():
    text = diagram()
    for status, moves in TRANSITIONS.items():
        for trigger, after in moves.items():
            [line] = [x for x in text.splitlines() if f" {status} --> {after}:" in x]
            assert trigger.value in line.partition(":")[2].replace(",", "").split()
