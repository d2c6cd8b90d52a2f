"""Trouble with a real broker, as people meet it: one clear message, an end within a stated limit, no noise.

Every test looks at the whole of stderr: nothing of a library may stand there, and no traceback. The waits
are those of docs/operations.md, shortened (`impatient`): a broker that is gone is noticed after 3 s instead
of 15 s, and given up after 6 s instead of 60 s.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streambot.adapters.broker.loopback import HOST, choose_port
from streambot.processor.task_head import read_head
from tests.kafka.trouble import (
    ALLOW,
    DESCRIBE,
    READ,
    Broker,
    Ended,
    Shell,
    listeners,
)
from tests.waiting import until

pytestmark = pytest.mark.kafka

OURS = re.compile(r"(error|warning): |  try: |       |next: |run |partition \d+: ")
GONE_S = 40.0
"""3 s to notice, 6 s of trying, and a machine that has much else to do."""


class Place:
    """A broker of this module, its doors, and a run that was recorded there."""

    def __init__(self, broker: Broker, sasl: int, tls: int, certificate: Path) -> None:
        self.broker = broker
        self.sasl, self.tls = f"{HOST}:{sasl}", f"{HOST}:{tls}"
        self.certificate = certificate

    @property
    def at(self) -> tuple[str, str]:
        return ("--bootstrap-servers", self.broker.address)


@pytest.fixture(scope="module")
def place(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("trouble")
    sasl, tls = choose_port(), choose_port()
    broker = Broker(kafka_home, folder / "broker", listeners(folder / "tls", sasl, tls))
    broker.start()
    yield Place(broker, sasl, tls, folder / "tls" / "certificate.pem")
    broker.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    someone = Shell(tmp_path)
    yield someone
    someone.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of the same bars without any broker."""
    someone = Shell(tmp_path_factory.mktemp("undisturbed"))
    done = someone.types("simulate", "-s", "max", "-q", "--json", "--broker", "in-process")
    assert done.code == 0, done.err
    return json.loads(done.out)


def record(shell: Shell, place: Place, *runs: str) -> None:
    started = [
        shell.begins("replay", "--speed", "max", "--run", run, "-q", *place.at) for run in runs
    ]
    for process in started:
        done = shell.waits_for(process)
        assert done.code == 0, done.err


def told(ended: Ended, code: int, *words: str) -> None:
    """It ended with `code`, one error that has the words, and nothing else on stderr than ours."""
    assert ended.code == code, ended
    assert ended.out == "", "what failed reports nothing"
    quiet(ended)
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.err
    for word in words:
        assert word in ended.err, ended.err


def quiet(ended: Ended) -> None:
    for line in ended.err.splitlines():
        assert OURS.match(line), ended.err
    assert "aiokafka" not in ended.err
    assert "NotEnoughReplicas" not in ended.err


def warnings(ended: Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if line.startswith("warning: ")]


def sequence(out: str) -> list[tuple[str, int]]:
    """Which fills, each by its instrument and number."""
    return sorted((row["instrument"], row["seq"]) for row in map(json.loads, out.splitlines()))


def committed(place: Place, run: str, barrier: int = 1) -> bool:
    """True once every task of a run has committed so many barriers."""

    async def look(log) -> bool:
        topic = f"streambot.{run}.state"
        if topic not in await log.streams():
            return False
        heads = [await read_head(log, topic, p) for p in range(2)]
        return all(head is not None and head.chain.barrier >= barrier for head in heads)

    return place.broker.do(look)


def test_nobody_listens(shell: Shell) -> None:
    port = choose_port()
    started = [
        shell.begins(*arguments, "--bootstrap-servers", f"{HOST}:{port}")
        for arguments in (
            ("simulate", "-q"), ("replay", "-q"), ("worker", "--run", "r", "-q"),
            ("tail", "fills", "--run", "r"), ("runs", "ls"), ("topics", "ls"),
        )
    ]  # fmt: skip
    for process in started:
        ended = shell.waits_for(process)
        told(ended, 5, f"no broker answers at {HOST}:{port}: nobody listens there", "try: is Kafka")
        assert not warnings(ended)
    assert not (shell.folder / "runs").exists() or not list((shell.folder / "runs").iterdir())


