"""A process that is made to end has ended for whoever waits for it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from streambot.adapters.broker.child import ChildProcess

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("grace_s", [0.0, 0.2])
async def test_who_waits_for_its_end_hears_of_a_stop(tmp_path: Path, grace_s: float) -> None:
    """Also of one that does not hear SIGTERM, and is killed."""
    child = ChildProcess(
        "deaf", [sys.executable, "-c", DEAF], folder=tmp_path, environment=os.environ,
        log=tmp_path / "log",
    )  # fmt: skip
    await child.start()

    async def listens_no_more() -> bool:
        return "deaf" in child.tail()

    await child.ready(listens_no_more, every_s=0.02, limit_s=30)
    async with asyncio.timeout(30):
        waiting = asyncio.create_task(child.ended(3_600))
        await asyncio.sleep(0)
        await child.stop(grace_s)
        assert await waiting
