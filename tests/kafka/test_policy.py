"""Weights of a training on Apache Kafka: pinned, read, and serving while the actor is killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from streambot.streams.orders import decode_orders
from tests.kafka.commands import Command, commands, end
from tests.kafka.places import Kafka
from tests.kafka.test_actor import digest, values
from tests.served import trained, weights_of, write
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.train]


@pytest.fixture(scope="module")
def kafka(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    broker = Kafka(kafka_home, tmp_path_factory.mktemp("broker") / "all")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def command(kafka: Kafka, tmp_path: Path) -> Iterator[Command]:
    """Start `streambot …` against the broker."""
    with commands(kafka.address, tmp_path, "--json") as begin:
        yield begin


PARTITIONS = range(2)


def weights_used(kafka: Kafka, partition: int) -> list[float]:
    """Sequence numbers of the weights behind every answer of the run, in their order."""
    return [
        line.policy["weights"]
        for own, value in values(kafka, "served", "orders")
        if own == partition
        for line in decode_orders(value, partition)
        if line.policy
    ]


def decided(kafka: Kafka, sequence: int) -> bool:
    """Have those weights decided something in every partition?"""
    if "streambot.served.orders" not in kafka.do(lambda log: log.streams()):
        return False  # the replay has not begun yet
    return all(sequence in weights_used(kafka, partition) for partition in PARTITIONS)


def test_a_pin_is_read_and_a_worker_finds_what_its_run_keeps(
    kafka: Kafka, command: Command
) -> None:
    training = kafka.do(lambda log: trained(log, 1, 2))
    assert end(command("policy", "pin", "moe-1@1"))["new"]
    assert not end(command("policy", "pin", "moe-1@1"))["new"]
    kafka.do(lambda log: write(log, training, weights_of(training, 3)))
    assert end(command("policy", "show", "moe-1"))["pins"] == [1]
    whole = end(
        command("simulate", "--speed", "max", "-q", "--policy", "moe-1@1", "--run", "whole")
    )
    assert whole["policy"] == "moe-1@1"
    end(command("replay", "--speed", "max", "-q", "--policy", "moe-1@1", "--run", "apart"))
    worked = end(command("worker", "--run", "apart", "--no-rollup", "-q"))
    assert worked["fills"] == whole["fills"] > 50
    assert digest(kafka, "apart") == whole["digest"]


def test_an_actor_killed_and_started_again_under_newer_weights(
    kafka: Kafka, command: Command
) -> None:
    """Its transactions are fenced, what is committed stays, and the run ends with what was accepted."""
    training = kafka.do(lambda log: trained(log, 1, name="moe-2"))
    replay = command("replay", "--speed", "400x", "-q", "--run", "served", "--agent", "me")
    worker = command("worker", "--run", "served", "--no-rollup", "--wait", "60s", "-q")
    for sequence in (2, 3):
        actor = command("actor", "--run", "served", "--serve", "moe-2", "--wait", "60s", "-q")
        # It catches up with what was replayed while it started, in one go: what it has decided counts.
        until(lambda: decided(kafka, sequence - 1), "answers")  # noqa: B023  # used at once
        actor.send_signal(signal.SIGKILL)
        actor.communicate()
        kafka.do(lambda log: write(log, training, weights_of(training, sequence)))  # noqa: B023
    last = end(command("actor", "--run", "served", "--serve", "moe-2", "-q"))
    end(replay)
    worked = end(worker)
    assert (last["state"], last["weights"]) == ("complete", [3])
    assert last["compared"] >= worked["fills"] > 50
    for partition in PARTITIONS:
        used = weights_used(kafka, partition)
        assert used == sorted(used)
        assert set(used) == {1, 2, 3}
    assert end(command("verify", "--run", "served"))["digest_again"] == digest(kafka, "served")
