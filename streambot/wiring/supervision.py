"""The tasks of a run side by side: all end together, and the first failure is the one that is told."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from streambot.wiring.failures import first_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from streambot.processor.intake import Intake
    from streambot.processor.runner import TaskRunner
    from streambot.processor.stream_files import StreamFiles
    from streambot.replay.backlog import Backlog
    from streambot.replay.service import ReplayService
    from streambot.wiring.opening import OpenRun
    from streambot.wiring.starts import (
        PartitionStart,
    )
    from streambot.wiring.stopping import StopRequest
    from streambot.wiring.watching import Watch

PROGRESS_S = 0.25
FLUSH_S = 1.0
DRAIN_S = 2.0
"""After a stop the engine may still process what was published, for that long."""


class _Stoppable(Protocol):
    def stop(self) -> None: ...


class _Runner(_Stoppable, Protocol):
    @property
    def partition(self) -> int: ...

    async def run(self) -> bool: ...


async def supervise(
    run: OpenRun,
    service: ReplayService,
    intakes: list[Intake],
    runners: list[TaskRunner],
    starts: list[PartitionStart],
    files: StreamFiles,
    backlog: Backlog,
    watch: Watch,
    lost: asyncio.Future[None],
) -> bool:
    """Let everything go until the end or a stop; True: every partition reached its end."""
    # What is there now stays: a collection that walks through all of it takes longer than a
    # paced frame may be late.
    gc.collect()
    gc.freeze()
    try:
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(stop_when_asked(run.stop, [service])),
                group.create_task(
                    now_and_then(lambda: run.observer.progressed(watch.progress(runners)))
                ),
                group.create_task(_flush_now_and_then(files)),
                group.create_task(_fail_when(lost)),
            ]
            helpers += [group.create_task(intake.run(), name="intake") for intake in intakes]
            engines = [
                group.create_task(runner.run(), name=f"engine {start.core.partition}")
                for runner, start in zip(runners, starts, strict=True)
                if not start.ended
            ]
            outcome = await group.create_task(service.run(), name="replay")
            if not outcome.complete:
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_S):
                        await backlog.drained()
                for runner in runners:
                    runner.stop()
            if run.manifest.agents:
                # The engines may wait for agents long after everything was published.
                helpers.append(group.create_task(stop_when_asked(run.stop, runners)))
            ends = await asyncio.gather(*engines)
            for helper in helpers:
                helper.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from None
    finally:
        gc.unfreeze()
    return outcome.complete and all(ends)


async def run_together(
    runners: Sequence[_Runner], name: str, stop: StopRequest, told: Callable[[], None]
) -> list[bool]:
    """Let runners go until all have ended, or a stop ends them; which of them reached END.

    Args:
        runners: one a partition.
        name: of their kind, for who looks at the tasks of the process.
        stop: ends them behind the frame they are at.
        told: called now and then.

    Raises:
        BaseExceptionGroup: what failed; see `first_failure`.
    """
    async with asyncio.TaskGroup() as group:
        helpers = [
            group.create_task(stop_when_asked(stop, runners)),
            group.create_task(now_and_then(told)),
        ]
        tasks = [
            group.create_task(runner.run(), name=f"{name} {runner.partition}") for runner in runners
        ]
        ends = await asyncio.gather(*tasks)
        for helper in helpers:
            helper.cancel()
    return list(ends)


async def stop_when_asked(stop: StopRequest, going: Iterable[_Stoppable]) -> None:
    """Pass a request to stop on."""
    await stop.wait()
    for one in going:
        one.stop()


async def now_and_then(told: Callable[[], None]) -> None:
    """Call `told` every `PROGRESS_S`."""
    while True:
        await asyncio.sleep(PROGRESS_S)
        told()


async def _flush_now_and_then(files: StreamFiles) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        files.flush()


async def _fail_when(lost: asyncio.Future[None]) -> None:
    await asyncio.shield(lost)
