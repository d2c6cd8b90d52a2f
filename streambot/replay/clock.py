"""Wall time of a replay, behind a port: tests bring a clock of their own."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time of a process: it only ever goes forward."""

    def now(self) -> int:
        """Nanoseconds since some moment."""

    async def wait_until(self, due: int, wake: asyncio.Event) -> None:
        """Return at `due`, or as soon as `wake` is set."""


class MonotonicClock:
    """The clock of the machine: steps of the calendar time do not touch it."""

    def now(self) -> int:
        """Nanoseconds since some moment."""
        return time.monotonic_ns()

    async def wait_until(self, due: int, wake: asyncio.Event) -> None:
        """Return at `due`, or as soon as `wake` is set."""
        left = due - time.monotonic_ns()
        if left <= 0 or wake.is_set():
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(left / 1e9):
                await wake.wait()
        except TimeoutError:
            return


def utc_now() -> int:
    """Calendar time, UTC ns: for the `status` stream only, which decides nothing."""
    return time.time_ns()  # noqa: TID251  # acknowledgements carry wall time
