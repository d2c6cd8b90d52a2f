"""Ctrl-C on the command line: heard at once, done at a moment where nothing is lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.wiring.stopping import StopRequest

EXIT_CODES = {"SIGINT": 128 + signal.SIGINT, "SIGTERM": 128 + signal.SIGTERM}
"""Exit code of a command that a signal stopped."""


def telling_stop(say: Callable[[str], None], where: str = "at the close of a bar") -> StopRequest:
    """A stop request that says it has heard: the stop itself may take a moment.

    Args:
        say: narration.
        where: what the stop waits for.
    """
    from streambot.wiring.stopping import StopRequest

    class TellingStop(StopRequest):
        """Says at once that it heard."""

        def request(self, reason: str = "request") -> None:
            """See `StopRequest.request`."""
            if reason != "request" and self.reason is None:
                say(f"stopping {where}; again to abort")
            super().request(reason)

    return TellingStop()
