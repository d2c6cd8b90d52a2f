"""`--serve` of `streambot actor`: weights of a training decide for a run."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streambot.cli.console import say, warn
from streambot.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streambot.cli.which_broker import BrokerPlace, KnownRun
    from streambot.domain.config import Resolved
    from streambot.wiring.following import Serving
    from streambot.wiring.served import ServedName
    from streambot.wiring.serving import Asked, Brokers

Serve = Annotated[
    str | None,
    typer.Option(
        "--serve", metavar="TRAINING[@SEQUENCE]",
        help="Weights of a training decide: the newest, taken up as they come, or those of a number.",
    ),
]  # fmt: skip


def check_serve(serve: str | None, policy: str | None) -> None:
    """What decides is said once.

    Raises:
        UsageError: twice.
    """
    if serve is not None and policy is not None:
        raise UsageError(
            f"--policy {policy} and --serve {serve} both say what decides", hint="give one"
        )


def check_own_weights(serve: str | None, training: KnownRun) -> None:
    """Nobody else's weights act for a training.

    Raises:
        UsageError: they are asked to.
    """
    if serve is not None:
        raise UsageError(
            f"{training.name} is a training: its own weights decide", where="--serve",
            hint="leave it out; or name a run that was started with --agent",
        )  # fmt: skip


@asynccontextmanager
async def served(
    serve: str | None, settings: Resolved, place: BrokerPlace, *, quiet: bool
) -> AsyncIterator[Serving | None]:
    """Weights of a training to decide with, for as long as this lasts; None: none are asked for.

    Args:
        serve: which ones.
        settings: of the command.
        place: the broker of the run, which may have the training as well.
        quiet: only warnings are told.

    Raises:
        StreambotError: there are none.
    """
    if serve is None:
        yield None
        return
    from streambot.wiring.following import serving
    from streambot.wiring.serving import Lookup, brokers_of

    name, by = _name(serve), Lookup.by(settings.config, Path.cwd())
    first, then = await _asked(settings, place)

    def brokers() -> Brokers:
        return brokers_of(name.training, by.runs_dir, first=first, then=then)

    def told(text: str) -> None:
        if not quiet:
            say(text)

    async with serving(name, brokers, by, told=told, warned=warn) as weights:
        yield weights


def _name(serve: str) -> ServedName:
    from streambot.processor.folder import check_run_name
    from streambot.wiring.served import ServedName, served_name

    found = served_name(serve, Path.cwd())
    return ServedName(check_run_name(serve), None) if found is None else found


async def _asked(settings: Resolved, place: BrokerPlace) -> tuple[list[Asked], list[Asked]]:
    """The run's broker first; and behind the training's own, that of the settings and of here."""
    from streambot.cli.which_broker import started_here
    from streambot.wiring.serving import Asked

    servers, started = settings.config.bootstrap_servers, await started_here()
    then = [] if servers is None else [Asked(servers, settings.origins["bootstrap_servers"])]
    return [Asked(*place)], then if started is None else [*then, Asked(*started)]
