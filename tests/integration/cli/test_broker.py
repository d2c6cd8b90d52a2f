"""`streambot broker` with the embedded broker: it outlives the command, and is found by the others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streambot.adapters.broker import standing
from streambot.adapters.broker.loopback import port_is_free
from streambot.adapters.broker.processes import start_of
from streambot.adapters.kafka import EMBEDDED, KafkaLog, detect_profile
from streambot.domain.errors import BrokerError, DecodeError
from streambot.domain.topics import Of, bundled_topics, streams_of
from streambot.streams.dead_letter import dead_letter
from streambot.streams.ports import Record, StreamSpec
from tests.integration.cli.conftest import Ended, Run
from tests.waiting import until

pytestmark = pytest.mark.integration

OF_A_RUN = streams_of(bundled_topics(), Of.RUN)
EMBEDDED_ONE = ("broker", "start", "--kind", "embedded")


@pytest.fixture(autouse=True)
def nothing_stays(here: Run) -> Iterator[None]:
    """A broker that outlives its command must not outlive its test."""
    yield
    here("broker", "stop", "--delete-data")


def status(here: Run) -> dict[str, Any]:
    said = here("broker", "status", "--json")
    return {"code": said.code, **json.loads(said.out)}


def test_it_outlives_its_command_and_is_stopped_by_another(run: Run, here: Run) -> None:
    started = run(*EMBEDDED_ONE)
    assert started.code == 0, started.err
    address = started.out.strip()
    assert address.startswith("127.0.0.1:")
    assert f"next: streambot simulate --bootstrap-servers {address}" in started.err
    assert "in memory" in started.err
    state = status(here)
    assert (state["status"], state["kind"], state["address"]) == ("running", "embedded", address)
    assert start_of(state["pid"])
    assert os.getsid(state["pid"]) == state["pid"], "a session of its own: Ctrl-C is not for it"
    assert state["memory_bytes"] > 1 << 20
    assert state["uptime_s"] >= 0
    again = run(*EMBEDDED_ONE, "--json")
    assert again.code == 0
    told = json.loads(again.out)
    assert (told["already"], told["pid"], told["address"]) == (True, state["pid"], address)
    stopped = run("broker", "stop")
    assert stopped.code == 0
    assert address in stopped.out
    assert start_of(state["pid"]) is None
    assert status(here)["status"] == "stopped"
    assert "no broker runs" in here("broker", "stop").err


def test_what_runs_is_not_replaced_behind_the_back_of_who_uses_it(here: Run) -> None:
    here(*EMBEDDED_ONE)
    before = status(here)["pid"]
    for arguments in (("--kind", "apache"), ("--port", "29092"), ("--fresh",)):
        said = here("broker", "start", *arguments)
        assert said.code == 2
        assert "runs here already" in said.err
        assert "streambot broker stop" in said.err
    assert status(here)["pid"] == before


def test_one_that_died_is_called_dead_and_can_be_started_again(here: Run) -> None:
    here(*EMBEDDED_ONE)
    pid, address = status(here)["pid"], status(here)["address"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: start_of(pid) is None, "its end")
    assert (status(here)["status"], status(here)["code"]) == ("dead", 5)
    people = here("broker", "status")
    assert people.code == 5
    assert f"its process {pid} is gone" in people.out
    assert "broker.log" in people.err
    again = here(*EMBEDDED_ONE)
    assert again.code == 0
    assert "had died" in again.err
    assert again.out.strip() == address, "clients find it where it was"


def test_of_two_that_start_at_the_same_moment_one_takes_the_next_port(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the port free: who comes second to it takes another, and does not give up."""
    first: list[int] = []

    def free_until_asked(port: int) -> bool:
        if not port_is_free(port):
            return False
        if not first:
            first.append(port)
            other.bind(("127.0.0.1", port))
            other.listen()
        return True

    with socket.socket() as other:
        monkeypatch.setattr(standing, "port_is_free", free_until_asked)
        started = here(*EMBEDDED_ONE)
        assert started.code == 0, started.err
        port = int(started.out.strip().rpartition(":")[2])
        assert port > first[0]
        assert f"taking {port}" in started.err
        assert status(here)["status"] == "running"
        here("broker", "stop")
        again = here(*EMBEDDED_ONE, "--port", str(first[0]))
    assert again.code == 5, "a port that was asked for is that one or none"
    assert f"port {first[0]} is in use" in again.err


def test_another_folder_is_another_broker(here: Run) -> None:
    first = here(*EMBEDDED_ONE).out
    second = here(*EMBEDDED_ONE, "--folder", "other")
    try:
        assert second.code == 0
        assert second.out != first
        assert "streambot broker stop --folder other" in second.err
    finally:
        assert here("broker", "stop", "--folder", "other").code == 0


async def kind_and_streams(address: str) -> None:
    assert await detect_profile(address) is EMBEDDED
    async with await KafkaLog.open(address, profile=EMBEDDED) as log:
        assert await log.streams() == {}, "asking has created nothing"
    with pytest.raises(BrokerError, match="no broker answers"):
        await detect_profile("127.0.0.1:1")


def test_the_kind_of_a_broker_is_found_out(here: Run) -> None:
    asyncio.run(kind_and_streams(here(*EMBEDDED_ONE).out.strip()))


async def alter_one(address: str) -> None:
    declared = bundled_topics()["ticks"].kafka_settings()
    async with await KafkaLog.open(address, profile=EMBEDDED) as log:
        names = ["t.r.ticks", "t.r.fills"]
        await log.create([StreamSpec(name=name, config=declared) for name in names])
        await log.alter(names[0], {"retention.ms": "5"})
        found = await log.settings(names)
        values = {name: {n: s.value for n, s in found[name].items()} for name in names}
        assert values == {names[0]: declared | {"retention.ms": "5"}, names[1]: declared}
        assert await log.settings([]) == {}


