"""`streambot actor` of a training: finds it, and tells how it goes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streambot.cli.console import say, show, warn, write_line
from streambot.cli.human import count, duration
from streambot.cli.piece import LINE_EVERY_S
from streambot.cli.stopping import EXIT_CODES, telling_stop
from streambot.domain.errors import UsageError
from streambot.domain.words import few

if TYPE_CHECKING:
    from streambot.cli.which_broker import BrokerPlace, KnownRun
    from streambot.domain.config import Resolved
    from streambot.learning.actor import Acted
    from streambot.learning.declaration import Training

_LOOK_S = 0.5


async def is_training(
    settings: Resolved, known: KnownRun, place: BrokerPlace, until: float
) -> bool:
    """Is it a training that is meant, and no run?

    Args:
        until: one that is not declared yet is waited for, in monotonic time: only then it shows
            which of the two it is.
    """
    if known.record is not None:
        return known.record.kind == "training"
    from streambot.cli.declared import read_on_log
    from streambot.cli.which_broker import open_broker
    from streambot.learning.declaration import read_training
    from streambot.wiring.places import runs_topic

    topic = runs_topic(settings.config.namespace, known.name, Path.cwd())
    async with open_broker(place, settings.config.kafka) as log:
        while await read_training(log, topic) is None:
            if time.monotonic() >= until or await read_on_log(log, topic) is not None:
                return False
            await asyncio.sleep(_LOOK_S)
    return True


def act_in_training(
    settings: Resolved,
    known: KnownRun,
    place: BrokerPlace,
    name: str | None,
    policy: str | None,
    wait_s: float,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Act for a training until it is complete, or somebody stops it.

    Raises:
        StreambotError: anything that is wrong, or fails.
        typer.Exit: it was stopped by a signal.
    """
    import msgspec

    from streambot.wiring.extras import needs_train
    from streambot.wiring.places import runs_topic

    with needs_train("an actor of a training"):
        from streambot.agents.devices import keep_freed_memory
    from streambot.wiring.training_actor import TrainingActorSettings, run_training_actor

    if policy is not None:
        raise UsageError(
            f"{known.name} is a training: its own weights decide", where="--policy",
            hint="leave it out",
        )  # fmt: skip
    keep_freed_memory()
    wanted = TrainingActorSettings(
        servers=place.servers,
        security=settings.config.kafka,
        topic=runs_topic(settings.config.namespace, known.name, Path.cwd()),
        training=known.name,
        actor=_named(name),
        wait_s=max(0.0, wait_s),
        cwd=Path.cwd(),
        beside=known.record is not None and known.record.embedded,
    )
    stop = telling_stop(say, "behind this rollout")
    summary = asyncio.run(run_training_actor(wanted, _Console(quiet=quiet), stop))
    if as_json:
        write_line(msgspec.json.encode(summary))
    else:
        show(
            f"actor {summary.actor} of {summary.training}, {summary.state}: "
            f"{count(summary.rollouts, 'rollout')}, {count(summary.steps, 'step')}, "
            f"{count(summary.episodes, 'episode')} in {duration(summary.wall_s)}, "
            f"{summary.steps_per_s:,.0f} steps/s"
        )
        if summary.refused:
            show(f"weights refused, torn, foreign or older: {summary.refused:,}")
    if summary.stopped_by in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[summary.stopped_by])


def _named(name: str | None) -> str:
    """The name of an actor; by default no other one on any machine has it."""
    if name is None:
        return f"{socket.gethostname()[:60]}-{os.getpid()}"
    if not name.isprintable() or not 1 <= len(name) <= 100:
        raise UsageError("the name of an actor is up to 100 printable characters", where="--agent")
    return name


class _Console:
    """Tells an actor to the person at the terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._said_at = 0.0
        self._refused = 0

    def opened(self, training: Training, instruments: tuple[str, ...]) -> None:
        """See `wiring.training_actor.ActorWatching`."""
        if not self._quiet:
            say(
                f"training {training.training}: {training.envs} environments side by side, "
                f"{count(training.rollout, 'step')} each, on {few(instruments)}"
            )

    def acted(self, acted: Acted, steps: int, seconds: float) -> None:
        """See `wiring.training_actor.ActorWatching`."""
        if acted.refused > self._refused:
            self._refused = acted.refused
            warn(f"{count(acted.refused, 'record')} of weights refused: torn, foreign or older")
        now = time.monotonic()
        if self._quiet or now - self._said_at < LINE_EVERY_S:
            return
        self._said_at = now
        say(
            f"weights {acted.weights:,}  {count(steps, 'step')}, {steps / max(seconds, 1e-9):,.0f}/s"
        )

    def warned(self, message: str) -> None:
        """See `wiring.training_actor.ActorWatching`."""
        warn(message)
