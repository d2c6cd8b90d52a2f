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

from streambot.domain.errors import BrokerError, StreambotError, UsageError
from streambot.domain.replay_settings import Moment, Speed
from streambot.processor.declaration import declare
from streambot.processor.durable import write_atomic
from streambot.processor.exactly_once import ExactlyOnceRunner
from streambot.processor.intake import NOTHING, Intake, PartitionIntake
from streambot.processor.run_state import RunRecord, RunState, Trigger
from streambot.processor.runner import EngineRunner, TaskRunner
from streambot.processor.stream_files import StreamFiles, file_of
from streambot.processor.tables import SCHEMAS, write_table
from streambot.replay.backlog import Backlog
from streambot.replay.framing import Framing
from streambot.replay.service import MonotonicClock, ReplayService
from streambot.report.progress import Observer, SilentObserver
from streambot.report.summary import Summary, encode_summary
from streambot.streams.ports import TopicPartition
from streambot.streams.sequence import FrameChain, SequenceGuard
from streambot.wiring.alerting import end_rollup, rolled_up
from streambot.wiring.controlling import (
    ReplayControls,
    controlled,
    next_run_after_seek,
    successor_of,
)
from streambot.wiring.declaring import declaration_of, wall_ms
from streambot.wiring.opening import OpenRun, new_run, old_run
from streambot.wiring.outcome import run_plan, summarize
from streambot.wiring.places import (
    choose,
    create_streams,
    estimated_bytes,
    open_place,
    topics_in,
)
from streambot.wiring.projection import Projection
from streambot.wiring.scenario import with_origins
from streambot.wiring.starts import (
    PartitionStart,
    cut_files,
    files_of,
    line_partition,
    new_starts,
    resumed_starts,
    starts_on_log,
    whole_lines,
)
from streambot.wiring.stopping import StopRequest
from streambot.wiring.supervision import supervise
from streambot.wiring.tasks import identity, outside_of, replay_sink, task_plan
from streambot.wiring.warmup import warm_up
from streambot.wiring.watching import Watch

if TYPE_CHECKING:
    from streambot.domain.config import BrokerChoice, Resolved, SimulationConfig
    from streambot.processor.manifest import RunManifest
    from streambot.processor.outside import Orders
    from streambot.streams.ports import Sink, Source
    from streambot.wiring.places import Place

