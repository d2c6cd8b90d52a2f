"""The folder of a broker that stays: whose process it is, what may be deleted, and who may work on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from streambot.adapters.broker import state_file
from streambot.adapters.broker.processes import is_running, send, start_in_ps, start_of
from streambot.adapters.broker.standing import Status, look, start, stop
from streambot.adapters.broker.standing import Wanted as Want
from streambot.adapters.broker.state_file import (
    BrokerState,
    Kind,
    Phase,
    check_ours,
    delete_data,
    held,
    read_state,
    write_state,
)
from streambot.domain.errors import BrokerError, ConfigError

WAITS = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def stranger():
    """A process that has nothing to do with streambot."""
    process = subprocess.Popen(WAITS, stdin=subprocess.PIPE)
    yield process
    process.stdin.close()
    process.wait()


def a_state(**changes: object) -> BrokerState:
    fields = {
        "kind": Kind.APACHE, "phase": Phase.RUNNING, "pid": 1, "started": "boot/1",
        "address": "127.0.0.1:1", "cluster": "c",
    }  # fmt: skip
    return BrokerState(**(fields | changes))


def nobody(*_: object) -> None:
    """Nobody listens."""


def test_a_state_is_read_as_it_was_written(tmp_path):
    assert read_state(tmp_path) is None
    state = a_state(folder=str(tmp_path), log="x")
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert state.port == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broker.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"kind": "odd"}', '{"kind": "apache", "phase": 3}']
)
def test_a_state_that_is_none_is_told(tmp_path, text):
    (tmp_path / "broker.json").write_text(text)
    with pytest.raises(ConfigError, match="not what streambot writes") as caught:
        read_state(tmp_path)
    assert caught.value.where == str(tmp_path / "broker.json")


def test_a_process_is_its_id_and_its_start(stranger):
    started = start_of(stranger.pid)
    assert started
    assert is_running(stranger.pid, started)
    assert not is_running(stranger.pid, started + "0")
    assert not is_running(stranger.pid, "")
    assert not is_running(0, started)


def test_one_that_has_ended_is_gone_though_nobody_waited_for_it():
    process = subprocess.Popen(WAITS, stdin=subprocess.PIPE)
    started = start_of(process.pid)
    assert started
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie is left
    assert start_of(process.pid) is None
    assert not is_running(process.pid, started)
    process.wait()


async def test_a_recycled_process_id_is_never_killed(tmp_path, stranger):
    """The broker is gone, the machine went on, and its id is somebody else's now."""
    write_state(tmp_path, a_state(pid=stranger.pid, started="another boot/17"))
    assert not send(stranger.pid, "another boot/17", signal.SIGTERM)
    assert (await look(tmp_path)).status is Status.DEAD
    stopped = await stop(tmp_path)
    assert stopped.before.status is Status.DEAD
    assert (await look(tmp_path)).status is Status.STOPPED
    assert stranger.poll() is None


async def test_a_process_that_lives_and_is_no_broker_is_silent(tmp_path, stranger):
    write_state(tmp_path, a_state(pid=stranger.pid, started=start_of(stranger.pid)))
    (tmp_path / "broker.log").write_text("one\n\n\x1b[31mtwo\x1b[0m\n")
    found = await look(tmp_path)
    assert found.status is Status.SILENT
    assert found.last_words == ("one", "two")
    assert found.memory_bytes > 0
    assert found.uptime_s is not None
    with pytest.raises(BrokerError, match="does not answer") as caught:
        await start(tmp_path, Want(None, Kind.EMBEDDED), nobody)
    assert caught.value.hint == "streambot broker stop"


async def test_one_that_does_not_end_when_asked_is_killed_and_that_is_said(tmp_path, monkeypatch):
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(  # noqa: ASYNC220  # a fork takes a ms
        [sys.executable, "-I", "-S", "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()  # it is deaf from here on
    monkeypatch.setattr("streambot.adapters.broker.standing.STOP_GRACE_S", 0.2)
    write_state(tmp_path, a_state(pid=process.pid, started=start_of(process.pid)))
    stopped = await stop(tmp_path)
    assert stopped.killed
    assert start_of(process.pid) is None
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_only_what_streambot_wrote_is_deleted(tmp_path):
    write_state(tmp_path, a_state())
    (tmp_path / "data" / "t-0").mkdir(parents=True)
    (tmp_path / "data" / "t-0" / "0.log").write_bytes(b"x" * 10_000)
    for name in ("broker.log", "cluster-id", "server.properties", "log4j2.yaml", "mine.txt"):
        (tmp_path / name).write_text("x")
    assert delete_data(tmp_path) >= 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["data", "broker.log", "mine.csv"])
async def test_a_folder_of_somebody_s_is_refused_whole(tmp_path, name):
    """`--folder .` beside a `data/` of Parquet files must not become a broker that formats it."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "bars.parquet").write_text("x")
    with pytest.raises(ConfigError, match="no folder of a broker"):
        await start(tmp_path, Want(Kind.EMBEDDED, Kind.EMBEDDED), nobody)
    with pytest.raises(ConfigError, match="no folder of a broker"):
        await stop(tmp_path, delete=True)
    assert [path.name for path in tmp_path.rglob("*")] == [name, "bars.parquet"]


def test_a_folder_that_is_new_or_empty_may_be_used(tmp_path):
    assert check_ours(tmp_path)
    assert not check_ours(tmp_path / "new")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError) as caught, held(tmp_path / "file" / "broker"):
        pass
    assert "--folder" in caught.value.hint


def test_one_command_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(state_file, "_LOCK_LIMIT_S", 0.2)
    with (
        held(tmp_path),
        pytest.raises(BrokerError, match="another `streambot broker`"),
        held(tmp_path),
    ):
        pass
    monkeypatch.setattr(state_file, "_LOCK_LIMIT_S", 30.0)
    entered = threading.Event()

    def second() -> None:
        with held(tmp_path):
            entered.set()

    waiting = threading.Thread(target=second)
    with held(tmp_path):
        waiting.start()
        assert not entered.wait(0.3)
    waiting.join(10)
    assert entered.is_set()


@pytest.mark.parametrize(("home", "says"), [(None, "is not set"), (Path("nowhere"), "no libs")])
async def test_no_apache_kafka_leaves_nothing_behind(tmp_path, home, says):
    folder = tmp_path / "a" / "broker"
    with pytest.raises(ConfigError, match=says) as caught:
        await start(folder, Want(Kind.APACHE, Kind.APACHE, home=home), nobody)
    assert caught.value.where == "$KAFKA_HOME"
    assert not folder.exists()


async def test_data_of_apache_kafka_are_not_forgotten_for_a_missing_variable(tmp_path):
    """Without $KAFKA_HOME the default is the embedded broker, but not where recordings wait."""
    write_state(tmp_path, a_state(phase=Phase.STOPPED, pid=0, started=""))
    with pytest.raises(ConfigError, match="is not set"):
        await start(tmp_path, Want(None, Kind.EMBEDDED), nobody)


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("Ss   Wed Nov 25 17:30:00 2026\n", "Wed Nov 25 17:30:00 2026"),
        ("Z    Wed Nov 25 17:30:00 2026\n", None),
        ("", None),
    ],
)
def test_without_proc_the_start_is_what_ps_says(line, start):
    assert start_in_ps(line) == start
