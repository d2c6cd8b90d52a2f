"""`streambot actor` beside `simulate` on the embedded broker: found through the run's folder."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from examples import raw_agent
from tests.integration.cli.conftest import LIMIT_S, Run, Start, end, wait_for

pytestmark = pytest.mark.integration

FAST = ("simulate", "--speed", "max", "--json", "-q")
BESIDE = (*FAST, "--broker", "embedded", "--run", "r")


def broker_of(folder: Path, process: subprocess.Popen[str]) -> str:
    """Address of the broker of run `r`, once it is there."""
    limit = time.monotonic() + LIMIT_S
    record = folder / "runs" / "r" / "run.json"
    while not record.exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    return str(json.loads(record.read_text())["broker"])


def wait_for_more(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a file of the run grows."""
    limit, before = time.monotonic() + LIMIT_S, path.stat().st_size
    while path.stat().st_size == before:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.parametrize("speed", ["max", "5000x"])
def test_an_agent_in_another_process_gives_the_digest_of_the_same_one_inside(
    run: Run, start: Start, speed: str
) -> None:
    inside = json.loads(run(*FAST, "--broker", "in-process", "--policy", "random").out)
    simulation = start(*BESIDE, "--speed", speed, "--agent", "me")
    acted = end(start("actor", "--run", "r", "--wait", "60s", "--policy", "random", "--json"))
    simulated = end(simulation)
    assert acted.code == 0, acted.err
    assert simulated.code == 0, simulated.err
    summary = json.loads(simulated.out)
    assert summary["digest"] == inside["digest"]
    mine = json.loads(acted.out)
    assert mine["schema"] == "streambot.actor/1"
    assert mine["state"] == "complete"
    assert mine["fills"] == summary["fills"] == inside["fills"] > 10
    assert mine["compared"] >= mine["fills"]
    assert mine["unconfirmed"] == 0
    assert mine["pnl_net"] == summary["pnl_net"]


def test_an_interrupted_actor_goes_on_when_it_is_started_again(
    run: Run, start: Start, tmp_path: Path
) -> None:
    """Also where names of transactions do not exist: what it answers again is dropped."""
    inside = json.loads(run(*FAST, "--broker", "in-process", "--policy", "random").out)
    simulation = start(*BESIDE, "--speed", "1500x", "--agent", "me")
    for _ in range(2):
        actor = start("actor", "--run", "r", "--wait", "60s", "--policy", "random", "--json")
        wait_for(actor, "embedded broker")
        wait_for_more(tmp_path / "runs" / "r" / "fills.ndjson", simulation)
        actor.send_signal(signal.SIGINT)
        interrupted = end(actor)
        assert interrupted.code == 130, interrupted.err
        assert json.loads(interrupted.out)["state"] == "interrupted"
        assert json.loads(interrupted.out)["stopped_by"] == "SIGINT"
    last = end(start("actor", "--run", "r", "--policy", "random", "--json"))
    assert last.code == 0, last.err
    assert json.loads(end(simulation).out)["digest"] == inside["digest"]
    assert json.loads(last.out)["unconfirmed"] == 0


def test_nobody_answers_and_the_agent_is_named(run: Run) -> None:
    ended = run(*BESIDE, "--agent", "me", "--answer-timeout", "1s")
    assert ended.code == 9
    assert "from me within 1 s" in ended.err


def test_a_run_that_goes_away_takes_its_broker_along(run: Run, start: Start) -> None:
    simulation = start(*BESIDE, "--agent", "me", "--agent", "you", "--answer-timeout", "5s")
    acted = run("actor", "--run", "r", "--agent", "me", "--wait", "60s", "-q")
    assert end(simulation).code == 9
    assert acted.code == 5
    assert "run r has gone, and its broker with it" in acted.err


def test_who_is_meant_must_be_clear(run: Run, start: Start) -> None:
    simulation = start(*BESIDE, "--agent", "alpha", "--agent", "beta")
    unclear = run("actor", "--run", "r", "--wait", "60s", "-q")
    assert unclear.code == 2
    assert "several agents: alpha, beta" in unclear.err
    wrong = run("actor", "--run", "r", "--agent", "alfa", "-q")
    assert wrong.code == 2
    assert "alpha" in wrong.err
    policy = run("actor", "--run", "r", "--agent", "alpha", "--policy", "sma-corss", "-q")
    assert policy.code == 3
    assert "sma-cross" in policy.err
    simulation.terminate()
    assert end(simulation).code == 143


def test_a_run_that_is_not_there(run: Run) -> None:
    ended = run("actor", "--run", "nowhere")
    assert ended.code == 2
    assert "there is no run nowhere here" in ended.err


def test_the_example_speaks_to_the_broker_by_itself(start: Start, tmp_path: Path) -> None:
    """`examples/raw_agent.py` knows nothing of streambot but what the documents say of the wire."""
    simulation = start(*BESIDE, "--agent", "raw")
    servers = broker_of(tmp_path, simulation)
    asyncio.run(asyncio.wait_for(raw_agent.main(servers, "r", "raw"), LIMIT_S))
    summary = json.loads(end(simulation).out)
    assert summary["state"] == "complete"
    assert summary["fills"] == 1
    (fill,) = (tmp_path / "runs" / "r" / "fills.ndjson").read_text().splitlines()
    assert json.loads(fill)["instrument"] == "SPY"
    assert json.loads(fill)["barrier"] == 0
