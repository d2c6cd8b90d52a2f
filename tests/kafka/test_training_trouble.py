"""A broker that goes away under a training: who waits, who ends, with which words, and how it goes on.

The learner ends, and everything that it has learnt is kept; actors elsewhere wait for the broker. The
waits are shortened (`impatient`): 3 s to notice that a broker is gone, instead of 15 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")

from tests.kafka.places import ROOT, Kafka
from tests.kafka.trainings import OUTSIDE, PATIENCE_S, Evidence, Training, complaints, pieces
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.train]

IMPATIENT = (str(ROOT / "tests" / "kafka" / "impatient.py"),)
UPDATES = 120
Ends = Callable[[Kafka], None]


@pytest.fixture
def training(kafka_home: Path, tmp_path: Path) -> Iterator[Training]:
    """On a broker of its own, to be stopped."""
    kafka = Kafka(kafka_home, tmp_path / "broker")
    kafka.start()
    made = Training(kafka, tmp_path, "gone", IMPATIENT)
    yield made
    made.close()
    kafka.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ends", [Kafka.stop, Kafka.kill], ids=["stopped", "killed"])
def test_a_broker_that_goes_and_is_started_again(training: Training, ends: Ends) -> None:
    training.begin("--updates", str(UPDATES))
    training.begin_outside(IMPATIENT_PATIENCE_S="120")
    training.until_update(7)
    until(lambda: acted(training), "an actor from outside that acts", PATIENCE_S)
    ends(training.kafka)
    learner = training.learner
    learner.end(5)
    errors = [line for line in learner.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, learner.err
    assert f"the policy as it was before is kept: --resume {training.policy}" in learner.err
    assert "  try: " in learner.err
    kept = int(training.kept()["progress"]["updates"])
    assert kept - 1 <= learner.out[-1]["update"] <= kept
    assert training.pids() == {}, "its actors end with it"
    assert training.outside.code is None
    until(lambda: "trying again for 120 s" in training.outside.err, "the outage, told")

    training.kafka.start()
    training.go_on()
    last, outside = training.learner.end(), training.outside.end()
    assert "the broker is back after" in training.outside.err
    assert (last["complete"], last["updates"]) == (True, UPDATES)
    assert outside["state"] == "complete"
    assert outside["lives"] >= 2
    seen = Evidence.of(training)
    assert complaints(seen) == []
    assert seen.repeated() == 0, "nothing was lost, so nothing was made again"
    assert len(acted(training)) >= 2, "the actor from outside has gone on"


def acted(training: Training) -> set[tuple[str, int]]:
    """Lives of the actor from outside that have brought something."""
    found = pieces(training.records("experience"))
    return {piece.life for piece in found if piece.life[0] == OUTSIDE}