def test_doors_that_want_something_else(shell: Shell, place: Place) -> None:
    """Passwords, mechanisms, TLS: refused at once, with the setting to look at; secrets never show."""
    plain = {"STREAMBOT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "STREAMBOT_KAFKA_SASL_MECHANISM": "PLAIN",
             "STREAMBOT_KAFKA_SASL_USERNAME": "alice", "STREAMBOT_KAFKA_SASL_PASSWORD": "canary"}  # fmt: skip
    scram = plain | {"STREAMBOT_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}
    tls = {"STREAMBOT_KAFKA_SECURITY_PROTOCOL": "SSL"}
    tail, plain_port = ("tail", "fills", "--run", "r"), place.broker.address
    cases = [
        (tail, place.sasl, {}, "hangs up. It may want a password, or TLS"),
        (tail, place.tls, {}, "hangs up. It may want a password, or TLS"),
        (("replay", "-q"), place.sasl, {}, "kafka_security_protocol is PLAINTEXT"),
        (tail, place.sasl, plain, "refuses user alice: the password is wrong"),
        (("replay", "-q"), place.sasl, plain, "refuses user alice"),
        (("simulate", "-q"), place.sasl, plain, "refuses user alice"),
        (("worker", "--run", "r", "-q"), place.sasl, plain, "refuses user alice"),
        (tail, plain_port, plain, "asks for no password"),
        (tail, place.tls, plain, "hangs up. It may want TLS"),
        (tail, place.sasl, scram, "does not know the SASL mechanism SCRAM-SHA-512"),
        (tail, plain_port, tls, "no TLS is spoken there"),
        (tail, place.tls, tls, "is not trusted: self-signed certificate"),
    ]
    started = [
        (shell.begins(*arguments, "--bootstrap-servers", address, **environment), words)
        for arguments, address, environment, words in cases
    ]
    for process, words in started:
        ended = shell.waits_for(process)
        told(ended, 5, words, "try: kafka_")
        assert "canary" not in ended.err
        assert not warnings(ended)
    # And with the right ones they open.
    right = plain | {"STREAMBOT_KAFKA_SASL_PASSWORD": "wonderland"}
    trusted = tls | {"STREAMBOT_KAFKA_SSL_CAFILE": str(place.certificate)}
    for address, environment in ((place.sasl, right), (place.tls, trusted)):
        ended = shell.types("runs", "ls", "--bootstrap-servers", address, **environment)
        assert (ended.code, ended.err) == (0, ""), ended.err


def test_rights_that_are_missing(shell: Shell, place: Place) -> None:
    """Somebody who may read, and no more, is told so; who may see nothing is told that this can be why."""
    record(shell, place, "guarded")
    streams = ("ticks", "fills", "state", "orders", "pnl", "runs", "status", "control", "late",
               "dead-letter", "portfolio", "alerts")  # fmt: skip
    for topic in (f"streambot.guarded.{stream}" for stream in streams):
        place.broker.rule("alice", topic, READ, ALLOW)
        place.broker.rule("alice", topic, DESCRIBE, ALLOW)
    known = {"STREAMBOT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "STREAMBOT_KAFKA_SASL_MECHANISM": "PLAIN"}  # fmt: skip
    alice = known | {"STREAMBOT_KAFKA_SASL_USERNAME": "alice", "STREAMBOT_KAFKA_SASL_PASSWORD": "wonderland"}  # fmt: skip
    stranger = known | {"STREAMBOT_KAFKA_SASL_USERNAME": "watcher", "STREAMBOT_KAFKA_SASL_PASSWORD": "looks"}  # fmt: skip
    at = ("--run", "guarded", "--bootstrap-servers", place.sasl)
    reads = shell.begins("tail", "ticks", "--json", "-n", "2", *at, **alice)
    works = shell.begins("worker", "-q", "--no-rollup", *at, **alice)
    sees = shell.begins("tail", "fills", *at, **stranger)
    ended = shell.waits_for(reads)
    assert (ended.code, len(ended.out.splitlines())) == (0, 2), ended
    told(shell.waits_for(works), 5, "refuses: this user may not", "docs/operations.md")
    told(shell.waits_for(sees), 6, "no run guarded is declared", "may not see it")


def test_topics_that_are_not_as_the_run_made_them(shell: Shell, place: Place) -> None:
    record(shell, place, "parted", "lacking", "narrow")
    place.broker.add_partitions("streambot.parted.pnl", 3)
    place.broker.delete("streambot.lacking.fills")
    place.broker.set("streambot.narrow.fills", max_message_bytes="200")
    works = {
        run: shell.begins("worker", "--run", run, "-q", "--no-rollup")
        for run in ("parted", "lacking", "narrow")
    }
    told(shell.waits_for(works["parted"]), 6, "parted.pnl: has 3 partitions, and the run has 2")
    told(shell.waits_for(works["lacking"]), 6, "lacking.fills: is missing: it was deleted")
    ended = shell.waits_for(works["narrow"])
    told(ended, 5, "narrow.fills", "no batch of records as large", "max.message.bytes")
    assert not warnings(ended), "trying again does not help"
    seen = shell.types("tail", "fills", "--run", "narrow", "--no-follow", "--json")
    assert (seen.code, seen.out) == (0, ""), "what did not fit in was not committed in part"


def test_topics_deleted_and_narrowed_under_those_who_use_them(shell: Shell, place: Place) -> None:
    pace = ("replay", "--speed", "400x", "-q", *place.at)
    replay = shell.begins(*pace, "--run", "vanishing")
    narrowed = shell.begins(*pace, "--run", "narrowed")
    until((shell.folder / "runs" / "vanishing" / "run.json").exists, "the run")
    worker = shell.begins("worker", "--run", "vanishing", "-q", "--no-rollup")
    tail = shell.begins("tail", "pnl", "--run", "vanishing", "--from", "end")
    until(lambda: committed(place, "vanishing"), "a commit")
    until(lambda: committed(place, "vanishing", 20), "more commits")
    place.broker.delete("streambot.vanishing.state", "streambot.vanishing.pnl")
    place.broker.set("streambot.narrowed.ticks", max_message_bytes="200")
    deleted = time.monotonic()
    told(shell.waits_for(narrowed), 5, "narrowed.ticks", "no batch of records as large")
    ended = shell.waits_for(worker)
    told(ended, 6, "streambot.vanishing.", "the stream was deleted", "another name")
    ended = shell.waits_for(tail)
    assert ended.code == 6, ended
    assert "streambot.vanishing." in ended.err
    quiet(ended)
    assert time.monotonic() - deleted < GONE_S
    place.broker.delete("streambot.vanishing.ticks")
    told(shell.waits_for(replay), 6, "vanishing.ticks", "the stream was deleted")


def test_a_transaction_that_times_out(
    shell: Shell, place: Place, undisturbed: dict[str, Any]
) -> None:
    """Its worker stood still in the middle of it: readers are told, it is given up, and done again."""
    replay = shell.begins("replay", "--speed", "1500x", "--run", "standing", "-q", *place.at)
    until((shell.folder / "runs" / "standing" / "run.json").exists, "the run")
    half = ("worker", "--run", "standing", "-q", "--no-rollup", "--json", "--worker")
    worker = shell.begins(*half, "0/2", IMPATIENT_TRANSACTION_S="5", IMPATIENT_STOPS="1")
    other = shell.begins(*half, "1/2")
    stat = Path(f"/proc/{worker.pid}/stat")
    until(
        lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "a worker that stands still"
    )
    tail = shell.begins("tail", "pnl", "--run", "standing", "--json", "--from", "beginning")

    async def given_up(log) -> bool:
        topic = "streambot.standing.orders"
        return await log.stored_ends(topic) == await log.end_offsets(topic)

    assert not place.broker.do(given_up)
    until(lambda: place.broker.do(given_up), "the end of the transaction")
    worker.send_signal(signal.SIGCONT)
    done = shell.waits_for(worker)
    assert done.code == 0, done.err
    quiet(done)
    assert json.loads(done.out)["reopened"] >= 1
    assert shell.waits_for(other).code == shell.waits_for(replay).code == 0
    followed = shell.waits_for(tail)
    assert followed.code == 0, followed.err
    quiet(followed)
    found = shell.types("tail", "fills", "--run", "standing", "--json", "--from", "beginning")
    assert len(sequence(found.out)) == len(set(sequence(found.out))) == undisturbed["fills"]


def test_readers_before_an_open_transaction_are_told(shell: Shell, place: Place) -> None:
    """A writer that died in the middle holds them back; they say so, and when they go on."""
    record(shell, place, "held")
    assert shell.types("worker", "--run", "held", "-q", "--no-rollup").code == 0

    async def leave_open(log) -> None:
        transactions = await log.transactions("a writer that dies")
        await transactions.begin()
        await transactions.append("streambot.held.fills", 1, b"", timestamp_ms=1)
        await transactions.flush()
        transactions._void = RuntimeError("killed")  # so that closing aborts nothing

    async def take_over(log) -> None:
        await (await log.transactions("a writer that dies")).close()

    place.broker.do(leave_open)
    tail = shell.begins("tail", "fills", "--run", "held", "--json", "--from", "beginning")
    assert tail.stderr is not None
    line = tail.stderr.readline()
    assert line.startswith("warning: partition 1: a transaction has been open for 2 s"), line
    assert "or as soon as `streambot worker --run held` is started again" in line
    place.broker.do(take_over)
    ended = shell.waits_for(tail)
    assert ended.code == 0
    assert "partition 1: the transaction has ended, going on" in ended.err
    assert len(sequence(ended.out)) == 18


def test_runs_that_are_apart_are_seen_from_everywhere(
    shell: Shell, place: Place, tmp_path: Path
) -> None:
    """State of replay and engine, from the folder and from the broker; a tail that ends with the engine."""
    record(shell, place, "apart")
    (tmp_path / "elsewhere").mkdir()
    colleague = Shell(tmp_path / "elsewhere")

    def states() -> tuple[str, str, str]:
        shown = json.loads(shell.types("runs", "show", "apart", "--json").out)
        listed = [json.loads(x) for x in shell.types("runs", "ls", "--json").out.splitlines()]
        there = [
            json.loads(x) for x in colleague.types("runs", "ls", "--json", *place.at).out.splitlines()
        ]  # fmt: skip
        one = next(x for x in there if x["run"] == "apart")
        assert one["replay"] == {
            "complete": True,
            "barrier": 391,
            "ticks": 3128,
            "ticks_total": 3128,
        }
        return shown["state"], listed[-1]["state"], one["state"]

    try:
        assert states() == ("replayed",) * 3
        tails = [
            someone.begins("tail", "fills", "--run", "apart", "--json", "--from", "beginning", *at)
            for someone, at in ((shell, ()), (colleague, place.at))
        ]
        assert shell.types("worker", "--run", "apart", "-q", "--no-rollup").code == 0
        for process in tails:
            ended = shell.waits_for(process)
            assert (ended.code, ended.err) == (0, "run apart: complete, 18 shown\n"), ended.err
            assert len(sequence(ended.out)) == 18
        assert states() == ("complete",) * 3
        newest = colleague.types("tail", "ticks", "-n", "1", "--json", *place.at)
        assert len(newest.out.splitlines()) == 1
        wrong = colleague.types("tail", "fills", "--run", "apar", *place.at)
        assert (wrong.code, "did you mean `apart`?" in wrong.err) == (6, True), wrong.err
        shown = colleague.types("runs", "show", "apart", *place.at)
        assert "replay whole, 391 barriers   engine complete" in shown.out
    finally:
        colleague.close()


def test_a_broker_that_goes_and_comes_back(
    shell: Shell, place: Place, undisturbed: dict[str, Any]
) -> None:
    """Told once, waited for, and nothing is lost or doubled; the roll-up is as quiet as the rest."""
    pace = ("--speed", "1000x", "-q")
    replay = shell.begins("replay", "--run", "outage", *pace, *place.at)
    simulation = shell.begins("simulate", "--run", "alone", *pace, *place.at)
    until((shell.folder / "runs" / "outage" / "run.json").exists, "the run")
    longer = {"IMPATIENT_PATIENCE_S": "60"}
    tail = shell.begins(
        "tail", "fills", "--run", "outage", "--json", "--from", "beginning", **longer
    )
    worker = shell.begins("worker", "--run", "outage", "-q", "--json", **longer)
    until(lambda: committed(place, "outage", 60), "a part of the run")
    until(lambda: committed(place, "alone"), "a part of the simulation")
    place.broker.kill()
    gone = time.monotonic()
    ended = shell.waits_for(simulation)
    noticed_s = time.monotonic() - gone
    place.broker.start()
    told(ended, 5, "Kafka at", "has not answered for", "--resume alone")
    assert noticed_s < GONE_S
    assert not warnings(ended)
    ended = shell.waits_for(replay)
    if ended.code == 5:  # the broker took longer than its patience: it says how to go on
        told(ended, 5, "nothing could be stored for", "streambot replay --resume outage")
        ended = shell.types("replay", "--resume", "outage", "--speed", "max", "-q")
    assert ended.code == 0, ended.err
    quiet(ended)
    for process in (worker, tail):
        ended = shell.waits_for(process)
        assert ended.code == 0, ended.err
        quiet(ended)
        said = warnings(ended)
        assert len(said) in {0, 2}, "that it is gone, and that it is back"
        assert not said or (said[0].endswith("trying again for 60 s") and "is back" in said[1])
    assert len(sequence(ended.out)) == len(set(sequence(ended.out))) == undisturbed["fills"]
    again = shell.types("simulate", "--resume", "alone", "--speed", "max", "-q", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["digest"] == undisturbed["digest"]


def test_a_broker_that_goes_while_somebody_opens(
    shell: Shell, place: Place, undisturbed: dict[str, Any]
) -> None:
    """Whatever they were about to ask it, each of them says in a line that it is gone, and what to do."""
    commands = [
        shell.begins(*arguments, "-q", *place.at)
        for arguments in (
            ("simulate", "--run", "opened"), ("simulate", "--run", "opened-too"),
            ("replay", "--run", "filled"), ("replay", "--run", "filled-too"),
        )
    ]  # fmt: skip
    runs = shell.folder / "runs"
    until(lambda: list(runs.glob("*/run.json")), "a run")
    place.broker.kill()
    gone = time.monotonic()
    ends = [shell.waits_for(process) for process in commands]
    noticed_s = time.monotonic() - gone
    place.broker.start()
    for ended in ends:
        told(ended, 5, ": ", place.broker.address, "try: ")
    assert noticed_s < GONE_S
    for name in sorted(file.parent.name for file in runs.glob("*/run.json")):
        command = "simulate" if name.startswith("opened") else "replay"
        again = shell.types(command, "--resume", name, "--speed", "max", "-q", "--json")
        assert again.code == 0, (name, ends, again)
        if command == "simulate":
            assert json.loads(again.out)["digest"] == undisturbed["digest"]


def fill(path: Path) -> None:
    """Write until there is no room left."""
    with path.open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(1 << 16)):
                pass
        except OSError as full:
            assert full.errno == errno.ENOSPC  # noqa: PT017


def test_a_disk_that_is_full(shell: Shell, kafka_home: Path, tmp_path: Path) -> None:
    """The broker stops itself; whoever writes to it says so within the limits, and nothing is doubled."""
    data = tmp_path / "broker" / "data"
    data.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(data)],
        check=False,
        capture_output=True,
    )
    if os.geteuid() or mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    broker = Broker(kafka_home, tmp_path / "broker", {"log.index.size.max.bytes": "65536"})
    try:
        broker.start()
        small = Place(broker, 0, 0, tmp_path)
        replay = shell.begins("replay", "--speed", "300x", "--run", "full", "-q", *small.at)
        until((shell.folder / "runs" / "full" / "run.json").exists, "the run")
        worker = shell.begins("worker", "--run", "full", "-q", "--no-rollup")
        tail = shell.begins("tail", "pnl", "--run", "full", "--from", "beginning", "--json")
        until(lambda: committed(small, "full", 5), "a part of the run")
        fill(data / "ballast")
        full = time.monotonic()
        told(
            shell.waits_for(replay), 5, "nothing could be stored", "streambot replay --resume full"
        )
        told(shell.waits_for(worker), 5, "nothing could be stored")
        ended = shell.waits_for(tail)
        assert ended.code == 5
        assert "nothing could be read" in ended.err
        quiet(ended)
        assert time.monotonic() - full < GONE_S
        until(lambda: not broker.alive, "the end of the broker")
    finally:
        broker.close()
        subprocess.run(["umount", str(data)], check=False)


def test_a_broker_that_is_gone_for_good(shell: Shell, place: Place) -> None:
    """The last of this module: each of them ends within its limit, and says how to go on."""
    replay = shell.begins("replay", "--speed", "300x", "--run", "last", "-q", *place.at)
    until((shell.folder / "runs" / "last" / "run.json").exists, "the run")
    tail = shell.begins("tail", "pnl", "--run", "last", "--from", "end")
    worker = shell.begins("worker", "--run", "last", "-q")
    until(lambda: committed(place, "last", 10), "a part of the run")
    place.broker.kill()
    gone = time.monotonic()
    for process, words in (
        (replay, "nothing could be stored for"), (worker, "nothing could be stored for"),
        (tail, "nothing could be read for"),
    ):  # fmt: skip
        ended = shell.waits_for(process)
        assert ended.code == 5, ended
        quiet(ended)
        assert words in ended.err
        assert len(warnings(ended)) == 1
        assert warnings(ended)[0].endswith("trying again for 6 s")
    assert time.monotonic() - gone < GONE_S
    listed = shell.types("runs", "ls")
    assert listed.code == 0
    assert "engine unknown" in listed.out
    assert "where the engine is, is not known" in listed.err
