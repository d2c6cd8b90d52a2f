"""Policies that serve: published weights kept as a checkpoint, or swapped under an agent that trades.

*Kept*: a run reads weights once, and has them in its folder from then on; so it goes on, and is
verified, with these weights whatever its training does meanwhile.

*Followed*: an actor decides with the newest weights there are. They change between two frames, never
inside one. What it had answered before it was started again it answers again, as it stands on the
log, whatever the weights of now would say.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from streambot.agents.checkpoint import FORMAT, save_checkpoint
from streambot.domain.errors import DataError, StreambotError
from streambot.learning.acting import TrainedPolicy
from streambot.learning.policy import LoadedPolicy, known_to
from streambot.learning.published import PUBLISHED, SERVED
from streambot.learning.weights import Weights, decode_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from streambot.agents.checkpoint import Head
    from streambot.env.trader import Decided

_SEQUENCE = "weights_seq_no"


def loaded(weights: Weights, where: str) -> LoadedPolicy:
    """The policy of published weights, and the environment that it knows.

    Args:
        weights: read and checked.
        where: stream, for messages.

    Raises:
        DataError: they are of another version, or of observations that are others here and now.
        DecodeError: they do not fit the agent that they name.
        ConfigError: the settings of their environment are wrong.
    """
    head = weights.head.head
    if head.format != FORMAT:
        raise DataError(
            f"weights of format {head.format}, and this version reads {FORMAT}", where=where,
            hint="written by another version of streambot?",
        )  # fmt: skip
    config, layout = known_to(head, where)
    if head.agent.layout != layout:
        raise DataError(
            f"the policy was trained on other observations or actions (layout {head.agent.layout}, "
            f"not {layout})",
            where=where,
            hint="written by another version of streambot?",
        )
    numbered = head.progress | {_SEQUENCE: weights.head.sequence}
    head = msgspec.structs.replace(head, progress=numbered)
    return LoadedPolicy(weights.agent(), config, head, {})


def keep(record: bytes, folder: Path, *, name: str, layout: str, where: str) -> Head:
    """Published weights as a checkpoint, the same one for the same record.

    Args:
        record: as it was published.
        folder: of the checkpoint.
        name: `training@sequence`, which the checkpoint says of itself.
        layout: of the training.
        where: stream, for messages.

    Raises:
        StreamError: the record is torn, or of another layout.
        DataError: it is of another version; or the folder cannot be written.
    """
    weights = decode_weights(record, layout=layout)
    policy = loaded(weights, where)
    head = policy.head
    about = head.about | {SERVED: name, PUBLISHED: head.digest}
    return save_checkpoint(
        folder, policy.agent, progress=head.progress, about=about, env=head.env, names=head.names
    )


class Supply:
    """The weights to decide with now, for all partitions of an actor.

    Args:
        weights: the first ones.
        where: stream, for messages.
        taken: told whenever a partition is the first to decide with other weights: theirs, and those
            of before. Called from any thread.

    Raises:
        StreambotError: there is no policy for the weights.

    Attributes:
        config: of the environment that the policy knows.
        policy: that decides now. sequence: of its weights.
        digest: of the first weights.
    """

    def __init__(
        self,
        weights: Weights,
        where: str,
        taken: Callable[[int, int], None] = lambda _now, _before: None,
    ) -> None:
        policy = loaded(weights, where)
        self._where, self._taken = where, taken
        self._env = weights.head.head.env
        self._lock = threading.Lock()
        self.config = policy.config
        self.policy = TrainedPolicy(policy, where)
        self.sequence = weights.head.sequence
        self.digest = policy.head.digest
        self._used: dict[int, None] = {}

    @property
    def used(self) -> list[int]:
        """Sequences of the weights that have decided, in the order in which they first did."""
        return list(self._used)

    def offer(self, weights: Weights) -> str:
        """Decide with these from the next frames on; empty, or why not.

        The environment that they know must be the same: what was observed so far goes on.
        """
        head = weights.head
        if head.sequence <= self.sequence:
            return ""
        if head.head.env != self._env:
            return f"weights {head.sequence} are of another environment"
        try:
            policy = TrainedPolicy(loaded(weights, self._where), self._where)
        except StreambotError as error:
            return f"weights {head.sequence} cannot be used: {error.message}"
        self.policy, self.sequence = policy, head.sequence
        return ""

    def note(self, sequence: int) -> None:
        """Weights have decided."""
        with self._lock:
            if sequence in self._used:
                return
            before = next(reversed(self._used), None)
            self._used[sequence] = None
        if before is not None:
            self._taken(sequence, before)


class Seat:
    """The policy of one partition, `env.trader.Policy`: the weights with which its frame began."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self.next_frame()

    def next_frame(self) -> None:
        """A frame begins: from here on the newest weights decide."""
        self._policy = self._supply.policy
        self.experts, self.version = self._policy.experts, self._policy.version
        self._noted = False

    def decide(self, observation: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]) -> Decided:
        """See `env.trader.Policy`."""
        if not self._noted and self.version is not None:
            self._noted = True
            self._supply.note(self.version)
        return self._policy.decide(observation, mask)
