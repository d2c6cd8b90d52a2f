"""Waiting in tests for what nobody tells: until it holds, and never for a time that should do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 90.0
"""Whatever is waited for is there by then, on a machine that has much else to do."""
LOOK_S = 0.01


def until(holds: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """What `holds` returns, once it is true."""
    limit = time.monotonic() + limit_s
    while not (found := holds()):
        assert time.monotonic() < limit, f"not within {limit_s:g} s: {what}"
        time.sleep(LOOK_S)
    return found


async def holds_soon(holds: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110  # it has no event to tell of it
            await asyncio.sleep(LOOK_S)
