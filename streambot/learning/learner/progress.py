"""How a learner learns, and what it tells of every update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from streambot.learning.learner.buffer import MAX_LAG
from streambot.learning.looking import Look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from streambot.agents.ppo import PPOAgent
    from streambot.streams.fragment import Fragment

Count = Annotated[int, Meta(ge=1, le=2**31)]


class LearnerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a learner learns from a stream.

    Attributes:
        batch: steps of an update.
        updates: in all.
        checkpoint_every: updates between two checkpoints, and two looks at what is held out.
        max_lag: see `buffer.MAX_LAG`.
        silence_s: without experience for so long, it gives up.
    """

    batch: Count = 8_192
    updates: Count = 250
    checkpoint_every: Count = 25
    max_lag: Annotated[int, Meta(ge=0)] = MAX_LAG
    silence_s: Annotated[float, Meta(gt=0)] = 60.0


class Learns(Protocol):
    """What moves the weights: `StreamPPO`, `StreamAPPO`."""

    def update(
        self, fragments: Sequence[Fragment], rewards: Sequence[Any], *, progress: float = 0.0
    ) -> dict[str, float]:
        """One update; what was measured of it, by name.

        Args:
            progress: share of the training that is done, 0 to 1, for the schedules.
        """

    def fetch(self, agent: PPOAgent) -> None:
        """Put the weights as they are now into an agent."""

    def memory(self) -> dict[str, Tensor]:
        """What the optimizer remembers, by name."""

    def remember(self, memory: dict[str, Tensor]) -> None:
        """Take over what `memory` gave."""


class Learnt(NamedTuple):
    """What an update brought.

    Attributes:
        update, updates: done, and of the whole training.
        steps: learnt from so far.
        reward: mean reward of a step of the batch, as the environment pays it.
        returns: total rewards of episodes that ended in the batch.
        lag, worst_lag: updates between sampling and learning, median and largest of the batch's
            fragments.
        counts: see `ExperienceBuffer.counts`.
        waiting: steps that were read and not learnt from yet.
        actors: that were heard of in the last updates.
        measured: of the update, by name.
        look: at what is held out; None: not now.
        experience: offsets of the first and the last fragment of the batch, by stream. An update that
            is made again after a crash has the same ones.
    """

    update: int
    updates: int
    steps: int
    reward: float
    returns: tuple[float, ...]
    lag: float
    worst_lag: int
    counts: dict[str, int]
    waiting: int
    actors: int
    measured: dict[str, float]
    look: Look | None = None
    experience: dict[str, tuple[int, int]] = {}  # noqa: RUF012  # nobody writes to it

    @property
    def episode_return(self) -> float | None:
        """Mean total reward of the episodes that ended; None: none did."""
        return sum(self.returns) / len(self.returns) if self.returns else None

    def said(self) -> dict[str, Any]:
        """The same for programs."""
        fields = {**self._asdict(), "returns": len(self.returns)}
        fields["episodes"] = fields.pop("returns")
        fields["episode_return"] = self.episode_return
        fields["look"] = None if self.look is None else self.look._asdict()
        return fields
