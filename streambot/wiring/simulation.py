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
from streambot.processor.durable import write_atomic
from streambot.processor.intake import NOTHING, Intake, PartitionIntake
from streambot.processor.run_state import RunRecord, RunState, Trigger
from streambot.processor.runner import EngineRunner
from streambot.processor.stream_files import StreamFiles, file_of
from streambot.processor.tables import SCHEMAS, write_table
from streambot.processor.worker import TaskIdentity
from streambot.replay.backlog import Backlog
from streambot.replay.framing import Framing
from streambot.replay.service import MonotonicClock, ReplayService
from streambot.report.progress import Observer, SilentObserver
from streambot.report.summary import Summary, encode_summary
from streambot.streams.ports import TopicPartition
from streambot.streams.sequence import FrameChain, SequenceGuard
from streambot.wiring.opening import OpenRun, new_run, old_run
from streambot.wiring.outcome import run_plan, summarize
from streambot.wiring.places import (
    choose,
    create_streams,
    estimated_bytes,
    open_place,
    topic_names,
)
from streambot.wiring.scenario import with_origins
from streambot.wiring.starts import (
    FILES,
    PartitionStart,
    cut_files,
    line_partition,
    new_starts,
    resumed_starts,
)
from streambot.wiring.stopping import StopRequest
from streambot.wiring.supervision import supervise
from streambot.wiring.warmup import warm_up
from streambot.wiring.watching import Watch

if TYPE_CHECKING:
    from streambot.domain.config import BrokerChoice, Resolved, SimulationConfig
    from streambot.processor.manifest import RunManifest
    from streambot.wiring.places import Place

READERS = 4
"""Readers of the ticks at most: a fetch is a round trip, and several are under way at once."""
_RECOUNT_LINES = 1_024


class _Ended(NamedTuple):
    """How the tasks of a run ended."""

    complete: bool
    runners: list[EngineRunner]
    watch: Watch
    summary: Summary


async def run_simulation(
    settings: SimulationConfig | Resolved,
    *,
    observer: Observer | None = None,
    resume: str | None = None,
    stop: StopRequest | None = None,
    cwd: Path | None = None,
) -> Summary:
    """Replay, trade and sum up.

    Args:
        settings: what to do; with `resume` only its run folder, and speed and gaps where given.
        observer: told what happens; None: nobody is.
        resume: name of a run to go on with; None: a new one.
        stop: stops the run at a barrier; SIGINT and SIGTERM ask for it too.
        cwd: where relative paths start; None: the working folder.

    Returns:
        The summary; its `state` is `complete` or `interrupted`.

    Raises:
        StreambotError: what failed first. The run's folder says `failed`, and `resume` goes on.
        KeyboardInterrupt: aborted by a second signal.
    """
    resolved = with_origins(settings)
    watcher = observer or SilentObserver()
    asked = stop or StopRequest()
    here = (cwd or Path.cwd()).resolve()
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
        try:
            return await _go(run)
        finally:
            run.folder.close()
    except asyncio.CancelledError:
        if aborted:
            raise KeyboardInterrupt from None
        raise
    finally:
        asked.ignore()


async def _go(run: OpenRun) -> Summary:
    """Open the log, run, and write down how it ended."""
    config = run.settings.config
    for message in run.prepared.warnings:
        run.observer.warned(message)
    ended: _Ended | None = None
    try:
        kind, told = choose(config, estimated_bytes(run.prepared))
        if told is not None:
            run.observer.warned(told)
        ended = await _in_place(run, kind)
        await asyncio.to_thread(_write_tables, run, ended)
    except (StreambotError, asyncio.CancelledError, Exception) as error:
        _write_failure(run, error)
        raise
    write_atomic(run.folder.path / "summary.json", encode_summary(ended.summary))
    run.folder.finish(Trigger.END if ended.complete else Trigger.STOP, at=_now())
    return ended.summary


def _write_tables(run: OpenRun, ended: _Ended) -> None:
    if ended.complete:
        for stream in SCHEMAS:
            write_table(run.folder.path, stream)


