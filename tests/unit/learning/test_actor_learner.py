"""Actors and a learner: silence is told, weights that are not theirs are refused, no two lives are alike.

That weights go round and every step is counted is held on every log: `tests.conformance`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.agents.checkpoint import read_head  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import PPOAgent  # noqa: E402
from streambot.domain.errors import BrokerError  # noqa: E402
from streambot.learning.actor import ActorPlace, NewestWeights, act, seed_of_life  # noqa: E402
from streambot.learning.learner import demand, keeping  # noqa: E402
from streambot.learning.learner.buffer import Life  # noqa: E402
from streambot.learning.learner.demand import AHEAD  # noqa: E402
from streambot.learning.learner.progress import LearnerConfig  # noqa: E402
from streambot.learning.policy import agent_config, load_policy  # noqa: E402
from streambot.learning.trainer import Kept  # noqa: E402
from streambot.learning.weights import Weights, decode_weights, encode_weights  # noqa: E402
from streambot.streams.fragment import encode_fragment  # noqa: E402
from streambot.streams.memory import MemoryLog  # noqa: E402
from streambot.streams.ports import StreamSpec, TopicPartition  # noqa: E402
from tests.learner_rig import (  # noqa: E402
    BATCH,
    CONFIG,
    ENV,
    STEPS,
    Counting,
    Rig,
    new_agent,
    put_back,
    taken_down,
    trained,
)
from tests.unit.learning.test_experience_buffer import fragment  # noqa: E402
from tests.unit.learning.test_rollouts import N, envs  # noqa: E402
from tests.unit.learning.test_stream_ppo import pytestmark  # noqa: E402, F401

STRANGER = encode_fragment(fragment(training="another"))


async def test_silence_is_told(tmp_path: Path) -> None:
    rig = Rig(MemoryLog(), "u.t", tmp_path)
    await rig.begin()
    config = LearnerConfig(batch=BATCH, updates=6, silence_s=0.5)
    with pytest.raises(BrokerError, match="no experience for 0.5 s"):
        await rig.learner(config=config).run()
    assert read_head(tmp_path).progress["updates"] == 0, "the state is kept"
    another = msgspec.structs.replace(rig.training, policy="nobody")
    with pytest.raises(BrokerError, match="nobody has published weights"):
        await act(
            rig.log, ActorPlace(another, "a", 0, 0), lambda _: envs(), executor=rig.threads,
            now_ms=lambda: 0, stopping=lambda: False, wait_s=0.2,
        )  # fmt: skip


async def test_strangers_break_no_silence(tmp_path: Path) -> None:
    """Records that nobody can learn from keep coming: that nothing else comes is told all the same."""
    rig = Rig(MemoryLog(), "u.t", tmp_path)
    await rig.begin()
    sink = await rig.log.sink()

    async def talk() -> None:
        while True:
            await sink.append("u.t.experience", 0, STRANGER, timestamp_ms=0)
            await asyncio.sleep(0.05)

    stranger = asyncio.create_task(talk())
    config = LearnerConfig(batch=BATCH, updates=6, silence_s=0.5)
    with pytest.raises(BrokerError, match=r"no experience for 0.5 s, but \d+ fragments of another"):
        await asyncio.wait_for(rig.learner(config=config, learns=Counting).run(), 20)
    stranger.cancel()
    await asyncio.gather(stranger, return_exceptions=True)
    await sink.close()


async def test_a_slow_learner_slows_actors_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long an update takes: nothing is asked for meanwhile, so nothing piles up or gets old."""
    monkeypatch.setattr(demand, "ASK_S", 0.01)
    log = MemoryLog()
    rig = Rig(log, "u.t", tmp_path)
    waiting: list[int] = []

    def begins() -> None:
        # Everybody is there by now: that this machine is slow is no reason to ask again.
        monkeypatch.setattr(demand, "ASK_S", 60.0)
        time.sleep(0.3)
        written = sum(told[-1].steps for told in rig.acted.values())
        waiting.append(written - (rig.learnt[-1].steps if rig.learnt else 0))

    config = msgspec.structs.replace(CONFIG, updates=12)
    await trained(rig, config=config, learns=lambda agent: Counting(agent, begins=begins))
    rollout = N * STEPS
    # At first it asks again and again, as nobody is there yet. Then there is one batch to learn from,
    # and what was asked for beside it; an actor ends the rollout that it is in.
    assert max(waiting) <= 10 * BATCH
    assert max(waiting[6:]) <= AHEAD * BATCH + 2 * rollout
    assert max(told.worst_lag for told in rig.learnt[6:]) <= 3
    assert "stale" not in rig.learnt[-1].counts
    assert log.retained_bytes < 3 * 12 * BATCH * 400


