"""Stopping clients of aiokafka, which may hang on a broker that is gone, or raise what is not theirs.

`AIOKafkaConsumer.stop` lets the cancellation of its own background tasks out, as if the caller had
been cancelled. So a stop runs in a task of its own, and only its end counts.

And a stop that has begun goes on to its end: somebody who fails closes what is his, and is cancelled
meanwhile because somebody else failed too. Cut short, it would leave a client open.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

STOP_LIMIT_S = 5.0
_CANCEL_LIMIT_S = 1.0


async def stopped(work: Coroutine[Any, Any, None], limit_s: float = STOP_LIMIT_S) -> bool:
    """True where `work` came to its end within `limit_s`; False where it failed or was cut short."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=limit_s)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        await asyncio.wait({task}, timeout=_CANCEL_LIMIT_S)
    return task.done() and not task.cancelled() and task.exception() is None


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, which has limits of its own, whole; a cancellation that comes meanwhile is raised then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
