"""Actors and a learner over every log: weights go round, every step is counted, a restart goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.adapters.kafka import EMBEDDED, KafkaLog  # noqa: E402
from streambot.agents.checkpoint import read_head  # noqa: E402
from streambot.domain.errors import FencedError  # noqa: E402
from streambot.learning.declaration import read_training  # noqa: E402
from streambot.learning.learner.demand import AHEAD  # noqa: E402
from streambot.learning.policy import load_policy  # noqa: E402
from streambot.streams.ports import Log, TopicPartition  # noqa: E402
from tests.learner_rig import BATCH, CONFIG, STEPS, Rig, put_back, taken_down, trained  # noqa: E402
from tests.unit.learning.test_rollouts import N  # noqa: E402
from tests.unit.learning.test_stream_ppo import pytestmark  # noqa: E402, F401


def has_transactions(log: Log) -> bool:
    return not (isinstance(log, KafkaLog) and log.profile is EMBEDDED)


async def test_weights_go_round_and_every_step_is_counted(log, name, tmp_path: Path) -> None:
    rig = Rig(log, name("t"), tmp_path, transactional=has_transactions(log))
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
        assert rollouts.max() * N * STEPS <= AHEAD * BATCH
        assert told[-1].refused == 0
    head = load_policy(tmp_path).head
    assert head.progress["updates"] == 6
    assert head.progress["steps"] == last.steps
    if rig.transactional:
        # Positions move with the weights: whoever looks at the group sees how far it has learnt.
        topic = TopicPartition(rig.training.topics["experience"], 0)
        told = await log.committed(f"{name('t')}.learner", [topic])
        assert told == {topic: msgspec.json.decode(head.about["buffer"])["offsets"][topic.stream]}


async def test_a_learner_that_died_goes_on_from_its_checkpoint(log, name, tmp_path: Path) -> None:
    """Killed between checkpoints: the updates since are made again, from the same experience."""
    rig = Rig(log, name("t"), tmp_path, transactional=has_transactions(log))
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


async def test_a_dead_actor_does_not_stall_training(log, name, tmp_path: Path) -> None:
    rig = Rig(log, name("t"), tmp_path)
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


async def test_streams_go_through_generations_and_lose_nothing(log, name, tmp_path: Path) -> None:
    """A broker that frees memory only with its topics: newer ones take over, older ones go."""
    rig = Rig(log, name("t"), tmp_path, roll_bytes=6 * BATCH * 300)
    await rig.begin()
    first = rig.training.topics
    pinned = await log.sink()
    await pinned.append(first["policy"], 0, b"a pin", timestamp_ms=7, key=b"main@3")
    await pinned.flush()
    await pinned.close()
    config = msgspec.structs.replace(CONFIG, updates=24, max_lag=4)
    others = [asyncio.create_task(rig.actor(k)) for k in range(2)]
    learner = asyncio.create_task(rig.learner(config=config).run())
    await rig.seen(16)
    late = asyncio.create_task(rig.actor(2))  # finds the generation of now
    assert await learner
    rig.over = True
    await asyncio.gather(*others, late)
    counts = rig.learnt[-1].counts
    assert not set(counts) & {"duplicate", "foreign", "broken"}
    assert counts["taken_steps"] == rig.learnt[-1].steps
    newest = await read_training(log, first["runs"])
    assert newest is not None
    assert newest.topics["experience"] > first["experience"]
    there = await log.streams()
    assert first["experience"] not in there
    assert first["policy"] not in there
    assert len([s for s in there if s.startswith(name("t.experience"))]) <= 4
    pins = await log.source({TopicPartition(newest.topics["policy"], 0): "beginning"})
    (pin,) = [r for r in await pins.read(timeout_s=5) if r.key == b"main@3"]
    assert (pin.value, pin.timestamp_ms) == (b"a pin", 7)
    await pins.close()
    assert rig.acted[2], "an actor that came late has acted"


async def test_experience_is_read_again_however_old(log, name, tmp_path: Path) -> None:
    """The topic is the replay buffer: from its beginning, without an actor, beyond the lag."""
    rig = Rig(log, name("t"), tmp_path, transactional=has_transactions(log))
    config = msgspec.structs.replace(CONFIG, max_lag=3)
    await rig.begin()
    others = [asyncio.create_task(rig.actor(k)) for k in range(2)]
    assert await rig.learner(config=config).run()
    rig.over = True
    await asyncio.gather(*others)
    before = rig.learnt[-1]
    more = msgspec.structs.replace(config, updates=11)
    assert await rig.learner(resume=True, config=more, again="beginning").run()
    last = rig.learnt[-1]
    assert last.update == 11
    assert last.counts["again_steps"] >= last.steps - before.steps >= 5 * BATCH
    assert max(told.worst_lag for told in rig.learnt[6:]) > 3
    assert last.counts.get("stale", 0) == before.counts.get("stale", 0)


# The embedded broker lives and dies with its one learner and has no transactions: it is left out.
@pytest.mark.parametrize(
    "broker", ["memory", pytest.param("apache", marks=pytest.mark.kafka)], indirect=True
)
async def test_a_second_learner_takes_over(log, name, tmp_path: Path) -> None:
    rig = Rig(log, name("t"), tmp_path / "one", transactional=True)
    await rig.begin()
    actor = asyncio.create_task(rig.actor(0))
    config = msgspec.structs.replace(CONFIG, updates=1_000)
    first = asyncio.create_task(rig.learner(config=config).run())
    await rig.seen(1)
    rig.folder = tmp_path / "two"
    second = asyncio.create_task(rig.learner(config=config).run())
    with pytest.raises(FencedError):
        await first
    second.cancel()
    rig.over = True
    await asyncio.gather(actor, second, return_exceptions=True)
