"""What a worker and an actor share on the command line: flags, and how they tell where they are."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Generic, Protocol, TypeVar

import typer

from streambot.cli.console import say, terminal_width, warn

if TYPE_CHECKING:
    from collections.abc import Iterable

LINE_EVERY_S = 10.0
Text = str | None

RunToJoin = Annotated[
    Text, typer.Option("--run", metavar="NAME", help="Which run. Default: the newest here.")
]
Wait = Annotated[
    Text,
    typer.Option(
        "--wait", metavar="60s", help="How long to wait for a run that is not there. Default: 0s"
    ),
]
Servers = Annotated[
    Text,
    typer.Option(
        "--bootstrap-servers",
        metavar="HOST:PORT",
        help="Apache Kafka. Default: the run's own, else the one `streambot broker start` started.",
    ),
]
Namespace = Annotated[
    Text, typer.Option("--namespace", metavar="NAME", help="First part of the topics' names.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings only.")]


def parse_wait(text: str | None) -> float:
    """Seconds of `--wait`, 0 where it is not given.

    Raises:
        StreambotError: it is no duration.
    """
    if text is None:
        return 0.0
    from streambot.domain.config import parse_duration

    return parse_duration(text) / 1e9


class _Plan(Protocol):
    @property
    def timezone(self) -> str: ...


class _Progress(Protocol):
    @property
    def event_time(self) -> int | None: ...

    @property
    def ticks(self) -> int: ...

    @property
    def ticks_per_s(self) -> float: ...


PlanT = TypeVar("PlanT", bound=_Plan)
ProgressT = TypeVar("ProgressT", bound=_Progress)


class PieceConsole(ABC, Generic[PlanT, ProgressT]):
    """Tells a piece to the person at the terminal: a banner, then a line every ten seconds."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._said_at = time.monotonic()
        self._plan: PlanT | None = None

    @abstractmethod
    def banner(self, plan: PlanT) -> Iterable[list[str]]:
        """Blocks of what is about to start."""

    @abstractmethod
    def details(self, progress: ProgressT) -> list[str]:
        """Parts of a line behind the time and the ticks."""

    def planned(self, plan: PlanT) -> None:
        """Say what is about to start."""
        from streambot.cli.human import flow

        self._plan = plan
        if self._quiet:
            return
        for block in self.banner(plan):
            for line in flow(block, terminal_width(stderr=True)):
                say(line)

    def progressed(self, progress: ProgressT) -> None:
        """Say where it is, where nothing was said for a while."""
        now = time.monotonic()
        if self._quiet or self._plan is None or now - self._said_at < LINE_EVERY_S:
            return
        from streambot.cli.human import count, moment

        self._said_at = now
        at = progress.event_time
        parts = [
            moment(at, self._plan.timezone) if at is not None else "nothing yet",
            f"{count(progress.ticks, 'tick')}, {progress.ticks_per_s:,.0f}/s",
            *self.details(progress),
        ]
        say("  ".join(parts))

    def warned(self, message: str) -> None:
        """Say what people should know."""
        warn(message)
