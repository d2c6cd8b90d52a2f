"""Where the orders of an environment go, and where its account comes from, behind one port.

`EngineVenue` runs the engine in process, over recorded segments. `StreamVenue` follows an engine
task through the streams of a run: an actor mirrors the engine (`processor.actor`), publishes the
answers, and compares the fills; the environment's thread and the actor's meet at every close.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from streambot.domain.errors import UsageError
from streambot.domain.events import HOLD, Action
from streambot.env.fields import action_of
from streambot.env.shell import ask
from streambot.env.world import CAUSE_DATA, FOUND_END, FOUND_NO_ACTION, FOUND_REJECTION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streambot.engine.strategy import Account, Bar, Records
    from streambot.env.config import EnvConfig
    from streambot.env.core import Core
    from streambot.env.follower import Follower

_LOOK_S = 0.5


class Venue(Protocol):
    """One account, close by close; what is seen of it stands in `core`."""

    @property
    def core(self) -> Core:
        """The environment's state."""

    def begin(self, options: Mapping[str, Any] | None) -> None:
        """Begin an episode, as the options of a reset say.

        Raises:
            StreambotError: there is no such episode.
        """

    def step(self) -> int:
        """Answer the close with `core.actions`, and go on to the next one.

        Returns:
            Bits of `FOUND_…` of `env.world`; `FOUND_NO_ACTION`: nothing was done.

        Raises:
            StreambotError: the stream broke off.
        """

    def close(self) -> None:
        """Let go of it."""


