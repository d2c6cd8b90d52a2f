"""A simulated log where the suite for every log is run against it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from tests.simulation.simulated_broker import SimulatedBroker
from tests.simulation.simulated_log import SimulatedLog

_NUMBERS = itertools.count()


@pytest.fixture
def name() -> Callable[[str], str]:
    """Names of streams that no other test uses."""
    number = next(_NUMBERS)
    return lambda stream: f"test.r{number}.{stream}"


@pytest.fixture
async def log() -> AsyncIterator[SimulatedLog]:
    opened = SimulatedLog(SimulatedBroker())
    yield opened
    await opened.close()
