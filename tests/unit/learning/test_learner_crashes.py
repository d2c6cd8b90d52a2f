"""Whatever becomes of a learner in the middle, the weights are those of one that nobody disturbed.

Learners read one topic that was written before, with records that stand there twice and noise among
them, and move weights that tell every batch and their order (`learner_rig.Counting`). They end at
random points of their loop: killed, so that nothing is written any more, or by an error, behind which
they still write their checkpoint. And every way to get that wrong that we know of must be seen.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.ppo import PPOAgent  # noqa: E402
from streambot.domain.errors import BrokerError, SequenceGapError  # noqa: E402
from streambot.learning.learner import service  # noqa: E402
from streambot.learning.learner.buffer import BufferState, ExperienceBuffer  # noqa: E402
from streambot.learning.learner.publishing import Publisher  # noqa: E402
from streambot.learning.learner.telling import Untold  # noqa: E402
from streambot.learning.policy import load_policy  # noqa: E402
from streambot.learning.weights import decode_weights  # noqa: E402
from streambot.streams.memory import MemoryLog  # noqa: E402
from streambot.streams.ports import TopicPartition  # noqa: E402
from streambot.streams.reading import read_to_end  # noqa: E402
from tests.conftest import SEED  # noqa: E402
from tests.learner_rig import CONFIG, Counting, Rig, put_back, taken_down, trained  # noqa: E402

pytestmark = pytest.mark.train

UPDATES = 9
LEARNS = msgspec.structs.replace(
    CONFIG, updates=UPDATES, checkpoint_every=3, silence_s=5, max_lag=2
)
SCHEDULES = 40
POINTS = ("begins", "fetched", "publishing", "unseen", "published", "keeping", "kept")
"""Of an update, in their order; the last two are of those behind which there is a checkpoint. `unseen`: from
now on the broker takes what it is given, and nobody will ever read it; the next publication fails."""


class Killed(BaseException):
    """The process is gone."""


class FailedError(Exception):
    """Something raised."""


@pytest.fixture(scope="module")
def experience(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a training with two actors wrote, some of it twice, and noise."""

    async def written() -> list[bytes]:
        log = MemoryLog()
        rig = Rig(log, "u.t", tmp_path_factory.mktemp("first"))
        config = msgspec.structs.replace(LEARNS, updates=2 * UPDATES)
        await trained(rig, learns=Counting, config=config)
        topic = TopicPartition("u.t.experience", 0)
        source = await log.source({topic: "beginning"})
        values = [r.value for r in await source.read(max_records=100_000, timeout_s=1)]
        await source.close()
        await log.close()
        return values

    rng = np.random.default_rng(SEED)
    out = []
    for value in asyncio.run(written()):
        out += [value] * (2 if rng.random() < 0.1 else 1)
        if rng.random() < 0.05:
            out.append(b"noise")
    return out


