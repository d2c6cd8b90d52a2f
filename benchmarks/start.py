"""How long a person waits: for the help, and for the first tick of a run, warm and cold.

The first tick is measured by something longer: the whole default scenario at full speed, from the start of the process to
its end. Cold means: no compiled functions and no calendars in the user's cache folder.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.command import COMMAND, environment, simulate
from benchmarks.harness import MIN_ROUNDS, Check, Row


def help_seconds() -> float:
    """Wall time of `streambot --help`."""
    began = time.perf_counter()
    subprocess.run([*COMMAND, "--help"], capture_output=True, check=True, env=environment())
    return time.perf_counter() - began


def rows(rounds: int = MIN_ROUNDS) -> Iterator[Row]:
    """Help, warm and cold start."""
    help_seconds()
    helped = [help_seconds() for _ in range(max(rounds, 5))]
    yield Row("start: --help", "s", {}, [Check("streambot --help", helped, at_most=0.3, unit="s")])
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        home = Path(folder)
        warm, cold = [], []
        for number in range(rounds):
            cache = home / f"cache{number}"
            cold.append(_default_run(home / f"cold{number}", cache))
            warm.append(_default_run(home / f"warm{number}", cache))
    yield Row(
        "start: first tick of simulate (the whole default scenario at full speed)",
        "s",
        {},
        [
            Check("warm", warm, at_most=2.0, unit="s"),
            Check("cold", cold, at_most=15.0, unit="s"),
        ],
    )


def _default_run(runs_dir: Path, cache: Path) -> float:
    return simulate("--speed", "max", runs_dir=runs_dir, XDG_CACHE_HOME=str(cache)).seconds
