"""`streambot …` in processes of their own, against a broker of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kafka.places import ROOT
from tests.waiting import LIMIT_S

Command = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def commands(address: str, folder: Path, *always: str) -> Iterator[Command]:
    """Starts commands in `folder`, with `always` behind each; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, code: str | None = None) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBOT_")}
        kept = {k: v for k, v in os.environ.items() if k == "STREAMBOT_KERNEL_CACHE"}
        program = ["-c", code] if code is not None else ["-m", "streambot.cli.main"]
        process = subprocess.Popen(
            [sys.executable, *program, *arguments, "--bootstrap-servers", address, *always],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
            env={**clean, **kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], code: int = 0) -> Any:
    """What it printed, once it has ended: the object of stdout, or the text of stderr."""
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code, err
    return json.loads(out) if code == 0 else err
