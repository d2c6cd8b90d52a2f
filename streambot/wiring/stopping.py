"""A request to stop a run: by Ctrl-C, by SIGTERM, or by whoever holds it.

The first request stops the run at a barrier; the second one aborts it.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """May be asked for from the event loop's thread at any time, before the run starts too.

    Attributes:
        reason: what asked first: the name of a signal, or `request`; None so far.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._abort: Callable[[], None] | None = None
        self._asked: asyncio.Event | None = None

    def request(self, reason: str = "request") -> None:
        """Stop the run at a barrier; asked again by a signal, abort it."""
        if self.reason is None:
            self.reason = reason
            if self._asked is not None:
                self._asked.set()
        elif reason != "request" and self._abort is not None:
            self._abort()

    async def wait(self) -> None:
        """Return once a stop was asked for."""
        await self._event().wait()

    def listen(self, abort: Callable[[], None]) -> None:
        """Take over SIGINT and SIGTERM; `abort` is called at the second one."""
        self._abort = abort
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            # Outside the main thread nobody sends this process's signals to the run.
            with suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, self.request, number.name)

    def ignore(self) -> None:
        """Give the signals back."""
        self._abort = None
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            with suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(number)

    def _event(self) -> asyncio.Event:
        if self._asked is None:
            self._asked = asyncio.Event()
            if self.reason is not None:
                self._asked.set()
        return self._asked


@contextmanager
def listening(stop: StopRequest) -> Iterator[None]:
    """While this lasts, a signal asks for a stop, and a second one aborts the task that is in here.

    Raises:
        KeyboardInterrupt: aborted by a second signal.
    """
    main = asyncio.current_task()
    aborted = False

    def abort() -> None:
        nonlocal aborted
        aborted = True
        if main is not None:
            main.cancel()

    stop.listen(abort)
    try:
        yield
    except asyncio.CancelledError:
        if aborted:
            raise KeyboardInterrupt from None
        raise
    finally:
        stop.ignore()
