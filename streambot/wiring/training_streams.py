"""The streams of a training: their names and topics, and how a training is found on a broker.

On Apache Kafka they last. The embedded broker frees memory only with its topics, so experience and
weights go through generations there (`learning.learner.generations`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from streambot.domain.errors import ConfigError, TopicError
from streambot.domain.topics import Of, find_topics, streams_of
from streambot.learning.declaration import (
    EXPERIENCE,
    POLICY,
    RUNS,
    STATUS,
    generation,
    read_training,
)
from streambot.streams.ports import StreamSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streambot.domain.topics import TopicTemplate
    from streambot.learning.declaration import Training
    from streambot.streams.ports import Log
    from streambot.wiring.places import Place

STREAMS = (EXPERIENCE, POLICY, STATUS, RUNS)
ROLLED = (EXPERIENCE, POLICY)
_LOOK_S = 0.25


def training_topics(namespace: str, name: str, cwd: Path, *, lasting: bool) -> dict[str, str]:
    """Full topic name of every stream of a training, where it begins.

    Raises:
        ConfigError: `topics.yaml` is wrong, lacks a stream, or a name gets too long.
    """
    templates = _templates(cwd)
    try:
        names = {stream: templates[stream].topic(namespace, name) for stream in STREAMS}
    except ValueError as error:
        raise ConfigError(str(error), where="--run", hint="choose a shorter name") from error
    return names if lasting else names | {s: generation(names[s], 0) for s in ROLLED}


async def create_training(
    place: Place, topics: dict[str, str], cwd: Path, *, resumed: bool
) -> None:
    """Make the topics of a training.

    Raises:
        TopicError: one exists with other partitions, or holds records of an earlier training.
    """
    templates = _templates(cwd)
    made = await place.log.create([
        StreamSpec(name=topic, partitions=1, config=templates[stream].kafka_settings())
        for stream, topic in topics.items()
    ])  # fmt: skip
    if resumed:
        return
    for topic in topics.values():
        if topic not in made and any(await place.log.end_offsets(topic)):
            raise TopicError(
                "holds the records of an earlier training", where=topic,
                hint="choose another --run, or go on with `--resume FOLDER`",
            )  # fmt: skip


async def find_training(
    log: Log,
    topic: str,
    name: str,
    *,
    servers: str,
    wait_s: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Training:
    """What a training declares, once it does.

    Args:
        topic: its `runs` stream.
        servers: where the log is, for messages.
        wait_s: how long it is waited for. stopped: ends the wait.

    Raises:
        TopicError: it is not there.
    """
    until = time.monotonic() + wait_s
    while (found := await read_training(log, topic)) is None:
        if time.monotonic() >= until or stopped():
            raise TopicError(
                f"no training {name} is declared on {servers}", where=topic,
                hint=f"`streambot train --run {name}` starts one; --wait 60s waits for it",
            )  # fmt: skip
        await asyncio.sleep(_LOOK_S)
    return found


def _templates(cwd: Path) -> dict[str, TopicTemplate]:
    templates = streams_of(find_topics(None, cwd), Of.TRAINING)
    for stream in STREAMS:
        if stream not in templates:
            raise ConfigError(
                f"declares no stream `{stream}` of a training", where="topics.yaml",
                hint="`of: training`, as the bundled one has it",
            )  # fmt: skip
        if templates[stream].partitions != 1:
            raise ConfigError("needs `partitions: 1`", where=f"topics.yaml:{stream}")
    return templates
