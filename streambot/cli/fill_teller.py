"""Fills of a paced run, told as they happen: a few a second, for a person reads no faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from streambot.cli.console import say, terminal_width
from streambot.cli.human import count
from streambot.cli.tail_files import decode_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.cli.lines import View
    from streambot.report.progress import RunPlan

FILLS_A_SECOND = 8


class FillTeller:
    """Prints records of `fills` on stderr.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._view: View | None = None
        self._second = -1
        self._told = 0
        self._untold = 0

    def tell(self, plan: RunPlan, lines: bytes) -> None:
        """Print the events of a record, as many as the second has room for."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._told = second, 0
        for line in lines.splitlines():
            self._told += 1
            if self._told > FILLS_A_SECOND:
                self._untold += 1
            else:
                view = self._view or self._open(plan)
                say(view.human(decode_row(line, where="fills")))

    def close(self, plan: RunPlan) -> None:
        """Say how many were left out, and where they are; then leave a line free."""
        if self._untold:
            say(
                f"… and {count(self._untold, 'more event')}: "
                f"streambot tail fills --run {plan.run} --from beginning",
                style="dim",
            )
            self._untold = 0
        if self._view is not None:
            say()
            self._view = None

    def _open(self, plan: RunPlan) -> View:
        from streambot.cli.seen_run import see_run
        from streambot.cli.tail_views import make_view

        seen = see_run(Path(plan.folder).parent, plan.run)
        self._view = make_view("fills", seen.traded, terminal_width(stderr=True))
        say(self._view.heading(), style="bold")
        return self._view
