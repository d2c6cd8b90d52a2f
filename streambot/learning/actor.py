"""An actor: trades, publishes what came of it, and takes up newer weights between two rollouts.

    policy -> newest weights -> rollout -> fragments -> experience -> policy ...

It needs no Ray and knows no learner: the weights say what environment they are for, and how many
steps the learner wants of each actor under them. That many it trades, and then waits for the next
record: so a slow learner slows actors down instead of filling the broker, and experience is never
many updates old. A learner that waits too long asks again, with the same weights.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streambot.domain.errors import BrokerError, DecodeError
from streambot.learning.collecting import Collector
from streambot.learning.declaration import EXPERIENCE, POLICY, REST_MS, Training
from streambot.learning.weights import Weights, decode_weights
from streambot.streams.fragment import encode_fragment
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from streambot.agents.ppo import PPOAgent
    from streambot.env.vector_env import VectorTradingEnv
    from streambot.streams.ports import Log, Sink, Source

LOOK_S = 0.2
"""How long newer weights are waited for at a time, where there is nothing else to do."""


class ActorPlace(NamedTuple):
    """Who an actor is.

    Attributes:
        training: whose experience it brings, as it is declared.
        actor: its name. number: of it among the actors; every one draws other episodes.
        incarnation: number of its life, larger than that of any life before.
    """

    training: Training
    actor: str
    number: int
    incarnation: int


class Acted(NamedTuple):
    """What a rollout brought.

    Attributes:
        rollouts, steps: since the actor's life began.
        weights: sequence number of those that acted.
        returns: total rewards of episodes that ended.
        refused: records of weights that were torn or foreign, so far.
    """

    rollouts: int
    steps: int
    weights: int
    returns: tuple[float, ...]
    refused: int


class NewestWeights:
    """Follows the `policy` stream of a training, through its generations, to the newest weights.

    Args:
        log: where the stream is.
        training: whose weights count.

    Attributes:
        refused: records that were torn, foreign or older, by reason.
        experience: where experience goes, as the newest weights say.
    """

    def __init__(self, log: Log, training: Training) -> None:
        self._log, self._training = log, training
        self._source: Source | None = None
        self._stream = training.topics[POLICY]
        self._layout: str | None = training.layout
        self._newest: tuple[int, int] | None = None
        """Life of the learner, and sequence, of what it gave last."""
        self.refused: Counter[str] = Counter()
        self.experience = training.topics[EXPERIENCE]

    async def read(self, timeout_s: float) -> Weights | None:
        """What was published last, if that is newer than what it gave before; None: nothing is.

        The same weights may be published again: then more is wanted under them. Those of a learner
        that went on from a checkpoint may have fewer updates behind them; they count all the same.

        Args:
            timeout_s: how long to wait for a first record; those behind it are taken as they are.

        Raises:
            TopicError: the stream is gone: a newer generation has taken over.
            BrokerError: the log is gone.
        """
        newest = None
        while True:
            if self._source is None:
                self._source = await self._log.source(
                    {TopicPartition(self._stream, 0): "beginning"}, rest_ms=REST_MS
                )
            records = await self._source.read(timeout_s=timeout_s if newest is None else 0.0)
            for record in records:
                newest = self._decoded(record.value, record.key) or newest
            if newest is not None and newest.head.stream not in {"", self._stream}:
                await self.close()
                self._stream = newest.head.stream
            elif not records:
                break
        if newest is not None:
            self.experience = newest.head.experience or self.experience
        return newest

    async def close(self) -> None:
        """Let go of the log."""
        if self._source is not None:
            await self._source.close()
            self._source = None

    def _decoded(self, value: bytes, key: bytes | None) -> Weights | None:
        training = self._training
        if key != training.policy.encode():
            return None  # a pin, or another policy
        try:
            found = decode_weights(value, layout=self._layout)
        except DecodeError as error:
            self.refused[error.reason] += 1
            return None
        head = found.head
        if head.training != training.training:
            self.refused["training"] += 1
            return None
        if not all(training.owns(topic) for topic in (head.experience, head.stream) if topic):
            self.refused["foreign"] += 1
            return None
        life, sequence = self._newest or (head.learner, 0)
        if head.learner == life and head.sequence < sequence:
            self.refused["older"] += 1
            return None
        self._newest = head.learner, head.sequence
        return found


async def act(
    log: Log,
    place: ActorPlace,
    make_env: Callable[[Weights], VectorTradingEnv],
    *,
    executor: Executor,
    now_ms: Callable[[], int],
    stopping: Callable[[], bool],
    tell: Callable[[Acted], None] = lambda _: None,
    wait_s: float = 60.0,
    lives_s: float | None = None,
) -> None:
    """Act until it is asked to stop, or its life is over.

    Args:
        log: where the streams are.
        place: who it is.
        make_env: environments for what the first weights say.
        executor: a thread for stepping.
        now_ms: wall time of a record, ms since 1970.
        stopping: asked between rollouts.
        tell: told of every rollout.
        wait_s: how long the first weights are waited for.
        lives_s: how long it lives; None: until it is asked to stop.

    Raises:
        TopicError: a stream is gone: a newer generation has taken over, and the next life finds it.
        BrokerError: the log is gone, or nobody publishes weights.
        StreambotError: there is no environment for the weights.
    """
    reader = NewestWeights(log, place.training)
    sink = await log.sink()
    try:
        weights = await reader.read(wait_s)
        if weights is None:
            refused = reader.refused.total()
            raise BrokerError(
                f"nobody has published weights of {place.training.training} within {wait_s:g} s"
                + (f"; {refused} records were refused: torn, or of other observations" if refused else ""),
                where=place.training.topics[POLICY], hint="is the learner of the training running?",
            )  # fmt: skip
        until = None if lives_s is None else asyncio.get_running_loop().time() + lives_s
        await _Life(place, sink, reader, tell, now_ms).run(
            weights, make_env, executor, stopping, until
        )
    finally:
        await asyncio.gather(reader.close(), sink.close(), return_exceptions=True)


class _Life:
    """One life of an actor."""

    def __init__(
        self,
        place: ActorPlace,
        sink: Sink,
        reader: NewestWeights,
        tell: Callable[[Acted], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._place, self._sink, self._reader = place, sink, reader
        self._tell, self._now_ms = tell, now_ms
        self._rollouts = self._steps = 0

    async def run(
        self,
        weights: Weights,
        make_env: Callable[[Weights], VectorTradingEnv],
        executor: Executor,
        stopping: Callable[[], bool],
        until: float | None,
    ) -> None:
        place, loop = self._place, asyncio.get_running_loop()
        training, agent = place.training, weights.agent()
        env = await loop.run_in_executor(executor, make_env, weights)
        collector = Collector(
            env, training.rollout, training=training.training, actor=place.actor,
            incarnation=place.incarnation, seed=seed_of_life(place),
        )  # fmt: skip
        left = weights.head.wanted
        while not stopping() and (until is None or loop.time() < until):
            newer = await self._reader.read(LOOK_S if left <= 0 else 0.0)
            if newer is not None:
                newer.give(agent)
                weights = newer
                # A rollout is more than was asked for: it counts for the next ones too.
                left = newer.head.wanted + (0 if newer.head.urgent else min(left, 0))
            if left > 0:
                await self._publish(collector, agent, weights.head.sequence, executor)
                left -= env.num_envs * training.rollout

    async def _publish(
        self, collector: Collector, agent: PPOAgent, sequence: int, executor: Executor
    ) -> None:
        place = self._place
        collected = await asyncio.get_running_loop().run_in_executor(
            executor, collector.collect, agent, sequence
        )
        for fragment in collected.fragments:
            await self._sink.append(
                self._reader.experience, 0, encode_fragment(fragment),
                timestamp_ms=self._now_ms(), key=place.actor.encode(),
            )  # fmt: skip
            self._steps += fragment.head.steps
        await self._sink.flush()
        self._rollouts += 1
        self._tell(
            Acted(
                self._rollouts, self._steps, sequence, collected.returns,
                self._reader.refused.total(),
            )
        )  # fmt: skip


def seed_of_life(place: ActorPlace) -> int:
    """Seed of episodes and actions of one life of one actor."""
    numbers = [place.training.seed, place.number, place.incarnation]
    drawn = np.random.SeedSequence(numbers).generate_state(2)
    return int(drawn[0]) << 20 | int(drawn[1]) >> 12
