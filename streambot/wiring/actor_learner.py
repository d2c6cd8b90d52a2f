"""A training over streams: a learner here, actors in processes of their own, a broker between them.

    broker -> topics, declaration -> actors start -> learner (RLlib) ... -> checkpoint, declaration

With the embedded broker it is all one command: broker and actors die with this process, and going on
means going on from the weights, with fresh experience. On Apache Kafka experience lasts: the learner
goes on where its checkpoint stands, and actors anywhere take part.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from streambot.domain.errors import BrokerError, DataError, StreambotError, UsageError
from streambot.env.settings import make_config
from streambot.learning.declaration import EXPERIENCE, State, Training, declare_training
from streambot.processor.folder import TRAINING, RunFolder
from streambot.processor.run_state import RunRecord, RunState, Trigger
from streambot.wiring.actor_processes import ActorCommand, ActorProcesses
from streambot.wiring.declaring import wall_ms
from streambot.wiring.failures import first_failure
from streambot.wiring.places import open_embedded, open_lasting
from streambot.wiring.simulation import now_text
from streambot.wiring.stopping import listening
from streambot.wiring.stream_training import (
    KIND,
    POLICY_NAME,
    Ended,
    learner_config,
    stream_settings,
)
from streambot.wiring.trained_on import DATA
from streambot.wiring.training import kept_of
from streambot.wiring.training_streams import create_training, training_topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from streambot.learning.learner.progress import Learnt
    from streambot.learning.looking import HeldOut
    from streambot.streams.ports import Start
    from streambot.wiring.places import Place
    from streambot.wiring.stopping import StopRequest
    from streambot.wiring.stream_training import Job, Watching, Where

LASTING = "every step once, through crashes: weights and positions in one transaction"

FRESH = (
    "every step once while this process lives; --resume goes on from the weights, with fresh "
    "experience"
)


async def check_broker(where: Where) -> None:
    """Raise `BrokerError` where nobody answers on the broker that is named."""
    if where.servers is not None:
        async with open_lasting(where.servers, where.security):
            pass


async def learn(job: Job, watching: Watching, stop: StopRequest) -> Ended:
    """Train until all updates are made, or a stop is asked for.

    Raises:
        StreambotError: what failed; the checkpoint is from behind the last update.
    """
    from streambot.agents.checkpoint import read_head

    folder = _run_folder(job)
    try:
        with listening(stop):
            async with _place(job.where, folder.path) as place:
                return await _Going(job, watching, stop, folder, place).run()
    except (StreambotError, BaseExceptionGroup) as error:
        failure = first_failure(error)
        _failed(folder, failure)
        if isinstance(failure, StreambotError):
            with suppress(StreambotError):
                read_head(job.folder)
                watching.warned(f"the policy as it was before is kept: --resume {job.folder}")
        raise failure from None
    except BaseException as error:
        _failed(folder, error)
        raise
    finally:
        folder.close()


class _Going:
    """A training on a broker that is there."""

    def __init__(
        self, job: Job, watching: Watching, stop: StopRequest, folder: RunFolder, place: Place
    ) -> None:
        self._job, self._watching, self._stop = job, watching, stop
        self._folder, self._place = folder, place
        self._counts: dict[str, int] = {}
        self._actors: ActorProcesses | None = None

    async def run(self) -> Ended:
        from streambot.learning.learner.generations import Generations
        from streambot.learning.learner.service import Learner

        job, place = self._job, self._place
        settings, (config, rollout) = stream_settings(job.request), learner_config(job.request)
        lasting = place.transactional
        name = self._folder.path.name
        topics = training_topics(job.where.namespace, name, job.where.cwd, lasting=lasting)
        await create_training(place, topics, job.where.cwd, resumed=job.found is not None)
        training = self._declared(name, topics, rollout)
        kept = kept_of(job.request, job.split, job.folder, job.found)
        kept.about.update(training=KIND, run=name)
        rolled = None if lasting else Generations(place.log, training, wall_ms)
        with ThreadPoolExecutor(1, thread_name_prefix="learner") as executor:
            learner = Learner(
                place.log, training, job.agent, job.learns, config, kept, executor=executor,
                now_ms=wall_ms, transactional=lasting, generations=rolled, look=self._look(),
                tell=self._learnt, stopping=lambda: self._stop.reason is not None,
                resume=job.found, again=await self._again(topics[EXPERIENCE]), actors=settings.actors,
            )  # fmt: skip
            learner.keep()  # from here on --resume goes on, whenever it is killed
            await declare_training(place.log, training, at_ms=wall_ms())
            self._record(training)
            self._watching.opened(training, place)
            complete = await self._beside(learner.run, settings.actors, training)
        last = training if rolled is None else rolled.training
        state = State.COMPLETE if complete else State.STOPPED
        last = msgspec.structs.replace(last, state=state)
        await declare_training(place.log, last, at_ms=wall_ms())
        self._folder.finish(Trigger.END if complete else Trigger.STOP, at=now_text())
        restarts = 0 if self._actors is None else self._actors.restarts
        return Ended(
            complete, learner.done, learner.steps, self._counts, restarts, last, place.shown
        )

    async def _beside(self, learn: Callable[[], Any], actors: int, training: Training) -> bool:
        """The learner beside its actors: the first failure ends both."""
        where = self._job.where
        if not actors:
            return bool(await learn())
        command = ActorCommand(
            training.training, self._place.address, where.namespace, where.runs_dir, where.config,
            self._folder.path / "actors", where.cwd,
        )  # fmt: skip
        self._actors = pool = ActorProcesses(command, actors, self._watching.warned, self._orphaned)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(pool.run(), name="actors")
            try:
                complete = await group.create_task(learn(), name="learner")
            finally:
                await pool.stop()
            await keeping
        return bool(complete)

    def _orphaned(self) -> bool:
        """The broker that lives and dies with this process is gone."""
        from streambot.adapters.kafka import KafkaLog

        place = self._place
        if not (place.embedded and isinstance(place.log, KafkaLog)):
            return False
        try:
            place.log.check()
        except BrokerError:
            return True
        return False

    def _declared(self, name: str, topics: dict[str, str], rollout: int) -> Training:
        job = self._job
        request = msgspec.structs.replace(job.request, test_from=job.split.test_from)
        store = job.split.sources[0].open(make_config(job.request.env).features)
        return Training(
            namespace=job.where.namespace, training=name, policy=POLICY_NAME, topics=topics,
            request=msgspec.Raw(msgspec.json.encode(request)), data=job.split.about[DATA],
            growing=not store.head.complete, layout=job.agent.config.layout, seed=job.request.seed,
            envs=job.request.envs, rollout=rollout,
        )  # fmt: skip

    def _record(self, training: Training) -> None:
        place, folder = self._place, self._folder
        record = RunRecord(
            run=training.training, state=RunState.RUNNING, pid=os.getpid(), broker=place.address,
            embedded=place.embedded, topics=training.topics, outputs="topics", kind="training",
            started_at=folder.record.started_at if folder.started else now_text(),
            manifest=msgspec.Raw(msgspec.json.encode(training)),
        )  # fmt: skip
        if folder.started:
            folder.resume(record)
        else:
            folder.start(record)

    async def _again(self, stream: str) -> Start | None:
        """Where experience is read again from."""
        again = self._job.where.again
        if isinstance(again, dt.datetime):
            return await self._place.log.offset_at(stream, 0, int(again.timestamp() * 1_000))
        return again

    def _look(self) -> HeldOut | None:
        """At what is held out; None: nothing is (yet)."""
        from streambot.learning.looking import HeldOut

        split = self._job.split
        if split.held_out == split.train:
            return None
        try:
            return HeldOut(split.sources[0], make_config(split.held_out), split.instruments)
        except DataError:
            return None

    def _learnt(self, learnt: Learnt) -> None:
        self._counts = learnt.counts
        restarts = 0 if self._actors is None else self._actors.restarts
        self._watching.learnt(learnt, restarts)


@asynccontextmanager
async def _place(where: Where, folder: Path) -> AsyncIterator[Place]:
    if where.servers is not None:
        async with open_lasting(where.servers, where.security) as place:
            yield place._replace(delivery=LASTING if place.transactional else place.delivery)
        return
    async with open_embedded(folder, lambda _: None, FRESH) as place:
        yield place


def _run_folder(job: Job) -> RunFolder:
    """The folder of the training among the runs.

    Raises:
        UsageError: the name is taken, or another process trains it.
    """
    runs, where = job.where.cwd / job.where.runs_dir, job.where
    before = None if job.found is None else job.found.head.about.get("run")
    name = where.run or before or job.folder.name
    if job.found is not None and (runs / name / "run.json").is_file():
        return RunFolder.open(runs, name, TRAINING)
    day = dt.datetime.fromtimestamp(time.time(), dt.UTC).date()  # noqa: TID251
    try:
        return RunFolder.create(runs, name, day)
    except UsageError:
        if where.run is not None or before is not None:
            raise
        return RunFolder.create(runs, f"{name}-{secrets.token_hex(2)}", day)


def _failed(folder: RunFolder, error: BaseException) -> None:
    if not folder.started:
        folder.discard()
        return
    aborted = isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))
    text = "aborted" if aborted else f"{type(error).__name__}: {error}"
    with suppress(StreambotError):  # the disk may be the very reason, or it has ended already
        folder.finish(Trigger.STOP if aborted else Trigger.FAIL, at=now_text(), error=text)
