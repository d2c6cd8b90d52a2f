"""An actor: an agent in a process of its own, by what the run declares on its log.

    declaration -> mirrors (one a partition) in one TaskGroup -> summary

It keeps nothing: started again, it mirrors the run from its first frame. On a broker with transactions
a second actor of the same name takes over, and the first one ends; a broker that goes away is waited
for. The embedded broker goes with its run: what was not compared by then is compared with the run's
files. After a seek the actor goes on with the run that follows.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from streambot.domain.config import KafkaSecurity
from streambot.domain.errors import BrokerError, StreambotError
from streambot.processor.actor import ActorRunner
from streambot.processor.agents import StrategyFactory
from streambot.processor.declaration import Declared, read_declaration
from streambot.processor.stream_files import file_of
from streambot.report.piece import ActorOutline, ActorProgress, ActorSummary
from streambot.report.summary import sum_slots
from streambot.streams.patience import Patience
from streambot.wiring.declaring import wait_for_declaration
from streambot.wiring.failures import first_failure
from streambot.wiring.following import Serving
from streambot.wiring.lasting import persist, through_seeks
from streambot.wiring.mirrors import actor_plan, agent_of
from streambot.wiring.outcome import slot_totals
from streambot.wiring.places import check_streams, open_lasting, runs_topic
from streambot.wiring.policies import find_agent
from streambot.wiring.served import kept_in
from streambot.wiring.stopping import listening
from streambot.wiring.supervision import run_together
from streambot.wiring.warmup import warm_up

if TYPE_CHECKING:
    from streambot.engine.scripts import Script
    from streambot.processor.manifest import RunManifest
    from streambot.processor.mirror_orders import Sent
    from streambot.processor.task import TaskCore
    from streambot.wiring.places import Place
    from streambot.wiring.stopping import StopRequest


class ActorSettings(NamedTuple):
    """What an actor needs to know.

    Attributes:
        servers, security: the broker.
        namespace: first part of the names of all topics.
        run: which run.
        agent: which of its agents; None: the only one.
        policy: what decides; None: what the run names.
        wait_s: how long a run that is not declared yet is waited for.
        cwd: what relative paths start from.
        folder: of a run whose broker lives and dies with it; None: the broker stays.
        strategies: makes what decides in a partition, instead of `policy`; one strategy for each of
            its instruments, in their order.
        serve: weights of a training that decide, instead of `policy`.
        runs_dir: where the run may keep the weights that its policy names.
    """

    servers: str
    security: KafkaSecurity
    namespace: str
    run: str
    agent: str | None
    policy: str | None
    wait_s: float
    cwd: Path
    folder: Path | None = None
    strategies: Callable[[Declared, int], StrategyFactory] | None = None
    serve: Serving | None = None
    runs_dir: Path = Path("runs")

    @property
    def topic(self) -> str:
        """Where the run is declared."""
        return runs_topic(self.namespace, self.run, self.cwd)


class ActorObserver(Protocol):
    """Who watches an actor; quick, and never raises."""

    def planned(self, plan: ActorOutline) -> None:
        """The mirrors are about to start."""

    def progressed(self, progress: ActorProgress) -> None:
        """A moment has passed."""

    def warned(self, message: str) -> None:
        """Something that people should know."""


def _nowhere(point: str) -> None:
    del point


async def run_actor(
    settings: ActorSettings,
    observer: ActorObserver,
    stop: StopRequest,
    *,
    reached: Callable[[str], None] = _nowhere,
) -> ActorSummary:
    """Answer until the run ends, or a stop is asked for.

    Args:
        settings: the run, the agent and its policy.
        observer: told what happens.
        stop: ends the mirrors behind the frame they are at; what was answered is sent.
        reached: see `ActorRunner`.

    Raises:
        DivergenceError: the engine's fills are not those of the mirror.
        VerificationError: the policy answers otherwise than before it was started again.
        StreambotError: what failed; an actor started again goes on behind its last answer.
    """

    async def play(run: str, wait_s: float | None) -> ActorSummary:
        mine = settings._replace(run=run, wait_s=settings.wait_s if wait_s is None else wait_s)
        patience = Patience(told=observer.warned)
        job = _Job(mine, observer, stop, patience, reached)
        if mine.folder is None:
            return await persist(job.run, patience)
        return await job.run_beside(mine.folder)

    with listening(stop):
        if settings.strategies is not None:
            return await play(settings.run, None)  # made for this run: a successor is another one
        return await through_seeks(play, settings.run, stop, observer.warned)


class _Job:
    """The work of one actor, begun anew as often as the broker is lost."""

    def __init__(
        self,
        settings: ActorSettings,
        observer: ActorObserver,
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
        self._runners: list[ActorRunner] = []
        self._declared: Declared | None = None
        self._shown = settings.servers

    async def run(self) -> ActorSummary:
        """Work on a broker that is there now."""
        settings = self._settings
        async with open_lasting(settings.servers, settings.security) as place:
            declared = await wait_for_declaration(
                place.log, settings.topic, settings.run,
                servers=settings.servers, wait_s=settings.wait_s, stop=self._stop,
            )  # fmt: skip
            complete = await self._act(place, declared)
            after = await read_declaration(place.log, settings.topic) if complete else None
            return self._summary(
                complete=complete, successor=None if after is None else after.successor
            )

    async def run_beside(self, folder: Path) -> ActorSummary:
        """Work on a broker that lives and dies with its run."""
        try:
            return await self.run()
        except (StreambotError, BaseExceptionGroup) as error:
            failure = first_failure(error)
            if not isinstance(failure, BrokerError):
                raise failure from None
            if not self._runners or not all(runner.mirrored for runner in self._runners):
                raise BrokerError(
                    f"run {self._settings.run} has gone, and its broker with it, before everything "
                    "was answered",
                    where=self._settings.servers,
                    hint=f"`streambot runs show {self._settings.run}` says how it ended",
                ) from failure
        # Every frame is answered: what the engine made of the answers stands in the run's files.
        await asyncio.to_thread(self._settle, folder)
        return self._summary(complete=True, successor=None)

    def _settle(self, folder: Path) -> None:
        for runner in self._runners:
            with file_of(folder, "fills").open("rb") as lines:
                runner.comparison.settle(lines)

    async def _act(self, place: Place, declared: Declared) -> bool:
        declaration = declared.declaration
        manifest = declaration.manifest
        agent = agent_of(manifest, self._settings.agent)
        beside = self._settings.folder is not None
        self._declared = declared
        self._shown = f"embedded broker {place.address}" if beside else place.shown
        await check_streams(place.log, declaration.topics, manifest.partitions)
        await asyncio.to_thread(warm_up, manifest)
        # A strategy that is made elsewhere may wait for its answers: no other partition waits with it.
        waits = self._settings.strategies is not None
        threads = manifest.partitions if waits else min(manifest.partitions, os.cpu_count() or 1)
        executor = ThreadPoolExecutor(max(1, threads), thread_name_prefix="mirror")
        self._runners = [
            ActorRunner(
                actor_plan(
                    declared, p, agent, self._agent(declared, p),
                    transactional=place.transactional,
                    eager=self._settings.strategies is not None,
                    make_core=self._core(declared, p),
                ),
                place.log, executor, on_moved=self._patience.succeeded, reached=self._reached,
            )
            for p in range(manifest.partitions)
        ]  # fmt: skip
        self._tell_plan(declared, agent)
        self._began = time.monotonic()
        try:
            ends = await run_together(
                self._runners, "mirror", self._stop,
                lambda: self._observer.progressed(self._progress()),
            )  # fmt: skip
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
        self._observer.progressed(self._progress())
        return all(ends)

    def _core(self, declared: Declared, partition: int) -> Callable[[Sent], TaskCore] | None:
        serve = self._settings.serve
        return None if serve is None else partial(serve.core, declared, partition)

    def _agent(self, declared: Declared, partition: int) -> Script | StrategyFactory | None:
        settings = self._settings
        if settings.serve is not None:
            return None
        if settings.strategies is not None:
            return settings.strategies(declared, partition)
        manifest = declared.declaration.manifest
        own = manifest.policy if settings.policy is None else None
        kept = None if own is None else kept_in(settings.runs_dir, manifest.run)
        return find_agent(self._policy(manifest), folder=settings.cwd, run=own, kept=kept)

    def _policy(self, manifest: RunManifest) -> str:
        if self._settings.serve is not None:
            return self._settings.serve.label
        return self._settings.policy or manifest.policy.spec

    def _tell_plan(self, declared: Declared, agent: str) -> None:
        if self._planned:
            return
        self._planned = True
        manifest = declared.declaration.manifest
        self._observer.planned(
            ActorOutline(
                run=manifest.run,
                agent=agent,
                others=tuple(other for other in manifest.agents if other != agent),
                policy=self._policy(manifest),
                merge=_merge(manifest),
                partitions=manifest.partitions,
                instruments=tuple(instrument.symbol for instrument in manifest.instruments),
                timezone=manifest.instruments[0].timezone,
                ticks=declared.declaration.outline.ticks,
                broker=self._shown,
            )
        )

    def _progress(self) -> ActorProgress:
        runners = self._runners
        seen = [w for runner in runners if (w := runner.watermark) is not None]
        ticks = sum(slot.ticks for runner in runners for slot in runner.status)
        return ActorProgress(
            event_time=min(seen, default=None),
            ticks=ticks,
            ticks_per_s=self._rate(ticks),
            answers=sum(runner.sending.answers for runner in runners),
            orders=sum(runner.sending.orders for runner in runners),
            compared=sum(runner.comparison.compared for runner in runners),
            unconfirmed=sum(runner.comparison.waiting for runner in runners),
            waits=any(runner.waits for runner in runners),
            mirrored=all(runner.mirrored for runner in runners),
        )

    def _rate(self, ticks: int) -> float:
        wall = time.monotonic() - self._began
        return ticks / wall if wall > 0 else 0.0

    def _summary(self, *, complete: bool, successor: str | None) -> ActorSummary:
        assert self._declared is not None  # noqa: S101  # of the callers
        manifest, runners = self._declared.declaration.manifest, self._runners
        instruments = {instrument.symbol: instrument for instrument in manifest.instruments}
        slots = [slot for runner in runners for slot in runner.status]
        totals = sum_slots((instruments[slot.symbol], slot_totals(slot)) for slot in slots)
        unsent = sum((Counter(runner.unsent) for runner in runners), Counter[str]())
        return ActorSummary(
            run=manifest.run,
            agent=agent_of(manifest, self._settings.agent),
            policy=self._policy(manifest),
            merge=_merge(manifest),
            state="complete" if complete else "interrupted",
            stopped_by=None if complete else self._stop.reason,
            partitions=manifest.partitions,
            instruments=sorted(instruments),
            bars=totals.bars,
            ticks=totals.ticks,
            answers=sum(runner.sending.answers for runner in runners),
            orders=sum(runner.sending.orders for runner in runners),
            unsent=dict(unsent),
            compared=sum(runner.comparison.compared for runner in runners),
            unconfirmed=sum(runner.comparison.waiting for runner in runners),
            fills=totals.fills,
            rejected=totals.rejected,
            expired=totals.expired,
            settled=totals.settled,
            breached=totals.breached,
            pnl_gross=totals.pnl_gross,
            pnl_net=totals.pnl_net,
            brokerage=totals.brokerage,
            by_instrument=totals.by_instrument,
            reopened=self._patience.failures,
            wall_s=round(time.monotonic() - self._began, 3),
            ticks_per_s=round(self._rate(totals.ticks), 1),
            broker=self._shown,
            successor=successor,
            weights=[] if self._settings.serve is None else self._settings.serve.used,
        )


def _merge(manifest: RunManifest) -> str:
    return "free run" if manifest.free_run else "lockstep"
