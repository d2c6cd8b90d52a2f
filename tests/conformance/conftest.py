"""The logs that one suite is run against."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from streambot.streams.memory import MemoryLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from streambot.streams.ports import Log

_NUMBERS = itertools.count()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Names of streams that no other test uses."""
    number = next(_NUMBERS)
    return lambda stream: f"test.r{number}.{stream}"


@pytest.fixture(params=["memory"])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    log = MemoryLog()
    yield log
    await log.close()
