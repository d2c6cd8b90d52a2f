"""Actors and a learner: silence is told, weights that are not theirs are refused, no two lives are alike.

That weights go round and every step is counted is held on every log: `tests.conformance`.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from streambot.learning.learner.progress import LearnerConfig  # noqa: E402
from streambot.learning.policy import agent_config  # noqa: E402
from streambot.learning.weights import Weights, encode_weights  # noqa: E402
from streambot.streams.memory import MemoryLog  # noqa: E402
from streambot.streams.ports import StreamSpec  # noqa: E402
from tests.learner_rig import BATCH, Rig, new_agent  # noqa: E402
from tests.unit.learning.test_rollouts import envs  # noqa: E402
from tests.unit.learning.test_stream_ppo import pytestmark  # noqa: E402, F401


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_here")
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


async def test_torn_foreign_and_older_weights_are_refused(tmp_path: Path) -> None:
    log = MemoryLog()
    training = Rig(log, "u.t", tmp_path).training
    policy = training.topics["policy"]
    await log.create([StreamSpec(name=policy), StreamSpec(name="u.t.policy.g0001")])
    agent = new_agent()
    other = MoEAgent(agent_config(envs(window=3).config, hidden=(16,)))

    def record(
        of: PPOAgent = agent, training: str = "t", sequence: int = 5, stream: str = ""
    ) -> bytes:
        return encode_weights(
            of, training=training, policy="main", sequence=sequence, stream=stream
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
