"""The learner's loop: experience in, one update at a time, weights out, and checkpoints to go on from.

    read -> buffer -> (enough?) -> update in a thread -> publish -> (checkpoint) -> (enough?) ...
                          no -> (for long?) -> ask the actors again

Positions, the optimizer's memory and the weights' sequence stand in one checkpoint, so a learner that
is started again reads on in front of what the checkpoint had not learnt. Updates behind it are made
again, on the same experience as long as its topic keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
from statistics import median
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streambot.agents.moe import MoEAgent
from streambot.domain.errors import BrokerError, DataError
from streambot.env.fields import observation_fields
from streambot.env.settings import make_config
from streambot.learning.declaration import EXPERIENCE, POLICY, STATUS, STATUS_SCHEMA
from streambot.learning.learner.buffer import BufferState, ExperienceBuffer
from streambot.learning.learner.demand import AHEAD, Demand
from streambot.learning.learner.feeding import ExperienceReader
from streambot.learning.learner.keeping import (
    BUFFER,
    UNTOLD,
    USAGE,
    Whole,
    buffer_of,
    frozen,
    keep,
    memory_of_learns,
    untold_of,
)
from streambot.learning.learner.progress import Learnt
from streambot.learning.learner.publishing import Publication, Publisher
from streambot.learning.learner.returns import Returns
from streambot.learning.learner.telling import Untold
from streambot.learning.regimes import Usage
from streambot.learning.scaling import RewardScale
from streambot.learning.weights import encode_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    import numpy.typing as npt

    from streambot.agents.ppo import PPOAgent
    from streambot.learning.declaration import Training
    from streambot.learning.learner.generations import Generations
    from streambot.learning.learner.progress import LearnerConfig, Learns
    from streambot.learning.looking import Look
    from streambot.learning.policy import LoadedPolicy
    from streambot.learning.trainer import Kept
    from streambot.streams.fragment import Fragment
    from streambot.streams.ports import Log, Record, Start

READ_S = 0.1
CONFIRM = 16
"""So many updates are told before it is asked whether they can be read; with every checkpoint, at once."""
MOST_BATCHES = 8
"""So many wait at most: more is left in the stream."""
_CATCH_UP_S = 5.0
"""What the stream is known to hold is there by then."""


class Learner:
    """Learns from the streams of a training.

    Args:
        log: where they are.
        training: as it is declared.
        agent: the policy; its weights are begun with, and follow those of `learns`.
        learns: what moves them.
        config: see `LearnerConfig`.
        kept: what checkpoints say.
        executor: a thread for updates.
        now_ms: wall time of a record, ms since 1970.
        transactional: the log has transactions.
        generations: of the streams, on a broker that keeps everything in memory; None: they last.
        look: at what is held out, with every checkpoint.
        tell: told of every update.
        stopping: asked between reads.
        resume: a checkpoint of the same training to go on from.
        again: experience is read again from here on, however old it is; None: it is not.
        actors: that will come, before any was heard of.

    Attributes:
        done, steps: updates made, and steps learnt from.
    """

    def __init__(
        self,
        log: Log,
        training: Training,
        agent: PPOAgent,
        learns: Learns,
        config: LearnerConfig,
        kept: Kept,
        *,
        executor: Executor,
        now_ms: Callable[[], int],
        transactional: bool = False,
        generations: Generations | None = None,
        look: Callable[[PPOAgent], Look] | None = None,
        tell: Callable[[Learnt], None] = lambda _: None,
        stopping: Callable[[], bool] = lambda: False,
        resume: LoadedPolicy | None = None,
        again: Start | None = None,
        actors: int = 1,
    ) -> None:
        self._demand = Demand(config.batch, actors)
        self._log, self._training, self._config, self._kept = log, training, config, kept
        self._agent, self._learns = agent, learns
        self._executor, self._now_ms, self._look_at = executor, now_ms, look
        self._transactional, self._generations = transactional, generations
        self._tell, self._stopping, self._again = tell, stopping, again
        progress = {} if resume is None else resume.head.progress
        # Of the checkpoint that it goes on from, and as large as that one's past.
        self._about = {
            name: text for name, text in kept.about.items() if name not in (BUFFER, UNTOLD)
        }
        self.done, self.steps = int(progress.get("updates", 0)), int(progress.get("steps", 0))
        self._scale = RewardScale.of_progress(agent.config.learn.gamma, progress)
        self._usage, self._names = Usage(), () if resume is None else resume.head.names
        config_seen = make_config(kept.env)
        self._fields = observation_fields(config_seen.window, config_seen.features)
        self._begun = BufferState({})
        if resume is not None:
            # Streams that went with their broker are begun anew.
            self._begun = buffer_of(resume) if generations is None else BufferState({})
            learns.remember(memory_of_learns(resume))
            if USAGE in resume.extra:
                self._usage.mean = resume.extra[USAGE].numpy()
        self._buffer = self._new_buffer()
        self._whole = self._now()
        self._untold = Untold(() if resume is None else untold_of(resume))
        self._returns = Returns()
        self._heard_at, self._come = 0.0, asyncio.Event()
        # A life of its own: weights of one that goes on from a checkpoint may be fewer updates old.
        self._life = now_ms()
        self._reader = ExperienceReader(log)
        self._old: list[tuple[Training, int]] = []
        """Generations that came before, and the update at which the next one was opened."""

    def _new_buffer(self) -> ExperienceBuffer:
        return ExperienceBuffer(
            self._training.training, self._agent.config.layout, self._begun,
            max_lag=self._config.max_lag,
        )  # fmt: skip

    def keep(self) -> None:
        """Write the checkpoint, as the training was behind its last whole update.

        Raises:
            DataError: the folder cannot be written.
        """
        whole = self._whole._replace(untold=self._untold.records)
        keep(whole, self._agent, self._kept)

    def _now(self) -> Whole:
        """The training between two updates."""
        return Whole(
            self.done, self.steps, frozen(self._agent.state()), self._learns.memory(),
            self._buffer.state(), self._scale.progress, self._usage.mean, self._names,
        )  # fmt: skip

    async def run(self) -> bool:
        """Learn until all updates are made (True) or it is asked to stop (False).

        Raises:
            FencedError: another learner of the training has taken over.
            BrokerError: the log is gone, or no experience comes.
            StreamError: experience is missing.
            DataError: the checkpoint cannot be written, or the weights are no numbers any more.
        """
        training, config = self._training, self._config
        loop = asyncio.get_running_loop()
        publisher = await Publisher.open(
            self._log, f"{training.namespace}.{training.training}",
            [training.topics[POLICY], training.topics[STATUS]], transactional=self._transactional,
        )  # fmt: skip
        pumping: asyncio.Task[None] | None = None
        try:
            await self._reader.begin({training.topics[EXPERIENCE]: await self._start()})
            await self._catch_up()
            await self._untold.look(self._log, training.topics[STATUS])
            await self._publish(publisher)
            self._heard_at = asked_at = loop.time()
            pumping = asyncio.create_task(self._pump(), name="experience")
            while self.done < config.updates and not self._stopping():
                if fragments := self._buffer.take(config.batch, self.done):
                    learnt = await self._update(fragments)
                    await self._publish(publisher, learnt)
                    if self._due:
                        await self._arrived(publisher, 1)
                        self.keep()
                        await self._drop()
                    self._tell(learnt)
                    self._heard_at = asked_at = loop.time()
                    continue
                self._come.clear()
                await publisher.sent()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READ_S):
                        await self._come.wait()
                if pumping.done():
                    pumping.result()
                if loop.time() - self._heard_at > config.silence_s:
                    raise self._silent()
                if loop.time() - asked_at > self._demand.patience_s:
                    self._demand.ask_again()
                    await self._publish(publisher)
                    asked_at = loop.time()
            await publisher.settle()
            self._untold.confirm()
            return self.done >= config.updates
        finally:
            if pumping is not None:
                pumping.cancel()
                await asyncio.gather(pumping, return_exceptions=True)
            self.keep()
            await asyncio.gather(self._reader.close(), publisher.close(), return_exceptions=True)

    async def _pump(self) -> None:
        """Read on while the learner learns."""
        while True:
            if self._buffer.steps >= MOST_BATCHES * self._config.batch:
                await asyncio.sleep(READ_S)
            elif records := await self._reader.read(READ_S):
                self._offer(records)

    def _offer(self, records: list[Record]) -> None:
        known = self._buffer.counts["read"]
        self._buffer.offer(records, self.done)
        if self._buffer.counts["read"] > known:
            self._heard_at = asyncio.get_running_loop().time()
        self._wrote(sum(len(record.value) for record in records))
        self._come.set()

    async def _catch_up(self) -> None:
        """Take in what is there already: nobody need be asked for that."""
        (stream,) = self._reader.streams
        (end,) = await self._log.end_offsets(stream)
        while (
            self._buffer.offset(stream) < end
            and self._buffer.steps < AHEAD * self._config.batch
            and (records := await self._reader.read(_CATCH_UP_S))
        ):
            self._offer(records)

    async def _start(self) -> Start:
        """Where experience is read from."""
        stream = self._training.topics[EXPERIENCE]
        if self._again is None:
            return self._begun.offsets.get(stream, "beginning")
        (end,) = await self._log.end_offsets(stream)
        self._begun = msgspec.structs.replace(
            self._begun, offsets={}, lives=(), again={stream: end}
        )
        self._buffer = self._new_buffer()
        return self._again

    def _silent(self) -> BrokerError:
        strange = self._buffer.counts["foreign"]
        return BrokerError(
            f"no experience for {self._config.silence_s:g} s"
            + (f", but {strange:,} fragments of another training or layout" if strange else ""),
            where=self._training.topics[EXPERIENCE],
            hint="do the actors of the training run, with this version of streambot and its data?"
            if strange
            else "do the actors of the training run, and can they reach the broker?",
        )

    async def _update(self, fragments: list[Fragment]) -> Learnt:
        lags = [max(0, self.done - fragment.head.weights) for fragment in fragments]
        loop = asyncio.get_running_loop()
        measured = await loop.run_in_executor(self._executor, self._learn, fragments)
        self.done += 1
        self._demand.served((fragment.head.actor for fragment in fragments), self.done)
        self.steps += sum(fragment.head.steps for fragment in fragments)
        self._whole, taken = self._now(), self._buffer.taken
        look = None
        if self._due and self._look_at is not None:
            look = await loop.run_in_executor(self._executor, self._look_at, self._agent)
        paid = np.concatenate([fragment.reward for fragment in fragments])
        return Learnt(
            self.done, self._config.updates, self.steps, float(paid.mean()),
            self._returns.see(fragments), median(lags), max(lags), dict(self._buffer.counts),
            self._buffer.steps, self._demand.actors(self.done), measured, look, taken,
        )  # fmt: skip

    @property
    def _due(self) -> bool:
        """Is a checkpoint, behind this update?"""
        config = self._config
        return self.done % config.checkpoint_every == 0 or self.done == config.updates

    def _scaled(self, fragments: list[Fragment]) -> list[npt.NDArray[np.float32]]:
        """Rewards to learn from; fragments of one length are counted in together."""
        by_length: dict[int, list[npt.NDArray[np.float32]]] = {}
        for fragment in fragments:
            by_length.setdefault(fragment.head.steps, []).append(fragment.reward)
        for rewards in by_length.values():
            side_by_side = np.stack(rewards, axis=1)
            self._scale.see(side_by_side, np.zeros(side_by_side.shape, np.bool_))
        return [self._scale(fragment.reward) for fragment in fragments]

    def _learn(self, fragments: list[Fragment]) -> dict[str, float]:
        measured = self._learns.update(
            fragments, self._scaled(fragments), progress=self.done / self._config.updates
        )
        before = {n: v.clone() for n, v in self._agent.network.state_dict().items()}
        self._learns.fetch(self._agent)
        if not all(bool(v.isfinite().all()) for v in self._agent.network.state_dict().values()):
            self._agent.network.load_state_dict(before)
            raise DataError(
                "the weights are no numbers any more: the update was left",
                hint="a smaller learning rate; the checkpoint is from before",
            )
        if isinstance(self._agent, MoEAgent):
            obs = np.concatenate([fragment.obs[:-1] for fragment in fragments])
            gate = np.concatenate([fragment.gate for fragment in fragments])
            self._usage.see(gate, obs, self._fields)
            self._names = self._usage.names or self._names
        return measured or {}

    async def _arrived(self, publisher: Publisher, least: int = CONFIRM) -> None:
        """Wait until all that was published is there; of so many updates, ask whether they can be read."""
        await publisher.sent()
        if len(self._untold.records) >= least and await publisher.visible():
            self._untold.confirm()

    async def _publish(self, publisher: Publisher, learnt: Learnt | None = None) -> None:
        """Weights of now, how far they have come, and what the update brought."""
        if learnt is not None:
            said = {"schema": STATUS_SCHEMA, **learnt.said()}
            self._untold.add(msgspec.json.encode(said))
        await self._arrived(publisher)
        before = self._training
        if self._generations is not None and self._generations.due:
            self._training = await self._generations.roll()
            self._old.append((before, self.done))
            stream = self._training.topics[EXPERIENCE]
            await self._reader.begin({stream: "beginning"})
        topics = self._training.topics
        record = encode_weights(
            self._agent, training=self._training.training, policy=self._training.policy,
            sequence=self.done, learner=self._life, wanted=self._demand.wanted(self._buffer.steps, self.done),
            urgent=self._buffer.steps < self._config.batch, env=self._kept.env, about=self._about,
            names=self._names, progress={"updates": self.done, "steps": self.steps},
            experience=topics[EXPERIENCE], stream=topics[POLICY],
        )  # fmt: skip
        key = self._training.policy.encode()
        # The newer stream first: whoever is told of it finds the weights there.
        records = [(one, key, record) for one in {topics[POLICY]: 0, before.topics[POLICY]: 0}]
        records += [(topics[STATUS], b"update", said) for said in self._untold.send()]
        positions = self._whole.buffer.offsets if self._generations is None else {}
        await publisher.send(Publication(records, positions, self._now_ms()))
        self._wrote(len(record))

    def _wrote(self, size: int) -> None:
        if self._generations is not None:
            self._generations.wrote(size)

    async def _drop(self) -> None:
        """Let generations go that the checkpoint covers, and that nothing useful comes to any more."""
        for old in list(self._old):
            training, at = old
            stream = training.topics[EXPERIENCE]
            if self.done - at <= self._config.max_lag or self._buffer.held(stream):
                continue
            self._old.remove(old)
            await self._reader.finish(stream)
            self._buffer.forget(stream)
            await self._log.delete([stream, training.topics[POLICY]])
