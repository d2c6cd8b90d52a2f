"""An agent that learns over streams, in this process: the product's actors and its learner (RLlib).

    Collector -> fragments -> log -> ExperienceBuffer -> StreamPPO -> weights -> log -> Collector ...

All of it is what `streambot train` runs, but for the broker, which is a log in this process, and for
the processes of the actors, which are tasks of one event loop with a thread each.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.learning import trading
from benchmarks.learning.trading import SETTINGS, TradingConfig
from streambot.agents.ppo import PPOAgent
from streambot.env.sources import Source as Bars
from streambot.learning.actor import ActorPlace, act
from streambot.learning.declaration import (
    EXPERIENCE,
    POLICY,
    RUNS,
    STATUS,
    Training,
    declare_training,
)
from streambot.learning.learner.algorithm import StreamPPO, stream_ppo
from streambot.learning.learner.progress import LearnerConfig, Learns, Learnt
from streambot.learning.learner.service import Learner
from streambot.learning.trainer import Kept
from streambot.learning.weights import Weights, decode_weights, encode_weights
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import Record, Source, Start, StreamSpec, TopicPartition

NAMESPACE, NAME = "claim", "streams"
TOPICS = {stream: f"{NAMESPACE}.{NAME}.{stream}" for stream in (EXPERIENCE, POLICY, STATUS, RUNS)}
SILENCE_S = 300.0
"""A machine that does other things beside may be slow."""


class LateLog(MemoryLog):
    """A log whose readers get weights `by` updates late, with what is wanted now.

    Args:
        by: so many; the first ones are there at once.
    """

    def __init__(self, by: int) -> None:
        super().__init__()
        self._by = by

    async def source(  # type: ignore[override]  # it reads as any source does
        self, starts: Mapping[TopicPartition, Start], *, rest_ms: int = 0
    ) -> Source:
        """See `Log`."""
        source = await super().source(starts, rest_ms=rest_ms)
        if any(place.stream == TOPICS[POLICY] for place in starts):
            return _LateSource(source, self._by)
        return source


class _LateSource:
    """A reader of all weights from the first on."""

    def __init__(self, source: Source, by: int) -> None:
        self._source, self._by = source, by
        self._known: dict[int, Weights] = {}

    async def read(self, *, max_records: int = 64, timeout_s: float = 1.0) -> list[Record]:
        records = await self._source.read(max_records=max_records, timeout_s=timeout_s)
        return [record._replace(value=self._late(record.value)) for record in records]

    def _late(self, record: bytes) -> bytes:
        newest = decode_weights(record)
        self._known[newest.head.sequence] = newest
        old = self._known[max(0, newest.head.sequence - self._by)]
        asked, head = newest.head, old.head.head
        return encode_weights(
            old.agent(), training=asked.training, policy=asked.policy, sequence=old.head.sequence,
            wanted=asked.wanted, urgent=asked.urgent, experience=asked.experience,
            stream=asked.stream, learner=asked.learner, env=head.env,
        )  # fmt: skip

    def positions(self) -> dict[TopicPartition, int]:
        return self._source.positions()

    async def seek(self, stream: str, partition: int, start: Start) -> None:
        await self._source.seek(stream, partition, start)

    async def close(self) -> None:
        await self._source.close()


class Way(NamedTuple):
    """How it goes over streams.

    Attributes:
        actors: how many; the environments are shared out among them.
        late: updates that weights are late by, beside those that they are late by themselves.
        moved_by: what moves the weights, of the product's algorithm.
    """

    actors: int = 2
    late: int = 0
    moved_by: Callable[[StreamPPO], Learns] = lambda algorithm: algorithm


def train(
    who: PPOAgent,
    bars: Bars,
    config: TradingConfig,
    seed: int,
    way: Way,
    tell: Callable[[Learnt], None] = lambda _: None,
) -> PPOAgent:
    """Train an agent over streams, on as many steps and in as many updates as `trading.train`.

    Args:
        who: is trained.
        bars: the data.
        config: of the training.
        seed: of episodes and actions.
        way: see `Way`.
        tell: told of every update.
    """
    batch = config.envs * config.rollout
    settings = LearnerConfig(
        batch=batch, updates=config.updates, checkpoint_every=config.updates, silence_s=SILENCE_S
    )
    training = Training(
        namespace=NAMESPACE, training=NAME, policy="main", topics=TOPICS, request=msgspec.Raw(b"{}"),
        data="synthetic", layout=who.config.layout, seed=seed, envs=config.envs // way.actors,
        rollout=config.rollout,
    )  # fmt: skip
    with (
        ExitStack() as stack,
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(way.actors) as stepping,
        ThreadPoolExecutor(1) as learning,
    ):
        algorithm = stream_ppo(who, batch=batch)
        stack.callback(algorithm.stop)
        log = LateLog(way.late) if way.late else MemoryLog()
        clock = itertools.count()
        learner = Learner(
            log, training, who, way.moved_by(algorithm), settings, Kept(Path(folder), SETTINGS, {}),
            executor=learning, now_ms=lambda: next(clock), tell=tell, actors=way.actors,
        )  # fmt: skip

        async def actor(number: int) -> None:
            await act(
                log, ActorPlace(training, f"actor-{number}", number, 0),
                lambda _: trading.environment(bars, training.envs), executor=stepping,
                now_ms=lambda: next(clock), stopping=lambda: learner.done >= config.updates,
            )  # fmt: skip

        asyncio.run(_beside(log, training, learner, [actor(n) for n in range(way.actors)]))
    return who


async def _beside(
    log: MemoryLog,
    training: Training,
    learner: Learner,
    actors: Sequence[Coroutine[Any, Any, None]],
) -> None:
    """A learner beside its actors: the first failure ends all."""
    await log.create([StreamSpec(name=topic) for topic in TOPICS.values()])
    await declare_training(log, training, at_ms=0)
    async with asyncio.TaskGroup() as group:
        for actor in actors:
            group.create_task(actor)
        assert await learner.run()
    await log.close()
