"""The logs that one suite is run against."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from streambot.adapters.broker import ApacheBroker, EmbeddedBroker
from streambot.adapters.kafka import APACHE, EMBEDDED, KafkaLog
from streambot.streams.memory import MemoryLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from streambot.streams.ports import Log

_NUMBERS = itertools.count()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Names of streams that no other test uses."""
    number = next(_NUMBERS)
    return lambda stream: f"test.r{number}.{stream}"


@pytest.fixture(
    scope="session",
    params=[
        "memory",
        pytest.param("embedded", marks=pytest.mark.integration),
        pytest.param("apache", marks=pytest.mark.kafka),
    ],
)
def broker(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[str | None]:
    """Address of a broker that lives as long as the session; None for the in-process log."""
    if request.param == "memory":
        yield None
        return
    if request.param == "embedded":
        starting = EmbeddedBroker()
    else:
        home = request.getfixturevalue("kafka_home")
        starting = ApacheBroker(home, tmp_path_factory.mktemp("kafka"))
    with asyncio.Runner() as runner:
        runner.run(starting.start())
        try:
            yield starting.address
        finally:
            runner.run(starting.stop())


@pytest.fixture
async def log(broker: str | None, request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    if broker is None:
        opened: Log = MemoryLog()
    else:
        profile = EMBEDDED if request.node.get_closest_marker("integration") else APACHE
        opened = await KafkaLog.open(broker, profile=profile)
    yield opened
    await opened.close()
