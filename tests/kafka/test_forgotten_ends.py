"""A broker that forgets to tell partitions how a transaction ended: what is left there is ended first.

Apache Kafka 4.4.0 does so when it is stopped under load. Here processes make it happen
on purpose: some partitions are kept from the coordinator, on a broker that does not look for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streambot.adapters.kafka import KafkaLog
from streambot.domain.errors import StreamError
from streambot.processor.state_log import restore_state
from streambot.streams.ports import TopicPartition
from streambot.wiring.tasks import engine_group
from tests.kafka.campaign import (
    OUTPUTS,
    Execution,
    Market,
    Outcome,
    Recording,
    read_all,
    replay,
    resumed,
    tell,
)
from tests.kafka.conftest import MAX_ROWS
from tests.kafka.crash_child import FAILED_AT_POINT
from tests.kafka.deaths import said, slow
from tests.kafka.places import RAW, Kafka, Template
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

EVERYWHERE = [*OUTPUTS, "state"]
CASES = {
    "everywhere, and the offsets are not committed": (EVERYWHERE, "offsets-sent"),
    "everywhere but in the offsets": (EVERYWHERE, "committed"),
    "in the state": (["state"], "committed"),
    "in the orders": (["orders"], "committed"),
    "in the fills and marks": (["fills", "pnl"], "committed"),
}


@pytest.fixture(scope="module")
def forgetful(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    folder = tmp_path_factory.mktemp("forgetful") / "broker"
    broker = Kafka(kafka_home, folder, transaction_partition_verification_enable="false")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def kept(
    forgetful: Kafka, market: Market, processes: Template, simulated: str
) -> tuple[Recording, Outcome]:
    """A recording on that broker, and what comes of it when nothing is forgotten."""
    publishing = replay(processes, forgetful, market, "kept", "--speed", "max", max_rows=MAX_ROWS)
    assert publishing.end() == 0, said(publishing)
    recording = Recording(forgetful, "kept")
    execution = Execution(recording, "kept-whole", processes)
    execution.run_undisturbed()
    outcome = execution.outcome()
    assert outcome.event_digest == simulated
    return recording, outcome


def hidden(execution: Execution) -> int:
    """Its records without an end."""
    return sum(waiting(execution.kafka, execution.topics[stream]) for stream in EVERYWHERE)


def forgotten(
    kept: tuple[Recording, Outcome], processes: Template, case: str, name: str, **how
) -> list[str]:
    """What is wrong with an execution in which an end is forgotten, each time before the worker dies."""
    recording, reference = kept
    streams, point = CASES[case]
    execution = Execution(recording, name, processes)
    without = 0
    for nth in (3, 6, 4):
        life = execution.worker(
            1, len(recording.partitions), knobs=slow(24), failpoint=(point, nth),
            forgets=(streams, nth), **how,
        )  # fmt: skip
        if life.end() != FAILED_AT_POINT:
            return [f"a worker ended otherwise: {said(life)}"]
        without += hidden(execution)
    tell(f"ends forgotten {case}: {without} records in 3 lives")
    assert without > 0, "nothing was forgotten"
    last = execution.worker(**how)
    if last.end() != 0:
        return [f"a worker ended otherwise: {said(last)}"]
    return execution.outcome().complaints(reference)


@pytest.mark.parametrize("case", CASES)
def test_what_was_left_without_an_end(kept, processes, case):
    """Gone where the work is done again, visible where the rest of it is."""
    number = list(CASES).index(case)
    assert forgotten(kept, processes, case, f"forgotten{number}") == []


def positions(execution: Execution) -> tuple[int, int]:
    """Of the task that is disturbed, in its ticks: the group's and the state's."""
    place = TopicPartition(execution.topics["ticks"], 1)

    async def look(log: KafkaLog) -> tuple[int, int]:
        group = engine_group(execution.name, execution.recording.run)
        state = await restore_state(log, execution.topics["state"], 1)
        assert state is not None
        return (await log.committed(group, [place]))[place], state.offset

    return execution.kafka.do(look)


def test_a_group_that_is_behind(kept, processes):
    """The state counts, which ended with the rest of it; what a group has read is there to be looked at."""
    recording, reference = kept
    execution = Execution(recording, "behind", processes)
    for nth in (3, 6, 4):
        life = execution.worker(
            1, len(recording.partitions), knobs=slow(24), failpoint=("committed", nth),
            forgets=(["group"], nth),
        )  # fmt: skip
        assert life.end() == FAILED_AT_POINT, said(life)
        group, state = positions(execution)
        assert group < state
    last = execution.worker()
    assert last.end() == 0, said(last)
    assert execution.outcome().complaints(reference) == []
    group, state = positions(execution)
    assert group == state


def test_lives_show_what_was_left_as_it_is(kept, processes):
    """Without the ending of what is left, records are written again beside it."""
    case = next(iter(CASES))
    found = forgotten(kept, processes, case, "left", mutant="does not finish")
    assert found, "the campaign does not see what is wrong"
    tell(f"ends forgotten, mutant `does not finish`: {found[0][:150]}")


@pytest.mark.parametrize("mutant", [None, "does not finish"])
def test_a_replay_that_left_frames_without_an_end(forgetful, market, processes, mutant):
    """They are gone, and the replay goes on behind what is visible."""
    run = "half" if mutant is None else "half-wrong"
    how = {"mutant": mutant}
    going = replay(
        processes, forgetful, market, run, "--speed", "3000x", forgets=(["ticks"], 6), **how
    )
    until(lambda: going.commits >= 5 or going.ended(), "a replay that publishes")
    topic = Recording(forgetful, run).ticks
    until(lambda: going.ended() or waiting(forgetful, topic), "frames without an end")
    going.kill()
    last = resumed(processes, market.folder, run, "--speed", "max", **how)
    if mutant is None:
        assert last.end() == 0, said(last)
        Recording(forgetful, run).check()
        return
    last.end()
    with pytest.raises((AssertionError, StreamError), match="twice|wrong|expected frame|no END"):
        Recording(forgetful, run).check()


def waiting(kafka: Kafka, topic: str) -> int:
    """Records of a topic that no reader of committed ones sees."""
    raw, seen = read_all(kafka, topic, RAW), read_all(kafka, topic)
    return sum(map(len, raw.values())) - sum(map(len, seen.values()))
