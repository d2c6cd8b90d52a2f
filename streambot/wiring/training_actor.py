"""An actor of a training, by what the training declares on its log: on any machine that has the data.

    declaration -> data and environments -> act, life after life

A broker that goes away is waited for; the embedded one goes with its training, and the actor with it.
Where the streams of the training were taken over by newer ones, the next life finds these.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from streambot.domain.errors import ConfigError, DataError, StreamError, TopicError
from streambot.domain.kafka_settings import KafkaSecurity
from streambot.learning.declaration import State, read_training
from streambot.streams.patience import Patience
from streambot.wiring.declaring import wall_ms
from streambot.wiring.lasting import persist
from streambot.wiring.parting import split_data
from streambot.wiring.places import open_lasting
from streambot.wiring.stopping import listening
from streambot.wiring.trained_on import DATA
from streambot.wiring.training import TrainingRequest, training_envs
from streambot.wiring.training_streams import find_training

if TYPE_CHECKING:
    from streambot.env.vector_env import VectorTradingEnv
    from streambot.learning.actor import Acted
    from streambot.learning.declaration import Training
    from streambot.learning.weights import Weights
    from streambot.streams.ports import Log
    from streambot.wiring.stopping import StopRequest

LOOK_S = 3.0
"""Seconds between two looks at what the training declares."""
IDLE_S = 10.0
"""After so long without a rollout an actor looks if newer streams have taken over."""
GROWS_S = 120.0
"""An actor that trades a recording which is still written looks for more of it so often."""
WEIGHTS_S = 120.0
"""The first weights are waited for so long: Ray starts meanwhile."""


class TrainingActorSettings(NamedTuple):
    """What an actor of a training needs to know.

    Attributes:
        servers, security: the broker.
        topic: where the training is declared.
        training, actor: names.
        wait_s: how long a training that is not declared yet is waited for.
        cwd: what relative paths start from.
        beside: the broker lives and dies with the training.
    """

    servers: str
    security: KafkaSecurity
    topic: str
    training: str
    actor: str
    wait_s: float
    cwd: Path
    beside: bool = False


class TrainingActorSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor did.

    Attributes:
        state: `complete`: the training is; `interrupted`: the actor was asked to stop.
        lives: it had. rollouts, steps: in all of them.
        weights: sequence number of the last ones that acted; None: none did.
        refused: records of weights that were torn, foreign or older.
    """

    schema: str = "streambot.training-actor/1"
    training: str
    actor: str
    state: str
    stopped_by: str | None
    lives: int
    rollouts: int
    steps: int
    episodes: int
    weights: int | None
    refused: int
    wall_s: float
    steps_per_s: float


class ActorWatching(Protocol):
    """Who watches an actor; quick, and never raises."""

    def opened(self, training: Training, instruments: tuple[str, ...]) -> None:
        """It is about to act."""

    def acted(self, acted: Acted, steps: int, seconds: float) -> None:
        """A rollout was published; steps and seconds of all its lives."""

    def warned(self, message: str) -> None:
        """Something that people should know."""


async def run_training_actor(
    settings: TrainingActorSettings, watching: ActorWatching, stop: StopRequest
) -> TrainingActorSummary:
    """Act until the training is complete, or a stop is asked for.

    Raises:
        StreambotError: what failed.
    """
    job = _Job(settings, watching, stop)
    with listening(stop), contextlib.closing(job):
        if settings.beside:
            return await job.run()
        return await persist(job.run, job.patience)


