"""One run from its settings to its summary: build everything, let it go, take it down.

    prepare -> folder -> log and topics -> tasks (replay, one engine runner a partition) -> summary

All tasks live in one `TaskGroup`; the first failure cancels the rest and is reported alone. Whatever
happens, the broker is stopped, the files are whole, and `run.json` says how the run ended.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import BrokerError, StreambotError
from streambot.domain.replay_settings import Moment, Speed
from streambot.processor.declaration import declare
from streambot.processor.durable import write_atomic
from streambot.processor.run_state import RunRecord, RunState, Trigger
from streambot.processor.runner import TaskRunner
from streambot.processor.stream_files import StreamFiles
from streambot.processor.tables import SCHEMAS, write_table
from streambot.replay.backlog import Backlog
from streambot.replay.resumption import ResumePoint
from streambot.report.progress import Observer, SilentObserver
from streambot.report.summary import Summary, encode_summary
from streambot.wiring.alerting import end_rollup, rolled_up
from streambot.wiring.controlling import (
    ReplayControls,
    controlled,
    next_run_after_seek,
)
from streambot.wiring.declaring import declaration_of, wall_ms
from streambot.wiring.engines import exactly_once_engines, plain_engines, recount_marks
from streambot.wiring.opening import OpenRun, new_run, old_run
from streambot.wiring.outcome import run_plan, summarize
from streambot.wiring.places import (
    choose,
    create_streams,
    estimated_bytes,
    open_place,
    topics_in,
)
from streambot.wiring.replaying import replay_service
from streambot.wiring.scenario import with_origins
from streambot.wiring.starts import (
    PartitionStart,
    cut_files,
    files_of,
    new_starts,
    resumed_starts,
    starts_on_log,
    whole_lines,
)
from streambot.wiring.stopping import StopRequest, listening
from streambot.wiring.supervision import supervise
from streambot.wiring.tasks import replay_sink
from streambot.wiring.warmup import warm_up
from streambot.wiring.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.domain.config import BrokerChoice, Resolved, SimulationConfig
    from streambot.processor.intake import Intake
    from streambot.streams.ports import Sink
    from streambot.wiring.places import Place
    from streambot.wiring.serving import Asked


class _Ended(NamedTuple):
    """How the tasks of a run ended. `seek`: where another run is to go on, and how fast."""

    complete: bool
    runners: list[TaskRunner]
    watch: Watch
    summary: Summary
    seek: tuple[Moment, Speed] | None


async def run_simulation(
    settings: SimulationConfig | Resolved,
    *,
    observer: Observer | None = None,
    resume: str | None = None,
    stop: StopRequest | None = None,
    cwd: Path | None = None,
    controls: ReplayControls | None = None,
    trainings_at: Sequence[Asked] = (),
) -> Summary:
    """Replay, trade and sum up. After a seek the run that follows is played as well.

    Args:
        settings: what to do; with `resume` only its run folder, and speed and gaps where given.
        observer: told what happens; None: nobody is.
        resume: name of a run to go on with; None: a new one.
        stop: stops the run at a barrier; SIGINT and SIGTERM ask for it too.
        cwd: where relative paths start; None: the working folder.
        controls: gives commands to the replay, and is told of a seek.
        trainings_at: further brokers to ask for the weights of a training.

    Returns:
        The summary, of the last run; its `state` is `complete` or `interrupted`.

    Raises:
        StreambotError: what failed first. The run's folder says `failed`, and `resume` goes on.
        KeyboardInterrupt: aborted by a second signal.
    """
    resolved = with_origins(settings)
    watcher = observer or SilentObserver()
    asked = stop or StopRequest()
    here = (cwd or Path.cwd()).resolve()
    held = controls or ReplayControls()
    with listening(asked):
        if resume is None:
            run = await new_run(resolved, watcher, asked, here, trainings_at=trainings_at)
        else:
            run = await old_run(resolved, resume, watcher, asked, here)
        while True:
            try:
                ended = await _go(run, held)
            finally:
                run.folder.close()
            if ended.seek is None or asked.reason is not None:
                return ended.summary
            following = next_run_after_seek(run, *ended.seek)
            held.sought(ended.summary, str(following.config.run))
            run = await new_run(following, watcher, asked, here, parent=run.manifest.run)


async def _go(run: OpenRun, controls: ReplayControls) -> _Ended:
    """Open the log, run, and write down how it ended."""
    config = run.settings.config
    for message in run.prepared.warnings:
        run.observer.warned(message)
    ended: _Ended | None = None
    try:
        kind, told = choose(config, estimated_bytes(run.prepared))
        if told is not None:
            run.observer.warned(told)
        ended = await _in_place(run, kind, controls)
        await asyncio.to_thread(_write_tables, run, ended)
    except (StreambotError, asyncio.CancelledError, Exception) as error:
        finish_failed(run, error)
        raise
    write_atomic(run.folder.path / "summary.json", encode_summary(ended.summary))
    run.folder.finish(Trigger.END if ended.complete else Trigger.STOP, at=now_text())
    return ended


def _write_tables(run: OpenRun, ended: _Ended) -> None:
    if ended.complete:
        for stream in SCHEMAS:
            write_table(run.folder.path, stream)


def finish_failed(run: OpenRun, error: BaseException) -> None:
    """Write down that a run failed or was aborted; one that never started leaves nothing."""
    if run.folder.started:
        aborted = isinstance(error, asyncio.CancelledError)
        trigger = Trigger.STOP if aborted else Trigger.FAIL
        text = "aborted" if aborted else f"{type(error).__name__}: {error}"
        with suppress(StreambotError):  # the disk may be the very reason
            run.folder.finish(trigger, at=now_text(), error=text)
    elif not run.resumed:
        run.folder.discard()


async def _in_place(run: OpenRun, kind: BrokerChoice | None, controls: ReplayControls) -> _Ended:
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_failure(failure: BrokerError) -> None:
        if not lost.done():
            lost.set_exception(failure)

    config = run.settings.config
    warming = asyncio.create_task(asyncio.to_thread(warm_up, run.manifest))
    async with open_place(config, kind, run.folder.path, on_failure) as place:
        topics = topics_in(place, config, run.manifest, run.cwd)
        await create_streams(place, config, run.manifest, run.cwd, resumed=run.resumed)
        record = RunRecord(
            run=run.manifest.run,
            state=RunState.RUNNING,
            pid=os.getpid(),
            broker=place.address,
            embedded=place.embedded,
            topics=topics,
            started_at=run.folder.record.started_at if run.resumed else now_text(),
            manifest=msgspec.Raw(msgspec.json.encode(run.manifest)),
        )
        if run.resumed:
            run.folder.resume(record)
        else:
            run.folder.start(record)
        if place.readable:
            declaration = declaration_of(config, run.prepared, run.manifest, topics)
            await declare(place.log, declaration, run.prepared.context, at_ms=wall_ms())
        lines = await asyncio.to_thread(_kept_lines, run, place) if run.resumed else None
        files = StreamFiles(
            run.folder.path, files_of(run.manifest), run.manifest.partitions, lines=lines
        )
        try:
            # The replay's name first: behind it nobody else writes ticks.
            if place.transactional:
                sink: Sink = await replay_sink(
                    place.log, config.namespace, run.manifest, topics["ticks"]
                )
            else:
                sink = await place.log.sink()
            with files:
                starts = await _starts(run, place, topics)
                await warming
                ended = await _run_tasks(run, place, topics, sink, starts, files, lost, controls)
            await sink.close()
            return ended
        finally:
            lost.cancel()
            if not lost.cancelled():
                lost.exception()  # it was told, or something else came first


def _kept_lines(run: OpenRun, place: Place) -> dict[str, list[int]]:
    """Lines that the files of a resumed run keep."""
    if place.transactional:
        return whole_lines(run.folder.path, run.manifest)
    return cut_files(run.folder.path, run.manifest, run.snapshots)


async def _starts(run: OpenRun, place: Place, topics: dict[str, str]) -> list[PartitionStart]:
    if place.transactional:
        return await starts_on_log(run.prepared, run.manifest, place.log, topics)
    if run.resumed:
        return await resumed_starts(
            run.prepared, run.manifest, run.snapshots, run.folder.path, place, topics
        )
    return new_starts(run.prepared, run.manifest)


async def _run_tasks(
    run: OpenRun,
    place: Place,
    topics: dict[str, str],
    sink: Sink,
    starts: list[PartitionStart],
    files: StreamFiles,
    lost: asyncio.Future[None],
    controls: ReplayControls,
) -> _Ended:
    config, manifest, plan = run.settings.config, run.manifest, run.prepared.plan
    backlog = Backlog()
    ticks_before = sum(slot.ticks for start in starts for slot in start.core.status())
    watch = Watch(
        manifest, plan, backlog, run.observer,
        ticks_before=ticks_before, keeps_gaps=not config.speed.is_max and config.gaps.wall_ns is None,
    )  # fmt: skip
    if run.resumed:
        await asyncio.to_thread(recount_marks, run.folder.path, starts, watch, manifest)
    threads = max(1, min(manifest.partitions, os.cpu_count() or 1))
    executor = ThreadPoolExecutor(threads, thread_name_prefix="engine")
    try:
        runners: list[TaskRunner]
        intakes: list[Intake] = []
        if place.transactional:
            runners = exactly_once_engines(run, place, topics, files, executor, watch)
        else:
            intakes, runners = await plain_engines(
                run, place, topics, starts, files, executor, watch
            )
        points = [ResumePoint(s.writer, s.position, s.replayed) for s in starts]
        service = replay_service(
            run, sink, topics, points,
            speed=config.speed, backlog=backlog, on_published=watch.published,
        )  # fmt: skip
        run.observer.planned(run_plan(run.settings, manifest, plan, place, run.folder.path, starts))
        watch.follow(service)
        async with rolled_up(run, place, topics) as rollup:
            async with controlled(run, place, service, controls):
                complete = await supervise(
                    run, service, intakes, runners, starts, files, backlog, watch, lost
                )
            watch.end()
            await end_rollup(rollup, run, complete=complete)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    run.observer.progressed(watch.progress(runners))
    summary = summarize(
        run.settings, manifest, plan, place, run.folder, runners, watch,
        complete=complete, stopped_by=run.stop.reason, warnings=run.prepared.warnings,
        speed=service.speed, sought=service.seek is not None,
    )  # fmt: skip
    seek = None if service.seek is None or not complete else (service.seek, service.speed)
    return _Ended(complete, runners, watch, summary, seek)


def now_text() -> str:
    """Wall time as `run.json` has it."""
    now = dt.datetime.now(dt.UTC)  # noqa: TID251  # wall time, of `run.json` only
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
