"""What a training is, on its log: the `runs` stream, for whoever knows the broker and its name.

An actor on any machine starts from this record: it says what was asked for, so which data and which
environment, how much to trade at a time, and where experience goes and weights come from. It is
written again whenever the streams change: on a broker that keeps everything in memory they are
generations (`experience.g0007`), of which a newer one takes over.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from streambot.domain.errors import StreamError, TopicError
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from streambot.streams.ports import Log

TRAINING_SCHEMA = "streambot.training/1"
EXPERIENCE, POLICY, STATUS, RUNS = "experience", "policy", "status", "runs"
STATUS_SCHEMA = "streambot.training-status/1"
REST_MS = 30
"""Readers of a training may see a record so much later: an update takes several times as long, and each
look of theirs is time that the update does not get."""
KEY = b"training"
_Name = Annotated[str, Meta(min_length=1, max_length=128)]
_Count = Annotated[int, Meta(ge=1, le=1 << 16)]


class State(StrEnum):
    """What a learner does."""

    RUNNING = "running"
    STOPPED = "stopped"
    """It may go on."""
    COMPLETE = "complete"


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A training, as its log declares it.

    Attributes:
        namespace: first part of its topics' names.
        training: its name.
        policy: key of its weights.
        topics: full name of every stream, now.
        request: what was asked for (`wiring.training.TrainingRequest`).
        data: digest of what is traded; an actor must have the same.
        growing: the recording that is traded was still written when the training began; an actor
            may have more of it.
        layout: digest of observations and actions.
        seed: of parameters, episodes and actions.
        state: of the learner.
        envs: environments of every actor side by side. rollout: steps of each between two looks
            at the weights.
    """

    schema: str = TRAINING_SCHEMA
    namespace: _Name
    training: _Name
    policy: _Name
    topics: dict[str, str]
    request: msgspec.Raw
    data: str
    growing: bool = False
    layout: str
    seed: Annotated[int, Meta(ge=0, le=2**53)]
    envs: _Count
    rollout: _Count
    state: State = State.RUNNING

    def owns(self, topic: str) -> bool:
        """Is that one of its streams? Nobody else's is used because a record names it."""
        return topic.startswith(f"{self.namespace}.{self.training}.")


def generation(topic: str, number: int) -> str:
    """Name of a generation of a stream."""
    return f"{topic}.g{number:04d}"


async def declare_training(log: Log, training: Training, *, at_ms: int) -> None:
    """Write what a training is. Written again, the last one counts.

    Raises:
        StreambotError: the log is gone, or refuses.
    """
    sink = await log.sink()
    try:
        await sink.append(
            training.topics[RUNS], 0, msgspec.json.encode(training), timestamp_ms=at_ms, key=KEY
        )
        await sink.flush()
    finally:
        await sink.close()


async def read_training(log: Log, topic: str) -> Training | None:
    """What a training is; None where nothing is declared (yet), or a run is.

    Args:
        topic: its `runs` stream.

    Raises:
        StreamError: the record is not what streambot writes.
    """
    if topic not in await log.streams():
        return None
    said: bytes | None = None
    try:
        async for batch in read_to_end(log, topic):
            said = next((r.value for r in reversed(batch) if r.key == KEY), said)
    except TopicError:
        return None
    if said is None:
        return None
    try:
        training = msgspec.json.decode(said, type=Training)
    except msgspec.MsgspecError as cause:
        raise StreamError(
            f"the declaration of the training cannot be read: {cause}", where=topic,
            hint="it was written by another version of streambot, or altered",
        ) from cause  # fmt: skip
    missing = {EXPERIENCE, POLICY, RUNS} - set(training.topics)
    foreign = [topic for topic in training.topics.values() if not training.owns(topic)]
    if missing or foreign or training.topics[RUNS] != topic:
        raise StreamError("the declaration of the training names other streams", where=topic)
    return training
