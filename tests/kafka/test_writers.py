"""What a writer says that cannot go on: why, in words of ours, and whether somebody has taken over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.transaction import EndTxnRequest

from streambot.adapters.kafka import KafkaLog
from streambot.domain.errors import BrokerError, FencedError
from streambot.streams.ports import StreamSpec
from tests.kafka.places import Kafka

pytestmark = pytest.mark.kafka
STREAM = "writers.x"


@pytest.mark.parametrize("waits", [True, False], ids=["a record", "the next record"])
def test_a_coordinator_that_hangs_up(kafka: Kafka, waits: bool) -> None:
    """As a broker does that is being stopped: aiokafka takes it for the end, and says nothing of it."""

    async def told_by(log: KafkaLog) -> BrokerError:
        if STREAM not in await log.streams():
            await log.create([StreamSpec(name=STREAM)])
        transactions = await log.transactions("writers")
        producer = transactions._producer

        async def hangs_up(*_: object) -> None:
            raise KafkaConnectionError("closed")

        producer._sender._coordinators.clear()
        producer.client.coordinator_lookup = hangs_up
        await transactions.begin()

        async def write() -> None:
            while True:
                stored = await transactions.append(STREAM, 0, b"1", timestamp_ms=0)
                if waits:
                    await stored

        with pytest.raises(BrokerError) as told:
            await write()
        await transactions.close()
        return told.value

    error = kafka.do(told_by)
    assert "the connection is lost" in error.message
    assert error.hint


def fails_once(transactions: Any) -> None:
    """The broker fails on the first commit, and does not do it."""
    client = transactions._producer.client
    send, failed = client.send, []

    async def sends(node: int, request: Any, **more: Any) -> Any:
        if isinstance(request, EndTxnRequest) and not failed:
            failed.append(request)
            return SimpleNamespace(error_code=-1)
        return await send(node, request, **more)

    client.send = sends


@pytest.mark.parametrize("taken_over", [True, False])
def test_a_commit_that_fails_without_a_word(kafka: Kafka, taken_over: bool) -> None:
    """Behind it stands whoever has taken over, or nobody: who is fenced must not open the name again."""

    async def told_by(log: KafkaLog) -> BrokerError:
        if STREAM not in await log.streams():
            await log.create([StreamSpec(name=STREAM)])
        first = await log.transactions("fenced")
        fails_once(first)
        await first.begin()
        await first.append(STREAM, 0, b"1", timestamp_ms=0)
        await first.flush()
        second = await log.transactions("fenced") if taken_over else None
        with pytest.raises(BrokerError) as told:
            await first.commit()
        with pytest.raises(type(told.value)):
            await first.begin()
        if second is not None:
            await second.begin()
            await second.append(STREAM, 0, b"2", timestamp_ms=0)
            await second.commit()
            await second.close()
        await first.close()
        return told.value

    error = kafka.do(told_by)
    assert isinstance(error, FencedError) == taken_over
    if not taken_over:
        assert "cannot do its work" in error.message