class EngineVenue:
    """The engine in process.

    Args:
        core: over the segments.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.step = core.step

    def begin(self, options: Mapping[str, Any] | None) -> None:
        """See `Venue.begin`."""
        ask(self.core, 0, options)
        self.core.reset()

    def close(self) -> None:
        """See `Venue.close`."""


@runtime_checkable
class LiveSource(Protocol):
    """A run that is going on: it decides the venue, and some of the settings."""

    def connect(self, settings: Mapping[str, Any]) -> tuple[EnvConfig, Venue]:
        """The settings with what the run decides, and the venue.

        Raises:
            StreambotError: a setting contradicts the run, or it is not there.
        """


class Session(Protocol):
    """The actor behind a `StreamVenue`, in threads of its own."""

    def end(self) -> None:
        """Stop it, if it has not ended, and wait until it has."""


class StreamVenue:
    """One slot of an engine task, through the streams of its run.

    A run is one episode: it begins at the `lookback`-th close and ends with the run, after
    `episode_bars`, or where the account does. Once it has ended, whatever is still asked is
    answered with HOLD.

    Args:
        follower: of the slot.
        config: settings.
        start: begins the actor, whose mirror asks `strategy`.
    """

    def __init__(
        self, follower: Follower, config: EnvConfig, start: Callable[[StreamVenue], Session]
    ) -> None:
        self.core = follower.core
        self._follower = follower
        self._config = config
        self._start = start
        self._session: Session | None = None
        self._meet = threading.Condition()
        self._shown = self._left = self._over = self._through = False
        self._failure: BaseException | None = None
        self._life: AtTheSlot | None = None
        self._barrier = -1
        self._answers: dict[int, Action] = {}

    def begin(self, options: Mapping[str, Any] | None) -> None:
        """See `Venue.begin`.

        Raises:
            UsageError: a run is one episode, and has no other to choose.
            StreambotError: the run has ended, or the stream broke off, before it began.
        """
        if options:
            raise UsageError(
                f"an episode of a running run cannot be chosen: `{next(iter(options))}`",
                hint="record the run and use it from its segments: mode `train`",
            )
        if self._session is not None:
            raise UsageError(
                "a run is one episode: it cannot be begun again",
                hint="make another environment, on another run",
            )
        self._session = self._start(self)
        if not self._wait():
            raise UsageError(
                f"the run ended before its {self._config.lookback + 1} bars to look back on had closed"
            )

    def step(self) -> int:
        """See `Venue.step`."""
        core = self.core
        if not 0 <= core.actions[0] < core.masks.shape[1]:
            return FOUND_NO_ACTION
        with self._meet:
            action = action_of(int(core.actions[0]), self._config.max_quantity)
            if action != HOLD:  # as everything that nobody answers
                self._answers[self._barrier] = action
            self._shown = False
            self._meet.notify_all()
        if not self._wait():
            # The answer to the last close met no other bar: nothing was paid for it.
            core.rewards[0], core.terms[0] = 0.0, 0.0
            core.truncated[0] = 1
            core.reasons[0] = 0
            core.envs[0]["ended"], core.envs[0]["cause"] = 1, CAUSE_DATA
            core.envs[0]["events_n"] = 0
        ended = bool(core.envs[0]["ended"])
        self._over = self._over or ended
        return (FOUND_END if ended else 0) | (FOUND_REJECTION if core.reasons[0] else 0)

    def close(self) -> None:
        """See `Venue.close`. A run in lockstep waits for an agent that has left, and says so."""
        with self._meet:
            self._left = True
            self._meet.notify_all()
        if self._session is not None:
            self._session.end()

    def see_out(self) -> None:
        """Answer HOLD to whatever the run still asks, and return when it has ended.

        Raises:
            StreambotError: the stream broke off, or the engine's fills are not those of the mirror.
        """
        with self._meet:
            self._over = True
            self._shown = False
            self._meet.notify_all()
            while not self._through and self._failure is None:
                self._meet.wait(_LOOK_S)
        self._raise()

    def _wait(self) -> bool:
        """True at the next close; False at the end of the run."""
        with self._meet:
            while not self._shown and not self._through and self._failure is None:
                self._meet.wait(_LOOK_S)  # in parts: a signal must come through
            shown = self._shown
        if not shown:
            self._raise()
        return shown

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    # What the actor's threads call.

    def strategy(self) -> AtTheSlot:
        """What a mirror asks; a mirror that is made anew takes over from the one before."""
        with self._meet:
            self._life = AtTheSlot(self)
            self._meet.notify_all()
        return self._life

    def noted(self, life: AtTheSlot, events: Records) -> None:
        """Events of the slot."""
        if life is self._life:
            self._follower.note(events)

    def shown(self, life: AtTheSlot, bar: Bar, account: Account) -> Action:
        """A close of the slot: shown to the environment, answered by it."""
        if life is not self._life:
            raise LeftError
        if bar.barrier <= self._barrier:
            # A mirror that was made anew goes through what was shown already; the last close may
            # still be thought about.
            self._follower.forget()
            return self._answer(life, bar.barrier)
        self._barrier = bar.barrier
        if self._over:
            self._follower.forget()
            return HOLD
        self._follower.see(account.view, account.slot)
        config, bars = self._config, self._follower.bars
        if bars <= config.lookback:
            return HOLD
        if bars == config.lookback + 1:
            self._follower.begin(config.episode_bars)
        with self._meet:
            self._shown = True
            self._meet.notify_all()
        return self._answer(life, bar.barrier)

    def _answer(self, life: AtTheSlot, barrier: int) -> Action:
        """What is answered to a close, once it is."""
        with self._meet:
            while barrier == self._barrier and self._shown:
                nobody = self._left or not threading.main_thread().is_alive()
                if nobody or life is not self._life:
                    raise LeftError
                self._meet.wait(_LOOK_S)
        return self._answers.get(barrier, HOLD)

    def ended(self, failure: BaseException | None) -> None:
        """The actor has ended: with the run, or with a failure."""
        with self._meet:
            self._through = failure is None
            self._failure = failure
            self._meet.notify_all()


class AtTheSlot:
    """The strategy of one mirror, as long as no other mirror has taken over."""

    def __init__(self, venue: StreamVenue) -> None:
        self._venue = venue

    def on_records(self, events: Records) -> None:
        """See `StreamVenue.noted`."""
        self._venue.noted(self, events)

    def on_bar(self, bar: Bar, account: Account) -> Action:
        """See `Strategy.on_bar`."""
        return self._venue.shown(self, bar, account)


class LeftError(Exception):
    """Nobody is there who would answer the actor: the environment was closed, or another mirror has taken over."""


class Bystander:
    """Answers HOLD on the instruments of the run that the environment does not trade."""

    def on_bar(self, bar: Bar, account: Account) -> Action:
        """See `Strategy.on_bar`."""
        del bar, account
        return HOLD
