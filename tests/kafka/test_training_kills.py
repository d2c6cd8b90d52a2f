"""Actors and learners that die at any time: every step is counted once, on Apache Kafka.

`streambot train` with two actors of its own and one `streambot actor` from outside, as processes.
Any of them is killed at random moments (seeded): an actor comes back as a new life, the learner is
gone on with by `--resume`, its actors die with it. One actor stands still for a while (SIGSTOP).
Afterwards the topics say what every update has to be made of (`trainings.fates`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.wiring.actor_processes import MOST_SOON, SOON_S
from tests.conftest import SEED
from tests.kafka.campaign import tell
from tests.kafka.places import Kafka
from tests.kafka.trainings import (
    INSIDE,
    MAX_LAG,
    OUTSIDE,
    Evidence,
    Training,
    complaints,
    fates,
    other_weights,
)

pytestmark = [pytest.mark.kafka, pytest.mark.train]

LEARNER = "learner"
KILLS, NIGHT = 5, 50
MOST = 11
"""Updates between two kills, at most."""
LAST = 12
"""Updates that nobody disturbs, at the end."""


def plan(rng: np.random.Generator, kills: int) -> list[str]:
    """Who is killed, one after the other: the learner two times of five, the others in turn."""
    others = [(*INSIDE, OUTSIDE)[n % 3] for n in range(kills - kills * 2 // 5)]
    return [str(name) for name in rng.permutation([LEARNER] * (kills * 2 // 5) + others)]


class Campaign:
    """Kills, and actors that stand still for a while."""

    def __init__(self, training: Training, rng: np.random.Generator) -> None:
        self._training, self._rng = training, rng
        self.killed, self.stood = Counter[str](), 0
        self._soon: dict[str, tuple[int, float]] = {}

    def kill(self, name: str) -> None:
        training = self._training
        if name in INSIDE and self._given_up_next(name):
            name = OUTSIDE
        self.killed[name] += 1
        if name == LEARNER:
            self._soon.clear()
            training.kill_learner()
            training.go_on()
        elif name == OUTSIDE:
            training.outside.kill()
            training.begin_outside()
        else:
            training.kill_inside(name)

    def _given_up_next(self, name: str) -> bool:
        """An actor that dies again and again soon after its start is started no more."""
        count, at = self._soon.get(name, (0, -SOON_S))
        count = count + 1 if time.monotonic() - at < SOON_S + 5 else 1
        if count < MOST_SOON:
            self._soon[name] = (count, time.monotonic())
        return count >= MOST_SOON

    def stand_still(self) -> None:
        """An actor stands still for longer than its experience is of use, and goes on."""
        training, self.stood = self._training, self.stood + 1
        name = (*INSIDE, OUTSIDE)[self._rng.integers(3)]
        training.until_acts(name)
        pid = training.outside.pid if name == OUTSIDE else training.pid(name)
        os.kill(pid, signal.SIGSTOP)
        training.until_update(MAX_LAG + 4)
        os.kill(pid, signal.SIGCONT)

    def run(self, kills: int) -> None:
        training, rng = self._training, self._rng
        training.begin("--updates", "1000000")
        training.begin_outside()
        for number, name in enumerate(plan(rng, kills)):
            # Now and then somebody is killed who has not done anything yet.
            if number and rng.random() < 0.2:
                time.sleep(rng.uniform(0, 8))
            else:
                training.until_update(int(rng.integers(1, MOST + 1)))
                if name != LEARNER:
                    training.until_acts(name)
                time.sleep(rng.uniform(0, 0.5))
            self.kill(name)
            if number % 5 == 2:
                self.stand_still()
        training.until_update(LAST)
        for life in (training.learner, training.outside):
            life.send(signal.SIGINT)


def campaign(training: Training, rng: np.random.Generator, kills: int) -> None:
    began, done = time.monotonic(), Campaign(training, rng)
    done.run(kills)
    last, outside = training.learner.end(130), training.outside.end(130)
    for life in training.lives:
        life.quiet()
    seen = Evidence.of(training)
    wrong, again = complaints(seen), seen.repeated()
    lags = [told["worst_lag"] for told in training.told]
    tell(
        f"kill -9 in a training: {kills} kills {dict(done.killed)}, seed {SEED}, {done.stood} stood still, "
        f"{time.monotonic() - began:.0f} s; {seen.updates} updates of {seen.steps:,} steps, {again} made "
        f"again; {len({piece.life for piece in seen.found})} lives of actors, "
        f"{len(fates(seen.found, seen.updates).stale)} of {len(seen.found):,} fragments too old; "
        f"lag {median(lags):g}, at most {max(lags)}"
    )  # fmt: skip
    assert wrong == []
    assert other_weights(training) == [], "an update that is made again is the same, to the bit"
    # With few kills all of them may hit a learner that has just written its checkpoint.
    assert again or kills < NIGHT
    assert (last["complete"], last["updates"], last["steps"]) == (False, seen.updates, seen.steps)
    assert (last["duplicate"], last["foreign"], last["broken"]) == (0, 0, 0)
    assert outside["state"] == "interrupted"
    for name, false in falsified(seen).items():
        assert complaints(false), f"{name}: nobody notices"


def falsified(seen: Evidence) -> dict[str, Evidence]:
    """What would be seen if something had gone wrong."""
    middle = len(seen.found) // 4
    before, piece, after = seen.found[:middle], seen.found[middle], seen.found[middle + 1 :]
    told = [dict(said) for said in seen.told]
    told[-2] = {**told[-2], "experience": told[-3]["experience"]}
    counts = {**seen.buffer["counts"], "taken": seen.buffer["counts"]["taken"] + 1}
    offsets = {topic: offset - 1 for topic, offset in seen.buffer["offsets"].items()}
    return {
        "a fragment is lost": seen._replace(found=before + after),
        "a fragment is there twice": seen._replace(found=[*before, piece, piece, *after]),
        "a batch is learnt from again": seen._replace(told=told),
        "an update is told once less": seen._replace(
            told=[said for said in told if said["update"] != seen.updates // 2]
        ),
        "a step is counted twice": seen._replace(steps=seen.steps + 1),
        "a fragment is counted twice": seen._replace(buffer={**seen.buffer, "counts": counts}),
        "what was learnt from is read again": seen._replace(
            buffer={**seen.buffer, "offsets": offsets}
        ),
    }


@pytest.fixture
def training(kafka: Kafka, tmp_path: Path, request: pytest.FixtureRequest):
    name = "kills" if request.node.get_closest_marker("nightly") is None else "night"
    made = Training(kafka, tmp_path, name)
    yield made
    made.close()


@pytest.mark.timeout(300)
def test_killed_at_random_times(training: Training, rng: np.random.Generator) -> None:
    campaign(training, rng, KILLS)


@pytest.mark.nightly
@pytest.mark.timeout(2_400)
def test_killed_at_random_times_all_night(training: Training, rng: np.random.Generator) -> None:
    campaign(training, rng, NIGHT)


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_one_of_several_learners_is_killed(training: Training) -> None:
    """The others cannot go on without it: the training ends, is told why, and goes on where it stood."""
    training.begin("--learners", "2", "--updates", "1000000")
    training.begin_outside()
    for victim in range(2):
        training.until_update(LAST)
        os.kill(sorted(sharing(training.learner.pid))[victim], signal.SIGKILL)
        training.learner.end(3)
        assert "error: learner: a learner has died: " in training.learner.err
        assert f"--resume {training.policy}" in training.learner.err
        training.go_on()
    training.until_update(LAST)
    for life in (training.learner, training.outside):
        life.send(signal.SIGINT)
    training.learner.end(130)
    training.outside.end(130)
    seen = Evidence.of(training)
    assert complaints(seen) == []
    assert seen.repeated() == 0


def sharing(pid: int) -> list[int]:
    """Processes that share the updates of a learner; Ray has given them their names."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    rows = [line.split(None, 2) for line in listed]
    raylets = {one for one, parent, args in rows if int(parent) == pid and "raylet" in args}
    return [
        int(one) for one, parent, args in rows if parent in raylets and "_WrappedExecutable" in args
    ]
