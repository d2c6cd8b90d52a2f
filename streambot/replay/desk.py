"""Where commands wait for their barrier, and are answered.

A command that changes nothing (a question, a refusal, the speed there is already) is answered at
once and disturbs nobody. All others wait for a closed barrier common to all partitions, and are
done there in the order in which they came; those behind a step wait for the barrier after it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import StreambotError
from streambot.replay.control import Answer, ReplayControl, Trigger
from streambot.streams.control import (
    Acknowledgement,
    AskStatus,
    Command,
    ReplayStatus,
    Seek,
    Step,
    word_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.domain.replay_settings import Moment, Speed
    from streambot.replay.emission import Emission

REMEMBERED = 1_024
"""Ids of so many commands are known again."""
MAX_WAITING = 256
_FAILED = "the replay has failed"


class _Taken(NamedTuple):
    command: Command
    answer: asyncio.Future[Acknowledgement]
    successor: str | None


class CommandDesk:
    """Takes commands to one replay.

    Args:
        speed: at the start.
        emission: where the partitions stand.
        wake: set when a command waits.
        successor: names the run that would go on at a time, or raises why none can; None: this
            replay cannot seek.
        wall: calendar time, UTC ns, for acknowledgements.

    Attributes:
        control: where the replay stands.
    """

    def __init__(
        self,
        speed: Speed,
        emission: Emission,
        wake: asyncio.Event,
        *,
        successor: Callable[[Moment], str] | None,
        wall: Callable[[], int],
    ) -> None:
        self.control = ReplayControl(speed)
        self._emission = emission
        self._wake = wake
        self._successor = successor
        self._wall = wall
        self._waiting: deque[Command] = deque()
        self._taken: OrderedDict[str, _Taken] = OrderedDict()
        self._closed = False

    def take(self, command: Command) -> asyncio.Future[Acknowledgement]:
        """The answer to a command, once there is one. A second one with the same id is the first."""
        known = self._taken.get(command.id)
        if known is not None:
            return known.answer
        successor, refusal = None, ""
        if isinstance(command, Seek) and self.control.living:
            successor, refusal = self._named(command)
        answer: asyncio.Future[Acknowledgement] = asyncio.get_running_loop().create_future()
        self._remember(_Taken(command, answer, successor))
        at_once = self._at_once(command, refusal)
        if at_once is not None:
            self._answer(at_once)
        else:
            self._waiting.append(command)
            self._wake.set()
        return answer

    def refuse(self, command: Command, reason: str) -> asyncio.Future[Acknowledgement]:
        """Answer a command that must not be done; one that was taken already keeps its answer."""
        known = self._taken.get(command.id)
        if known is not None:
            return known.answer
        answer: asyncio.Future[Acknowledgement] = asyncio.get_running_loop().create_future()
        self._remember(_Taken(command, answer, None))
        self._answer(Answer(command, applied=False, reason=reason))
        return answer

    @property
    def waiting(self) -> bool:
        """Some command waits for a barrier."""
        return bool(self._waiting)

    @property
    def goal(self) -> int | None:
        """The interval before which the replay has to be at once; None: it goes its own way."""
        if self._waiting:
            emission = self._emission
            return emission.frontier + 1 if emission.aligned else emission.frontier
        return self.control.step_until

    def at_barrier(self) -> None:
        """All partitions are at one closed barrier: answer steps that are done, do what waits."""
        barrier = self._emission.frontier
        self._answer(*self.control.reached(barrier))
        while self._waiting and self.control.living:
            command = self._waiting.popleft()
            self._answer(*self.control.apply(command, barrier))
            if isinstance(command, Step) and self.control.status is ReplayStatus.STEPPING:
                break
        if not self.control.living:
            self._refuse_waiting()

    def end(self, trigger: Trigger) -> None:
        """The replay ends by itself or is stopped: nothing stays unanswered."""
        self._answer(*self.control.end(trigger, self._emission.barrier))
        self._refuse_waiting()

    def close(self) -> None:
        """Nobody works here any more: what was not answered never will be done."""
        for taken in self._taken.values():
            self._answer(Answer(taken.command, applied=False, reason=_FAILED))
        self._closed = True

    def _remember(self, taken: _Taken) -> None:
        while len(self._taken) >= REMEMBERED and next(iter(self._taken.values())).answer.done():
            self._taken.popitem(last=False)
        self._taken[taken.command.id] = taken

    def _at_once(self, command: Command, refusal: str) -> Answer | None:
        if self._closed and self.control.living:
            refusal = _FAILED
        if refusal:
            return Answer(command, applied=False, reason=refusal)
        if self._waiting and not isinstance(command, AskStatus):
            if len(self._waiting) < MAX_WAITING:
                return None  # what comes before it decides
            return Answer(command, applied=False, reason="too many commands wait already")
        return self.control.answered_at_once(command)

    def _named(self, command: Seek) -> tuple[str | None, str]:
        if self._successor is None:
            return None, "this replay cannot seek"
        try:
            return self._successor(command.value), ""
        except StreambotError as error:
            return None, f"{error.message}; {error.hint}" if error.hint else error.message

    def _refuse_waiting(self) -> None:
        while self._waiting:
            refused = self.control.answered_at_once(self._waiting.popleft())
            if refused is not None:
                self._answer(refused)

    def _answer(self, *answers: Answer) -> None:
        for command, applied, reason in answers:
            taken = self._taken[command.id]
            if taken.answer.done():
                continue
            taken.answer.set_result(
                Acknowledgement(
                    id=command.id,
                    sender=command.sender,
                    number=command.number,
                    command=word_of(command),
                    applied=applied,
                    reason=reason,
                    barrier=self._emission.barrier,
                    event_time=self._emission.event_time,
                    at=self._wall(),
                    status=self.control.status,
                    speed=str(self.control.speed),
                    successor=taken.successor if applied else None,
                )
            )
