"""A trained policy on Apache Kafka: in a worker that is killed, in an actor that is, and verified."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streambot.domain.config import KafkaSecurity
from streambot.streams.orders import decode_orders
from streambot.wiring.recording import RecordedAt
from streambot.wiring.verified import RunToVerify
from streambot.wiring.verifying import verify_run
from tests.kafka.commands import Command, commands, end
from tests.kafka.places import Kafka
from tests.kafka.test_actor import answers, digest, values
from tests.trained import EXPERTS, save_loud
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.train]
ENV = {
    "max_quantity": 3, "window": 6, "lookback": 20, "warmup": 20, "regime_windows": [16, 32],
    "zscore_window": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def kafka(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    broker = Kafka(kafka_home, tmp_path_factory.mktemp("broker") / "all")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def command(kafka: Kafka, tmp_path: Path) -> Iterator[Command]:
    """Start `streambot …` against the broker, in a folder with the checkpoint."""
    save_loud(tmp_path / "best", env=ENV)
    with commands(kafka.address, tmp_path, "-q", "--json") as begin:
        yield begin


def said(kafka: Kafka, run: str) -> dict[str, float]:
    """What the policy says of itself where it gave an order."""
    found: dict[str, float] = {}
    for partition, value in values(kafka, run, "orders"):
        for line in decode_orders(value, partition):
            for order in line.orders:
                for name in EXPERTS:
                    assert line.policy is not None
                    key = f"{order.instrument}@{order.barrier}.{name}"
                    found[key] = line.policy[key]
    return found


@pytest.fixture(scope="module")
def whole(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of an undisturbed run, all in one process."""
    folder = tmp_path_factory.mktemp("whole")
    save_loud(folder / "best", env=ENV)
    with commands(kafka.address, folder, "-q", "--json") as begin:
        done: dict[str, Any] = end(
            begin("simulate", "--speed", "max", "--policy", "best", "--run", "whole")
        )
    assert done["fills"] > 100
    return done


def test_a_worker_that_dies_goes_on_with_the_weights_of_the_run(
    kafka: Kafka, command: Command, tmp_path: Path, whole: dict[str, Any]
) -> None:
    """It finds the checkpoint elsewhere, and only the one that the run began with will do."""
    replay = command("replay", "--speed", "6000x", "--policy", "best", "--run", "apart")
    until((tmp_path / "runs" / "apart" / "run.json").exists, "the replay")
    (tmp_path / "best").rename(tmp_path / "moved")
    save_loud(tmp_path / "other", env=ENV, seed=9)
    work = ("worker", "--run", "apart", "--no-rollup", "--wait", "60s", "--policy")
    assert "another one than when the run began" in end(command(*work, "other"), 3)
    worker = command(*work, "moved")
    until(lambda: answers(kafka, "apart") > 100, "answers")
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    end(command(*work, "moved"))
    end(replay)
    assert digest(kafka, "apart") == whole["digest"]
    assert said(kafka, "apart") == said(kafka, "whole")
    at = RecordedAt(kafka.address, KafkaSecurity())
    wanted = RunToVerify("apart", tmp_path / "runs" / "apart", at, "streambot", "moved", tmp_path)
    found = verify_run(wanted, lambda _: None)
    assert (found.equal, found.digest) == (True, whole["digest"])


def test_an_actor_that_dies_gives_the_same_orders_again(
    kafka: Kafka, command: Command, whole: dict[str, Any]
) -> None:
    replay = command("replay", "--speed", "6000x", "--run", "acted", "--agent", "me")
    worker = command("worker", "--run", "acted", "--no-rollup", "--wait", "60s")
    act = ("actor", "--run", "acted", "--policy", "best", "--wait", "60s")
    actor = command(*act)
    until(lambda: answers(kafka, "acted") > 100, "answers")
    actor.send_signal(signal.SIGKILL)
    actor.communicate()
    assert end(command(*act))["state"] == "complete"
    end(replay)
    end(worker)
    assert digest(kafka, "acted") == whole["digest"]
    assert said(kafka, "acted") == said(kafka, "whole")