class World:
    """The topic, and learners of it that end where they are told to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.ends: tuple[str, int, type[BaseException]] | None = None
        self.left: dict[str, bytes] = {}
        self.told: list[tuple[int, int, Any]] = []
        self.made = Counter[int]()
        self.unseen: type[BaseException] | None = None
        written, kept = Publisher._write, service.keep

        async def write(publisher: Publisher, what: Any) -> None:
            self.at("publishing")
            self.fail_unseen()
            if self.due("unseen"):
                return
            await written(publisher, what)
            self.at("published")

        async def settle(publisher: Publisher) -> None:
            await publisher.sent()
            self.fail_unseen()

        async def visible(_: Publisher) -> bool:
            return self.unseen is None

        def keep(whole: Any, *more: Any) -> None:
            self.at("keeping")
            kept(whole, *more)
            self.at("kept")

        for name, instead in (("_write", write), ("settle", settle), ("visible", visible)):
            monkeypatch.setattr(Publisher, name, instead)
        monkeypatch.setattr(service, "keep", keep)

    def at(self, point: str) -> None:
        """That point is reached: end there, if it is time."""
        if (kind := self.due(point)) is not None:
            self.end(kind)

    def due(self, point: str) -> type[BaseException] | None:
        """How it ends here, if it is time."""
        if self.ends is None or self.ends[0] != point:
            return None
        self.ends = (point, self.ends[1] - 1, self.ends[2])
        if self.ends[1]:
            return None
        kind, self.ends = self.ends[2], None
        self.unseen = kind if point == "unseen" else None
        return kind

    def fail_unseen(self) -> None:
        """Where nobody will read what was written before, nothing more is taken."""
        if self.unseen is not None:
            self.end(self.unseen)

    def end(self, kind: type[BaseException]) -> None:
        self.left = taken_down(self.folder)
        raise kind

    def learns(self, agent: PPOAgent) -> Counting:
        """Moves weights, counts, and passes the points in the middle of an update."""

        def fetched() -> None:
            self.made[int(made.memory()["count"])] += 1
            self.at("fetched")

        made = Counting(agent, begins=lambda: self.at("begins"), fetched=fetched)
        return made

    async def train(
        self, experience: list[bytes], ends: list[tuple[str, int, type[BaseException]]]
    ) -> dict[str, torch.Tensor]:
        """Weights and counters of a training whose learners end so, and that is gone on with each time.

        Its status stream has every update, and none more often than it was made.
        """
        log = MemoryLog()
        rig = Rig(log, "u.t", self.folder)
        await rig.begin()
        sink = await log.sink()
        for value in experience:
            await sink.append("u.t.experience", 0, value, timestamp_ms=0)
        await sink.close()
        self.folder.mkdir()
        begun = rig.learner(config=LEARNS, learns=self.learns)
        begun.keep()
        for end in [*ends, None]:
            self.ends, self.unseen = end, None
            learner = rig.learner(config=LEARNS, learns=self.learns, resume=True)
            try:
                assert await learner.run()
                break
            except Killed:
                put_back(self.folder, self.left)
            except FailedError:
                pass
        self.ends = None
        self.told = [(told.update, told.steps, told.experience) for told in rig.learnt]
        rig.threads.shutdown()
        statuses = [record async for batch in read_to_end(log, "u.t.status") for record in batch]
        await log.close()
        said = Counter(json.loads(record.value)["update"] for record in statuses)
        assert [*said] == [*range(1, UPDATES + 1)]
        assert said <= self.made, "told more often than it was made"
        self.made.clear()
        found = load_policy(self.folder)
        shutil.rmtree(self.folder)
        assert found.head.progress["updates"] == UPDATES
        counts = {name: torch.tensor(value) for name, value in found.head.progress.items()}
        return found.agent.state() | counts


def drawn(rng: np.random.Generator) -> list[tuple[str, int, type[BaseException]]]:
    """Up to four ends, each soon after the one before."""
    return [
        (POINTS[rng.integers(len(POINTS))], int(rng.integers(1, 6)), (Killed, FailedError)[rng.integers(2)])
        for _ in range(rng.integers(1, 5))
    ]  # fmt: skip


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "policy", monkeypatch)


async def test_ends_anywhere_leave_no_trace(world: World, experience: list[bytes], rng) -> None:
    undisturbed = await world.train(experience, [])
    assert [update for update, *_ in world.told] == [*range(1, UPDATES + 1)]
    batches = {update: rest for update, *rest in world.told}
    repeated = 0
    for _ in range(SCHEDULES):
        ends = drawn(rng)
        found = await world.train(experience, ends)
        assert same(found, undisturbed), ends
        for update, *rest in world.told:
            assert rest == batches[update], (ends, "the same next batch")
        repeated += len(world.told) - len({update for update, *_ in world.told})
    assert repeated > SCHEDULES // 4, "hardly anything was made again: the ends say nothing"


def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where to read on is not in the checkpoint."""
    monkeypatch.setattr(service, "buffer_of", lambda _: BufferState({}))


def remembers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What moves the weights begins anew."""
    monkeypatch.setattr(Counting, "remember", lambda *_: None)


def takes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether a fragment was read before."""
    look = ExperienceBuffer._look

    def blindly(buffer: Any, *more: Any) -> None:
        buffer._lives.clear()
        buffer._again = {"somewhere": 1}
        look(buffer, *more)

    monkeypatch.setattr(ExperienceBuffer, "_look", blindly)


