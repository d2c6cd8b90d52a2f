"""Replay, worker and actor as processes of their own on Apache Kafka; and what comes when one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streambot.processor.declaration import Declared, read_declaration
from streambot.processor.journal import STREAMS, EventDigest, event_digest
from streambot.streams.orders import decode_orders
from streambot.streams.reading import read_to_end
from tests.kafka.commands import Command, commands, end
from tests.kafka.places import ROOT, Kafka
from tests.unit.processor.task_bench import in_lockstep
from tests.waiting import until

pytestmark = pytest.mark.kafka

STRATEGY = '''
from streambot.domain.events import CLOSE, HOLD, buy, sell


class Weighing:
    """Orders by what it sees of bars and account, and by what it was told of fills."""

    def __init__(self):
        self.seen = self.told = 0

    def on_fill(self, event):
        self.told += event.seq + 1

    def on_bar(self, bar, account):
        self.seen += int(bar.close * 100) + self.told
        if self.seen % 5 or account.halted:
            return HOLD
        if account.position:
            return CLOSE if account.unrealized_pnl < 0 or self.seen % 2 else HOLD
        return buy(1 + self.seen % 3) if self.seen % 2 else sell(2)
'''
POLICY = "weighing.py:Weighing"
OTHER_RULES = """
import sys
import streambot.processor.task as task
made = task.make_params
task.make_params = lambda instrument, capital, limits: made(instrument, capital {change}, limits)
from streambot.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def kafka(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    broker = Kafka(kafka_home, tmp_path_factory.mktemp("broker") / "all")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def command(kafka: Kafka, tmp_path: Path) -> Iterator[Command]:
    """Start `streambot …` against the broker."""
    (tmp_path / "weighing.py").write_text(STRATEGY)
    with commands(kafka.address, tmp_path, "-q", "--json") as begin:
        yield begin


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The summary of the same policy inside the engine."""
    folder = tmp_path_factory.mktemp("inside")
    (folder / "weighing.py").write_text(STRATEGY)
    done = subprocess.run(
        [sys.executable, "-m", "streambot.cli.main", "simulate", "--speed", "max", "--json", "-q",
         "--broker", "in-process", "--policy", POLICY],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def declared(kafka: Kafka, run: str) -> Declared | None:
    return kafka.do(lambda log: read_declaration(log, f"streambot.{run}.runs"))


def values(kafka: Kafka, run: str, stream: str) -> list[tuple[int, bytes]]:
    """Partition and value of every committed record."""

    async def read(log: Any) -> list[tuple[int, bytes]]:
        topic = f"streambot.{run}.{stream}"
        return [(r.partition, r.value) async for batch in read_to_end(log, topic) for r in batch]

    return kafka.do(read)


def digest(kafka: Kafka, run: str) -> str:
    """Event digest of what stands in the topics."""
    found = declared(kafka, run)
    assert found is not None
    whole = EventDigest(i.symbol for i in found.declaration.manifest.instruments)
    for stream in STREAMS:
        for _, value in values(kafka, run, stream):
            whole.read(stream, value.splitlines(keepends=True))
    return event_digest(whole.parts())


def answers(kafka: Kafka, run: str) -> int:
    """Highest barrier answered so far."""
    if declared(kafka, run) is None:
        return -1
    lines = [
        line for partition, value in values(kafka, run, "orders")
        for line in decode_orders(value, partition)
    ]  # fmt: skip
    return max((line.through_barrier for line in lines), default=-1)


def test_the_pieces_apart_give_the_digest_of_all_in_one(
    kafka: Kafka, command: Command, inside: Any
) -> None:
    replay = command("replay", "--speed", "max", "--run", "whole", "--agent", "me")
    worker = command("worker", "--run", "whole", "--no-rollup", "--wait", "60s")
    actor = command("actor", "--run", "whole", "--policy", POLICY, "--wait", "60s")
    end(replay)
    worked, acted = end(worker), end(actor)
    assert digest(kafka, "whole") == inside["digest"]
    assert worked["fills"] == acted["fills"] == inside["fills"] > 10
    assert acted["pnl_net"] == worked["pnl_net"]
    assert acted["compared"] == sum(
        value.count(b"\n") for _, value in values(kafka, "whole", "fills")
    )


def test_an_actor_killed_in_the_middle_and_started_again(
    kafka: Kafka, command: Command, inside: Any
) -> None:
    """The worker waits for it, twice, and the digest is that of the undisturbed run."""
    replay = command("replay", "--speed", "3000x", "--run", "killed", "--agent", "me")
    worker = command("worker", "--run", "killed", "--no-rollup", "--wait", "60s")
    for barrier in (60, 160):
        actor = command("actor", "--run", "killed", "--policy", POLICY, "--wait", "60s")
        until(lambda: answers(kafka, "killed") > barrier, "answers")  # noqa: B023  # used at once
        actor.send_signal(signal.SIGKILL)
        actor.communicate()
    last = end(command("actor", "--run", "killed", "--policy", POLICY))
    end(replay)
    end(worker)
    assert digest(kafka, "killed") == inside["digest"]
    assert last["state"] == "complete"
    assert last["compared"] >= inside["fills"]


def test_an_actor_that_stays_away_ends_the_worker_by_its_name(
    kafka: Kafka, command: Command
) -> None:
    """And the worker, started again beside a new actor, goes on to the end."""
    end(
        command(
            "replay", "--speed", "max", "--run", "away", "--agent", "me", "--answer-timeout", "2s"
        )
    )
    said = end(command("worker", "--run", "away", "--no-rollup"), 9)
    assert "from me within 2 s" in said
    actor = command("actor", "--run", "away", "--policy", "random")
    worker = command("worker", "--run", "away", "--no-rollup")
    assert end(worker)["state"] == "complete"
    assert end(actor)["unconfirmed"] == 0


@pytest.mark.parametrize("change", ["- 100_000_000", "+ 1"])
def test_a_worker_by_other_rules_is_found_out(kafka: Kafka, command: Command, change: str) -> None:
    run = f"rules{len(change)}"
    end(command("replay", "--speed", "max", "--run", run, "--agent", "me"))
    command("worker", "--run", run, "--no-rollup", code=OTHER_RULES.format(change=change))
    said = end(command("actor", "--run", run, "--policy", POLICY), 8)
    assert "event 0: the engine's is not the one of the agent's mirror" in said
    assert "engine: {" in said
    assert "mirror: {" in said


def test_another_policy_under_the_same_name_is_refused(kafka: Kafka, command: Command) -> None:
    end(command("replay", "--speed", "max", "--run", "mind", "--agent", "me"))
    actor = command("actor", "--run", "mind", "--policy", "random")
    until(lambda: answers(kafka, "mind") > 300, "answers")
    actor.send_signal(signal.SIGKILL)
    actor.communicate()
    said = end(command("actor", "--run", "mind", "--policy", POLICY), 8)
    assert "before it was started again" in said


def test_a_second_actor_of_a_name_takes_over(kafka: Kafka, command: Command, inside: Any) -> None:
    replay = command("replay", "--speed", "2000x", "--run", "two", "--agent", "me")
    worker = command("worker", "--run", "two", "--no-rollup", "--wait", "60s")
    first = command("actor", "--run", "two", "--policy", POLICY, "--wait", "60s")
    until(lambda: answers(kafka, "two") > 20, "answers")
    second = command("actor", "--run", "two", "--policy", POLICY)
    assert "another process has taken over" in end(first, 5)
    assert end(second)["state"] == "complete"
    end(replay)
    end(worker)
    assert digest(kafka, "two") == inside["digest"]


def test_a_broker_that_goes_away_is_waited_for(kafka: Kafka, command: Command, inside: Any) -> None:
    end(command("replay", "--speed", "max", "--run", "gone", "--agent", "me"))
    actor = command("actor", "--run", "gone", "--policy", POLICY)
    until(lambda: answers(kafka, "gone") > 300, "answers")
    kafka.kill()
    kafka.start()
    end(command("worker", "--run", "gone", "--no-rollup"))
    assert end(actor)["state"] == "complete"
    assert digest(kafka, "gone") == inside["digest"]


def test_one_that_trades_and_one_that_watches(kafka: Kafka, command: Command, inside: Any) -> None:
    run = "pair"
    end(command("replay", "--speed", "max", "--run", run, "--agent", "watcher", "--agent", "me"))
    worker = command("worker", "--run", run, "--no-rollup")
    watcher = command("actor", "--run", run, "--agent", "watcher", "--policy", "flat")
    me = command("actor", "--run", run, "--agent", "me", "--policy", POLICY)
    end(worker)
    watched, acted = end(watcher), end(me)
    assert digest(kafka, run) == inside["digest"]
    assert watched["orders"] == 0
    assert watched["compared"] == acted["compared"] >= inside["fills"]


def test_a_free_run_is_repeated_in_lockstep(kafka: Kafka, command: Command) -> None:
    """What was accepted, given as the answers of an agent that is waited for: the same digest."""
    free = ("--speed", "3000x", "--run", "free", "--agent", "me", "--free-run")
    worker = command("worker", "--run", "free", "--no-rollup", "--wait", "60s")
    actor = command("actor", "--run", "free", "--policy", POLICY, "--wait", "60s")
    replay = command("replay", *free)
    end(replay)
    end(worker)
    acted = end(actor)
    assert acted["merge"] == "free run"
    assert acted["compared"] >= acted["fills"] > 0
    accepted: dict[int, list[bytes]] = {}
    for partition, value in values(kafka, "free", "accepted"):
        accepted.setdefault(partition, []).append(value)

    end(command("replay", "--speed", "max", "--run", "again", "--agent", "me"))

    async def answer(log: Any) -> None:
        sink = await log.sink()
        for partition, taken in accepted.items():
            value = in_lockstep(taken, partition)
            await sink.append("streambot.again.orders", partition, value, timestamp_ms=0)
        await sink.close()

    kafka.do(answer)
    end(command("worker", "--run", "again", "--no-rollup"))
    assert digest(kafka, "again") == digest(kafka, "free")
