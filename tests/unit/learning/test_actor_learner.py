"""Actors and a learner over one log: weights go round, every step is counted, a restart goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.agents.batch import LearnConfig  # noqa: E402
from streambot.agents.checkpoint import read_head  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import PPOAgent  # noqa: E402
from streambot.domain.errors import BrokerError  # noqa: E402
from streambot.learning.actor import Acted, ActorPlace, NewestWeights, act, seed_of_life  # noqa: E402
from streambot.learning.learner.service import (  # noqa: E402
    Learner,
    LearnerConfig,
    LearnerPlace,
    Learnt,
)
from streambot.learning.policy import agent_config, load_policy  # noqa: E402
from streambot.learning.trainer import Kept  # noqa: E402
from streambot.learning.weights import Weights, encode_weights  # noqa: E402
from streambot.streams.memory import MemoryLog  # noqa: E402
from streambot.streams.ports import StreamSpec, TopicPartition  # noqa: E402
from tests.conftest import SEED  # noqa: E402
from tests.unit.learning.test_rollouts import N, envs  # noqa: E402
from tests.unit.learning.test_stream_ppo import pytestmark  # noqa: E402, F401

EXPERIENCE, POLICY = "t.experience", "t.policy"
STEPS = 16
BATCH = 2 * N * STEPS
ENV = {
    "capital": 600, "max_quantity": 5, "warmup": 0, "episode_bars": 17, "drawdown_limit_bp": 40,
}  # fmt: skip
CONFIG = LearnerConfig(batch=BATCH, updates=6, checkpoint_every=2, silence_s=30)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


def new_agent() -> MoEAgent:
    learn = LearnConfig(minibatch=64, epochs=2)
    return MoEAgent(agent_config(envs().config, hidden=(16,), seed=2, learn=learn))


class Rig:
    """A log with the streams of a training, threads, and what everybody told."""

    def __init__(self, folder: Path) -> None:
        self.log = MemoryLog()
        self.folder = folder
        self.threads = ThreadPoolExecutor(4)
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
        await self.log.create([StreamSpec(name=EXPERIENCE), StreamSpec(name=POLICY)])

    async def actor(self, number: int, incarnation: int = 0) -> None:
        place = ActorPlace("t", EXPERIENCE, POLICY, "main", f"a{number}", number, incarnation)
        await act(
            self.log, place, lambda _: envs(), steps=STEPS, seed=SEED, executor=self.threads,
            now_ms=lambda: 0, stopping=lambda: self.over,
            tell=self.acted.setdefault(number, []).append,
        )  # fmt: skip

    def learner(self, *, resume: bool = False, config: LearnerConfig = CONFIG) -> Learner:
        from streambot.learning.learner.algorithm import stream_ppo

        found = load_policy(self.folder) if resume else None
        agent: PPOAgent = new_agent() if found is None else found.agent
        return Learner(
            self.log, LearnerPlace("t", EXPERIENCE, 1, POLICY, "main"), agent,
            stream_ppo(agent, batch=config.batch), config, Kept(self.folder, ENV, {}),
            executor=self.threads, now_ms=lambda: 0, tell=self.told, resume=found,
        )  # fmt: skip


def taken_down(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put_back(folder: Path, kept: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, content in kept.items():
        (folder / name).write_bytes(content)


async def trained(rig: Rig, *, actors: int = 2) -> None:
    """One learner and some actors, until all updates are made."""
    await rig.begin()
    learner = rig.learner()
    others = [asyncio.create_task(rig.actor(k)) for k in range(actors)]
    assert await learner.run()
    rig.over = True
    await asyncio.gather(*others)


@pytest.mark.usefixtures("ray_here")
async def test_weights_go_round_and_every_step_is_counted(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await trained(rig)
    assert [told.update for told in rig.learnt] == [1, 2, 3, 4, 5, 6]
    last = rig.learnt[-1]
    counts = last.counts
    assert counts["taken_steps"] == last.steps >= 6 * BATCH
    assert counts["steps"] == counts["taken_steps"] + last.waiting + counts.get("stale_steps", 0)
    assert not set(counts) & {"duplicate", "foreign", "broken"}
    assert max(told.lag for told in rig.learnt) <= 3
    assert sorted(told.lag for told in rig.learnt)[len(rig.learnt) // 2] <= 2
    for told in rig.acted.values():
        assert [one.weights for one in told] == sorted(one.weights for one in told)
        assert told[-1].weights >= 4
        # Under the same weights what was wanted and no more: a slow learner slows actors down.
        rollouts = np.bincount([one.weights for one in told])
        assert rollouts.max() * N * STEPS <= 1.5 * BATCH
        assert told[-1].refused == 0
    head = load_policy(tmp_path).head
    assert head.progress["updates"] == 6
    assert head.progress["steps"] == last.steps


@pytest.mark.usefixtures("ray_here")
async def test_a_learner_that_died_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Killed between checkpoints: the updates since are made again, from the same experience."""
    rig = Rig(tmp_path)
    await rig.begin()
    others = [asyncio.create_task(rig.actor(k)) for k in range(2)]
    first = asyncio.create_task(rig.learner().run())
    await rig.seen(3)
    kept = taken_down(tmp_path)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    put_back(tmp_path, kept)  # as a kill -9 leaves it: not what a clean end writes
    assert read_head(tmp_path).progress["updates"] == 2
    before = rig.learnt[2]
    again = rig.learner(resume=True)
    assert await again.run()
    rig.over = True
    await asyncio.gather(*others)
    repeated = next(told for told in rig.learnt[3:] if told.update == 3)
    assert (repeated.steps, repeated.reward) == (before.steps, before.reward), "the same next batch"
    last = rig.learnt[-1]
    assert last.update == 6
    assert last.counts["taken_steps"] == last.steps
    assert not set(last.counts) & {"duplicate", "foreign", "broken"}


