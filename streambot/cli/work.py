"""Long work of known size: a bar on a terminal, else a line every ten seconds; on stderr."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Self

from streambot.cli.console import console, on_terminal, say
from streambot.cli.human import duration, percent
from streambot.cli.progress import SECONDS_BETWEEN_LINES

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress, TaskID


class Work:
    """Tells how far some work is; a context.

    Args:
        what: is done: `evaluating`.
        clock: seconds, monotonic.
    """

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock = what, clock
        self._began: float | None = None
        self._said = clock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Show the bar, on a terminal."""
        if on_terminal(stderr=True):
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
                TimeRemainingColumn(), console=console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(self._what)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def told(self, done: int, total: int) -> None:
        """So many of so many steps are done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
            return
        now = self._clock()
        if self._began is None:  # getting ready is no part of the work
            self._began = self._said = now
        if now - self._said < SECONDS_BETWEEN_LINES or not 0 < done < total:
            return
        self._said = now
        left = (now - self._began) / done * (total - done)
        # Whoever does not listen any more does not stop the work.
        with contextlib.suppress(OSError, ValueError):
            say(f"{self._what}: {percent(done / total)}, about {duration(round(left))} left")
