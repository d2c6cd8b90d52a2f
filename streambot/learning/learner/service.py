"""The learner's loop: experience in, one update at a time, weights out, and checkpoints to go on from.

    read -> buffer -> (enough?) -> update in a thread -> publish -> (checkpoint) -> read ...

Positions, the optimizer's memory and the weights' sequence stand in one checkpoint, so a learner that
is started again reads on in front of what the checkpoint had not learnt. Updates behind it are made
again, on the same experience as long as its topic keeps it.
"""

from __future__ import annotations

import asyncio
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from streambot.agents.checkpoint import save_checkpoint
from streambot.agents.memory import part_of
from streambot.domain.errors import BrokerError, DataError
from streambot.learning.learner.buffer import MAX_LAG, BufferState, ExperienceBuffer
from streambot.learning.scaling import RewardScale
from streambot.learning.weights import encode_weights
from streambot.streams.ports import Start, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from torch import Tensor

    from streambot.agents.ppo import PPOAgent
    from streambot.learning.policy import LoadedPolicy
    from streambot.learning.trainer import Kept
    from streambot.streams.fragment import Fragment
    from streambot.streams.ports import Log

Count = Annotated[int, Meta(ge=1, le=2**31)]
BUFFER, MEMORY = "buffer", "optimizer."
READ_S = 0.2
RECENT = 3
"""An actor that was not heard of for more updates counts as gone."""


class LearnerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a learner learns from a stream.

    Attributes:
        batch: steps of an update.
        updates: in all.
        checkpoint_every: updates between two checkpoints.
        max_lag: see `buffer.MAX_LAG`.
        silence_s: without experience for so long, it gives up.
    """

    batch: Count = 8_192
    updates: Count = 250
    checkpoint_every: Count = 25
    max_lag: Annotated[int, Meta(ge=0)] = MAX_LAG
    silence_s: Annotated[float, Meta(gt=0)] = 60.0


class LearnerPlace(NamedTuple):
    """Whose learner it is, and where it reads and writes.

    Attributes:
        training: whose experience counts.
        experience, policy: names of the streams. partitions: of the experience.
        policy_name: key of the weights.
    """

    training: str
    experience: str
    partitions: int
    policy: str
    policy_name: str


class Learns(Protocol):
    """What moves the weights: `StreamPPO`."""

    def update(self, fragments: Sequence[Fragment], rewards: Sequence[Any]) -> None:
        """One update."""

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
        lag: updates between sampling and learning, median of the batch's fragments.
        counts: see `ExperienceBuffer.counts`.
        waiting: steps that were read and not learnt from yet.
    """

    update: int
    updates: int
    steps: int
    reward: float
    lag: float
    counts: dict[str, int]
    waiting: int


