"""`streambot actor --serve`: a run is decided by weights of a training, which change meanwhile."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from streambot.streams.orders import decode_orders
from streambot.streams.reading import read_to_end
from tests.integration.cli.conftest import Ended, Run, Start, end, wait_for
from tests.served import on, trained, weights_of, write

pytestmark = [pytest.mark.integration, pytest.mark.train]
LIMIT_S = 90


def summary(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    document: dict[str, Any] = json.loads(ended.out)
    return document


def answers(broker: str, run: str) -> list[Any]:
    """The lines of a run's orders, partition by partition."""

    async def read(log: Any) -> list[Any]:
        topic = f"streambot.{run}.orders"
        if topic not in await log.streams():
            return []
        records = [record async for batch in read_to_end(log, topic) for record in batch]
        lines = [line for r in records for line in decode_orders(r.value, r.partition)]
        return sorted(lines, key=lambda line: line.partition)

    return on(broker, read)


def wait_for_orders(broker: str, run: str, count: int) -> None:
    limit = time.monotonic() + LIMIT_S
    while sum(len(line.orders) for line in answers(broker, run)) < count:
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_pinned_weights_outside_give_the_digest_of_the_same_ones_inside(
    here: Run, start: Start, broker: str
) -> None:
    on(broker, lambda log: trained(log, 1, 2))
    fast = ("simulate", "--speed", "max", "--json", "-q")
    inside = summary(here(*fast, "--broker", "in-process", "--policy", "moe-1@1"))
    simulation = start(*fast, "--broker", "embedded", "--run", "r", "--agent", "me")
    acting = start("actor", "--run", "r", "--wait", "60s", "--serve", "moe-1@1", "--json")
    acted, simulated = end(acting), end(simulation)
    done = summary(acted)
    assert summary(simulated)["digest"] == inside["digest"]
    assert (done["policy"], done["weights"]) == ("moe-1@1", [1])
    assert "policy moe-1@1" in acted.err
    assert "decide from here on" not in acted.err


def test_newer_weights_are_taken_up_and_a_restart_contradicts_nothing(
    here: Run, start: Start, broker: str
) -> None:
    """Killed while it served, and started again when the weights are others: no exit 8."""
    training = on(broker, lambda log: trained(log, 1))
    simulation = start(
        "simulate", "--speed", "3000x", "--json", "-q", "--bootstrap-servers", broker, "--run", "r",
        "--agent", "me",
    )  # fmt: skip
    serve = ("actor", "--run", "r", "--wait", "60s", "--serve", "moe-1", "--json")
    acting = start(*serve)
    wait_for_orders(broker, "r", 10)
    on(broker, lambda log: write(log, training, weights_of(training, 2)))
    said = wait_for(acting, "decide from here on")
    assert "policy moe-1@newest" in said
    assert "weights 2 of moe-1 decide from here on, before: 1" in said
    wait_for_orders(broker, "r", 10 + sum(len(line.orders) for line in answers(broker, "r")))
    acting.send_signal(signal.SIGKILL)
    acting.communicate()
    before = answers(broker, "r")
    on(broker, lambda log: write(log, training, weights_of(training, 3)))
    again = end(start(*serve))
    done, simulated = summary(again), summary(end(simulation))
    assert simulated["state"] == done["state"] == "complete"
    assert done["weights"] == [3]
    assert done["compared"] >= simulated["fills"] > 50
    after = answers(broker, "r")
    for partition in {line.partition for line in after}:
        own = [line for line in after if line.partition == partition]
        was = [line for line in before if line.partition == partition]
        assert own[: len(was)] == was
        used = [line.policy["weights"] for line in own if line.policy]
        assert used == sorted(used)
        assert {1, 3} <= set(used) <= {1, 2, 3}
    assert 2 in {line.policy["weights"] for line in after if line.policy}
    verified = summary(here("verify", "--run", "r", "--bootstrap-servers", broker, "--json"))
    assert verified["digest"] == verified["digest_again"] == simulated["digest"]


def test_an_actor_without_a_policy_takes_the_weights_that_its_run_keeps(
    here: Run, start: Start, broker: str, tmp_path: Path
) -> None:
    on(broker, lambda log: trained(log, 1))
    fast = ("simulate", "--speed", "max", "--json", "-q")
    inside = summary(here(*fast, "--broker", "in-process", "--policy", "moe-1@1"))
    simulation = start(
        *fast, "--broker", "embedded", "--run", "r", "--agent", "me", "--policy", "moe-1@newest"
    )
    acted = end(start("actor", "--run", "r", "--wait", "60s", "--json", "-q"))
    assert summary(end(simulation))["digest"] == inside["digest"]
    assert summary(acted)["policy"] == "moe-1@1"
    assert (tmp_path / "runs" / "r" / "policy").is_dir()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--serve", "moe-1", "--policy", "flat"), 2, "both say what decides"),
        (("--serve", "moe-9"), 6, "no training moe-9 is declared on"),
        (("--serve", "moe-1@7"), 6, "has no weights 7 (any more)"),
        (("--serve", "moe-1@latest"), 3, "`latest` is no sequence of weights"),
        (("--policy", "moe-1@1"), 3, "`actor --serve`"),
        (("--serve", "moe-1", "--run", "moe-1"), 2, "is a training: its own weights decide"),
    ],
)
def test_what_cannot_serve_is_one_line(
    here: Run, broker: str, flags: tuple[str, ...], code: int, said: str
) -> None:
    on(broker, lambda log: trained(log, 1))
    record = ("--speed", "max", "-q", "--bootstrap-servers", broker, "--run", "r", "--agent", "me")
    assert here("replay", *record).code == 0
    ended = here("actor", "--run", "r", "--bootstrap-servers", broker, *flags)
    assert ended.code == code, ended.err
    assert said in " ".join(ended.err.split())
    assert ended.err.count("error: ") == 1