def keeps_what_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint takes the weights of the moment, not those behind the last whole update."""
    kept = service.keep
    monkeypatch.setattr(
        service, "keep",
        lambda whole, agent, about: kept(whole._replace(agent=agent.state()), agent, about),
    )  # fmt: skip


def reads_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goes on behind all that was read, as if it had been learnt from."""
    monkeypatch.setattr(
        ExperienceBuffer, "state",
        lambda self: BufferState(dict(self._offsets), tuple(self._lives.values()), dict(self.counts)),
    )  # fmt: skip


def tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates that nobody was told of are forgotten."""
    monkeypatch.setattr(service, "untold_of", lambda _: ())


def tells_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether they were told of after all."""

    async def blindly(*_: Any) -> None:
        pass

    monkeypatch.setattr(Untold, "look", blindly)


MUTANTS = (
    forgets, remembers_nothing, takes_twice, keeps_what_is_now, reads_too_far, tells_nobody, tells_again,
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
async def test_what_is_not_exactly_once_is_seen(
    world: World, experience: list[bytes], rng, mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = await world.train(experience, [])
    mutant(monkeypatch)
    for _ in range(SCHEDULES):
        try:
            if not same(await world.train(experience, drawn(rng)), undisturbed):
                return
        except (SequenceGapError, BrokerError, AssertionError):
            return  # it does not even come to its end
    pytest.fail("the campaign does not see what is wrong")


async def test_an_update_that_is_broken_off_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """The learner is cancelled while its thread has just put other weights into the agent."""
    rig, middle, go = Rig(MemoryLog(), "u.t", tmp_path), threading.Event(), threading.Event()
    await rig.begin()
    others = [asyncio.create_task(rig.actor(k)) for k in range(2)]

    def fetched() -> None:
        if len(rig.learnt) == 4:
            middle.set()
            assert go.wait(20)

    task = asyncio.create_task(
        rig.learner(learns=lambda agent: Counting(agent, fetched=fetched)).run()
    )
    assert await asyncio.to_thread(middle.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = load_policy(tmp_path)
    go.set()
    rig.over = True
    await asyncio.gather(*others)
    assert kept.head.progress["updates"] == 4
    last = rig.learnt[3]
    assert kept.head.progress["steps"] == last.steps
    source = await rig.log.source({TopicPartition("u.t.policy", 0): "beginning"})
    weights = [decode_weights(r.value) for r in await source.read(timeout_s=1, max_records=1_000)]
    await source.close()
    fourth = next(w.tensors for w in weights if w.head.sequence == 4)
    assert same(fourth, kept.agent.state())


async def test_a_gap_ends_the_learner_and_it_can_go_on_behind_it(
    tmp_path: Path, experience: list[bytes]
) -> None:
    """A fragment was lost for good: the error says so, and from where on the training can go on."""
    rig = Rig(MemoryLog(), "u.t", tmp_path)
    await rig.begin()
    sink = await rig.log.sink()
    whole = [value for value in dict.fromkeys(experience) if value != b"noise"]
    lost = len(whole) // 3
    for value in whole[:lost] + whole[lost + 1 :]:
        await sink.append("u.t.experience", 0, value, timestamp_ms=0)
    await sink.close()
    with pytest.raises(SequenceGapError) as gap:
        await rig.learner(config=LEARNS, learns=Counting).run()
    assert "experience of actor a" in str(gap.value.hint)
    before = int(load_policy(tmp_path).head.progress["updates"])
    again = int(re.search(r"--replay-from (\d+)", str(gap.value.hint))[1])  # type: ignore[index]
    with pytest.raises(SequenceGapError):  # nothing has changed
        await rig.learner(config=LEARNS, learns=Counting, resume=True).run()
    more = msgspec.structs.replace(LEARNS, updates=before + 2)
    assert await rig.learner(config=more, learns=Counting, resume=True, again=again).run()
    assert rig.learnt[-1].update == before + 2
    assert min(rig.learnt[-1].experience["u.t.experience"]) >= again
