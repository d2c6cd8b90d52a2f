"""Weights that serve are followed through generations, and through a broker that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")

from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.kafka import EMBEDDED, KafkaLog
from streambot.domain.kafka_settings import KafkaSecurity
from streambot.learning.declaration import declare_training, generation
from streambot.learning.serving import Seat
from streambot.streams.ports import StreamSpec
from streambot.wiring.following import Serving, serving
from streambot.wiring.served import ServedName
from streambot.wiring.serving import Asked, Brokers, Lookup
from tests.served import AT_MS, begin, trained, training_of, weights_of, write
from tests.waiting import holds_soon

pytestmark = [pytest.mark.integration, pytest.mark.train]


class Rig:
    """A broker, weights that are followed there, and what was told of them."""

    def __init__(self, folder: Path) -> None:
        self.by = Lookup(folder / "runs", "streambot", KafkaSecurity(), folder)
        self.broker = EmbeddedBroker()
        self.told: list[str] = []
        self.warned: list[str] = []

    def brokers(self) -> Brokers:
        return Brokers((Asked(self.broker.address, "here"),))

    async def do(self, work: Callable[[Any], Any]) -> Any:
        async with await KafkaLog.open(self.broker.address, profile=EMBEDDED) as log:
            return await work(log)

    @asynccontextmanager
    async def serve(self, sequence: int | None = None) -> AsyncIterator[Serving]:
        name = ServedName("moe-1", sequence)
        async with serving(
            name, self.brokers, self.by, told=self.told.append, warned=self.warned.append
        ) as found:
            yield found


async def test_a_broker_that_goes_away_is_told_once_and_found_again(tmp_path: Path) -> None:
    """Meanwhile the weights of before decide; another broker may have the training by then."""
    rig = Rig(tmp_path)
    await rig.broker.start()
    await rig.do(lambda log: trained(log, 4))
    async with rig.serve() as found:
        supply = found._supply
        await rig.broker.stop()
        await holds_soon(lambda: rig.warned)
        assert "the weights of moe-1 cannot be read any more" in rig.warned[0]
        assert rig.warned[0].endswith("4 go on deciding")
        assert Seat(supply).version == 4
        rig.broker = EmbeddedBroker()
        await rig.broker.start()
        await rig.do(lambda log: trained(log, 4, 5))
        await holds_soon(lambda: supply.sequence == 5)
        assert Seat(supply).version == 5
        await holds_soon(lambda: rig.told)
        assert rig.told == ["the weights of moe-1 can be read again"]
        assert len(rig.warned) == 1
    await rig.broker.stop()


async def test_weights_are_followed_into_a_newer_generation(tmp_path: Path) -> None:
    """As the learner does it: the newer stream first, and then whoever reads the older one is told."""
    rig = Rig(tmp_path)
    plain = training_of()
    first, second = (
        msgspec.structs.replace(
            plain, topics=plain.topics | {"policy": generation(plain.topics["policy"], number)}
        )
        for number in (0, 1)
    )
    await rig.broker.start()
    await rig.do(lambda log: begin(log, first))
    await rig.do(lambda log: write(log, first, weights_of(first, 1)))
    async with rig.serve() as found:
        supply = found._supply

        async def roll(log: Any) -> None:
            await log.create([StreamSpec(name=second.topics["policy"])])
            await declare_training(log, second, at_ms=AT_MS)
            value = weights_of(first, 2, stream=second.topics["policy"])
            await write(log, second, value)
            await write(log, first, value)

        await rig.do(roll)
        await holds_soon(lambda: supply.sequence == 2)
        await rig.do(lambda log: log.delete([first.topics["policy"]]))
        await rig.do(lambda log: write(log, second, weights_of(first, 3)))
        await holds_soon(lambda: supply.sequence == 3)
        torn = weights_of(first, 4)[:-1]
        await rig.do(lambda log: write(log, second, torn, weights_of(first, 5)))
        await holds_soon(lambda: supply.sequence == 5)
        await holds_soon(lambda: rig.warned)
        assert rig.warned == [
            "weights of moe-1 are torn, or of somebody else: they are left out"
        ]  # fmt: skip
    await rig.broker.stop()


async def test_pinned_weights_are_not_followed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.broker.start()
    await rig.do(lambda log: trained(log, 1))
    before = asyncio.all_tasks()
    async with rig.serve(1) as found:
        assert found.label == "moe-1@1"
        assert asyncio.all_tasks() == before, "nothing is read any more"
    async with rig.serve() as found:
        assert found.label == "moe-1@newest"
    await rig.broker.stop()


async def test_weights_that_change_fast_are_told_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first change at once, the last one in any case."""
    monkeypatch.setattr("streambot.wiring.following.TELL_S", 0.2)
    rig = Rig(tmp_path)
    await rig.broker.start()
    await rig.do(lambda log: trained(log, 1))
    async with rig.serve(1) as found:
        supply = found._supply
        supply.note(1)
        for sequence in range(2, 100):
            supply.note(sequence)
        await holds_soon(lambda: len(rig.told) == 2)
        assert rig.told == [
            "weights 2 of moe-1 decide from here on, before: 1",
            "weights 99 of moe-1 decide from here on, before: 2",
        ]
        supply.note(100)
        await asyncio.sleep(0.01)
    assert rig.told[2:] == ["weights 100 of moe-1 decide from here on, before: 99"]
    await rig.broker.stop()