def _write_failure(run: OpenRun, error: BaseException) -> None:
    if run.folder.started:
        aborted = isinstance(error, asyncio.CancelledError)
        trigger = Trigger.STOP if aborted else Trigger.FAIL
        text = "aborted" if aborted else f"{type(error).__name__}: {error}"
        with suppress(StreambotError):  # the disk may be the very reason
            run.folder.finish(trigger, at=_now(), error=text)
    elif not run.resumed:
        run.folder.discard()


async def _in_place(run: OpenRun, kind: BrokerChoice | None) -> _Ended:
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_failure(failure: BrokerError) -> None:
        if not lost.done():
            lost.set_exception(failure)

    config = run.settings.config
    topics = topic_names(config, run.manifest.run, run.cwd)
    warming = asyncio.create_task(asyncio.to_thread(warm_up, run.manifest))
    async with open_place(config, kind, run.folder.path, on_failure) as place:
        await create_streams(place, config, run.manifest, run.cwd, resumed=run.resumed)
        record = RunRecord(
            run=run.manifest.run,
            state=RunState.RUNNING,
            pid=os.getpid(),
            broker=place.address,
            embedded=place.embedded,
            topics=topics,
            started_at=run.folder.record.started_at if run.resumed else _now(),
            manifest=msgspec.Raw(msgspec.json.encode(run.manifest)),
        )
        if run.resumed:
            run.folder.resume(record)
            lines = await asyncio.to_thread(cut_files, run.folder.path, run.manifest, run.snapshots)
        else:
            run.folder.start(record)
            lines = None
        try:
            with StreamFiles(run.folder.path, FILES, run.manifest.partitions, lines=lines) as files:
                if run.resumed:
                    starts = await resumed_starts(
                        run.prepared, run.manifest, run.snapshots, run.folder.path, place, topics
                    )
                else:
                    starts = new_starts(run.prepared, run.manifest)
                await warming
                return await _run_tasks(run, place, topics, starts, files, lost)
        finally:
            lost.cancel()
            if not lost.cancelled():
                lost.exception()  # it was told, or something else came first


async def _run_tasks(
    run: OpenRun,
    place: Place,
    topics: dict[str, str],
    starts: list[PartitionStart],
    files: StreamFiles,
    lost: asyncio.Future[None],
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
        intakes, runners = await _engines(run, place, topics, starts, files, executor, watch)
        service = await _service(run, place, topics, starts, backlog, watch)
        run.observer.planned(run_plan(run.settings, manifest, plan, place, run.folder.path, starts))
        complete = await supervise(
            run, service, intakes, runners, starts, files, backlog, watch, lost
        )
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    watch.end()
    run.observer.progressed(watch.progress(runners))
    summary = summarize(
        run.settings, manifest, plan, place, run.folder, runners, watch,
        complete=complete, stopped_by=run.stop.reason, warnings=run.prepared.warnings,
    )  # fmt: skip
    return _Ended(complete, runners, watch, summary)


async def _engines(
    run: OpenRun,
    place: Place,
    topics: dict[str, str],
    starts: list[PartitionStart],
    files: StreamFiles,
    executor: ThreadPoolExecutor,
    watch: Watch,
) -> tuple[list[Intake], list[EngineRunner]]:
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
    runners = [
        EngineRunner(
            who=TaskIdentity(manifest.run, manifest.run_id, partition, len(manifest.instruments)),
            core=start.core,
            guard=SequenceGuard(topics["ticks"], manifest.run_id, partition, state=start.reader),
            source=readers.get(partition, NOTHING),
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


async def _service(
    run: OpenRun,
    place: Place,
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
        sink=await place.log.sink(),
        stream=topics["ticks"],
        speed=config.speed,
        gaps=config.gaps,
        backlog=backlog,
        clock=MonotonicClock(),
        on_published=watch.published,
        complete={p for p, start in enumerate(starts) if start.replayed},
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


def _now() -> str:
    now = dt.datetime.now(dt.UTC)  # noqa: TID251  # wall time, of `run.json` only
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
