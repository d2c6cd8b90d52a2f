"""The tasks of a run side by side: all end together, and the first failure is the one that is told."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING

from streambot.domain.errors import BrokerError, StreambotError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streambot.processor.intake import Intake
    from streambot.processor.runner import TaskRunner
    from streambot.processor.stream_files import StreamFiles
    from streambot.replay.backlog import Backlog
    from streambot.replay.service import ReplayService
    from streambot.report.progress import Observer
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
                group.create_task(_stop_when_asked(run.stop, service)),
                group.create_task(_tell_now_and_then(run.observer, watch, runners)),
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
                helpers.append(group.create_task(_stop_engines_when_asked(run.stop, runners)))
            ends = await asyncio.gather(*engines)
            for helper in helpers:
                helper.cancel()
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from None
    finally:
        gc.unfreeze()
    return outcome.complete and all(ends)


async def _stop_when_asked(stop: StopRequest, service: ReplayService) -> None:
    await stop.wait()
    service.stop()


async def _stop_engines_when_asked(stop: StopRequest, runners: list[TaskRunner]) -> None:
    await stop.wait()
    for runner in runners:
        runner.stop()


async def _tell_now_and_then(observer: Observer, watch: Watch, runners: list[TaskRunner]) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        observer.progressed(watch.progress(runners))


async def _flush_now_and_then(files: StreamFiles) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        files.flush()


async def _fail_when(lost: asyncio.Future[None]) -> None:
    await asyncio.shield(lost)


def first_failure(failures: BaseException) -> BaseException:
    """The failure to tell: a bug before all, then what people can act on, the lost broker last."""
    if not isinstance(failures, BaseExceptionGroup):
        return failures
    flat = list(_leaves(failures))
    for failure in flat:
        if not isinstance(failure, StreambotError):
            return failure
    for failure in flat:
        if not isinstance(failure, BrokerError):
            return failure
    return flat[0]


def _leaves(failures: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            yield from _leaves(failure)
        else:
            yield failure
