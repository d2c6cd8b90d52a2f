"""Every step that actors publish is counted once, whatever was written twice and whoever died."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import SequenceGapError
from streambot.learning.learner import buffer as module
from streambot.learning.learner.buffer import MAX_LAG, BufferState, ExperienceBuffer
from streambot.streams.fragment import Fragment, FragmentHead, encode_fragment
from streambot.streams.ports import Record
from tests.conftest import SEED


def fragment(**head) -> Fragment:
    base = {
        "training": "t", "actor": "a", "incarnation": 0, "sequence": 0, "layout": "x", "env": 0,
        "episode": 0, "t_started": 0, "steps": 2, "features": 1, "actions": 2, "weights": 0,
    }  # fmt: skip
    made = FragmentHead(**base | head)
    steps = made.steps
    return Fragment(
        made, np.zeros((steps + 1, 1), np.float32), np.ones((steps + 1, 2), np.uint8),
        np.zeros(steps, np.int32), np.zeros(steps, np.float32), np.zeros((steps, 2), np.float32),
        np.zeros((steps, 0), np.float32), np.zeros(steps, np.float32),
    )  # fmt: skip


class Topic:
    """Partitions that records are appended to."""

    def __init__(self, partitions: int = 1) -> None:
        self.records: list[list[Record]] = [[] for _ in range(partitions)]
        self.order: list[Record] = []

    def append(self, partition: int, value: bytes) -> None:
        own = self.records[partition]
        own.append(Record(f"experience.{partition}", 0, len(own), 0, None, value, ()))
        self.order.append(own[-1])


class Actor:
    """Lives of one actor over two environments, with weights that lag behind."""

    def __init__(self, name: str, rng: np.random.Generator) -> None:
        self.name, self.incarnation, self._rng = name, -1, rng
        self.begin()

    def begin(self) -> None:
        self.incarnation += 1
        self._sequence, self._at = 0, {0: (0, 0), 1: (0, 0)}

    def next(self, weights: int) -> bytes:
        env = int(self._rng.integers(2))
        episode, step = self._at[env]
        steps, ends = int(self._rng.integers(1, 4)), self._rng.random() < 0.3
        self._at[env] = (episode + 1, 0) if ends else (episode, step + steps)
        made = fragment(
            actor=self.name, incarnation=self.incarnation, sequence=self._sequence, env=env,
            episode=episode, t_started=step, steps=steps, weights=weights, terminated=bool(ends),
        )  # fmt: skip
        self._sequence += 1
        return encode_fragment(made)


def written(rng: np.random.Generator, partitions: int, count: int) -> Topic:
    """Two actors, restarts, records written twice, noise, strangers, old weights."""
    topic = Topic(partitions)
    actors = [Actor("a", rng), Actor("b", rng)]
    for number in range(count):
        which = int(rng.integers(2))
        lag = int(rng.integers(0, MAX_LAG + 3)) if rng.random() < 0.2 else 0
        record = actors[which].next(max(0, number // 8 - lag))
        partition = which % partitions
        for _ in range(2 if rng.random() < 0.15 else 1):
            topic.append(partition, record)
        if rng.random() < 0.1:
            topic.append(partition, encode_fragment(fragment(training="another")))
        if rng.random() < 0.1:
            topic.append(partition, b"noise")
        if rng.random() < 0.05:
            actors[which].begin()
    return topic


def ids(taken: list[Fragment]) -> list[tuple[str, int]]:
    return [(f.head.episode_id, f.head.t_started) for f in taken]


def read(
    topic: Topic, batch: int, stops: set[int], rng: np.random.Generator
) -> tuple[list[list[tuple[str, int]]], Counter[str]]:
    """Batches that learners take who read the topic in its order; each stop ends one, the next goes on."""
    buffer, batches, at = ExperienceBuffer("t", "x"), [], 0
    turn = 0
    while at < len(topic.order):
        step = int(rng.integers(1, 6))
        buffer.offer(topic.order[at : at + step], weights=at // 12)
        at += step
        while taken := buffer.take(batch, at // 12):
            batches.append(ids(taken))
        turn += 1
        if turn in stops:
            state = buffer.state()
            buffer = ExperienceBuffer("t", "x", state)
            at = next(
                (
                    n for n, r in enumerate(topic.order)
                    if r.offset >= state.offsets.get(r.stream, 0)
                ),
                len(topic.order),
            )  # fmt: skip
    return batches, buffer.counts


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 10_000), stops=st.sets(st.integers(1, 30), max_size=5))
def test_no_step_is_taken_twice_or_lost(seed, stops):
    """One partition: with and without restarts the same batches, and every fragment has its end."""
    topic = written(np.random.default_rng(seed), 1, 60)
    batches, counts = read(topic, 5, stops, np.random.default_rng(SEED))
    once = [one for batch in batches for one in batch]
    assert len(once) == len(set(once))
    assert counts["taken"] == len(once)
    genuine = {
        (r.value) for r in topic.order if r.value != b"noise" and b'"training":"t"' in r.value
    }
    assert counts["read"] == len(genuine)
    assert counts["duplicate"] + counts["read"] + counts["foreign"] + counts["broken"] == len(
        topic.order
    )
    assert counts["read"] - counts["taken"] - counts["stale"] <= 5


def test_a_restart_goes_on_with_the_same_next_batch():
    """Where nothing is dropped for age, which depends on when it is read."""
    rng = np.random.default_rng(SEED)
    topic, actor = Topic(), Actor("a", rng)
    for _ in range(80):
        topic.append(0, actor.next(0))
    whole, _ = read(topic, 7, set(), np.random.default_rng(1))
    for stops in ({1}, {3, 4}, {2, 5, 9, 11}):
        again, counts = read(topic, 7, stops, np.random.default_rng(2))
        assert again == whole
        assert counts["duplicate"] == 0


def test_two_partitions_are_read_on_each_from_its_own_place():
    topic = written(np.random.default_rng(SEED), 2, 80)
    buffer = ExperienceBuffer("t", "x")
    buffer.offer(topic.order[:60], 0)
    first = buffer.take(9, 0)
    state = buffer.state()
    again = ExperienceBuffer("t", "x", state)
    rest = [r for r in topic.order if r.offset >= state.offsets.get(r.stream, 0)]
    again.offer([r for r in rest if r in topic.order[:60]], 0)
    assert {**again.counts, "taken": 0} | {} == {**buffer.counts, "taken": 0} | {}
    assert ids(again.take(9, 0)) == ids(buffer.take(9, 0))
    assert not set(ids(first)) & set(ids(again.take(9, 0)))


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"sequence": 2, "t_started": 2}, "expected fragment 1, received 2"),
        ({"sequence": 1, "t_started": 4}, "expected step 2, received 4"),
        ({"sequence": 1, "episode": 1}, "expected step 2, received 0"),
    ],
)
def test_what_is_missing_is_an_error(second, said):
    buffer, topic = ExperienceBuffer("t", "x"), Topic()
    topic.append(0, encode_fragment(fragment()))
    topic.append(0, encode_fragment(fragment(**second)))
    with pytest.raises(SequenceGapError, match=said):
        buffer.offer(topic.order, 0)


def test_old_fragments_are_dropped_and_counted_and_leave_no_gap():
    buffer, topic = ExperienceBuffer("t", "x", max_lag=2), Topic()
    for n in range(4):
        topic.append(0, encode_fragment(fragment(sequence=n, t_started=2 * n, weights=n)))
    buffer.offer(topic.order[:3], weights=3)
    assert buffer.counts["stale"] == 1
    buffer.offer(topic.order[3:], weights=3)
    taken = buffer.take(2, weights=4)  # meanwhile the second one is too old as well
    assert [f.head.sequence for f in taken] == [2]
    assert buffer.counts == Counter(read=4, steps=8, stale=2, stale_steps=4, taken=1, taken_steps=2)
    assert buffer.state() == BufferState(
        {"experience.0": 3}, buffer.state().lives, buffer.state().counts
    )


def test_experience_that_is_read_again_may_begin_anywhere_also_after_a_restart():
    """A life may be met in its middle, however late; and old fragments are no older for a restart."""
    topic, rng = Topic(), np.random.default_rng(SEED)
    early, late = Actor("early", rng), Actor("late", rng)
    for weights in range(6):
        topic.append(0, early.next(weights))
    late.next(0), late.next(1)
    topic.append(0, late.next(2))
    state = BufferState({"experience.0": 3}, again={"experience.0": 6})
    buffer = ExperienceBuffer("t", "x", state, max_lag=1)
    buffer.offer(topic.order[3:5], weights=40)
    assert len(buffer.take(2, 40)) >= 1
    again = ExperienceBuffer("t", "x", buffer.state(), max_lag=1)
    at = buffer.state().offsets["experience.0"]
    again.offer(topic.order[at:6], weights=41)
    assert again.counts["stale"] == 0
    again.offer(topic.order[6:], weights=3)  # one that nothing was read of before
    assert again.counts["read"] == 4
    topic.append(0, topic.order[-1].value)
    again.offer(topic.order[-1:], weights=3)
    assert again.counts["duplicate"] == 1


def test_a_life_that_was_forgotten_is_no_gap(monkeypatch: pytest.MonkeyPatch):
    """So many others were heard of since that it is remembered no more: it stood still meanwhile."""
    monkeypatch.setattr(module, "MOST_LIVES", 3)
    buffer, topic = ExperienceBuffer("t", "x"), Topic()
    for n in range(2):
        topic.append(0, encode_fragment(fragment(actor="slow", sequence=n, t_started=2 * n)))
    for n in range(3):
        topic.append(0, encode_fragment(fragment(actor=f"quick{n}")))
    topic.append(0, encode_fragment(fragment(actor="slow", sequence=2, t_started=4)))
    buffer.offer(topic.order[:5], 0)
    buffer.take(10, 0)
    assert len(buffer.state().lives) == 3
    again = ExperienceBuffer("t", "x", buffer.state())
    for other in (buffer, again):
        other.offer(topic.order[5:], 0)
        assert other.counts["read"] == 6


def test_the_offsets_of_a_batch_are_told():
    buffer, topic = ExperienceBuffer("t", "x", max_lag=2), Topic()
    for n in range(6):
        topic.append(
            0, encode_fragment(fragment(sequence=n, t_started=2 * n, weights=9 * (n != 0)))
        )
    buffer.offer(topic.order, weights=9)
    assert len(buffer.take(5, 9)) == 3
    assert buffer.taken == {"experience.0": (1, 3)}
    buffer.take(4, 9)
    assert buffer.taken == {"experience.0": (4, 5)}


def test_nothing_is_taken_before_there_is_enough():
    buffer, topic = ExperienceBuffer("t", "x"), Topic()
    topic.append(0, encode_fragment(fragment()))
    buffer.offer(topic.order, 0)
    assert buffer.take(3, 0) == []
    assert buffer.steps == 2
    assert len(buffer.take(2, 0)) == 1
