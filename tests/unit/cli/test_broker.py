"""`streambot broker` where nothing is started: mistakes, and a folder without a broker."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]


@pytest.fixture(autouse=True)
def no_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAFKA_HOME", raising=False)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("start", "--kind", "embeded"), 2, "did you mean `embedded`"),
        (("start", "--kind", "apache"), 3, "$KAFKA_HOME: is not set"),
        (("start", "--port", "70000"), 2, "70000 is no port"),
        (("start", "--port", "http"), 2, "--port"),
        (("start", "--folder", "file"), 3, "file: cannot be read"),
        (("start", "--folder", "file/x"), 3, "cannot be"),
        (("start", "--folder", "bars"), 3, "no folder of a broker"),
        (("stop", "--folder", "bars", "--delete-data"), 3, "no folder of a broker"),
        (("stat",), 2, "Did you mean 'start', 'status'"),
    ],
)
def test_mistakes(
    streambot: Invoke, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / "data").mkdir()
    said = streambot("broker", *arguments)
    assert said.code == code, said.err
    assert says in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bars", "data", "file"]


def test_a_distribution_without_jars(streambot: Invoke, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    said = streambot("broker", "start")
    assert said.code == 3
    assert "no libs/*.jar" in said.err
    assert list(tmp_path.rglob("broker*")) == []


def test_no_java(streambot: Invoke, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka.jar").write_text("")
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    said = streambot("broker", "start")
    assert said.code == 5
    assert "needs Java, and none was found" in said.err
    assert streambot("broker", "status").out.startswith("stopped")


def test_a_port_in_use(streambot: Invoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        said = streambot("broker", "start", "--port", str(busy.getsockname()[1]))
    assert said.code == 5
    assert "is in use" in said.err


def test_nothing_runs(streambot: Invoke, tmp_path: Path) -> None:
    """Asking, and stopping what is not there, are no mistakes and leave no trace."""
    said = streambot("broker", "status")
    assert (said.code, said.out) == (0, "stopped: no broker was started in .streambot/broker\n")
    for arguments in ((), ("--delete-data",)):
        said = streambot("broker", "stop", *arguments)
        assert said.code == 0
        assert "no broker runs" in said.err
    status = json.loads(streambot("broker", "status", "--json").out)
    assert (status["schema"], status["status"], status["pid"]) == (
        "streambot.broker/1", "stopped", None,
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
