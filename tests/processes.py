"""Processes as tests look at them from outside."""

from __future__ import annotations

import psutil


def lives(pid: int) -> bool:
    """A process that is there, and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