@pytest.mark.usefixtures("ray_here")
async def test_a_dead_actor_does_not_stall_training(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.begin()
    alive, doomed = (asyncio.create_task(rig.actor(k)) for k in range(2))
    learner = asyncio.create_task(rig.learner().run())
    await rig.seen(2)
    doomed.cancel()
    await asyncio.gather(doomed, return_exceptions=True)
    assert await learner
    rig.over = True
    await alive
    assert rig.learnt[-1].update == 6


@pytest.mark.usefixtures("ray_here")
async def test_silence_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.begin()
    config = LearnerConfig(batch=BATCH, updates=6, silence_s=0.5)
    with pytest.raises(BrokerError, match="no experience for 0.5 s"):
        await rig.learner(config=config).run()
    assert read_head(tmp_path).progress["updates"] == 0, "the state is kept"
    with pytest.raises(BrokerError, match="nobody has published weights"):
        await act(
            rig.log, ActorPlace("t", EXPERIENCE, POLICY, "nobody", "a", 0, 0), lambda _: envs(),
            steps=STEPS, seed=1, executor=rig.threads, now_ms=lambda: 0, stopping=lambda: False,
            wait_s=0.2,
        )  # fmt: skip


async def test_torn_foreign_and_older_weights_are_refused() -> None:
    log = MemoryLog()
    await log.create([StreamSpec(name=POLICY)])
    agent = new_agent()
    other = MoEAgent(agent_config(envs(window=3).config, hidden=(16,)))

    def record(of: PPOAgent = agent, training: str = "t", sequence: int = 5) -> bytes:
        return encode_weights(of, training=training, policy="main", sequence=sequence)

    sink = await log.sink()
    source = await log.source({TopicPartition(POLICY, 0): "beginning"})
    reader = NewestWeights(source, "t", "main")

    async def given(*values: bytes, key: bytes = b"main") -> Weights | None:
        for value in values:
            await sink.append(POLICY, 0, value, timestamp_ms=0, key=key)
        await sink.flush()
        return await reader.read(0.5)

    assert (await given(record(), record(sequence=7))).head.sequence == 7  # type: ignore[union-attr]
    assert await given(record(sequence=8)[:-3], record(sequence=8, training="u")) is None
    assert await given(record(other, sequence=8), record(sequence=7)) is None
    assert await given(record(sequence=9), key=b"main@9") is None
    assert dict(reader.refused) == {"crc": 1, "training": 1, "foreign": 1, "older": 1}
    await log.close()


def test_every_life_of_every_actor_draws_its_own() -> None:
    places = [
        ActorPlace("t", "e", "p", "m", f"a{n}", n, life) for n in range(8) for life in range(8)
    ]
    seeds: list[Any] = [seed_of_life(seed, place) for seed in range(4) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**62 for seed in seeds)
