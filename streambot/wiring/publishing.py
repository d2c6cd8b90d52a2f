"""A replay by itself: a data set becomes the ticks of a run, for whoever works on them.

    prepare -> folder -> topics and declaration -> frames, exactly once -> END

Nothing is executed here: workers do that, now, later, or never (a recording to train on). Every
frame is stored in a transaction of the one writer of the run's ticks, and says where its partition
stands; so a replay that is started again, after any crash, goes on behind the last frame.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import StreambotError, UsageError
from streambot.domain.replay_settings import Speed
from streambot.processor.declaration import declare, declare_successor
from streambot.processor.run_state import RunRecord, RunState, Trigger
from streambot.replay.backlog import Backlog
from streambot.replay.resumption import ResumePoint, resume_point
from streambot.replay.service import Outcome, Published, ReplayService
from streambot.report.piece import ReplaySummary
from streambot.report.progress import Observer, Progress
from streambot.report.quantiles import WallTimes
from streambot.streams.committing import CommittingSink
from streambot.streams.patience import Patience
from streambot.streams.reading import read_last
from streambot.wiring.controlling import (
    ReplayControls,
    controlled,
    next_run_after_seek,
    successor_of,
)
from streambot.wiring.declaring import declaration_of, wall_ms
from streambot.wiring.lasting import persist
from streambot.wiring.opening import OpenRun, new_run, old_run
from streambot.wiring.outcome import publishing_plan
from streambot.wiring.places import Place, create_streams, open_lasting, topics_in
from streambot.wiring.replaying import replay_service
from streambot.wiring.scenario import with_origins
from streambot.wiring.simulation import finish_failed, now_text
from streambot.wiring.stopping import listening
from streambot.wiring.supervision import now_and_then, stop_when_asked
from streambot.wiring.tasks import replay_sink, ticks_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streambot.domain.config import Resolved
    from streambot.domain.replay_settings import Moment
    from streambot.streams.ports import Sink
    from streambot.wiring.stopping import StopRequest

_NANOS = 1e9
_NO_LIMIT = 1 << 62


class _Ended(NamedTuple):
    outcome: Outcome
    speed: Speed
    place: Place


async def run_publishing(
    settings: Resolved,
    observer: Observer,
    stop: StopRequest,
    cwd: Path,
    *,
    resume: str | None = None,
    controls: ReplayControls | None = None,
    on_published: Callable[[Published], None] | None = None,
) -> ReplaySummary:
    """Publish a data set into the ticks of a run.

    Args:
        settings: what to replay, how fast, and what the run is.
        observer: told what happens.
        stop: stops the replay at a barrier, without END.
        cwd: where relative paths start.
        resume: name of a run whose replay goes on; None: a new one.
        controls: gives commands to the replay.
        on_published: told of every frame as it is handed over.

    Returns:
        The summary, of the last run where a seek started others.

    Raises:
        StreambotError: what failed. The run's folder says `failed`, and `resume` goes on.
    """
    settings = with_origins(settings)
    held = controls or ReplayControls()
    with listening(stop):
        if resume is None:
            _require_broker(settings)
            run = await new_run(settings, observer, stop, cwd)
        else:
            run = await old_run(settings, resume, observer, stop, cwd)
        while True:
            try:
                summary, seek = await _Publishing(run, held, on_published).run()
            finally:
                run.folder.close()
            if seek is None or stop.reason is not None:
                return summary
            following = next_run_after_seek(run, *seek)
            observer.warned(
                f"run {run.manifest.run} ended with a seek: {following.config.run} goes on"
            )
            run = await new_run(following, observer, stop, cwd, parent=run.manifest.run)


def _require_broker(settings: Resolved) -> None:
    if settings.config.bootstrap_servers is None:
        raise UsageError(
            "a replay by itself needs a broker that outlives it",
            where="--bootstrap-servers",
            hint="`streambot broker start` starts one; or `streambot simulate`, all in one",
        )


class _Publishing:
    """The replay of one run, begun anew as often as the broker is lost."""

    def __init__(
        self,
        run: OpenRun,
        controls: ReplayControls,
        on_published: Callable[[Published], None] | None,
    ) -> None:
        self._run = run
        self._on_published = on_published
        self._controls = controls
        self._patience = Patience(
            told=run.observer.warned,
            again=f"streambot replay --resume {run.manifest.run}, once the broker is back",
        )
        self._lateness = WallTimes()
        self._late_ns: int | None = None
        self._frames = self._ticks = self._ticks_before = 0
        self._event_time: int | None = None
        self._began: float | None = None
        self._wall = 0.0
        self._planned = False
        self._speed = run.settings.config.speed

    async def run(self) -> tuple[ReplaySummary, tuple[Moment, Speed] | None]:
        run = self._run
        for message in run.prepared.warnings:
            run.observer.warned(message)
        try:
            ended = await persist(self._publish, self._patience)
        except (StreambotError, asyncio.CancelledError, Exception) as error:
            finish_failed(run, error)
            raise
        complete, seek = ended.outcome.complete, ended.outcome.seek
        run.folder.finish(Trigger.END if complete else Trigger.STOP, at=now_text())
        summary = self._summary(ended)
        return summary, None if seek is None else (seek, ended.speed)

    async def _publish(self) -> _Ended:
        run = self._run
        config, manifest = run.settings.config, run.manifest
        assert config.bootstrap_servers is not None  # noqa: S101  # of a new run and an old one
        async with AsyncExitStack() as stack:
            place = await stack.enter_async_context(
                open_lasting(config.bootstrap_servers, config.kafka)
            )
            topics = topics_in(place, config, manifest, run.cwd)
            again = run.resumed or run.folder.started
            await create_streams(place, config, manifest, run.cwd, resumed=again)
            self._record(place, topics)
            declaration = declaration_of(config, run.prepared, manifest, topics)
            await declare(place.log, declaration, run.prepared.context, at_ms=wall_ms())
            sink = await self._sink(place, topics["ticks"])
            stack.push_async_callback(sink.close)
            points = [
                resume_point(
                    await read_last(place.log, topics["ticks"], p), manifest.run_id, p,
                    len(manifest.instruments),
                )
                for p in range(manifest.partitions)
            ]  # fmt: skip
            service = self._service(place, sink, topics, points)
            self._tell_plan(place, points)
            self._began = time.monotonic()
            async with controlled(run, place, service, self._controls):
                outcome = await self._supervise(service)
            if isinstance(sink, CommittingSink):
                await sink.settle(ticks_of(manifest, topics["ticks"]))
            self._wall += time.monotonic() - self._began
            self._began = None
            return _Ended(outcome, service.speed, place)

    async def _sink(self, place: Place, ticks: str) -> Sink:
        if not place.transactional:
            return await place.log.sink()
        config = self._run.settings.config
        return await replay_sink(place.log, config.namespace, self._run.manifest, ticks)

    def _record(self, place: Place, topics: dict[str, str]) -> None:
        run = self._run
        record = RunRecord(
            run=run.manifest.run,
            state=RunState.RUNNING,
            pid=os.getpid(),
            broker=place.address,
            embedded=place.embedded,
            topics=topics,
            outputs="topics",
            started_at=run.folder.record.started_at if run.folder.started else now_text(),
            manifest=msgspec.Raw(msgspec.json.encode(run.manifest)),
        )
        if not run.folder.started:
            run.folder.start(record)
        elif run.folder.record.pid != record.pid:
            run.folder.resume(record)

    def _service(
        self, place: Place, sink: Sink, topics: dict[str, str], points: list[ResumePoint]
    ) -> ReplayService:
        run = self._run
        name_successor = successor_of(run)

        async def declare_next(target: Moment) -> None:
            """Workers that read END look for it."""
            await declare_successor(
                place.log, topics["runs"], name_successor(target), at_ms=wall_ms()
            )

        self._ticks_before = self._ticks_before or sum(point.writer.rows for point in points)
        return replay_service(
            run,
            sink,
            topics,
            points,
            speed=self._speed,
            # The log keeps everything: nobody has to be waited for.
            backlog=Backlog(max_frames=_NO_LIMIT, max_bytes=_NO_LIMIT),
            on_published=self._published,
            before_end=declare_next,
        )

    async def _supervise(self, service: ReplayService) -> Outcome:
        stopping = asyncio.create_task(stop_when_asked(self._run.stop, [service]))
        telling = asyncio.create_task(
            now_and_then(lambda: self._run.observer.progressed(self._progress(service)))
        )
        try:
            return await service.run()
        finally:
            self._speed = service.speed
            for helper in (stopping, telling):
                helper.cancel()
            await asyncio.gather(stopping, telling, return_exceptions=True)

    def _published(self, frame: Published) -> None:
        if self._on_published is not None:
            self._on_published(frame)
        self._patience.succeeded()
        self._frames += 1
        self._ticks += frame.rows
        self._event_time = frame.t_hi
        if frame.late_ns is not None:
            self._late_ns = frame.late_ns
            self._lateness.add(frame.late_ns)

    def _tell_plan(self, place: Place, points: list[ResumePoint]) -> None:
        if self._planned:
            return
        self._planned = True
        run = self._run
        run.observer.planned(
            publishing_plan(
                run.settings, run.manifest, run.prepared.plan, place, run.folder.path, points
            )
        )

    @property
    def _wall_s(self) -> float:
        return self._wall + (time.monotonic() - self._began if self._began is not None else 0.0)

    def _speed_effective(self) -> float:
        plan, config = self._run.prepared.plan, self._run.settings.config
        keeps = not config.speed.is_max and config.gaps.wall_ns is None
        market = plan.open_ns + (plan.closed_ns if keeps else 0)
        wall = self._wall_s
        return self._ticks / plan.ticks * market / _NANOS / wall if wall > 0 and plan.ticks else 0.0

    def _progress(self, service: ReplayService) -> Progress:
        plan = self._run.prepared.plan
        ticks = self._ticks_before + self._ticks
        return Progress(
            event_time=plan.first_ns if self._event_time is None else self._event_time,
            bars_done=0,
            bars_total=plan.bars,
            ticks=ticks,
            done=min(1.0, ticks / plan.ticks) if plan.ticks else 1.0,
            wall_s=round(self._wall_s, 3),
            speed_effective=self._speed_effective(),
            ticks_per_s=self._ticks / self._wall_s if self._wall_s > 0 else 0.0,
            late_ms=None if self._late_ns is None else round(self._late_ns / 1e6, 3),
            frames_behind=0,
            fills=0,
            rejected=0,
            open_positions=0,
            equity={},
            status=str(service.status),
            speed_asked=str(service.speed),
            executes=False,
        )

    def _summary(self, ended: _Ended) -> ReplaySummary:
        run = self._run
        plan, outcome = run.prepared.plan, ended.outcome
        sought = outcome.seek is not None
        wall = self._wall_s
        return ReplaySummary(
            run=run.manifest.run,
            state="complete" if outcome.complete else "interrupted",
            stopped_by="seek" if sought else None if outcome.complete else run.stop.reason,
            instruments=list(plan.symbols),
            agents=list(run.manifest.agents),
            partitions=run.manifest.partitions,
            frames=self._frames,
            ticks=self._ticks,
            ticks_total=plan.ticks,
            speed_asked=str(ended.speed),
            speed_effective=round(self._speed_effective(), 3),
            wall_s=round(wall, 3),
            ticks_per_s=round(self._ticks / wall, 1) if wall > 0 else 0.0,
            lateness_ms=self._lateness.latency(),
            reopened=self._patience.failures,
            broker=ended.place.shown,
            delivery=ended.place.delivery,
            folder=str(run.folder.path),
            warnings=list(run.prepared.warnings),
        )