class _Job:
    def __init__(
        self, settings: TrainingActorSettings, watching: ActorWatching, stop: StopRequest
    ) -> None:
        self._settings, self._watching, self._stop = settings, watching, stop
        self.patience = Patience(told=watching.warned)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="actor")
        self._env: VectorTradingEnv | None = None
        self._told = self._complete = self._behind = False
        self._acted_at = 0.0
        self._began = time.monotonic()
        self._lives = self._rollouts = self._steps = self._episodes = 0
        self._before = (0, 0)
        self._weights: int | None = None
        self._refused = 0

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> TrainingActorSummary:
        settings = self._settings
        async with open_lasting(settings.servers, settings.security) as place:
            while self._stop.reason is None and not self._complete:
                training = await find_training(
                    place.log, settings.topic, settings.training, servers=settings.servers,
                    wait_s=settings.wait_s, stopped=lambda: self._stop.reason is not None,
                )  # fmt: skip
                if training.state is State.COMPLETE:
                    self._complete = True
                    break
                try:
                    await self._live(place.log, training)
                except TopicError as error:
                    if not await _moved_on(place.log, training, settings.topic, error):
                        raise
        return self._summary()

    async def _live(self, log: Log, training: Training) -> None:
        from streambot.learning.actor import ActorPlace, act

        settings, self._lives = self._settings, self._lives + 1
        self._before = (self._rollouts, self._steps)
        place = ActorPlace(training, settings.actor, _number(settings.actor), wall_ms())
        self._behind, self._acted_at = False, time.monotonic()
        looking = asyncio.create_task(self._look(log, training))
        try:
            await act(
                log, place, lambda weights: self._made(training, weights), executor=self._executor,
                now_ms=wall_ms,
                stopping=lambda: self._complete or self._behind or self._stop.reason is not None,
                tell=self._acted, wait_s=WEIGHTS_S, lives_s=GROWS_S if training.growing else None,
            )  # fmt: skip
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        if training.growing:
            self._env = None  # there may be more by now

    async def _look(self, log: Log, training: Training) -> None:
        """Notice that the training is complete, or that it goes on where this life does not look.

        A broker may make a deleted stream again for whoever asks for it by name: then nothing fails,
        and nothing comes either.
        """
        while not self._complete:
            await asyncio.sleep(LOOK_S)
            found = await read_training(log, self._settings.topic)
            if found is None:
                continue
            self._complete = found.state is State.COMPLETE
            idle_s = time.monotonic() - self._acted_at
            self._behind = found.topics != training.topics and idle_s > IDLE_S

    def _made(self, training: Training, weights: Weights) -> VectorTradingEnv:
        """Environments of what the training trades; made once."""
        if self._env is None:
            request = _request(training, self._settings.topic)
            split = split_data(request, self._settings.cwd, self._settings.security)
            if not training.growing and split.about[DATA] != training.data:
                raise DataError(
                    "the data here are not those of the training", where=split.about["sources"][:200],
                    hint="the same bars and the same registry, or `--from-run` of a recording",
                )  # fmt: skip
            if weights.head.head.agent.layout != training.layout:
                raise ConfigError(
                    "the weights are for other observations than the training declares",
                    where=training.training,
                )
            self._env = training_envs(request, split)
            if not self._told:
                self._told = True
                self._watching.opened(training, split.instruments)
        return self._env

    def _acted(self, acted: Acted) -> None:
        self.patience.succeeded()
        self._acted_at = time.monotonic()
        rollouts, steps = self._before
        self._rollouts, self._steps = rollouts + acted.rollouts, steps + acted.steps
        self._episodes += len(acted.returns)
        self._weights, self._refused = acted.weights, acted.refused
        self._watching.acted(acted, self._steps, time.monotonic() - self._began)

    def _summary(self) -> TrainingActorSummary:
        wall = time.monotonic() - self._began
        return TrainingActorSummary(
            training=self._settings.training, actor=self._settings.actor,
            state="complete" if self._complete else "interrupted",
            stopped_by=None if self._complete else self._stop.reason, lives=self._lives,
            rollouts=self._rollouts, steps=self._steps, episodes=self._episodes,
            weights=self._weights, refused=self._refused, wall_s=round(wall, 3),
            steps_per_s=round(self._steps / wall, 1) if wall > 0 else 0.0,
        )  # fmt: skip


async def _moved_on(log: Log, training: Training, topic: str, gone: TopicError) -> bool:
    """Is the training over, or has a newer generation of streams taken over from the one that is gone?

    It may be one that came after `training` was looked at: an actor follows them by itself.
    """
    if not training.owns(gone.where):
        return False
    now = await read_training(log, topic)
    return now is not None and (now.state is State.COMPLETE or now.topics != training.topics)


def _request(training: Training, topic: str) -> TrainingRequest:
    try:
        return msgspec.json.decode(training.request, type=TrainingRequest)
    except msgspec.MsgspecError as cause:
        raise StreamError(
            f"the training does not say what is traded: {cause}", where=topic,
            hint="it was begun by another version of streambot",
        ) from cause  # fmt: skip


def _number(actor: str) -> int:
    """Number of an actor: of its name, so that it is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(actor.encode(), digest_size=4).digest(), "big")
