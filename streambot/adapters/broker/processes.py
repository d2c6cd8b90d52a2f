"""Processes of others, by id: who it is, how much memory it holds, how long it has run.

A process id is given again after its process is gone. So a process is known by its id *and* the
moment of its start, and nothing is ever sent to an id whose start is another one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal

_LINUX = sys.platform == "linux"
_DEAD = frozenset("ZX")
_STATE, _START = 0, 19  # fields of /proc/PID/stat behind the name, which may hold anything


def start_of(pid: int) -> str | None:
    """When the process `pid` started, as a text to compare; None where there is none.

    A process that has ended and that nobody waited for counts as gone.
    """
    if pid <= 0:
        return None
    if not _LINUX:
        return _start_by_ps(pid)
    fields = _stat(pid)
    if fields is None or fields[_STATE] in _DEAD:
        return None
    boot = ""
    with contextlib.suppress(OSError):  # ticks count from the start of the machine
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[_START]}"


def is_running(pid: int, started: str) -> bool:
    """True while the process that has this id and this start runs."""
    if pid <= 0 or not started:
        return False
    with contextlib.suppress(OSError):  # of a child of this process, what is left goes
        os.waitpid(pid, os.WNOHANG)
    return start_of(pid) == started


def send(pid: int, started: str, number: signal.Signals) -> bool:
    """Send a signal to that process, and to no other; False where it is gone."""
    if not is_running(pid, started):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return True


def resident_bytes(pid: int) -> int:
    """Memory it holds now; 0 where that is unknown (Linux only)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def uptime_s(pid: int) -> float | None:
    """How long it has run; None where that is unknown (Linux only)."""
    fields = _stat(pid) if _LINUX else None
    if fields is None:
        return None
    machine = float(Path("/proc/uptime").read_text().split()[0])
    return max(0.0, machine - int(fields[_START]) / os.sysconf("SC_CLK_TCK"))


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > _START else None


def _start_by_ps(pid: int) -> str | None:
    answer = subprocess.run(  # noqa: S603  # a number is all that goes in
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True, text=True, check=False, env={"LC_ALL": "C"},
    )  # fmt: skip
    return start_in_ps(answer.stdout)


def start_in_ps(line: str) -> str | None:
    """The start in `Ss   Wed Nov 25 17:30:00 2026`; None where the process is gone."""
    state, _, start = line.strip().partition(" ")
    return (start.strip() or None) if state[:1] not in _DEAD else None
