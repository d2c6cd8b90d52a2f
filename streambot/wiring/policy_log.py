"""A policy that is trained in one process, on the `policy` stream of a broker as it becomes.

For trainings without a learner (`meta-train`): whoever serves policies from a broker finds these as
well. The policy's folder stays what counts: a broker that goes away ends the publishing, not the
training.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

import msgspec

from streambot.domain.errors import StreambotError
from streambot.learning.declaration import POLICY, STATUS, State, Training, declare_training
from streambot.wiring.bridge import Bridge
from streambot.wiring.declaring import wall_ms
from streambot.wiring.places import open_lasting
from streambot.wiring.trained_on import DATA
from streambot.wiring.training_streams import create_training, training_topics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streambot.agents.ppo import PPOAgent
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.learning.learner.publishing import Publisher
    from streambot.learning.trainer import Kept
    from streambot.wiring.places import Place
    from streambot.wiring.training import Split, TrainingRequest

POLICY_NAME = "main"


class PolicyLog:
    """Publishes a policy; a context manager.

    Args:
        servers, security: the broker. namespace, name: of the training.
        cwd: where `topics.yaml` is looked for.
        request, split: see `wiring.training`.
        agent: what is trained.
        kept: what its checkpoints say.
        resumed: it goes on, so its streams may hold records.
        warned: told once where the broker goes away.

    Raises:
        StreambotError: on entering: no broker, or the name is taken.
    """

    def __init__(
        self,
        servers: str,
        security: KafkaSecurity,
        namespace: str,
        name: str,
        cwd: Path,
        request: TrainingRequest,
        split: Split,
        agent: PPOAgent,
        kept: Kept,
        *,
        resumed: bool,
        warned: Callable[[str], None],
    ) -> None:
        self._servers, self._security, self._cwd = servers, security, cwd
        self._agent, self._kept, self._resumed, self._warned = agent, kept, resumed, warned
        topics = training_topics(namespace, name, cwd, lasting=True)
        self._training = Training(
            namespace=namespace, training=name, policy=POLICY_NAME, topics=topics,
            request=msgspec.Raw(msgspec.json.encode(request)), data=split.about[DATA],
            layout=agent.config.layout, seed=request.seed, envs=1, rollout=1,
        )  # fmt: skip
        self._bridge = Bridge()
        self._place: Place | None = None
        self._publisher: Publisher | None = None
        self.published = -1
        """Sequence number of the weights that were published last."""

    def __enter__(self) -> Self:
        self._bridge.__enter__()
        try:
            self._bridge.wait(self._open())
        except BaseException:
            self._bridge.__exit__()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if kind is not None:
            self.end(State.STOPPED)
        if self._publisher is not None:
            with contextlib.suppress(StreambotError):
                self._bridge.wait(self._publisher.close())
        with contextlib.suppress(StreambotError):
            self._bridge.__exit__()

    def publish(self, sequence: int, names: tuple[str, ...], progress: dict[str, float]) -> None:
        """Publish the weights as they are now; nothing where the broker has gone."""
        if self._publisher is None or sequence <= self.published:
            return
        from streambot.learning.learner.publishing import Publication
        from streambot.learning.weights import encode_weights

        training = self._training
        record = encode_weights(
            self._agent, training=training.training, policy=training.policy, sequence=sequence,
            env=self._kept.env, about=self._kept.about, names=names, progress=progress,
        )  # fmt: skip
        records = [(training.topics[POLICY], training.policy.encode(), record)]
        try:
            self._bridge.wait(self._publisher.publish(Publication(records, {}, wall_ms())))
        except StreambotError as error:
            self._publisher = None
            self._warned(
                f"the policy is published no more, and kept in its folder: {error.message}"
            )
        else:
            self.published = sequence

    def end(self, state: State) -> None:
        """Declare how it ended; of one that never began nothing stays."""
        if self._publisher is None or self._place is None:
            return
        if self.published < 0 and not self._resumed:
            with contextlib.suppress(StreambotError):
                self._bridge.wait(self._place.log.delete(list(self._training.topics.values())))
            return
        last = msgspec.structs.replace(self._training, state=state)
        with contextlib.suppress(StreambotError):
            self._bridge.wait(declare_training(self._place.log, last, at_ms=wall_ms()))

    async def _open(self) -> None:
        from streambot.learning.learner.publishing import Publisher

        training = self._training
        self._place = place = await self._bridge.entered(
            open_lasting(self._servers, self._security)
        )
        await create_training(place, training.topics, self._cwd, resumed=self._resumed)
        await declare_training(place.log, training, at_ms=wall_ms())
        self._publisher = await Publisher.open(
            place.log, f"{training.namespace}.{training.training}",
            [training.topics[POLICY], training.topics[STATUS]], transactional=place.transactional,
        )  # fmt: skip