READERS = 4
"""Readers of the ticks at most: a fetch is a round trip, and several are under way at once."""
_RECOUNT_LINES = 1_024


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
) -> Summary:
    """Replay, trade and sum up. After a seek the run that follows is played as well.

    Args:
        settings: what to do; with `resume` only its run folder, and speed and gaps where given.
        observer: told what happens; None: nobody is.
        resume: name of a run to go on with; None: a new one.
        stop: stops the run at a barrier; SIGINT and SIGTERM ask for it too.
        cwd: where relative paths start; None: the working folder.
        controls: gives commands to the replay, and is told of a seek.

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
    main = asyncio.current_task()
    aborted = False

    def abort() -> None:
        nonlocal aborted
        aborted = True
        if main is not None:
            main.cancel()

    asked.listen(abort)
    try:
        if resume is None:
            run = await new_run(resolved, watcher, asked, here)
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
    except asyncio.CancelledError:
        if aborted:
            raise KeyboardInterrupt from None
        raise
    finally:
        asked.ignore()


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
                sink: Sink = await replay_sink(place.log, config.namespace, run.manifest.run)
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
        await asyncio.to_thread(_recount_marks, run.folder.path, starts, watch, manifest)
    threads = max(1, min(manifest.partitions, os.cpu_count() or 1))
    executor = ThreadPoolExecutor(threads, thread_name_prefix="engine")
    try:
        runners: list[TaskRunner]
        intakes: list[Intake] = []
        if place.transactional:
            runners = _exactly_once(run, place, topics, files, executor, watch)
        else:
            intakes, runners = await _engines(run, place, topics, starts, files, executor, watch)
        service = await _service(run, sink, topics, starts, backlog, watch)
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


def _exactly_once(
    run: OpenRun,
    place: Place,
    topics: dict[str, str],
    files: StreamFiles,
    executor: ThreadPoolExecutor,
    watch: Watch,
) -> list[TaskRunner]:
    """The engine tasks on a log with transactions."""
    manifest, prepared = run.manifest, run.prepared
    projection = Projection(
        place.log, topics, files, watch, files_of(manifest), watch.found_committed
    )
    return [
        ExactlyOnceRunner(
            task_plan(
                run.settings.config.namespace, manifest, partition, topics,
                prepared.context, prepared.agent,
            ),
            place.log, executor, on_committed=projection.committed, on_opened=projection.opened,
        )
        for partition in range(manifest.partitions)
    ]  # fmt: skip


async def _engines(
    run: OpenRun,
    place: Place,
    topics: dict[str, str],
    starts: list[PartitionStart],
    files: StreamFiles,
    executor: ThreadPoolExecutor,
    watch: Watch,
) -> tuple[list[Intake], list[TaskRunner]]:
    """The engine tasks, and the readers they share."""
    manifest = run.manifest
    going = [partition for partition, start in enumerate(starts) if not start.ended]
    readers: dict[int, PartitionIntake] = {}
    intakes: list[Intake] = []
    for first in range(min(READERS, len(going))):
        mine = going[first::READERS]
        source = await place.log.source(
            {
                TopicPartition(topics["ticks"], partition): starts[partition].offset
                for partition in mine
            }
        )
        intakes.append(Intake(source, mine))
        readers |= {partition: intakes[-1].of(partition) for partition in mine}
    sink = await place.log.sink() if place.readable else None
    runners: list[TaskRunner] = [
        EngineRunner(
            who=identity(manifest, partition),
            core=start.core,
            guard=SequenceGuard(topics["ticks"], manifest.run_id, partition, state=start.reader),
            source=readers.get(partition, NOTHING),
            orders=await _outside(run, place, topics, partition),
            answer_timeout_s=manifest.answer_timeout_s,
            offset=0 if start.offset == "beginning" else int(start.offset),
            sink=sink,
            topics=topics,
            files=files,
            folder=run.folder.path,
            executor=executor,
            on_processed=watch.processed,
            on_stored=watch.stored,
            written=start.written,
            duplicates=start.duplicates,
            dead_letters=start.dead_letters,
        )
        for partition, start in enumerate(starts)
    ]
    return intakes, runners


async def _outside(
    run: OpenRun, place: Place, topics: dict[str, str], partition: int
) -> tuple[Orders, Source] | None:
    """Agents outside a task of the plain runner, and where their orders come from."""
    make = outside_of(run.manifest, partition)
    if make is None:
        return None
    if run.resumed or not place.readable:
        raise UsageError(
            "agents in other processes need a broker that keeps their orders",
            where="--agent",
            hint="give --bootstrap-servers of Apache Kafka; `streambot broker start` starts one",
        )
    source = await place.log.source({TopicPartition(topics["orders"], partition): "beginning"})
    return make(None), source


async def _service(
    run: OpenRun,
    sink: Sink,
    topics: dict[str, str],
    starts: list[PartitionStart],
    backlog: Backlog,
    watch: Watch,
) -> ReplayService:
    config, manifest = run.settings.config, run.manifest
    waiting = [start.position.barrier for start in starts if not start.replayed]
    return ReplayService(
        windows=run.prepared.timeline.windows(min(waiting)) if waiting else iter(()),
        framing=Framing(
            manifest.partition_of, manifest.partitions, start=[start.position for start in starts]
        ),
        chains=[
            FrameChain(manifest.run_id, p, len(manifest.instruments), state=start.writer)
            for p, start in enumerate(starts)
        ],
        sink=sink,
        stream=topics["ticks"],
        speed=config.speed,
        gaps=config.gaps,
        backlog=backlog,
        clock=MonotonicClock(),
        on_published=watch.published,
        complete={p for p, start in enumerate(starts) if start.replayed},
        successor=successor_of(run),
    )


def _recount_marks(
    folder: Path, starts: list[PartitionStart], watch: Watch, manifest: RunManifest
) -> None:
    """Follow the portfolio through the marks that the files hold already."""
    owner = line_partition(manifest)
    waiting: list[list[bytes]] = [[] for _ in starts]
    with file_of(folder, "pnl").open("rb") as file:
        for line in file:
            partition = owner(line)
            waiting[partition].append(line)
            if len(waiting[partition]) == _RECOUNT_LINES:
                watch.recount(partition, b"".join(waiting[partition]))
                waiting[partition].clear()
    for partition, start in enumerate(starts):
        watch.recount(partition, b"".join(waiting[partition]), start.reader.barrier)


def now_text() -> str:
    """Wall time as `run.json` has it."""
    now = dt.datetime.now(dt.UTC)  # noqa: TID251  # wall time, of `run.json` only
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
