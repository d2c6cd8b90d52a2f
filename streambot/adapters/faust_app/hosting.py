"""A roll-up inside somebody else's event loop: `streambot worker` and `simulate --alerts`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError
from faust.contrib.asgi import bind_to_running_loop

from streambot.adapters.faust_app.noise import silence
from streambot.adapters.faust_app.rollup_app import RollupApp, make_app
from streambot.adapters.kafka.failures import told
from streambot.domain.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from streambot.adapters.faust_app.settings import RollupSettings
    from streambot.report.rollup import RollupCounts

STOP_LIMIT_S = 1.5
CLOSE_LIMIT_S = 0.4
FINISH_LIMIT_S = 30.0
_POLL_S = 0.05


class RunningRollup:
    """A roll-up that runs. Made by `alerts_running`."""

    def __init__(self, app: RollupApp) -> None:
        self._app = app
        self._work = app.work

    @property
    def counts(self) -> RollupCounts:
        """What this process has seen so far."""
        return self._work.core.counts

    @property
    def active(self) -> bool:
        """True while the partitions are this process's; else it stands by, or has not joined yet."""
        return self._work.active

    async def catch_up(self, limit_s: float = FINISH_LIMIT_S) -> bool:
        """Wait until everything that the run has written by now is counted, and what follows stored.

        Returns:
            False where that took longer than `limit_s`, or another process has the partitions.
        """
        try:
            async with asyncio.timeout(limit_s):
                ends = await self._work.ends()
                if not await self._until(lambda: self._work.has_counted(ends)):
                    return False
                await self._work.flush()
        except TimeoutError:
            return False
        return True

    async def finish(self, limit_s: float = FINISH_LIMIT_S) -> bool:
        """The run is complete and everything it wrote is stored: roll up its last barrier too.

        Returns:
            False where that took longer than `limit_s`, or another process has the partitions.
        """
        self._work.end()
        try:
            async with asyncio.timeout(limit_s):
                return await self._until(self._work.done.is_set)
        except TimeoutError:
            return False

    async def _until(self, holds: Callable[[], bool]) -> bool:
        """False where another process has the partitions."""
        while not holds():
            if self._work.joined.is_set() and not self._work.active:
                return False
            await asyncio.sleep(_POLL_S)
        return True


@asynccontextmanager
async def alerts_running(settings: RollupSettings) -> AsyncIterator[RunningRollup]:
    """Roll up a run beside the body, which is cancelled when the roll-up fails.

    Nobody waits for Faust: the body begins at once, and the group is joined meanwhile. At the end,
    or cancelled, it is stopped within two seconds.

    Raises:
        StreambotError: the broker is gone or refuses, a stream of the run is wrong or missing.
    """
    silence()
    app = make_app(settings)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_run(app), name="roll-up")
            try:
                yield RunningRollup(app)
            finally:
                task.cancel()
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


async def _run(app: RollupApp) -> None:
    """Run until cancelled.

    Raises:
        StreambotError: it cannot go on.
    """
    bind_to_running_loop(app)
    app.finalize()
    start = asyncio.ensure_future(app.maybe_start())
    try:
        failed = asyncio.ensure_future(app.work.watch())
        try:
            while not failed.done() and not app.crashed and not app.should_stop:
                await asyncio.wait({failed}, timeout=_POLL_S * 5)
                if start.done() and start.exception() is not None:
                    break
        finally:
            failed.cancel()
    finally:
        await _stop(app, start)
    raise _failure(app, start)


def _failure(app: RollupApp, start: asyncio.Future[bool]) -> BaseException:
    if app.work.failure is not None:
        return app.work.failure
    reason = app.crash_reason
    if reason is None and start.done() and not start.cancelled():
        reason = start.exception()
    if isinstance(reason, Exception):
        return _told(app, reason)
    return BrokerError("Faust ended by itself", where=app.work.settings.servers)


def _told(app: RollupApp, reason: Exception) -> Exception:
    if isinstance(reason, KafkaError):
        return told(reason, app.work.settings.servers)
    return reason


async def _stop(app: RollupApp, start: asyncio.Future[bool]) -> None:
    """Stop the app, or leave behind what does not end in time."""
    stop = asyncio.ensure_future(app.stop())
    await asyncio.wait({stop}, timeout=STOP_LIMIT_S)
    close = asyncio.ensure_future(app.work.close())
    await asyncio.wait({close}, timeout=CLOSE_LIMIT_S)
    tasks: tuple[asyncio.Future[Any], ...] = (start, stop, close)
    for task in tasks:
        if not task.done():
            task.cancel()
    await asyncio.wait(tasks, timeout=_POLL_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # told, or of no interest any more


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
