"""Ticks with something missing, or something twice: a worker stops and says where, or drops and counts.

What it had done before stays right, and started again it does not go on either.
"""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.kafka.campaign import Execution, Outcome, tell
from tests.kafka.crash_child import FAILED_AT_POINT
from tests.kafka.deaths import said, slow
from tests.kafka.places import Kafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PARTITION = 1


def cut_head(kafka: Kafka, topic: str, before: int) -> None:
    """As retention, or an administrator, would do it."""

    async def cut(_) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
        await admin.start()
        try:
            place = KafkaPartition(topic, PARTITION)
            await admin.delete_records({place: RecordsToDelete(before_offset=before)})
        finally:
            await admin.close()

    kafka.do(cut)


def stops(execution: Execution, *words: str, **how) -> list[str]:
    """What is wrong where a worker has to stop: twice, with these words, and without going on."""
    wrong = []
    seen = None
    for _ in range(2):
        life = execution.worker(PARTITION, len(execution.recording.partitions), **how)
        if life.end() != 4 or any(word not in life.err for word in words):
            wrong.append(f"it does not stop and say {words}: {said(life)}")
        before, seen = seen, execution.outcome().records
        if before is not None and seen != before:
            wrong.append("started again it went on")
    return wrong


def is_beginning(outcome: Outcome, reference: Outcome) -> bool:
    """True where everything written is the first part of what should be."""
    return all(
        records == reference.records.get(place, [])[: len(records)]
        for place, records in outcome.records.items()
    )


@pytest.mark.parametrize("mutant", [None, "no sequence"])
def test_a_frame_that_is_missing(recording, undisturbed, processes, rng, mutant):
    """G10: exit 4, partition and number, everything before it, nothing behind it, never on."""
    ticks = recording.values()
    missing = int(rng.integers(20, len(ticks[PARTITION]) - 20))
    del ticks[PARTITION][missing]
    name = "missing" if mutant is None else "unseen"
    execution = Execution(recording, name, processes, ticks)
    where = f"{execution.topics['ticks']}/{PARTITION}"
    expected = f"expected frame {missing}, received {missing + 1}"
    wrong = stops(execution, where, expected, mutant=mutant)
    if mutant is not None:
        assert wrong, "the test does not see what is wrong"
        return
    assert wrong == []
    outcome = execution.outcome()
    assert is_beginning(outcome, undisturbed)
    last = max(
        int(dict(headers)["frame_seq"]) for *_, headers, _ in outcome.records["orders", PARTITION]
    )
    assert last == missing - 1
    tell(f"a missing frame: stopped behind frame {last} with `{expected}`")


def test_a_head_that_is_gone(recording, undisturbed, processes, rng):
    """G10, before the worker is there: as if frame 0 were missing."""
    execution = Execution(recording, "headless", processes, recording.values())
    gone = int(rng.integers(2, 200))
    cut_head(execution.kafka, execution.topics["ticks"], gone)
    where = f"{execution.topics['ticks']}/{PARTITION}"
    assert stops(execution, where, f"expected frame 0, received {gone}") == []
    assert execution.outcome().records == {}


def test_a_head_that_goes_under_a_worker_that_is_away(recording, undisturbed, processes):
    """G10, behind the position of a worker that was killed."""
    execution = Execution(recording, "beheaded", processes, recording.values())
    share = (PARTITION, len(recording.partitions))
    life = execution.worker(*share, knobs=slow(2), failpoint=("committed", 6))
    assert life.end() == FAILED_AT_POINT, said(life)
    before = execution.outcome()
    cut_head(execution.kafka, execution.topics["ticks"], 500)
    assert stops(execution, f"{execution.topics['ticks']}/{PARTITION}", "is not kept") == []
    after = execution.outcome()
    assert after.records == before.records
    assert is_beginning(after, undisturbed)


def test_frames_that_come_twice(recording, undisturbed, processes, rng):
    """G9: repeats, near and far, are dropped and counted; records are the same."""
    ticks, repeats = {}, dict.fromkeys(recording.partitions, 0)
    for partition, frames in recording.values().items():
        ticks[partition] = []
        for number, frame in enumerate(frames):
            ticks[partition].append(frame)
            if rng.random() < 0.05 and number < len(frames) - 1:
                back = int(rng.integers(max(0, number - 50), number + 1))
                ticks[partition].append(frames[back])
                repeats[partition] += 1
    execution = Execution(recording, "twice", processes, ticks)
    life = execution.worker()
    assert life.end() == 0, said(life)
    assert life.summary["duplicates"] == sum(repeats.values()) > 100
    assert execution.outcome().complaints(undisturbed) == []
    tell(f"frames that come twice: {life.summary['duplicates']} dropped and counted")
