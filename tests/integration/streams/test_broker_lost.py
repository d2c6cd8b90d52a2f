"""A broker that dies under a run: one clear error within seconds, wherever somebody waits."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streambot.adapters.broker import EmbeddedBroker, child
from streambot.adapters.kafka import EMBEDDED, KafkaLog
from streambot.adapters.kafka.noise import noise_counts, silence
from streambot.domain.errors import BrokerError, TopicError
from streambot.streams.ports import Log, Sink, Source, StreamSpec, TopicPartition
from streambot.wiring.places import open_embedded
from tests.processes import living_children
from tests.waiting import holds_soon

pytestmark = pytest.mark.integration

PLACE = TopicPartition("t.lost.ticks", 0)
SECONDS = 5.0


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
async def log(broker) -> AsyncIterator[KafkaLog]:
    log = await KafkaLog.open(broker.address, profile=EMBEDDED)
    broker.on_failure(log.fail)
    await log.create([StreamSpec(name=PLACE.stream, partitions=2)])
    yield log
    await log.close()


def kill(broker: EmbeddedBroker) -> None:
    os.kill(broker.pid, signal.SIGKILL)


async def read_on(source: Source) -> None:
    """Read until it fails; nothing is ever there."""
    while True:
        assert await source.read(timeout_s=0.5) == []


async def write_on(sink: Sink) -> None:
    """Write until it fails."""
    for _ in range(100_000):
        await sink.append(*PLACE, bytes(200_000), timestamp_ms=0)


async def test_a_waiting_reader(broker, log):
    source = await log.source({PLACE: "beginning"})
    waiting = asyncio.create_task(source.read(timeout_s=60))
    await asyncio.sleep(0.1)
    kill(broker)
    start = time.monotonic()
    with pytest.raises(BrokerError, match="killed by signal 9"):
        await waiting
    assert time.monotonic() - start < SECONDS
    with pytest.raises(BrokerError, match="killed by signal 9"):
        await source.read()


async def test_a_writer_at_full_speed(broker, log):
    sink = await log.sink()
    acks: list[asyncio.Future[int]] = []

    async def produce() -> None:
        while True:
            acks.append(await sink.append(*PLACE, bytes(200_000), timestamp_ms=0))

    writing = asyncio.create_task(produce())
    await asyncio.sleep(0.3)
    kill(broker)
    start = time.monotonic()
    with pytest.raises(BrokerError, match="killed by signal 9"):
        await writing
    for ack in acks:
        if not ack.done() or ack.exception():
            with pytest.raises(BrokerError):
                await ack
    assert time.monotonic() - start < SECONDS
    with pytest.raises(BrokerError):
        await sink.flush()
    await log.close()
    assert time.monotonic() - start < 2 * SECONDS


async def test_everything_else(broker, log):
    sink = await log.sink()
    kill(broker)
    await asyncio.sleep(0.2)
    for call in (
        log.streams(), log.create([StreamSpec(name="t.lost.more")]), log.delete([PLACE.stream]),
        log.sink(), log.source({PLACE: "end"}), log.end_offsets(PLACE.stream),
        log.offset_at(*PLACE, 0), sink.append(*PLACE, b"x", timestamp_ms=0), sink.flush(),
    ):  # fmt: skip
        with pytest.raises(BrokerError, match="killed by signal 9"):
            await call


@pytest.mark.parametrize("tasks", [False, True])
async def test_why_it_went_is_told_though_its_connections_went_first(
    tasks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_WATCH_S", 0.5)  # a machine that has much to do
    seen: list[str] = []

    async def ask(log: Log) -> None:
        try:
            while True:
                await log.streams()
        except BrokerError as error:
            seen.append(error.message)
            raise

    async def use() -> None:
        async with open_embedded(tmp_path, lambda _: None, "") as place:
            (broker,) = (p for p in living_children() if "tansu" in p.name())
            broker.kill()
            if tasks:
                async with asyncio.TaskGroup() as group:
                    group.create_task(ask(place.log))
            await ask(place.log)

    with pytest.raises(BrokerError, match="killed by signal 9"):
        await use()
    assert "the connection is lost" in seen[0]


async def test_a_broker_that_hangs_without_dying(broker, log):
    """Nobody tells: the watch notices by itself."""
    source = await log.source({PLACE: "beginning"})
    os.kill(broker.pid, signal.SIGSTOP)
    start = time.monotonic()
    try:
        with pytest.raises(BrokerError, match="has not answered for"):
            await read_on(source)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert time.monotonic() - start < 15


async def test_memory_has_a_limit():
    async with EmbeddedBroker(memory_limit=64 << 20) as broker:
        log = await KafkaLog.open(broker.address, profile=EMBEDDED)
        broker.on_failure(log.fail)
        await log.create([StreamSpec(name=PLACE.stream)])
        sink = await log.sink()
        with pytest.raises(BrokerError, match="more than the limit of 64 MiB"):
            await write_on(sink)
        await log.close()


async def test_who_opens_a_log_may_be_cancelled(broker):
    """At any moment of it; nothing stays open, which would be told as a warning."""
    for k in range(40):
        task = asyncio.create_task(KafkaLog.open(broker.address, profile=EMBEDDED))
        await asyncio.sleep(k * 0.0005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).close()
    gc.collect()


async def test_who_opens_a_log_where_nobody_answers_may_be_cancelled():
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        task = asyncio.create_task(KafkaLog.open(f"{host}:{port}"))
        await holds_soon(lambda: held)
        start = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - start < SECONDS
        for writer in held:
            writer.close()
    gc.collect()


async def test_nobody_there():
    start = time.monotonic()
    with pytest.raises(BrokerError, match="no broker answers at 127.0.0.1:1") as caught:
        await KafkaLog.open("127.0.0.1:1")
    assert "nobody listens there" in caught.value.message
    assert time.monotonic() - start < SECONDS


async def test_somebody_else_there():
    """A server that takes the connection and says nothing that Kafka would."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(BrokerError, match="no broker answers"):
            await KafkaLog.open(f"{host}:{port}")


