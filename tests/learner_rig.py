"""Actors and a learner over any log, and what everybody told: for tests of the two together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import torch

from streambot.agents.batch import LearnConfig
from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import PPOAgent
from streambot.learning.actor import Acted, ActorPlace, act
from streambot.learning.declaration import Training, declare_training, generation, read_training
from streambot.learning.learner.generations import Generations
from streambot.learning.learner.progress import LearnerConfig, Learns, Learnt
from streambot.learning.learner.service import Learner
from streambot.learning.policy import agent_config, load_policy
from streambot.learning.trainer import Kept
from streambot.streams.fragment import Fragment
from streambot.streams.ports import Log, Start, StreamSpec
from tests.conftest import SEED
from tests.unit.learning.test_rollouts import N, envs

STEPS = 16
BATCH = 2 * N * STEPS
ENV = {
    "capital": 600, "max_quantity": 5, "warmup": 0, "episode_bars": 17, "drawdown_limit_bp": 40,
}  # fmt: skip
CONFIG = LearnerConfig(batch=BATCH, updates=6, checkpoint_every=2, silence_s=30)


def new_agent() -> MoEAgent:
    learn = LearnConfig(minibatch=64, epochs=2)
    return MoEAgent(agent_config(envs().config, hidden=(16,), seed=2, learn=learn))


STREAMS = ("experience", "policy", "status", "runs")


class Rig:
    """A log with the streams of a training, threads, and what everybody told.

    Args:
        log: where they are.
        prefix: `<namespace>.<training>`.
        folder: of the checkpoints.
        transactional: the log has transactions, and they are used.
        roll_bytes: streams are generations of so many bytes; None: they last.
    """

    def __init__(
        self,
        log: Log,
        prefix: str,
        folder: Path,
        *,
        transactional: bool = False,
        roll_bytes: int | None = None,
    ) -> None:
        self.log, self.folder, self.transactional = log, folder, transactional
        namespace, _, training = prefix.rpartition(".")
        topics = {stream: f"{prefix}.{stream}" for stream in STREAMS}
        if roll_bytes is not None:
            topics |= {s: generation(topics[s], 0) for s in ("experience", "policy")}
        self.training = Training(
            namespace=namespace, training=training, policy="main", topics=topics,
            request=msgspec.Raw(b"{}"), data="d", layout=new_agent().config.layout, seed=SEED,
            envs=N, rollout=STEPS,
        )  # fmt: skip
        self.generations: Generations | None = None
        if roll_bytes is not None:
            self.generations = Generations(log, self.training, lambda: 0, roll_bytes=roll_bytes)
        self.threads = ThreadPoolExecutor(4)
        self._lives = itertools.count()
        self.learnt: list[Learnt] = []
        self.acted: dict[int, list[Acted]] = {}
        self.over = False
        self._more = asyncio.Event()

    def told(self, learnt: Learnt) -> None:
        self.learnt.append(learnt)
        self._more.set()

    async def seen(self, updates: int) -> None:
        """Wait until so many updates were told."""
        while len(self.learnt) < updates:
            self._more.clear()
            await self._more.wait()

    async def begin(self) -> None:
        await self.log.create([StreamSpec(name=topic) for topic in self.training.topics.values()])
        await declare_training(self.log, self.training, at_ms=0)

    async def actor(self, number: int, incarnation: int = 0) -> None:
        """An actor of the training as it is declared now."""
        found = await read_training(self.log, self.training.topics["runs"])
        assert found is not None
        await act(
            self.log, ActorPlace(found, f"a{number}", number, incarnation), lambda _: envs(),
            executor=self.threads, now_ms=lambda: 0, stopping=lambda: self.over,
            tell=self.acted.setdefault(number, []).append,
        )  # fmt: skip

    def learner(
        self,
        *,
        resume: bool = False,
        config: LearnerConfig = CONFIG,
        again: Start | None = None,
        stopping: Callable[[], bool] = lambda: False,
        learns: Callable[[PPOAgent], Learns] | None = None,
    ) -> Learner:
        """A learner; `learns` makes what moves its weights, None: RLlib."""
        found = load_policy(self.folder) if resume else None
        agent: PPOAgent = new_agent() if found is None else found.agent
        if learns is None:
            from streambot.learning.learner.algorithm import stream_ppo

            moves: Learns = stream_ppo(agent, batch=config.batch)
        else:
            moves = learns(agent)
        return Learner(
            self.log, self.training, agent, moves, config,
            Kept(self.folder, ENV, {}), executor=self.threads, now_ms=lambda: next(self._lives),
            tell=self.told,
            resume=found, transactional=self.transactional, generations=self.generations,
            again=again, stopping=stopping, actors=2,
        )  # fmt: skip


class Counting:
    """Moves the weights without Ray: by the rewards of a batch, and by how many batches there were.

    So weights say which batches made them, in which order: `memory` and weights go together, or a
    training that goes on would end elsewhere.

    Args:
        agent: whose weights.
        begins: called where an update begins; fetched: where an agent has its weights. In its thread.
    """

    def __init__(
        self,
        agent: PPOAgent,
        begins: Callable[[], None] = lambda: None,
        fetched: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = {n: v.clone() for n, v in agent.network.state_dict().items()}
        self._count = 0
        self._begins, self._fetched = begins, fetched

    def update(
        self, fragments: Sequence[Fragment], rewards: Sequence[Any], **_: Any
    ) -> dict[str, float]:
        del rewards
        self._begins()
        self._count += 1
        moved = sum(float(f.reward.sum()) + f.head.sequence for f in fragments)
        for value in self._state.values():
            value.mul_(1.0 - 0.01 * self._count).add_(1e-6 * moved)
        return {}

    def fetch(self, agent: PPOAgent) -> None:
        agent.network.load_state_dict(self._state)
        self._fetched()

    def memory(self) -> dict[str, torch.Tensor]:
        return {"count": torch.tensor(self._count)}

    def remember(self, memory: dict[str, torch.Tensor]) -> None:
        self._count = int(memory["count"])


def taken_down(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put_back(folder: Path, kept: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, content in kept.items():
        (folder / name).write_bytes(content)


async def trained(
    rig: Rig,
    *,
    actors: int = 2,
    config: LearnerConfig = CONFIG,
    learns: Callable[[PPOAgent], Learns] | None = None,
) -> None:
    """One learner and some actors, until all updates are made."""
    await rig.begin()
    learner = rig.learner(config=config, learns=learns)
    others = [asyncio.create_task(rig.actor(k)) for k in range(actors)]
    assert await learner.run()
    rig.over = True
    await asyncio.gather(*others)
