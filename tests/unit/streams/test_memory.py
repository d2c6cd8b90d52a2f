"""What the in-process log does beyond the common suite: bounded memory and back-pressure."""

from __future__ import annotations

import asyncio

import pytest

from streambot.domain.errors import BrokerError, StreamError, TopicError
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import (
    MAX_WAITING_BYTES,
    MAX_WAITING_RECORDS,
    StreamSpec,
    TopicPartition,
)

PLACE = TopicPartition("sb.r.ticks", 0)


async def bounded_log(*, stall_s: float = 0.2) -> MemoryLog:
    log = MemoryLog(stall_s=stall_s)
    await log.create([StreamSpec(name=PLACE.stream, bounded=True)])
    return log


async def test_a_writer_waits_for_its_slowest_reader():
    log = await bounded_log(stall_s=30)
    fast, slow = await log.source({PLACE: "beginning"}), await log.source({PLACE: "beginning"})
    sink = await log.sink()
    written = 0

    async def produce() -> None:
        nonlocal written
        for k in range(200):
            await sink.append(*PLACE, b"%d" % k, timestamp_ms=k)
            written += 1

    producer = asyncio.create_task(produce())
    values = []
    while batch := await fast.read(timeout_s=0.05):
        values += [r.value for r in batch]
    assert written == len(values) == MAX_WAITING_RECORDS
    slow_values = []
    while len(slow_values) < 200:
        slow_values += [r.value for r in await slow.read(max_records=5)]
        values += [r.value for r in await fast.read(timeout_s=0.001)]
    await producer
    values += [r.value for r in await fast.read(timeout_s=0.001)]
    assert values == slow_values == [b"%d" % k for k in range(200)]


async def test_memory_stays_flat_behind_readers():
    log = await bounded_log()
    source = await log.source({PLACE: "beginning"})
    sink = await log.sink()
    for k in range(5_000):
        await sink.append(*PLACE, bytes(1_000), timestamp_ms=k)
        if k % 50 == 49:
            assert len(await source.read()) == 50
            assert log.retained_bytes == 0
    assert await log.beginning_offsets(PLACE.stream) == [5_000]


async def test_bytes_count_as_well_as_records():
    log = await bounded_log()
    await log.source({PLACE: "beginning"})
    sink = await log.sink()
    chunk = bytes(MAX_WAITING_BYTES // 9)
    for k in range(9):
        await sink.append(*PLACE, chunk, timestamp_ms=k)
    await sink.append(*PLACE, chunk, timestamp_ms=9)
    with pytest.raises(BrokerError, match="nobody read one"):
        await sink.append(*PLACE, chunk, timestamp_ms=10)


async def test_nothing_is_lost_before_the_first_reader_comes():
    log = await bounded_log()
    sink = await log.sink()
    for k in range(MAX_WAITING_RECORDS):
        await sink.append(*PLACE, b"x", timestamp_ms=k)
    with pytest.raises(BrokerError, match="64 records wait"):
        await sink.append(*PLACE, b"x", timestamp_ms=99)
    source = await log.source({PLACE: "beginning"})
    assert len(await source.read()) == MAX_WAITING_RECORDS


async def test_a_late_reader_of_a_bounded_stream_starts_where_records_are_kept():
    log = await bounded_log()
    early = await log.source({PLACE: "beginning"})
    sink = await log.sink()
    for k in range(10):
        await sink.append(*PLACE, b"%d" % k, timestamp_ms=k)
    await early.read(max_records=4)
    late = await log.source({PLACE: "beginning"})
    assert [r.offset for r in await late.read()] == [4, 5, 6, 7, 8, 9]
    with pytest.raises(StreamError, match="is not kept"):
        await log.source({PLACE: 3})


async def test_a_reader_that_leaves_no_longer_holds_the_writer_back():
    log = await bounded_log(stall_s=30)
    gone, stays = await log.source({PLACE: "beginning"}), await log.source({PLACE: "beginning"})
    sink = await log.sink()
    for k in range(MAX_WAITING_RECORDS):
        await sink.append(*PLACE, b"x", timestamp_ms=k)
    await stays.read()
    blocked = asyncio.create_task(sink.append(*PLACE, b"y", timestamp_ms=99))
    await asyncio.sleep(0.01)
    assert not blocked.done()
    await gone.close()
    await blocked


async def test_closing_or_deleting_wakes_who_waits():
    log = await bounded_log(stall_s=30)
    source, sink = await log.source({PLACE: "beginning"}), await log.sink()
    for k in range(MAX_WAITING_RECORDS):
        await sink.append(*PLACE, b"x", timestamp_ms=k)
    blocked = asyncio.create_task(sink.append(*PLACE, b"y", timestamp_ms=99))
    await asyncio.sleep(0)
    await log.delete([PLACE.stream])
    with pytest.raises(TopicError):
        await blocked
    with pytest.raises(TopicError):
        await source.read()
    await log.create([StreamSpec(name="other")])
    idle = await log.source({TopicPartition("other", 0): "end"})
    waiting = asyncio.create_task(idle.read(timeout_s=30))
    await asyncio.sleep(0)
    await log.close()
    with pytest.raises(BrokerError):
        await waiting