async def test_actors_are_asked_again_where_it_was_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two actors that are expected one never comes: the other one is asked for its share too."""
    monkeypatch.setattr(demand, "ASK_S", 0.05)
    rig = Rig(MemoryLog(), "u.t", tmp_path)
    config = msgspec.structs.replace(CONFIG, batch=8 * BATCH, updates=2)
    await asyncio.wait_for(trained(rig, actors=1, config=config, learns=Counting), 60)
    told = rig.acted[0]
    assert told[-1].steps >= 2 * 8 * BATCH
    assert told[-1].refused == 0


async def test_a_learner_that_goes_on_asks_for_what_is_not_there(tmp_path: Path) -> None:
    """Its first weights know what the topic holds, and are taken although they are older."""
    rig = Rig(MemoryLog(), "u.t", tmp_path)
    await rig.begin()
    actor = asyncio.create_task(rig.actor(0))
    config = msgspec.structs.replace(CONFIG, updates=100, checkpoint_every=4)
    first = asyncio.create_task(rig.learner(config=config, learns=Counting).run())
    await rig.seen(4)
    kept = taken_down(tmp_path)
    await rig.seen(7)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    put_back(tmp_path, kept)
    acted = len(rig.acted[0])
    again = msgspec.structs.replace(config, updates=9)
    assert await rig.learner(config=again, learns=Counting, resume=True).run()
    rig.over = True
    await actor
    source = await rig.log.source({TopicPartition("u.t.policy", 0): "beginning"})
    heads = [decode_weights(r.value).head for r in await source.read(max_records=999, timeout_s=1)]
    await source.close()
    begun = next(head for head in heads if head.learner != heads[0].learner)
    assert begun.sequence == 4
    assert begun.wanted == 0 or not begun.urgent, "three updates of experience were there"
    assert rig.acted[0][-1].refused == 0
    numbers = [one.weights for one in rig.acted[0][acted:]]
    assert min(numbers) < 7, "it has taken up what is older"
    assert numbers[-1] >= 7


async def test_a_checkpoint_bears_many_lives(tmp_path: Path) -> None:
    """Hundreds of lives over many environments: it is read again, and its weights are published."""
    rig = Rig(MemoryLog(), "u.t", tmp_path)
    await trained(rig, config=CONFIG, learns=Counting)
    found = load_policy(tmp_path)
    state = keeping.buffer_of(found)
    assert {life.actor for life in state.lives} == {"a0", "a1"}
    many = tuple(
        Life(f"machine-{n}", n, 99, dict.fromkeys(range(256), (7, 300))) for n in range(400)
    )
    whole = keeping.Whole(
        6, 7, found.agent.state(), keeping.memory_of_learns(found),
        msgspec.structs.replace(state, lives=(*many, *state.lives)), {}, None, (),
    )  # fmt: skip
    keeping.keep(whole, found.agent, Kept(tmp_path, ENV, {}))
    assert len(keeping.buffer_of(load_policy(tmp_path)).lives) == 402
    rig.over = False
    more = msgspec.structs.replace(CONFIG, updates=8)
    learner = rig.learner(resume=True, config=more, learns=Counting)
    learner._about["anything"] = "kept"
    others = [asyncio.create_task(rig.actor(k, 5)) for k in range(2)]
    assert await learner.run()
    rig.over = True
    await asyncio.gather(*others)


async def test_torn_foreign_and_older_weights_are_refused(tmp_path: Path) -> None:
    log = MemoryLog()
    training = Rig(log, "u.t", tmp_path).training
    policy = training.topics["policy"]
    await log.create([StreamSpec(name=policy), StreamSpec(name="u.t.policy.g0001")])
    agent = new_agent()
    other = MoEAgent(agent_config(envs(window=3).config, hidden=(16,)))

    def record(
        of: PPOAgent = agent,
        training: str = "t",
        sequence: int = 5,
        stream: str = "",
        learner: int = 0,
    ) -> bytes:
        return encode_weights(
            of, training=training, policy="main", sequence=sequence, stream=stream, learner=learner
        )

    sink = await log.sink()
    reader = NewestWeights(log, training)

    async def given(*values: bytes, key: bytes = b"main", stream: str = policy) -> Weights | None:
        for value in values:
            await sink.append(stream, 0, value, timestamp_ms=0, key=key)
        await sink.flush()
        return await reader.read(0.5)

    assert (await given(record(), record(sequence=7))).head.sequence == 7  # type: ignore[union-attr]
    assert await given(record(sequence=8)[:-3], record(sequence=8, training="u")) is None
    assert await given(record(other, sequence=8), record(sequence=6)) is None
    assert await given(record(sequence=9), key=b"main@9") is None
    assert await given(record(sequence=10, stream="somebody.elses.topic")) is None
    assert await given(record(), record(sequence=6), key=b"main@6") is None
    # The same again: more is wanted under them. Those of a learner that went on are older, and count.
    assert (await given(record(sequence=7))).head.sequence == 7  # type: ignore[union-attr]
    assert (await given(record(sequence=3, learner=8))).head.sequence == 3  # type: ignore[union-attr]
    assert (await given(record(sequence=4, learner=8))).head.sequence == 4  # type: ignore[union-attr]
    assert dict(reader.refused) == {"crc": 1, "training": 1, "foreign": 2, "older": 1}
    # A newer generation takes over: the weights that tell of it are there too, and newer ones follow.
    newer = "u.t.policy.g0001"
    await given(record(sequence=11, stream=newer), stream=newer)
    assert (await given(record(sequence=11, stream=newer))).head.sequence == 11  # type: ignore[union-attr]
    assert (await given(record(sequence=12), stream=newer)).head.sequence == 12  # type: ignore[union-attr]
    await reader.close()
    await log.close()


def test_every_life_of_every_actor_draws_its_own(tmp_path: Path) -> None:
    training = Rig(MemoryLog(), "u.t", tmp_path).training
    seeds: list[Any] = [
        seed_of_life(ActorPlace(msgspec.structs.replace(training, seed=seed), f"a{n}", n, life))
        for seed in range(4) for n in range(8) for life in range(8)
    ]  # fmt: skip
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**62 for seed in seeds)
