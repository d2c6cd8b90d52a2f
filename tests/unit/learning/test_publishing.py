"""A publication is there when `publish` returns; what is sent is there before the next one, or its failure is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambot.domain.errors import FencedError
from streambot.learning.learner import publishing
from streambot.learning.learner.publishing import Publication, Publisher
from streambot.streams.ports import TopicPartition

RECORDS = [("t.policy", b"main", b"weights"), ("t.status", b"update", b"{}")]
WHAT, WITHOUT = (Publication(RECORDS, positions, 0) for positions in ({"t.experience": 7}, {}))


class Slow:
    """A writer with transactions whose broker takes its time, and may refuse."""

    def __init__(self, refuses: bool = False) -> None:
        self.did: list[Any] = []
        self.refuses = refuses
        self.stands = asyncio.Event()
        self.stands.set()

    async def begin(self) -> None:
        self.did.append("begin")

    async def append(self, stream: str, partition: int, value: bytes, **_: Any) -> None:
        del partition, value
        self.did.append(stream)

    async def flush(self) -> None:
        await asyncio.sleep(0.01)
        await self.stands.wait()

    async def offsets(self, group: str, places: dict[Any, int]) -> None:
        del group
        self.did.append(list(places.values()))

    async def commit(self) -> None:
        if self.refuses:
            raise FencedError("another one has taken over")
        self.did.append("commit")

    async def close(self) -> None:
        self.did.append("close")


def made(writer: Slow) -> Publisher:
    return Publisher(writer, "t.learner", transactional=True)  # type: ignore[arg-type]


WHOLE = ["begin", "t.policy", "t.status", [7], "commit"]


async def test_what_is_published_is_there() -> None:
    writer = Slow()
    await made(writer).publish(WHAT)
    assert writer.did == WHOLE


async def test_what_is_sent_is_on_its_way_and_there_before_the_next() -> None:
    writer = Slow()
    publisher = made(writer)
    await publisher.send(WHAT)
    assert "commit" not in writer.did
    await publisher.send(WHAT)
    assert writer.did == WHOLE
    await publisher.sent()
    assert writer.did == 2 * WHOLE
    await publisher.sent()


async def test_a_failure_is_told_by_whoever_comes_next_and_once() -> None:
    for comes_next in ("send", "sent"):
        publisher = made(Slow(refuses=True))
        await publisher.send(WITHOUT)
        waiting = publisher.sent() if comes_next == "sent" else publisher.send(WITHOUT)
        with pytest.raises(FencedError):
            await waiting
        await publisher.close()
    with pytest.raises(FencedError):
        await made(Slow(refuses=True)).publish(WITHOUT)


async def test_what_is_there_may_not_be_readable_yet() -> None:
    class Hidden(Slow):
        left = 2

        async def unfinished(self, places: Any) -> list[Any]:
            self.left -= 1
            return list(places) if self.left >= 0 else []

        async def include(self, places: Any) -> None:
            raise AssertionError(places)

    publisher = Publisher(
        Hidden(), "t.learner", [TopicPartition("t.status", 0)], transactional=True
    )  # type: ignore[arg-type]
    await publisher.send(WHAT)
    assert not await publisher.visible()
    await publisher.settle()
    assert await publisher.visible()


async def test_whoever_closes_lets_it_arrive_but_not_for_ever(monkeypatch) -> None:
    writer = Slow()
    publisher = made(writer)
    await publisher.send(WHAT)
    await publisher.close()
    assert writer.did == [*WHOLE, "close"]
    monkeypatch.setattr(publishing, "_CLOSE_S", 0.05)
    writer = Slow()
    writer.stands.clear()
    publisher = made(writer)
    await publisher.send(WITHOUT)
    await publisher.close()
    assert writer.did == ["begin", "t.policy", "t.status", "close"]