class Learner:
    """Learns from the stream of a training.

    Args:
        log: where the streams are.
        place: which ones.
        agent: the policy; its weights are begun with, and follow those of `learns`.
        learns: what moves them.
        config: see `LearnerConfig`.
        kept: what checkpoints say.
        executor: a thread for updates.
        now_ms: wall time of a record, ms since 1970.
        tell: told of every update.
        stopping: asked between reads.
        resume: a checkpoint of the same training to go on from.
    """

    def __init__(
        self,
        log: Log,
        place: LearnerPlace,
        agent: PPOAgent,
        learns: Learns,
        config: LearnerConfig,
        kept: Kept,
        *,
        executor: Executor,
        now_ms: Callable[[], int],
        tell: Callable[[Learnt], None] = lambda _: None,
        stopping: Callable[[], bool] = lambda: False,
        resume: LoadedPolicy | None = None,
    ) -> None:
        self._log, self._place, self._config, self._kept = log, place, config, kept
        self._agent, self._learns = agent, learns
        self._executor, self._now_ms = executor, now_ms
        self._tell, self._stopping = tell, stopping
        progress = {} if resume is None else resume.head.progress
        self.done, self.steps = int(progress.get("updates", 0)), int(progress.get("steps", 0))
        self._scale = RewardScale.of_progress(agent.config.learn.gamma, progress)
        state = None
        if resume is not None:
            state = _buffer_of(resume)
            learns.remember(part_of(resume.extra, MEMORY))
        self._buffer = ExperienceBuffer(
            place.training, agent.config.layout, state, max_lag=config.max_lag
        )
        self._state = self._buffer.state()
        self._memory = learns.memory()
        self._heard: dict[str, int] = {}

    async def run(self) -> bool:
        """Learn until all updates are made (True) or it is asked to stop (False).

        Raises:
            BrokerError: the log is gone, or no experience comes.
            StreamError: experience is missing.
            DataError: the checkpoint cannot be written, or the weights are no numbers any more.
        """
        place, config = self._place, self._config
        starts: dict[TopicPartition, Start] = {
            TopicPartition(place.experience, p): self._state.offsets.get(p, "beginning")
            for p in range(place.partitions)
        }
        source, sink = await self._log.source(starts), await self._log.sink()
        loop = asyncio.get_running_loop()
        try:
            await self._publish(sink)
            heard = loop.time()
            while self.done < config.updates and not self._stopping():
                records = await source.read(timeout_s=READ_S)
                if records:
                    heard = loop.time()
                    self._buffer.offer(records, self.done)
                elif loop.time() - heard > config.silence_s:
                    raise BrokerError(
                        f"no experience for {config.silence_s:g} s", where=place.experience,
                        hint="do the actors of the training run, and can they reach the broker?",
                    )  # fmt: skip
                while fragments := self._buffer.take(config.batch, self.done):
                    await self._update(fragments)
                    await self._publish(sink)
                    heard = loop.time()
                    if self.done >= config.updates or self._stopping():
                        break
            return self.done >= config.updates
        finally:
            self._save()
            await asyncio.gather(source.close(), sink.close(), return_exceptions=True)

    async def _update(self, fragments: list[Fragment]) -> None:
        lags = [self.done - fragment.head.weights for fragment in fragments]
        rewards = [self._scaled(fragment) for fragment in fragments]
        await asyncio.get_running_loop().run_in_executor(
            self._executor, self._learn, fragments, rewards
        )
        self.done += 1
        self._heard |= {fragment.head.actor: self.done for fragment in fragments}
        self.steps += sum(fragment.head.steps for fragment in fragments)
        self._state = self._buffer.state()
        if self.done % self._config.checkpoint_every == 0:
            self._save()
        paid = np.concatenate([fragment.reward for fragment in fragments])
        self._tell(
            Learnt(
                self.done, self._config.updates, self.steps, float(paid.mean()), median(lags),
                dict(self._buffer.counts), self._buffer.steps,
            )
        )  # fmt: skip

    def _wanted(self) -> int:
        """Steps that each actor is asked for, so that there is a batch and a half before long."""
        recent = {a for a, update in self._heard.items() if self.done - update <= RECENT}
        missing = self._config.batch + self._config.batch // 2 - self._buffer.steps
        return ceil(max(0, missing) / max(1, len(recent)))

    def _scaled(self, fragment: Fragment) -> Any:  # noqa: ANN401
        over = np.zeros((fragment.head.steps, 1), np.bool_)
        self._scale.see(fragment.reward[:, None], over)
        return self._scale(fragment.reward)

    def _learn(self, fragments: list[Fragment], rewards: list[Any]) -> None:
        self._learns.update(fragments, rewards)
        before = {n: v.clone() for n, v in self._agent.network.state_dict().items()}
        self._learns.fetch(self._agent)
        if not all(bool(v.isfinite().all()) for v in self._agent.network.state_dict().values()):
            self._agent.network.load_state_dict(before)
            raise DataError(
                "the weights are no numbers any more: the update was left",
                hint="a smaller learning rate; the checkpoint is from before",
            )
        self._memory = self._learns.memory()

    async def _publish(self, sink: Any) -> None:  # noqa: ANN401
        place = self._place
        record = encode_weights(
            self._agent, training=place.training, policy=place.policy_name, sequence=self.done,
            wanted=self._wanted(), env=self._kept.env, about=self._kept.about,
            progress={"updates": self.done, "steps": self.steps},
        )  # fmt: skip
        await sink.append(
            place.policy, 0, record, timestamp_ms=self._now_ms(), key=place.policy_name.encode()
        )
        await sink.flush()

    def _save(self) -> None:
        progress = {"updates": self.done, "steps": self.steps} | self._scale.progress
        about = self._kept.about | {BUFFER: msgspec.json.encode(self._state).decode()}
        memory = {f"{MEMORY}{name}": value for name, value in self._memory.items()}
        save_checkpoint(
            self._kept.folder, self._agent, progress=progress, about=about, env=self._kept.env,
            extra=memory,
        )  # fmt: skip


def _buffer_of(resume: LoadedPolicy) -> BufferState:
    try:
        return msgspec.json.decode(resume.head.about[BUFFER], type=BufferState)
    except (KeyError, msgspec.MsgspecError) as cause:
        raise DataError(
            "the checkpoint does not say how far experience was learnt from",
            hint="a folder that a learner wrote",
        ) from cause
