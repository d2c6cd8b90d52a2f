"""One run from its settings to its summary: build everything, let it go, take it down.

    prepare -> folder -> log and topics -> tasks (replay, one engine runner a partition) -> summary

All tasks live in one `TaskGroup`; the first failure cancels the rest and is reported alone. Whatever
happens, the broker is stopped, the files are whole, and `run.json` says how the run ended.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.config import Resolved, SimulationConfig, config_yaml, find_config, resolve
from streambot.domain.errors import BrokerError, ConfigError, StreambotError
from streambot.domain.layers import DEFAULT
from streambot.processor.durable import write_atomic
from streambot.processor.folder import RunFolder
from streambot.processor.intake import NOTHING, Intake
from streambot.processor.manifest import RunManifest
from streambot.processor.run_state import RunRecord, RunState, Trigger
from streambot.processor.runner import EngineRunner, TaskIdentity
from streambot.processor.snapshot import TaskSnapshot
from streambot.processor.stream_files import StreamFiles, file_of
from streambot.processor.tables import SCHEMAS, write_table
from streambot.replay.backlog import Backlog
from streambot.replay.framing import Framing
from streambot.replay.pacing import Ratio, kept_of_gap
from streambot.replay.service import MonotonicClock, Pace, ReplayService
from streambot.report.progress import Observer, SilentObserver
from streambot.report.summary import Summary, encode_summary
from streambot.streams.ports import TopicPartition
from streambot.streams.sequence import FrameChain, SequenceGuard
from streambot.wiring.outcome import run_plan, summarize
from streambot.wiring.places import (
    choose,
    create_streams,
    estimated_bytes,
    open_place,
    topic_names,
)
from streambot.wiring.preparation import Prepared, prepare, prepare_again
from streambot.wiring.scenario import with_origins, with_scenario
from streambot.wiring.starts import (
    FILES,
    PartitionStart,
    cut_files,
    line_partition,
    load_snapshots,
    new_starts,
    resumed_starts,
)
from streambot.wiring.stopping import StopRequest
from streambot.wiring.warmup import warm_up
from streambot.wiring.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streambot.domain.config import BrokerChoice
    from streambot.wiring.places import Place

PROGRESS_S = 0.25
FLUSH_S = 1.0
DRAIN_S = 2.0
"""After a stop the engine may still process what was published, for that long."""
_RESUMABLE = ("speed", "gaps")
_RECOUNT_LINES = 1_024


class _Run(NamedTuple):
    """A run that is about to go, and everything that belongs to it."""

    settings: Resolved
    prepared: Prepared
    manifest: RunManifest
    folder: RunFolder
    snapshots: list[TaskSnapshot | None]
    observer: Observer
    stop: StopRequest
    cwd: Path
    resumed: bool


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
            run = await _new_run(resolved, watcher, asked, here)
        else:
            run = await _old_run(resolved, resume, watcher, asked, here)
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


async def _new_run(settings: Resolved, observer: Observer, stop: StopRequest, cwd: Path) -> _Run:
    settings = with_scenario(settings, cwd)
    config = settings.config
    prepared = await _unless_stopped(partial(prepare, config, cwd), stop)
    day = dt.datetime.fromtimestamp(prepared.plan.first_ns // 10**9, dt.UTC).date()
    folder = RunFolder.create(cwd / config.runs_dir, config.run, day)
    try:
        manifest = prepared.manifest(folder.path.name)
        topic_names(config, manifest.run, cwd)
        settings = Resolved(_rooted(config, cwd), settings.origins)
        write_atomic(folder.path / "config.yaml", config_yaml(settings).encode())
    except BaseException:
        folder.discard()
        raise
    return _Run(
        settings, prepared, manifest, folder, [None] * manifest.partitions, observer, stop, cwd,
        resumed=False,
    )  # fmt: skip


async def _old_run(
    settings: Resolved, name: str, observer: Observer, stop: StopRequest, cwd: Path
) -> _Run:
    folder = RunFolder.open(cwd / settings.config.runs_dir, name)
    try:
        folder.check_resumable()
        manifest = _stored_manifest(folder)
        kept = resolve({}, {}, find_config(folder.path / "config.yaml", cwd))
        changes = {
            field: getattr(settings.config, field)
            for field in _RESUMABLE
            if settings.origins[field] != DEFAULT
        }
        config = msgspec.structs.replace(
            kept.config, **changes, runs_dir=settings.config.runs_dir, kafka=settings.config.kafka
        )
        prepared = await _unless_stopped(partial(prepare_again, config, manifest, cwd), stop)
        snapshots = load_snapshots(folder.path, manifest)
    except BaseException:
        folder.close()
        raise
    return _Run(
        Resolved(config, kept.origins), prepared, manifest, folder, snapshots, observer, stop, cwd,
        resumed=True,
    )  # fmt: skip


async def _unless_stopped(work: Callable[[], Prepared], stop: StopRequest) -> Prepared:
    """The result of `work` in a thread; a stop before there is anything to stop ends it at once."""
    working = asyncio.create_task(asyncio.to_thread(work))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise KeyboardInterrupt
        return working.result()
    finally:
        stopping.cancel()
        working.cancel()


def _stored_manifest(folder: RunFolder) -> RunManifest:
    try:
        return msgspec.json.decode(folder.record.manifest, type=RunManifest)
    except msgspec.MsgspecError as cause:
        raise ConfigError(
            f"its manifest cannot be read: {cause}", where=str(folder.path / "run.json")
        ) from cause


def _rooted(config: SimulationConfig, cwd: Path) -> SimulationConfig:
    """The same with absolute paths, so that a run can be resumed from any folder."""

    def absolute(text: str) -> str:
        return str((cwd / Path(text).expanduser()).resolve())

    policy = config.policy
    module, colon, name = policy.rpartition(":")
    if colon and module.endswith(".py"):
        policy = f"{absolute(module)}:{name}"
    return msgspec.structs.replace(
        config,
        data=tuple(absolute(item) for item in config.data),
        registry=absolute(config.registry) if config.registry else None,
        policy=policy,
    )


async def _go(run: _Run) -> Summary:
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


def _write_tables(run: _Run, ended: _Ended) -> None:
    if ended.complete:
        for stream in SCHEMAS:
            write_table(run.folder.path, stream)


def _write_failure(run: _Run, error: BaseException) -> None:
    if run.folder.started:
        aborted = isinstance(error, asyncio.CancelledError)
        trigger = Trigger.STOP if aborted else Trigger.FAIL
        text = "aborted" if aborted else f"{type(error).__name__}: {error}"
        with suppress(StreambotError):  # the disk may be the very reason
            run.folder.finish(trigger, at=_now(), error=text)
    elif not run.resumed:
        run.folder.discard()


async def _in_place(run: _Run, kind: BrokerChoice | None) -> _Ended:
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
    run: _Run,
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
        intake, runners = await _engines(run, place, topics, starts, files, executor, watch)
        service = await _service(run, place, topics, starts, backlog, watch)
        run.observer.planned(run_plan(run.settings, manifest, plan, place, run.folder.path, starts))
        complete = await _supervise(
            run, service, intake, runners, starts, files, backlog, watch, lost
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
    run: _Run,
    place: Place,
    topics: dict[str, str],
    starts: list[PartitionStart],
    files: StreamFiles,
    executor: ThreadPoolExecutor,
    watch: Watch,
) -> tuple[Intake | None, list[EngineRunner]]:
    """The engine tasks, and the one reader they share; None: all of them have ended before."""
    manifest = run.manifest
    going = {
        TopicPartition(topics["ticks"], partition): start.offset
        for partition, start in enumerate(starts)
        if not start.ended
    }
    intake = None
    if going:
        source = await place.log.source(going)
        intake = Intake(source, (partition for _, partition in going))
    sink = await place.log.sink() if place.readable else None
    runners = [
        EngineRunner(
            who=TaskIdentity(manifest.run, manifest.run_id, partition, len(manifest.instruments)),
            core=start.core,
            guard=SequenceGuard(topics["ticks"], manifest.run_id, partition, state=start.reader),
            source=NOTHING if intake is None or start.ended else intake.of(partition),
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
    return intake, runners


async def _service(
    run: _Run,
    place: Place,
    topics: dict[str, str],
    starts: list[PartitionStart],
    backlog: Backlog,
    watch: Watch,
) -> ReplayService:
    config, manifest = run.settings.config, run.manifest
    pace = None
    if not config.speed.is_max:
        speed = Ratio(config.speed.numerator, config.speed.denominator)
        pace = Pace(speed, kept_of_gap(config.gaps.wall_ns, speed))
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
        pace=pace,
        backlog=backlog,
        clock=MonotonicClock(),
        on_published=watch.published,
        complete={p for p, start in enumerate(starts) if start.replayed},
    )


async def _supervise(
    run: _Run,
    service: ReplayService,
    intake: Intake | None,
    runners: list[EngineRunner],
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
            if intake is not None:
                helpers.append(group.create_task(intake.run(), name="intake"))
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
            ends = await asyncio.gather(*engines)
            for helper in helpers:
                helper.cancel()
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    finally:
        gc.unfreeze()
    return outcome.complete and all(ends)


async def _stop_when_asked(stop: StopRequest, service: ReplayService) -> None:
    await stop.wait()
    service.stop()


async def _tell_now_and_then(observer: Observer, watch: Watch, runners: list[EngineRunner]) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        observer.progressed(watch.progress(runners))


async def _flush_now_and_then(files: StreamFiles) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        files.flush()


async def _fail_when(lost: asyncio.Future[None]) -> None:
    await asyncio.shield(lost)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to tell: a bug before all, then what people can act on, the lost broker last."""
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