def test_settings_of_one_topic_are_altered_and_nothing_else(here: Run) -> None:
    asyncio.run(alter_one(here(*EMBEDDED_ONE).out.strip()))


def test_topics_on_the_broker_that_was_started_here(here: Run) -> None:
    """Nobody says which broker: it is the one of `broker start`."""
    address = here(*EMBEDDED_ONE).out.strip()
    plan = here("topics", "plan", "--run", "r1", "--partitions", "2", "--json")
    assert plan.code == 6
    found = json.loads(plan.out)
    assert found["broker"] == address
    assert {one["what"] for one in found["differences"]} == {"missing"}
    assert "streambot topics apply --run r1 --partitions 2" in plan.err
    applied = here("topics", "apply", "--run", "r1", "--partitions", "2")
    assert applied.code == 0, applied.err
    assert applied.out.count("created ") == len(OF_A_RUN)
    assert here("topics", "plan", "--run", "r1").code == 0, "partitions are those of its ticks"
    again = here("topics", "apply", "--run", "r1", "--json")
    assert json.loads(again.out)["created"] == []
    more = here("topics", "apply", "--run", "r1", "--partitions", "3")
    assert more.code == 6
    assert "nothing was changed" in more.err


async def altered_and_filled(address: str) -> None:
    async with await KafkaLog.open(address, profile=EMBEDDED) as log:
        await log.alter("streambot.r1.fills", {"retention.ms": "604800000"})
        await log.create([StreamSpec(name="somebody.else", partitions=1)])
        sink = await log.sink()
        for n in range(3):
            await sink.append("streambot.r1.ticks", 1, b"%d" % n, timestamp_ms=n)
        await sink.flush()


def test_a_finite_retention_is_destructive_and_put_right(here: Run) -> None:
    address = here(*EMBEDDED_ONE).out.strip()
    here("topics", "apply", "--run", "r1", "--partitions", "2")
    asyncio.run(altered_and_filled(address))
    plan = here("topics", "plan", "--run", "r1")
    assert plan.code == 6
    assert "604800000 (7 d)  DESTRUCTIVE" in plan.out
    assert "deletes historical records at once" in plan.out
    assert "1 difference " in plan.err
    applied = here("topics", "apply", "--run", "r1")
    assert "retention.ms: 604800000 -> -1" in applied.out
    assert here("topics", "plan", "--run", "r1").out.strip().endswith("as declared")
    listed = here("topics", "ls", "--json")
    by_stream = {one["stream"]: one for one in map(json.loads, listed.out.splitlines())}
    assert set(by_stream) == set(OF_A_RUN)
    assert by_stream["ticks"]["end"] == [0, 3]
    assert by_stream["ticks"]["records"] == 3
    people = here("topics", "ls", "--all")
    assert "somebody.else" in people.out
    assert "-, 0-2" in people.out
    assert "somebody.else" not in here("topics", "ls").out
    unknown = here("topics", "ls", "--run", "r2")
    assert unknown.code == 2
    assert "known: r1" in unknown.err


async def bury(address: str) -> None:
    topic = "streambot.r1.dead-letter"
    async with await KafkaLog.open(address, profile=EMBEDDED) as log:
        sink = await log.sink()
        for offset in (7, 3, 7):
            bad = Record("streambot.r1.ticks", 0, offset, 5, None, b"bad %d" % offset, ())
            letter = dead_letter(bad, DecodeError("checksum differs", reason="crc"))
            await sink.append(
                topic, 0, letter.value, timestamp_ms=letter.timestamp_ms, headers=letter.headers
            )
        await sink.append(topic, 1, b"somebody wrote here", timestamp_ms=5)
        await sink.flush()


def test_dead_letters_of_a_run_that_only_the_broker_knows(here: Run, tmp_path: Path) -> None:
    address = here(*EMBEDDED_ONE).out.strip()
    missing = here("dlq", "ls", "--run", "r1")
    assert missing.code == 2
    assert "has no topic streambot.r1.dead-letter" in missing.err
    here("topics", "apply", "--run", "r1", "--partitions", "2")
    assert here("dlq", "ls", "--run", "r1").out == "no dead letters\n"
    asyncio.run(bury(address))
    *letters, counts = map(json.loads, here("dlq", "ls", "--run", "r1", "--json").out.splitlines())
    assert [(one["offset"], one["reason"]) for one in letters] == [
        (0, "unmarked"), (3, "crc"), (7, "crc"),
    ]  # fmt: skip
    assert counts["repeats"] == 1
    shown = here("dlq", "show", "0/7", "--run", "r1")
    assert shown.code == 0
    assert "|bad 7|" in shown.out
    assert shown.err == ""
    exported = here("dlq", "export", "out", "--run", "r1")
    assert exported.code == 0, exported.err
    assert (tmp_path / "out" / "000003.bin").read_bytes() == b"bad 7"


def test_a_run_knows_its_broker_and_partitions_itself(run: Run, here: Run) -> None:
    """While it lives, a run on its own embedded broker needs only its name."""
    ended: Ended = run("simulate", "-s", "max", "--run", "done", "-q")
    assert ended.code == 0, ended.err
    said = here("topics", "plan", "--run", "done")
    assert said.code == 5
    assert "went with its embedded broker" in said.err
    assert here("dlq", "ls", "--run", "done").out == "no dead letters\n"
    exported = here("topics", "export", "--run", "done").out
    assert exported.count("--topic streambot.done.") == len(exported.splitlines())
    assert "--topic streambot.done.ticks --partitions 2 " in exported
    assert "--bootstrap-server HOST:9092 " in exported, "not the broker that is gone"
