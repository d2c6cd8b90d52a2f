"""An event loop without a clock, threads or sockets: time passes only where nobody has anything to do.

What runs on it is a function of its inputs: timers fire in the order of their times, and callbacks
in the order in which they were called for. So a schedule with a seed runs the same way twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from streambot.processor import runner, worker

MAX_TURNS = 200_000
"""Turns of the loop after which a schedule counts as hanging."""
EPOCH = 1_000.0


class HangsError(AssertionError):
    """Nothing moves any more, or nothing ends."""


class _Selector:
    """Waits for nothing: lets the time pass instead."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        loop = self._loop
        loop.turns += 1
        if timeout is None:
            raise HangsError("everybody waits for somebody else")
        if loop.turns > MAX_TURNS:
            raise HangsError(f"no end after {MAX_TURNS} turns of the loop")
        loop.now += timeout
        return []

    def close(self) -> None:
        pass


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs in no time at all.

    Args:
        step_s: how long the next piece of work in an executor takes; it runs in the loop.

    Attributes:
        now: seconds.
        turns: of the loop so far.
        complaints: what asyncio would have logged, such as failures that nobody looked at.
    """

    def __init__(self, step_s: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__()
        self.now = EPOCH
        self.turns = 0
        self.complaints: list[dict[str, Any]] = []
        self._step_s = step_s
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor, func, *args):
        done = self.create_future()

        def work() -> None:
            if done.done():
                return
            try:
                done.set_result(func(*args))
            except Exception as failure:  # noqa: BLE001  # handed over, as an executor does
                done.set_exception(failure)

        self.call_later(self._step_s(), work)
        return done

    def _process_events(self, event_list) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _asyncgen_finalizer_hook(self, agen) -> None:
        """Nothing: it would be called when the garbage collector likes."""


@contextmanager
def simulated_clock(loop: SimulatedLoop) -> Iterator[None]:
    """What the engine task reads from the clock comes from the loop."""
    clock = SimpleNamespace(
        **vars(time) | {"monotonic": loop.time, "monotonic_ns": lambda: int(loop.time() * 1e9)}
    )
    with mock.patch.object(runner, "time", clock), mock.patch.object(worker, "time", clock):
        yield


def simulate(loop: SimulatedLoop, main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main` on the loop, and end whatever it left."""
    with simulated_clock(loop):
        try:
            return loop.run_until_complete(main)
        finally:
            try:
                left = asyncio.all_tasks(loop)
                for task in left:
                    task.cancel()
                if left:
                    loop.turns = 0
                    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            finally:
                loop.close()
