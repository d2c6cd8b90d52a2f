"""The command line as a person runs it: another process, its streams, its exit code, its signals."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from streambot.cli import main

LIMIT_S = 120
ROOT = Path(__file__).resolve().parents[3]


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., Ended]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start `streambot …` in a folder of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBOT_")}
        kept = {k: v for k, v in os.environ.items() if k == "STREAMBOT_KERNEL_CACHE"}
        process = subprocess.Popen(
            [sys.executable, "-m", "streambot.cli.main", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            cwd=tmp_path, env={**clean, **kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for its end."""
    out, err = process.communicate(timeout=LIMIT_S)
    return Ended(process.returncode, out, err)


@pytest.fixture
def run(start: Start) -> Run:
    """Run `streambot …` to its end."""

    def whole(*arguments: str, **environment: str) -> Ended:
        return end(start(*arguments, **environment))

    return whole


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """Read stderr up to the line with `words`; returns what was read."""
    read = ""
    assert process.stderr is not None
    while words not in read:
        line = process.stderr.readline()
        if not line:
            raise AssertionError(f"ended before it said {words!r}: {read}")
        read += line
    return read


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `streambot …` inside this process, for what needs no process of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STREAMBOT_")]:
        if name != "STREAMBOT_KERNEL_CACHE":
            monkeypatch.delenv(name)

    def whole(*arguments: str) -> Ended:
        capfd.readouterr()
        code = main.run(arguments)
        return Ended(code, *capfd.readouterr())

    return whole


@pytest.fixture
def broker(here: Run) -> Iterator[str]:
    """The embedded broker of `broker start`, which outlives its command."""
    started = here("broker", "start", "--kind", "embedded")
    yield started.out.strip()
    here("broker", "stop", "--delete-data")
