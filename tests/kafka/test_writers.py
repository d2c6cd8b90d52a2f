"""A writer whose background task has ended says why, in words of ours, for every record."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaConnectionError

from streambot.adapters.kafka import KafkaLog
from streambot.domain.errors import BrokerError
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