class _Heard(logging.Handler):
    """What a program's own root handler would show (pytest's listens further down)."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


async def test_the_clients_own_log_is_counted_and_never_shown(broker, log, capfd):
    heard = _Heard()
    logging.getLogger().addHandler(heard)
    before = noise_counts()
    source = await log.source({PLACE: "beginning"})
    sink = await log.sink()
    kill(broker)
    with pytest.raises(BrokerError):
        await source.read(timeout_s=30)
    with pytest.raises(BrokerError):
        await sink.append(*PLACE, b"x", timestamp_ms=0)
    await log.close()
    logging.getLogger().removeHandler(heard)
    new = noise_counts() - before
    assert new.total() > 0
    assert new["unknown"] == 0
    assert heard.messages == []
    assert capfd.readouterr() == ("", "")


def test_a_message_that_is_not_known_is_passed_on():
    silence()
    heard = _Heard()
    logging.getLogger().addHandler(heard)
    logging.getLogger("aiokafka.conn").warning("the sky is %s", "falling")
    logging.getLogger().removeHandler(heard)
    assert heard.messages == ["aiokafka: the sky is falling"]


async def test_reading_and_asking_create_nothing(broker, log):
    """Tansu creates a topic that a client asks about by name."""
    for wrong in (
        log.end_offsets("t.lost.typo"),
        log.source({TopicPartition("t.lost.typo", 0): 0}),
    ):
        with pytest.raises(TopicError, match="no such stream"):
            await wrong
    sink = await log.sink()
    with pytest.raises(TopicError, match="no such stream"):
        await sink.append("t.lost.typo", 0, b"x", timestamp_ms=0)
    source = await log.source({PLACE: "beginning"})
    await log.delete([PLACE.stream])
    with pytest.raises(TopicError, match="deleted"):
        await read_on(source)
    await asyncio.sleep(1.0)
    assert await log.streams() == {}


async def test_deleting_frees_the_brokers_memory(broker, log):
    sink = await log.sink()
    for _ in range(100):
        await sink.append(*PLACE, bytes(900_000), timestamp_ms=0)
    await sink.flush()
    full = broker.resident_bytes
    assert full > 90 << 20
    await log.delete([PLACE.stream])
    await holds_soon(lambda: broker.resident_bytes < full // 2)
