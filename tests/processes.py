"""Processes as tests look at them from outside."""

from __future__ import annotations

import psutil


def lives(pid: int) -> bool:
    """A process that is there, and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def living_children() -> list[psutil.Process]:
    """Children of this process; not those that ended and were not asked how."""
    return [child for child in psutil.Process().children() if lives(child.pid)]
