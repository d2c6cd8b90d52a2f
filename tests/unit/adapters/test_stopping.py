"""What has begun to close its clients does so, whoever cancels it meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from streambot.adapters.kafka.stopping import to_the_end


async def test_a_cancelled_end_is_an_end() -> None:
    """A task that fails closes what is its own; its siblings' failures must not leave that open."""
    ended: list[str] = []

    async def slow() -> None:
        for step in range(5):
            await asyncio.sleep(0.005)
            ended.append(str(step))

    task = asyncio.create_task(to_the_end(slow()))
    await asyncio.sleep(0.001)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.006)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["0", "1", "2", "3", "4"]


async def test_its_failure_is_told() -> None:
    """What goes wrong at the end is no secret."""

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await to_the_end(fails())
