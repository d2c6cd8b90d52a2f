"""Runs `streambot` as a person does: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import SkippedError

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "streambot.cli.main"]


class Done(NamedTuple):
    """A finished command."""

    seconds: float
    summary: dict[str, Any]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without any settings of streambot's, and with `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMBOT_")}
    kept["PYTHONPATH"] = str(ROOT)
    return kept | changes


def last_words(stderr: str) -> str:
    """What a failed command said was wrong, without the paths of this machine."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line] or lines[-1:] or ["nothing"]
    return errors[-1].replace(f"{ROOT}/", "")[:200]


def simulate(*arguments: str, runs_dir: Path, timeout_s: float = 600.0, **changes: str) -> Done:
    """Run `simulate --json` and return its summary.

    Raises:
        SkippedError: it failed; what it said stands in the table.
    """
    command = [*COMMAND, "simulate", *arguments, "--json", "--runs-dir", str(runs_dir)]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment(**changes),
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise SkippedError(
            f"simulate ended with exit code {done.returncode}: {last_words(done.stderr)}"
        )
    for line in reversed(done.stdout.splitlines()):
        found = json.loads(line)
        if str(found.get("schema", "")).startswith("streambot.summary/"):
            return Done(seconds, found)
    raise SkippedError("simulate --json printed no summary")
