"""Actors and a learner over every log: weights go round, every step is counted, a restart goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.agents.checkpoint import read_head  # noqa: E402
from streambot.learning.policy import load_policy  # noqa: E402
from tests.learner_rig import BATCH, STEPS, Rig, put_back, taken_down, trained  # noqa: E402
from tests.unit.learning.test_rollouts import N  # noqa: E402
from tests.unit.learning.test_stream_ppo import pytestmark  # noqa: E402, F401


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_here")
async def test_weights_go_round_and_every_step_is_counted(log, name, tmp_path: Path) -> None:
    rig = Rig(log, name("t"), tmp_path)
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
async def test_a_learner_that_died_goes_on_from_its_checkpoint(log, name, tmp_path: Path) -> None:
    """Killed between checkpoints: the updates since are made again, from the same experience."""
    rig = Rig(log, name("t"), tmp_path)
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
