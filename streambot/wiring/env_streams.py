"""An environment on a run that is going on: an actor in threads of its own, and where they meet.

declaration -> settings, follower -> actor (its own event loop) <-> `StreamVenue` <-> `TradingEnv`
"""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from streambot.domain.errors import ConfigError, StrategyError, UsageError
from streambot.domain.kafka_settings import KafkaSecurity
from streambot.domain.suggest import did_you_mean
from streambot.domain.units import exact_decimal
from streambot.engine.ordering import SlotContext, empty_calendar
from streambot.env.follower import Follower
from streambot.env.settings import make_config
from streambot.env.venues import Bystander, LeftError, StreamVenue
from streambot.wiring.acting import ActorSettings, run_actor
from streambot.wiring.declaring import wait_for_declaration
from streambot.wiring.mirrors import agent_of
from streambot.wiring.places import open_lasting
from streambot.wiring.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.engine.strategy import Strategy
    from streambot.env.config import EnvConfig
    from streambot.processor.agents import StrategyFactory
    from streambot.processor.declaration import Declared
    from streambot.processor.manifest import RunManifest
    from streambot.report.piece import ActorOutline, ActorProgress

MIRROR, FREE_RUN = "mirror", "free-run"
_OF_THE_RUN = ("capital", "max_quantity", "drawdown_limit_bp", "max_gap")


class RunToTrade(NamedTuple):
    """A slot of a run that is going on, or will.

    Attributes:
        servers, security: the broker.
        namespace: first part of the names of all topics.
        run: its name.
        agent: name that the orders are given under; None: the run's only one.
        instrument: what is traded; None: the run's only one.
        mode: `mirror`, of a run in lockstep, or `free-run`.
        wait_s: how long a run that is not declared yet is waited for.
        cwd: what relative paths start from.
    """

    servers: str
    security: KafkaSecurity
    namespace: str
    run: str
    agent: str | None
    instrument: str | None
    mode: str
    wait_s: float
    cwd: Path

    def actor(self) -> ActorSettings:
        """The same, as an actor is told."""
        return ActorSettings(
            servers=self.servers, security=self.security, namespace=self.namespace, run=self.run,
            agent=self.agent, policy=None, wait_s=self.wait_s, cwd=self.cwd,
        )  # fmt: skip


class StreamSource(NamedTuple):
    """Where an environment of a running run gets its venue; it does not travel between processes.

    Attributes:
        target: the slot.
    """

    target: RunToTrade

    def connect(self, settings: Mapping[str, Any]) -> tuple[EnvConfig, StreamVenue]:
        """Read what the run declares; the settings with what it decides, and the venue.

        Raises:
            ConfigError: a setting that contradicts the run, or the wrong mode for it.
            StreambotError: the run or the broker is not there.
        """
        target = self.target
        declared = asyncio.run(_declared(target))
        manifest = declared.declaration.manifest
        agent_of(manifest, target.agent)
        _check_mode(manifest, target.mode)
        number = _instrument(manifest, target.instrument)
        config = make_config({**settings, **_of_the_run(manifest, number, settings)})
        instrument = manifest.instruments[number]
        context = declared.context.get(instrument.symbol, SlotContext(empty_calendar()))
        follower = Follower(instrument, context, config, decision_ns=manifest.decision_ns)

        def start(venue: StreamVenue) -> _Session:
            return _Session(target, instrument.symbol, venue)

        return config, StreamVenue(follower, config, start)


async def _declared(target: RunToTrade) -> Declared:
    async with open_lasting(target.servers, target.security) as place:
        return await wait_for_declaration(
            place.log, target.actor().topic, target.run,
            servers=target.servers, wait_s=target.wait_s, stop=StopRequest(),
        )  # fmt: skip


def _check_mode(manifest: RunManifest, mode: str) -> None:
    actual = FREE_RUN if manifest.free_run else MIRROR
    if mode != actual:
        kind = "runs free" if manifest.free_run else "is in lockstep"
        raise ConfigError(
            f"run {manifest.run} {kind}, and the mode asked for is `{mode}`",
            where="mode",
            hint=f'mode="{actual}"',
        )


def _instrument(manifest: RunManifest, asked: str | None) -> int:
    symbols = [instrument.symbol for instrument in manifest.instruments]
    if asked is None:
        if len(symbols) > 1:
            raise UsageError(
                f"run {manifest.run} trades several instruments, and an environment one of them",
                where="instruments",
                hint=f"one of {', '.join(symbols[:8])}",
            )
        return 0
    if asked not in symbols:
        raise ConfigError(
            f"run {manifest.run} has no instrument `{asked}`",
            where="instruments",
            hint=did_you_mean(asked, symbols),
        )
    return symbols.index(asked)


def _of_the_run(manifest: RunManifest, number: int, given: Mapping[str, Any]) -> dict[str, object]:
    """What the engine of the run decides; a setting may repeat it, not contradict it."""
    decimals = manifest.instruments[number].money_decimals
    values = {
        "capital": Decimal(exact_decimal(manifest.capital[number], decimals)),
        "max_quantity": manifest.max_quantity,
        "drawdown_limit_bp": manifest.drawdown_limit_bp,
        "max_gap": manifest.max_gap_ns,
    }
    asked = make_config({name: value for name, value in given.items() if name in _OF_THE_RUN})
    actual = make_config(values)
    for name in _OF_THE_RUN:
        field = "max_gap_ns" if name == "max_gap" else name
        if name in given and getattr(asked, field) != getattr(actual, field):
            raise ConfigError(
                f"`{name}` is {getattr(actual, field)} in run {manifest.run}, not {given[name]}",
                where=name,
                hint="leave it out: the engine of the run decides it",
            )
    return values


class _Session:
    """The actor of an environment, in a thread with an event loop of its own."""

    def __init__(self, target: RunToTrade, symbol: str, venue: StreamVenue) -> None:
        self._symbol = symbol
        self._venue = venue
        self._stop = StopRequest()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settings = target.actor()._replace(strategies=self._strategies)
        # Nobody should have to wait for it at the end of a process that was aborted; threads of its
        # executor, which would be waited for, leave when the main thread has ended (`StreamVenue`).
        self._thread = threading.Thread(target=self._work, name="actor", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """See `venues.Session.end`."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.request)
        self._thread.join()

    def _strategies(self, declared: Declared, partition: int) -> StrategyFactory:
        """One strategy an instrument, in their order, each time that a mirror is made anew."""
        manifest = declared.declaration.manifest
        order = cycle([manifest.instruments[n].symbol for n in manifest.members(partition)])

        def make() -> Strategy:
            return self._venue.strategy() if next(order) == self._symbol else Bystander()

        return make

    def _work(self) -> None:
        failure: BaseException | None = None
        try:
            asyncio.run(self._act())
        except StrategyError as error:
            # Raised by the environment's own side of the meeting; unless it left, it is a bug.
            failure = None if isinstance(error.__cause__, LeftError) else error.__cause__ or error
        except BaseException as error:  # noqa: BLE001  # handed over, not hidden
            failure = error
        self._venue.ended(failure)

    async def _act(self) -> None:
        self._loop = asyncio.get_running_loop()
        await run_actor(self._settings, _Quiet(), self._stop)


class _Quiet:
    """Nobody watches: what an environment's user should know, `step` raises."""

    def planned(self, plan: ActorOutline) -> None:
        """See `ActorObserver.planned`."""

    def progressed(self, progress: ActorProgress) -> None:
        """See `ActorObserver.progressed`."""

    def warned(self, message: str) -> None:
        """See `ActorObserver.warned`."""
