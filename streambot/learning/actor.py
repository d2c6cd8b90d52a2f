"""An actor: trades, publishes what came of it, and takes up newer weights between two rollouts.

    policy -> newest weights -> rollout -> fragments -> experience -> policy ...

It needs no Ray and knows no learner: the weights say what environment they are for, and how many
steps the learner wants of each actor under them. That many it trades, and then waits for newer ones:
so a slow learner slows actors down instead of filling the broker, and experience is never many
updates old. Where no newer ones come for a while it trades as many again, and waits twice as long
the next time: an actor that died may have left the others' share too small.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streambot.domain.errors import BrokerError, DecodeError
from streambot.learning.collecting import Collector
from streambot.learning.weights import Weights, decode_weights
from streambot.streams.fragment import encode_fragment
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from streambot.agents.ppo import PPOAgent
    from streambot.env.vector_env import VectorTradingEnv
    from streambot.streams.ports import Log, Sink, Source

PATIENCE_S = 5.0
"""So long newer weights are waited for at first, before more is traded under the same ones."""
LOOK_S = 0.2
"""How long newer weights are waited for at a time, where there is nothing else to do."""


class ActorPlace(NamedTuple):
    """Who an actor is, and where it reads and writes.

    Attributes:
        training: whose experience it is.
        experience, policy: names of the streams.
        policy_name: key of the weights.
        actor: its name. number: of it among the actors; every one draws other episodes.
        incarnation: number of its life, larger than that of any life before.
        partition: of the experience.
    """

    training: str
    experience: str
    policy: str
    policy_name: str
    actor: str
    number: int
    incarnation: int
    partition: int = 0


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
    """Reads the `policy` stream, and keeps the newest weights of one policy.

    Args:
        source: of the stream.
        training: whose weights count.
        name: of the policy.

    Attributes:
        refused: records that were torn, foreign or older, by reason.
    """

    def __init__(self, source: Source, training: str, name: str) -> None:
        self._source, self._training, self._name = source, training, name
        self._layout: str | None = None
        self._sequence = -1
        self.refused: Counter[str] = Counter()

    async def read(self, timeout_s: float) -> Weights | None:
        """Weights that are newer than those it gave last; None: there are none.

        Args:
            timeout_s: how long to wait for a first record; those behind it are taken as they are.
        """
        newest = None
        while records := await self._source.read(timeout_s=timeout_s if newest is None else 0.0):
            for record in records:
                found = self._decoded(record.value, record.key)
                newest = found or newest
        return newest

    def _decoded(self, value: bytes, key: bytes | None) -> Weights | None:
        if key != self._name.encode():
            return None  # a pin, or another policy
        try:
            found = decode_weights(value, layout=self._layout)
        except DecodeError as error:
            self.refused[error.reason] += 1
            return None
        if found.head.training != self._training:
            self.refused["training"] += 1
            return None
        if found.head.sequence <= self._sequence:
            self.refused["older"] += 1
            return None
        self._layout, self._sequence = found.head.head.agent.layout, found.head.sequence
        return found


async def act(
    log: Log,
    place: ActorPlace,
    make_env: Callable[[Weights], VectorTradingEnv],
    *,
    steps: int,
    seed: int,
    executor: Executor,
    now_ms: Callable[[], int],
    stopping: Callable[[], bool],
    tell: Callable[[Acted], None] = lambda _: None,
    wait_s: float = 60.0,
) -> None:
    """Act until it is asked to stop.

    Args:
        log: where the streams are.
        place: who it is.
        make_env: environments for what the first weights say.
        steps: T, of a rollout.
        seed: of the training; every life of every actor draws its own episodes of it.
        executor: a thread for stepping.
        now_ms: wall time of a record, ms since 1970.
        stopping: asked between rollouts.
        tell: told of every rollout.
        wait_s: how long the first weights are waited for.

    Raises:
        BrokerError: the log is gone, or nobody publishes weights.
        StreambotError: there is no environment for the weights.
    """
    source = await log.source({TopicPartition(place.policy, 0): "beginning"})
    sink = await log.sink()
    reader = NewestWeights(source, place.training, place.policy_name)
    try:
        weights = await reader.read(wait_s)
        if weights is None:
            raise BrokerError(
                f"nobody has published weights of {place.policy_name} within {wait_s:g} s",
                where=place.policy, hint="is the learner of the training running?",
            )  # fmt: skip
        await _Life(place, sink, reader, tell, now_ms).run(
            weights, make_env, steps, seed, executor, stopping
        )
    finally:
        await asyncio.gather(source.close(), sink.close(), return_exceptions=True)


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
        steps: int,
        seed: int,
        executor: Executor,
        stopping: Callable[[], bool],
    ) -> None:
        place, loop = self._place, asyncio.get_running_loop()
        agent = weights.agent()
        env = await loop.run_in_executor(executor, make_env, weights)
        collector = Collector(
            env, steps, training=place.training, actor=place.actor,
            incarnation=place.incarnation, seed=seed_of_life(seed, place),
        )  # fmt: skip
        left, patience, since = weights.head.wanted, PATIENCE_S, loop.time()
        while not stopping():
            newer = await self._reader.read(LOOK_S if left <= 0 else 0.0)
            if newer is not None:
                newer.give(agent)
                weights = newer
                left, patience, since = weights.head.wanted, PATIENCE_S, loop.time()
            elif left <= 0 and loop.time() - since > patience:
                left, patience = max(weights.head.wanted, 1), 2 * patience
                since = loop.time()
            if left > 0:
                await self._publish(collector, agent, weights.head.sequence, executor)
                left -= env.num_envs * steps

    async def _publish(
        self, collector: Collector, agent: PPOAgent, sequence: int, executor: Executor
    ) -> None:
        place = self._place
        collected = await asyncio.get_running_loop().run_in_executor(
            executor, collector.collect, agent, sequence
        )
        for fragment in collected.fragments:
            await self._sink.append(
                place.experience, place.partition, encode_fragment(fragment),
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


def seed_of_life(seed: int, place: ActorPlace) -> int:
    """Seed of episodes and actions of one life of one actor."""
    drawn = np.random.SeedSequence([seed, place.number, place.incarnation]).generate_state(2)
    return int(drawn[0]) << 20 | int(drawn[1]) >> 12
