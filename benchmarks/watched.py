"""Whole programs that tell how far they are: steps a second between two of their lines, and whose CPU time it took.

A program writes one JSON object a line. What it does before the first line that counts (starting, compiling,
filling queues) is left out, and so is its end. Processes that it starts count with it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.command import environment, last_words
from benchmarks.harness import SkippedError

REST = "the rest"
_LIMIT_S = 600.0
_END_S = 60.0

Steps = Callable[[dict[str, Any]], "int | None"]
"""Steps that a line says are done; None: it says something else."""
Roles = dict[str, Callable[[list[str]], bool]]
"""By name, whether a process with such a command line is meant; the first that fits counts."""


class Watched(NamedTuple):
    """What a program did between two of its lines.

    Attributes:
        steps, seconds: between them.
        cpu: seconds of the processes by role; what fits none is `REST`.
        others: cores that other programs used meanwhile.
        lines: all that came between.
    """

    steps: int
    seconds: float
    cpu: dict[str, float]
    others: float
    lines: tuple[dict[str, Any], ...]

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds

    def cost(self, role: str) -> float:
        """CPU seconds of a role, for a step."""
        return self.cpu.get(role, 0.0) / self.steps


class _Looked(NamedTuple):
    at: float
    steps: int
    cpu: dict[str, float]
    busy: float


def watch(
    command: Sequence[str],
    steps_of: Steps,
    *,
    begin: int,
    end: int,
    cwd: Path,
    variables: dict[str, str],
    roles: Roles | None = None,
) -> Watched:
    """Run a program to its end.

    Args:
        command: what to run; its stdout is lines of JSON.
        steps_of: see `Steps`.
        begin, end: measured from the first line with `begin` steps to the first one with `end`.
        cwd: folder that it works in.
        variables: of its environment.
        roles: see `Roles`.

    Raises:
        SkippedError: it failed, or did not get there; what it said stands in the table.
    """
    looked: list[_Looked] = []
    between: list[dict[str, Any]] = []
    with _running(command, cwd, variables) as (process, errors):
        tree = psutil.Process(process.pid)
        for line in _lines(process):
            said = json.loads(line)
            steps = steps_of(said)
            if steps is None or len(looked) == 2:
                continue
            if looked:
                between.append(said)
            if steps >= (begin, end)[len(looked)]:
                looked.append(_look(tree, steps, roles or {}))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        if process.returncode != 0 or len(looked) < 2:
            raise SkippedError(_failure(process.returncode, errors))
    first, last = looked
    seconds = last.at - first.at
    cpu = {role: last.cpu[role] - first.cpu.get(role, 0.0) for role in last.cpu}
    others = (last.busy - first.busy - sum(cpu.values())) / seconds
    return Watched(last.steps - first.steps, seconds, cpu, max(0.0, others), tuple(between))


@contextlib.contextmanager
def _running(
    command: Sequence[str], cwd: Path, variables: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    # A file for what it narrates: a pipe that nobody reads fills up.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment(PYTHONUNBUFFERED="1", **variables),
            stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
        too_long = threading.Timer(_LIMIT_S, _kill, [process])
        too_long.start()
        try:
            yield process, errors
        finally:
            too_long.cancel()
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask it to end, and make it end."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _kill(process: subprocess.Popen[str]) -> None:
    """End it and what it started, at once."""
    with contextlib.suppress(psutil.Error):
        tree = psutil.Process(process.pid)
        for one in [*tree.children(recursive=True), tree]:
            with contextlib.suppress(psutil.Error):
                one.kill()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return (line for line in process.stdout if line.startswith("{"))


def _failure(code: int | None, errors: Any) -> str:  # noqa: ANN401  # a temporary file
    errors.seek(0)
    said = last_words(errors.read())
    return f"it ended with exit code {code}: {said}" if code else f"it did not get there: {said}"


def _look(tree: psutil.Process, steps: int, roles: Roles) -> _Looked:
    at, cpu = time.perf_counter(), dict.fromkeys([*roles, REST], 0.0)
    for process in [tree, *tree.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            words, spent = process.cmdline(), process.cpu_times()
            role = next((name for name, fits in roles.items() if fits(words)), REST)
            cpu[role] += spent.user + spent.system
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return _Looked(at, steps, cpu, sum(times) - idle - getattr(times, "guest", 0.0))
