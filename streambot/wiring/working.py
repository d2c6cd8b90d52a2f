"""A worker: the engine tasks of some partitions of a run, by what the run declares on its log.

    declaration -> tasks (one a partition) + roll-up, in one TaskGroup -> summary

Ownership is by number: worker i of N takes the partitions p with p mod N = i. Nothing stops two
workers from claiming the same partition but the log itself: the one that comes later fences the
other, which ends. A broker that goes away is waited for; a task that finds it back starts from what
is committed. After a seek the worker goes on with the run that follows.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from streambot.domain.config import KafkaSecurity
from streambot.domain.errors import ConfigError, UsageError
from streambot.processor.declaration import Declared, read_declaration
from streambot.processor.exactly_once import ExactlyOnceRunner
from streambot.report.piece import WorkerPlan, WorkerProgress, WorkerSummary
from streambot.report.rollup import RolledRun
from streambot.report.summary import sum_slots
from streambot.streams.patience import Patience
from streambot.wiring.declaring import wait_for_declaration
from streambot.wiring.lasting import persist, through_seeks
from streambot.wiring.outcome import decider, slot_totals
from streambot.wiring.places import check_streams, open_lasting, runs_topic
from streambot.wiring.policies import find_agent
from streambot.wiring.served import kept_in
from streambot.wiring.stopping import listening
from streambot.wiring.supervision import run_together
from streambot.wiring.tasks import task_plan
from streambot.wiring.warmup import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.adapters.faust_app import RunningRollup
    from streambot.engine.scripts import Script
    from streambot.processor.agents import StrategyFactory
    from streambot.processor.open_task import Committed
    from streambot.processor.snapshot import TaskSnapshot
    from streambot.processor.task import TaskCore
    from streambot.wiring.places import Place
    from streambot.wiring.stopping import StopRequest


class Share(NamedTuple):
    """Worker `number` of `workers`, from 0."""

    number: int = 0
    workers: int = 1

    def partitions(self, of: int) -> list[int]:
        """Its partitions of a run that has `of`."""
        return [p for p in range(of) if p % self.workers == self.number]


class WorkerSettings(NamedTuple):
    """What a worker needs to know.

    Attributes:
        servers, security: the broker.
        namespace: first part of the names of all topics.
        run: which run.
        share: which partitions.
        policy: where the run's own policy is found here; None: as the run names it.
        rollup: keep the portfolio roll-up and the alerts beside the tasks.
        wait_s: how long a run that is not declared yet is waited for.
        cwd: what relative paths start from.
        runs_dir: where the run may keep the weights that its policy names.
    """

    servers: str
    security: KafkaSecurity
    namespace: str
    run: str
    share: Share
    policy: str | None
    rollup: bool
    wait_s: float
    cwd: Path
    runs_dir: Path = Path("runs")

    @property
    def topic(self) -> str:
        """Where the run is declared."""
        return runs_topic(self.namespace, self.run, self.cwd)


class WorkerObserver(Protocol):
    """Who watches a worker; quick, and never raises."""

    def planned(self, plan: WorkerPlan) -> None:
        """The tasks are about to start."""

    def progressed(self, progress: WorkerProgress) -> None:
        """A moment has passed."""

    def warned(self, message: str) -> None:
        """Something that people should know."""


def _nowhere(point: str) -> None:
    del point


async def run_worker(
    settings: WorkerSettings,
    observer: WorkerObserver,
    stop: StopRequest,
    *,
    reached: Callable[[str], None] = _nowhere,
) -> WorkerSummary:
    """Work until the run ends, or a stop is asked for.

    Args:
        settings: the run, and the share of it.
        observer: told what happens.
        stop: ends the tasks behind the frame they are at; everything is committed then.
        reached: see `ExactlyOnceRunner`.

    Raises:
        StreambotError: what failed; a worker started again goes on from what is committed.
    """

    async def play(run: str, wait_s: float | None) -> WorkerSummary:
        mine = settings._replace(run=run, wait_s=settings.wait_s if wait_s is None else wait_s)
        patience = Patience(told=observer.warned)
        return await persist(_Job(mine, observer, stop, patience, reached).run, patience)

    with listening(stop):
        return await through_seeks(play, settings.run, stop, observer.warned)


class _Job:
    """The work of one worker, begun anew as often as the broker is lost."""

    def __init__(
        self,
        settings: WorkerSettings,
        observer: WorkerObserver,
        stop: StopRequest,
        patience: Patience,
        reached: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._stop = stop
        self._patience = patience
        self._reached = reached
        self._planned = False
        self._began = time.monotonic()
        self._ticks_before: dict[int, int] = {}

    async def run(self) -> WorkerSummary:
        async with open_lasting(self._settings.servers, self._settings.security) as place:
            if not place.transactional:
                raise ConfigError(
                    "a worker needs a broker with transactions, and the one there has none",
                    where=self._settings.servers,
                    hint="Apache Kafka: `streambot broker start --kind apache` starts one here",
                )
            settings = self._settings
            declared = await wait_for_declaration(
                place.log, settings.topic, settings.run,
                servers=settings.servers, wait_s=settings.wait_s, stop=self._stop,
            )  # fmt: skip
            return await self._work(place, declared)

    async def _work(self, place: Place, declared: Declared) -> WorkerSummary:
        declaration, context, _ = declared
        manifest = declaration.manifest
        mine = self._settings.share.partitions(manifest.partitions)
        if not mine:
            raise UsageError(
                f"worker {self._settings.share.number} of {self._settings.share.workers} has nothing "
                f"to do: run {manifest.run} has {manifest.partitions} partitions",
                where="--worker",
            )
        agent = self._agent(declared)
        await check_streams(place.log, declaration.topics, manifest.partitions)
        await asyncio.to_thread(warm_up, manifest)
        executor = ThreadPoolExecutor(
            max(1, min(len(mine), os.cpu_count() or 1)), thread_name_prefix="engine"
        )
        runners = [
            ExactlyOnceRunner(
                task_plan(
                    declaration.namespace, manifest, p, declaration.topics, context, agent
                ),
                place.log, executor, on_opened=self._opened, on_committed=self._committed,
                reached=self._reached,
            )
            for p in mine
        ]  # fmt: skip
        self._tell_plan(place, declared, mine)
        try:
            async with AsyncExitStack() as stack:
                rollup = await self._rollup(stack, declared) if self._settings.rollup else None
                ends = await run_together(
                    runners, "engine", self._stop,
                    lambda: self._observer.progressed(self._progress(runners)),
                )  # fmt: skip
                if rollup is not None and all(ends) and len(mine) == manifest.partitions:
                    await rollup.finish()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
        self._observer.progressed(self._progress(runners))
        after = await read_declaration(place.log, self._settings.topic) if all(ends) else None
        return self._summary(place, declared, mine, runners, ends, after)

    def _agent(self, declared: Declared) -> Script | StrategyFactory | None:
        manifest = declared.declaration.manifest
        if manifest.agents:
            return None
        policy = self._settings.policy or manifest.policy.spec
        kept = kept_in(self._settings.runs_dir, manifest.run)
        return find_agent(policy, folder=self._settings.cwd, run=manifest.policy, kept=kept)

    async def _rollup(self, stack: AsyncExitStack, declared: Declared) -> RunningRollup:
        from streambot.adapters.faust_app import RollupSettings, alerts_running

        declaration = declared.declaration
        settings = RollupSettings(
            servers=self._settings.servers,
            run=msgspec.convert(declaration.manifest, RolledRun, from_attributes=True),
            namespace=declaration.namespace,
            topics=declaration.topics,
            security=self._settings.security,
        )
        return await stack.enter_async_context(alerts_running(settings))

    async def _opened(self, core: TaskCore, restored: TaskSnapshot | None) -> None:
        """A task starts: what it had done before is not this worker's work."""
        del restored
        if not self._ticks_before:
            self._began = time.monotonic()
        self._ticks_before.setdefault(core.partition, sum(slot.ticks for slot in core.status()))

    def _committed(self, done: Committed) -> None:
        if done.frames:
            self._patience.succeeded()
        else:
            self._patience.answered()

    def _tell_plan(self, place: Place, declared: Declared, mine: list[int]) -> None:
        if self._planned:
            return
        self._planned = True
        manifest = declared.declaration.manifest
        self._observer.planned(
            WorkerPlan(
                run=manifest.run,
                partitions=tuple(mine),
                of=manifest.partitions,
                instruments=tuple(
                    manifest.instruments[n].symbol for p in mine for n in manifest.members(p)
                ),
                timezone=manifest.instruments[0].timezone,
                policy=decider(manifest),
                ticks=declared.declaration.outline.ticks,
                broker=place.shown,
                delivery=place.delivery,
            )
        )

    def _progress(self, runners: list[ExactlyOnceRunner]) -> WorkerProgress:
        slots = [slot for runner in runners for slot in runner.status]
        seen = [w for runner in runners if (w := runner.watermark) is not None]
        ticks = sum(slot.ticks for slot in slots)
        return WorkerProgress(
            event_time=min(seen, default=None),
            ticks=ticks,
            ticks_per_s=self._rate(ticks),
            fills=sum(slot.fills for slot in slots),
            rejected=sum(sum(slot.rejected.values()) for slot in slots),
            waits_for=tuple(sorted({a for r in runners for a in r.waits_for})),
        )

    def _rate(self, ticks: int) -> float:
        wall = time.monotonic() - self._began
        done = ticks - sum(self._ticks_before.values())
        return max(0, done) / wall if wall > 0 else 0.0

    def _summary(
        self,
        place: Place,
        declared: Declared,
        mine: list[int],
        runners: list[ExactlyOnceRunner],
        ends: list[bool],
        after: Declared | None,
    ) -> WorkerSummary:
        manifest = declared.declaration.manifest
        instruments = {instrument.symbol: instrument for instrument in manifest.instruments}
        slots = [slot for runner in runners for slot in runner.status]
        totals = sum_slots((instruments[slot.symbol], slot_totals(slot)) for slot in slots)
        return WorkerSummary(
            run=manifest.run,
            state="complete" if all(ends) else "interrupted",
            stopped_by=None if all(ends) else self._stop.reason,
            worker=self._settings.share.number,
            workers=self._settings.share.workers,
            partitions=mine,
            of=manifest.partitions,
            instruments=sorted(slot.symbol for slot in slots),
            bars=totals.bars,
            ticks=totals.ticks,
            fills=totals.fills,
            rejected=totals.rejected,
            expired=totals.expired,
            settled=totals.settled,
            breached=totals.breached,
            pnl_gross=totals.pnl_gross,
            pnl_net=totals.pnl_net,
            brokerage=totals.brokerage,
            by_instrument=totals.by_instrument,
            duplicates=sum(runner.duplicates for runner in runners),
            dead_letters=sum(runner.dead_letters for runner in runners),
            reopened=sum(runner.reopened for runner in runners) + self._patience.failures,
            wall_s=round(time.monotonic() - self._began, 3),
            ticks_per_s=round(self._rate(totals.ticks), 1),
            broker=place.shown,
            delivery=place.delivery,
            successor=None if after is None else after.successor,
        )
