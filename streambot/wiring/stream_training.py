"""What a training over streams is: its settings, where it goes, who watches it, and how it ended."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from streambot.agents.ppo import PPOAgent
from streambot.domain.kafka_settings import KafkaSecurity
from streambot.learning.declaration import Training
from streambot.learning.learner.progress import Learns
from streambot.learning.policy import LoadedPolicy
from streambot.streams.ports import Start
from streambot.wiring.training import Split, TrainingRequest, typed

if TYPE_CHECKING:
    from streambot.learning.learner.progress import LearnerConfig, Learnt
    from streambot.wiring.places import Place

ROLLOUT = 64
POLICY_NAME = "main"
KIND = "actor-learner"
"""What the checkpoint says that it was trained by."""


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a training goes over streams.

    Attributes:
        actors: that are started with it; 0: they are started elsewhere.
        algorithm: of RLlib.
        learners: processes that share an update; 0: the one of the command.
        gpus: of each of them.
    """

    actors: Annotated[int, Meta(ge=0, le=256)] = 2
    algorithm: Literal["ppo", "appo"] = "ppo"
    learners: Annotated[int, Meta(ge=0, le=64)] = 0
    gpus: Annotated[float, Meta(ge=0, le=64)] = 0.0


class Where(NamedTuple):
    """Where a training goes.

    Attributes:
        servers: Apache Kafka; None: the embedded broker.
        security: how it is spoken to.
        namespace, runs_dir: see the settings.
        run: its name; None: that of its folder.
        config: file of settings, for the actors.
        again: where experience is read again from: a place, or a time of writing; None: it is not.
    """

    servers: str | None
    security: KafkaSecurity
    namespace: str
    runs_dir: str
    run: str | None
    config: str | None
    cwd: Path
    again: Start | dt.datetime | None = None


class Job(NamedTuple):
    """A training that is about to go, or to go on.

    Attributes:
        request, split, agent: see `wiring.training`.
        folder: of its checkpoints.
        found: the one that it goes on from; None: it is new.
        learns: RLlib's part.
        where: see `Where`.
    """

    request: TrainingRequest
    split: Split
    agent: PPOAgent
    folder: Path
    found: LoadedPolicy | None
    learns: Learns
    where: Where


class Watching(Protocol):
    """Who watches a training; quick, and never raises."""

    def opened(self, training: Training, place: Place) -> None:
        """The streams are there, and actors start."""

    def learnt(self, learnt: Learnt, restarts: int) -> None:
        """An update was made."""

    def warned(self, message: str) -> None:
        """Something that people should know."""


class Ended(NamedTuple):
    """How a training ended.

    Attributes:
        complete: all updates are made.
        updates, steps: made, and learnt from.
        counts: see `ExperienceBuffer.counts`; empty where no update was made.
        restarts: of actors.
        training: as it was declared last.
        broker: for people.
    """

    complete: bool
    updates: int
    steps: int
    counts: dict[str, int]
    restarts: int
    training: Training
    broker: str


def stream_settings(request: TrainingRequest) -> StreamSettings:
    """Typed.

    Raises:
        ConfigError: one that is unknown, or a value that it cannot have.
    """
    return typed("stream", request.stream or {}, StreamSettings)


def learner_config(request: TrainingRequest) -> tuple[LearnerConfig, int]:
    """How the learner learns, and the steps of a rollout.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    from streambot.learning.learner.progress import LearnerConfig

    given = dict(request.training)
    rollout = given.pop("rollout", ROLLOUT)
    return typed("training", given, LearnerConfig), rollout


def make_learns(request: TrainingRequest, agent: PPOAgent, batch: int) -> Learns:
    """RLlib's part of the training; Ray is there.

    Raises:
        StreambotError: it cannot be made.
    """
    from streambot.learning.learner.algorithm import stream_ppo
    from streambot.learning.learner.appo import stream_appo

    settings = stream_settings(request)
    if settings.algorithm == "appo":
        return stream_appo(agent, batch=batch, learners=settings.learners, gpus=settings.gpus)
    return stream_ppo(agent, batch=batch, learners=settings.learners, gpus=settings.gpus)
