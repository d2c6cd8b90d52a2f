"""Workers that die at any time: nothing is lost, nothing doubled, on Apache Kafka.

What every campaign compares is the record digest of an execution that nobody disturbed, and the
event digest of a simulation without any broker. Each has a mutant that it must notice.
"""

from __future__ import annotations

import numpy as np
import pytest

from streambot.streams.frame import CHAIN_BYTES
from tests.kafka.campaign import Execution, tell
from tests.kafka.deaths import ONCE, POINTS, fail_workers, kill_workers, slow, spread
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

KILLS = 25
NIGHTS = 8


def killed(recording, undisturbed, processes, rng, name: str) -> None:
    execution = Execution(recording, name, processes)
    deaths = kill_workers(execution, rng, kills=KILLS)
    aborted = execution.aborted()
    tell(
        f"kill -9 of workers: {KILLS} kills {dict(deaths.phases)}; aborted records in the raw log "
        f"{dict(aborted)}; kill to the next fill {spread(deaths.recoveries)}"
    )
    deaths = deaths.checked(execution, undisturbed)
    assert deaths.complaints == []
    assert sum(aborted.values()) > 0, "no kill hit an open transaction: this campaign says nothing"
    assert deaths.phases["opening"] + deaths.phases["before the fence"] > 0


def test_killed_at_random_times(recording, undisturbed, processes, rng):
    """G1."""
    killed(recording, undisturbed, processes, rng, "killed")


@pytest.mark.nightly
@pytest.mark.parametrize("night", range(NIGHTS))
def test_killed_at_random_times_all_night(recording, undisturbed, processes, rng, night):
    """G1, 200 kills."""
    killed(recording, undisturbed, processes, rng, f"night{night}")


@pytest.mark.parametrize("mutant", ["plain", "state after, unseen"])
def test_kills_show_what_is_not_exactly_once(recording, undisturbed, processes, rng, mutant):
    """G1 notices a task without transactions, and one whose state comes after them."""
    execution = Execution(recording, f"killed-{mutant.split()[0].strip(',')}", processes)
    deaths = kill_workers(execution, rng, kills=10, mutant=mutant)
    found = deaths.checked(execution, undisturbed).complaints
    assert found, "the campaign does not see what is wrong"
    tell(f"kill -9 of workers, mutant `{mutant}`: {found[0][:150]}")


def dirty(values: dict[int, list[bytes]], rng) -> dict[int, list[bytes]]:
    """The frames, and among them some that are broken."""
    out = {}
    for partition, frames in values.items():
        out[partition] = []
        for frame in frames:
            if rng.random() < 0.15:
                at = int(rng.integers(8 + CHAIN_BYTES, len(frame)))
                broken = frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]
                out[partition].append(broken if rng.random() < 0.7 else frame[:at])
            out[partition].append(frame)
    return out


@pytest.fixture(scope="module")
def poisoned(recording, processes):
    """The recording with broken frames in it, and what comes of it undisturbed."""
    ticks = dirty(recording.values(), np.random.default_rng(1))
    execution = Execution(recording, "poisoned", processes, ticks)
    execution.run_undisturbed()
    outcome = execution.outcome()
    assert sum(len(found) for (s, _), found in outcome.records.items() if s == "dead-letter") > 100
    return execution.topics["ticks"], outcome


def failed(recording, poisoned, processes, rng, name: str, each: int) -> None:
    ticks, reference = poisoned
    points = [(point, 1 if point in ONCE else int(rng.integers(1, 9))) for point in POINTS * each]
    rng.shuffle(points)
    points = [(str(point), int(nth)) for point, nth in points]
    execution = Execution(recording, name, processes, ticks)
    deaths = fail_workers(execution, points)
    aborted = execution.aborted()
    tell(
        f"ends at named points: {len(points)} of {len(POINTS)} points; aborted records in the raw "
        f"log {dict(aborted)}"
    )
    assert deaths.checked(execution, reference).complaints == [], points
    assert aborted["dead-letter"] > 0
    assert aborted["state"] > 0


def test_ended_at_every_point_of_opening_and_commit(recording, poisoned, processes, rng):
    """G2, dead letters included: each point twice."""
    failed(recording, poisoned, processes, rng, "failed", 2)


@pytest.mark.nightly
@pytest.mark.parametrize("night", range(10))
def test_ended_at_every_point_all_night(recording, poisoned, processes, rng, night):
    """G2, each point 20 times."""
    failed(recording, poisoned, processes, rng, f"failed{night}", 2)


@pytest.mark.parametrize("mutant", ["state after", "state after, unseen"])
def test_ends_at_points_show_what_is_not_exactly_once(recording, poisoned, processes, rng, mutant):
    """G2 notices a state behind its transaction: by the task's own check, and without it by digest."""
    ticks, reference = poisoned
    execution = Execution(recording, f"failed-{len(mutant)}", processes, ticks)
    points = [("committed", int(rng.integers(3, 9))) for _ in range(4)]
    found = fail_workers(execution, points, mutant=mutant).checked(execution, reference).complaints
    seen = "but the state says" if mutant == "state after" else "doubled"
    assert any(seen in complaint for complaint in found), found
    tell(f"ends at named points, mutant `{mutant}`: {found[0][:150]}")


def test_how_long_a_worker_is_away(recording, undisturbed, processes):
    """G19: from kill -9 to the first fill that is committed again, started as a shell would."""
    execution = Execution(recording, "recovery", processes)
    ready, seconds = slow(16), []
    life = execution.worker(knobs=ready, exec_it=True)
    for _ in range(5):
        until(lambda life=life: first_fill(life) or life.ended(), "a fill")
        life.kill()
        killed_ns = life.ended_ns
        life = execution.worker(knobs=ready, exec_it=True)
        until(lambda life=life: first_fill(life) or life.ended(), "a fill behind a kill")
        seconds.append((first_fill(life) - killed_ns) / 1e9)
    life.kill()
    execution.run_undisturbed()
    tell(f"recovery of a worker, process start included: kill to the next fill {spread(seconds)}")
    assert execution.outcome().complaints(undisturbed) == []


def first_fill(process) -> int:
    """When its first fill was committed; 0: not yet."""
    return min((t.first_fill_ns for t in process.tasks().values() if t.first_fill_ns), default=0)
