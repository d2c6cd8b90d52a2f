"""The life of a replay as a table, and what commands do to it: a state machine without IO.

    running <-> paused, both -> stepping -> paused; each of them ends: complete, stopped or sought

Commands are decided at a closed barrier common to all partitions; who publishes says which. What is
not in `TRANSITIONS` is refused in words and changes nothing. Steps are answered when their last
barrier is published, or when something else comes between: any other command but a change of speed
ends them at the next barrier.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, assert_never

from streambot.domain.errors import UsageError
from streambot.streams.control import (
    AskStatus,
    Command,
    Pause,
    ReplayStatus,
    Resume,
    Seek,
    SetSpeed,
    Step,
)

if TYPE_CHECKING:
    from streambot.domain.replay_settings import Moment, Speed


class Trigger(StrEnum):
    """What moves a replay on."""

    PAUSE = "pause"
    RESUME = "resume"
    STEP = "step"
    SPEED = "speed"
    SEEK = "seek"
    STEPPED = "stepped"
    """The last barrier of the steps is published."""
    STOP = "stop"
    """A person or a signal stops the run."""
    END = "end"
    """Everything is published."""


TRANSITIONS: dict[ReplayStatus, dict[Trigger, ReplayStatus]] = {
    ReplayStatus.RUNNING: {
        Trigger.PAUSE: ReplayStatus.PAUSED,
        Trigger.STEP: ReplayStatus.STEPPING,
        Trigger.SPEED: ReplayStatus.RUNNING,
        Trigger.SEEK: ReplayStatus.SOUGHT,
        Trigger.STOP: ReplayStatus.STOPPED,
        Trigger.END: ReplayStatus.COMPLETE,
    },
    ReplayStatus.PAUSED: {
        Trigger.RESUME: ReplayStatus.RUNNING,
        Trigger.STEP: ReplayStatus.STEPPING,
        Trigger.SPEED: ReplayStatus.PAUSED,
        Trigger.SEEK: ReplayStatus.SOUGHT,
        Trigger.STOP: ReplayStatus.STOPPED,
    },
    ReplayStatus.STEPPING: {
        Trigger.PAUSE: ReplayStatus.PAUSED,
        Trigger.RESUME: ReplayStatus.RUNNING,
        Trigger.STEP: ReplayStatus.STEPPING,
        Trigger.SPEED: ReplayStatus.STEPPING,
        Trigger.SEEK: ReplayStatus.SOUGHT,
        Trigger.STEPPED: ReplayStatus.PAUSED,
        Trigger.STOP: ReplayStatus.STOPPED,
        Trigger.END: ReplayStatus.COMPLETE,
    },
    ReplayStatus.COMPLETE: {},
    ReplayStatus.STOPPED: {},
    ReplayStatus.SOUGHT: {},
}
LIVING = frozenset({ReplayStatus.RUNNING, ReplayStatus.PAUSED, ReplayStatus.STEPPING})

_REFUSALS = {
    (ReplayStatus.RUNNING, Trigger.RESUME): "the replay is not paused",
    (ReplayStatus.PAUSED, Trigger.PAUSE): "the replay is paused already",
    (ReplayStatus.COMPLETE, None): "the replay is complete",
    (ReplayStatus.STOPPED, None): "the replay was stopped",
    (ReplayStatus.SOUGHT, None): "the replay ended with a seek: another run goes on",
}


def next_status(status: ReplayStatus, trigger: Trigger) -> ReplayStatus:
    """The status after `trigger`.

    Raises:
        UsageError: the table has no such transition; nothing changes.
    """
    after = TRANSITIONS[status].get(trigger)
    if after is None:
        known = _REFUSALS.get((status, trigger)) or _REFUSALS.get((status, None))
        raise UsageError(known or f"the replay is {status.value}: it cannot {trigger.value}")
    return after


class Answer(NamedTuple):
    """What became of a command. `reason`: why it was refused, or what differs from what was asked."""

    command: Command
    applied: bool = True
    reason: str = ""


class _Steps(NamedTuple):
    command: Step
    until: int


class ReplayControl:
    """Where a replay stands, and what it is asked to do.

    Args:
        speed: at the start.

    Attributes:
        status: where it stands.
        speed: asked for.
        target: where a seek goes to; None without one.
    """

    def __init__(self, speed: Speed) -> None:
        self.status = ReplayStatus.RUNNING
        self.speed = speed
        self.target: Moment | None = None
        self._steps: deque[_Steps] = deque()

    @property
    def living(self) -> bool:
        """It has not ended."""
        return self.status in LIVING

    @property
    def step_until(self) -> int | None:
        """The interval before which the first of the steps ends; None where none is under way."""
        return self._steps[0].until if self._steps else None

    def answered_at_once(self, command: Command) -> Answer | None:
        """The answer to a command that changes nothing, where that is known before any barrier."""
        match command:
            case AskStatus():
                return Answer(command)
            case SetSpeed() if self.living and command.value == self.speed:
                return Answer(command, reason="that is the speed already")
            case _:
                return self._refusal(command)

    def apply(self, command: Command, barrier: int) -> list[Answer]:
        """Do what `command` asks; every partition has closed the barriers before `barrier`.

        Returns:
            The answers that are due, none yet to a step.
        """
        refused = self._refusal(command)
        if refused is not None:
            return [refused]
        interrupted: list[Answer] = []
        match command:
            case Pause() | Resume():
                interrupted = self._interrupt(barrier)
            case Seek():
                interrupted = self._interrupt(barrier)
                self.target = command.value
            case SetSpeed():
                self.speed = command.value
            case Step():
                before = self._steps[-1].until if self._steps else barrier
                self._steps.append(_Steps(command, before + command.count))
            case AskStatus():
                return [Answer(command)]
            case _:
                assert_never(command)
        self.status = next_status(self.status, _trigger(command))
        return interrupted if isinstance(command, Step) else [*interrupted, Answer(command)]

    def reached(self, barrier: int) -> list[Answer]:
        """Every partition has closed the barriers before `barrier`: answers of steps that are done."""
        done: list[Answer] = []
        while self._steps and self._steps[0].until <= barrier:
            done.append(Answer(self._steps.popleft().command))
            if not self._steps:
                self.status = next_status(self.status, Trigger.STEPPED)
        return done

    def end(self, trigger: Trigger, barrier: int) -> list[Answer]:
        """The replay ends by itself, or is stopped: answers of the steps that were under way."""
        self.status = next_status(self.status, trigger)
        return self._interrupt(barrier)

    def _refusal(self, command: Command) -> Answer | None:
        if isinstance(command, AskStatus):
            return None
        try:
            next_status(self.status, _trigger(command))
        except UsageError as error:
            return Answer(command, applied=False, reason=error.message)
        return None

    def _interrupt(self, barrier: int) -> list[Answer]:
        answers = []
        for steps in self._steps:
            count = steps.command.count
            done = min(max(barrier - (steps.until - count), 0), count)
            answers.append(Answer(steps.command, reason=f"{done:,} of {count:,} barriers"))
        self._steps.clear()
        return answers


def _trigger(command: Command) -> Trigger:
    match command:
        case Pause():
            return Trigger.PAUSE
        case Resume():
            return Trigger.RESUME
        case Step():
            return Trigger.STEP
        case SetSpeed():
            return Trigger.SPEED
        case Seek():
            return Trigger.SEEK
        case AskStatus():
            raise AssertionError("a question moves nothing")
        case _:
            assert_never(command)


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documents."""
    lines = ["stateDiagram-v2", f"    [*] --> {ReplayStatus.RUNNING}"]
    for status, moves in TRANSITIONS.items():
        by_target: dict[ReplayStatus, list[str]] = {}
        for trigger, after in moves.items():
            by_target.setdefault(after, []).append(trigger.value)
        lines += [f"    {status} --> {to}: {', '.join(words)}" for to, words in by_target.items()]
        if not moves:
            lines.append(f"    {status} --> [*]")
    return "\n".join(lines)
