"""One suite for every log: what `streams.ports` promises, whoever keeps the records."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import numpy as np
import pytest

from streambot.domain.errors import BrokerError, StreambotError, StreamError, TopicError
from streambot.streams.ports import (
    MAX_RECORD_BYTES,
    Log,
    Record,
    Sink,
    Source,
    StreamSpec,
    TopicPartition,
    event_time_ms,
)

EVENT_TIME = {"retention.ms": "-1"}
T0 = 1_606_833_000_000  # 2020-12-01 14:30 UTC
PATIENCE_S = 20.0


def spec(name: str, partitions: int = 1) -> StreamSpec:
    return StreamSpec(name=name, partitions=partitions, config=EVENT_TIME)


async def take(source: Source, count: int, *, max_records: int = 64) -> list[Record]:
    """Exactly `count` records, or whatever came within the test's patience."""
    found: list[Record] = []
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while len(found) < count and asyncio.get_running_loop().time() < deadline:
        found += await source.read(max_records=min(max_records, count - len(found)), timeout_s=0.5)
    return found


async def write(log: Log, stream: str, values: list[bytes], *, partition: int = 0) -> None:
    sink = await log.sink()
    for k, value in enumerate(values):
        await sink.append(stream, partition, value, timestamp_ms=T0 + 1_000 * k)
    await sink.close()


async def test_implements_the_ports(log, name):
    assert isinstance(log, Log)
    await log.create([spec(name("ticks"))])
    sink = await log.sink()
    source = await log.source({TopicPartition(name("ticks"), 0): "beginning"})
    assert isinstance(sink, Sink)
    assert isinstance(source, Source)


async def test_a_record_comes_back_as_it_was_stored(log, name):
    await log.create([spec(name("fills"), 3)])
    sink = await log.sink()
    stored = await sink.append(
        name("fills"), 2, b"value", timestamp_ms=T0, key=b"SPY",
        headers=(("reason", b"crc"), ("empty", b""), ("reason", b"twice")),
    )  # fmt: skip
    offset = await asyncio.wait_for(stored, PATIENCE_S)
    source = await log.source({TopicPartition(name("fills"), 2): "beginning"})
    (record,) = await take(source, 1)
    assert record == Record(
        name("fills"), 2, offset, T0, b"SPY", b"value",
        (("reason", b"crc"), ("empty", b""), ("reason", b"twice")),
    )  # fmt: skip


async def test_order_and_offsets_within_a_partition(log, name):
    await log.create([spec(name("ticks"))])
    sink = await log.sink()
    acks = [await sink.append(name("ticks"), 0, b"%d" % k, timestamp_ms=T0 + k) for k in range(500)]
    await sink.flush()
    offsets = [ack.result() for ack in acks]
    source = await log.source({TopicPartition(name("ticks"), 0): "beginning"})
    records = await take(source, 500, max_records=37)
    assert [r.value for r in records] == [b"%d" % k for k in range(500)]
    assert [r.timestamp_ms for r in records] == [T0 + k for k in range(500)]
    assert [r.offset for r in records] == offsets == sorted(set(offsets))
    assert source.positions()[TopicPartition(name("ticks"), 0)] == offsets[-1] + 1
    assert await log.end_offsets(name("ticks")) == [offsets[-1] + 1]
    assert await log.beginning_offsets(name("ticks")) == [offsets[0]]
    assert await source.read(timeout_s=0.2) == []


async def test_read_gives_no_more_than_asked_for(log, name):
    await log.create([spec(name("ticks"), 4)])
    for partition in range(4):
        await write(log, name("ticks"), [b"x"] * 20, partition=partition)
    source = await log.source({TopicPartition(name("ticks"), p): "beginning" for p in range(4)})
    seen = 0
    while batch := await source.read(max_records=7, timeout_s=1.0):
        assert len(batch) <= 7
        seen += len(batch)
    assert seen == 80


async def test_many_partitions_keep_their_order_each(log, name):
    await log.create([spec(name("ticks"), 16)])
    sink = await log.sink()
    for k in range(30):
        for p in range(16):
            await sink.append(name("ticks"), p, b"%d:%d" % (p, k), timestamp_ms=T0 + k)
    await sink.flush()
    source = await log.source({TopicPartition(name("ticks"), p): "beginning" for p in range(16)})
    records = await take(source, 480)
    for p in range(16):
        mine = [r.value for r in records if r.partition == p]
        assert mine == [b"%d:%d" % (p, k) for k in range(30)]


async def test_readers_do_not_disturb_each_other(log, name):
    await log.create([spec(name("fills"))])
    await write(log, name("fills"), [b"%d" % k for k in range(50)])
    place = TopicPartition(name("fills"), 0)
    one = await log.source({place: "beginning"})
    two = await log.source({place: "beginning"})
    first = await take(one, 20, max_records=20)
    assert [r.value for r in await take(two, 50)] == [b"%d" % k for k in range(50)]
    assert [r.value for r in first + await take(one, 30)] == [b"%d" % k for k in range(50)]


async def test_where_a_reader_starts(log, name):
    await log.create([spec(name("pnl"))])
    place = TopicPartition(name("pnl"), 0)
    await write(log, name("pnl"), [b"%d" % k for k in range(10)])
    base = (await log.beginning_offsets(name("pnl")))[0]
    late = await log.source({place: "end"})
    assert await late.read(timeout_s=0.2) == []
    middle = await log.source({place: base + 4})
    assert [r.value for r in await take(middle, 6)] == [b"4", b"5", b"6", b"7", b"8", b"9"]
    await write(log, name("pnl"), [b"new"])
    assert [r.value for r in await take(late, 1)] == [b"new"]


async def test_seek(log, name):
    await log.create([spec(name("pnl"))])
    place = TopicPartition(name("pnl"), 0)
    await write(log, name("pnl"), [b"%d" % k for k in range(10)])
    source = await log.source({place: "beginning"})
    records = await take(source, 3, max_records=3)
    await source.seek(*place, records[1].offset)
    assert [r.value for r in await take(source, 9)] == [b"%d" % k for k in range(1, 10)]
    await source.seek(*place, "beginning")
    assert [r.value for r in await take(source, 2, max_records=2)] == [b"0", b"1"]
    await source.seek(*place, "end")
    assert await source.read(timeout_s=0.2) == []


async def test_an_offset_that_is_not_kept_is_an_error(log, name):
    await log.create([spec(name("pnl"))])
    await write(log, name("pnl"), [b"0"])
    with pytest.raises(StreamError, match="is not kept"):
        await log.source({TopicPartition(name("pnl"), 0): 1_000})


async def test_times_find_offsets(log, name):
    await log.create([spec(name("ticks"), 2)])
    await write(log, name("ticks"), [b"%d" % k for k in range(10)], partition=1)
    begin = (await log.beginning_offsets(name("ticks")))[1]
    assert await log.offset_at(name("ticks"), 1, T0) == begin
    assert await log.offset_at(name("ticks"), 1, T0 + 2_500) == begin + 3
    assert await log.offset_at(name("ticks"), 1, T0 + 9_000) == begin + 9
    assert await log.offset_at(name("ticks"), 1, T0 + 9_001) == begin + 10, "none: the end"
    assert await log.offset_at(name("ticks"), 0, T0) == 0, "nothing there: the end"


async def test_old_times_are_kept(log, name):
    """Event times of a replay are years old: a log that expired by them would eat the run."""
    await log.create([spec(name("ticks"))])
    sink = await log.sink()
    times = [0, event_time_ms(-5_000_000_000), event_time_ms(86_400_000_000_000), T0]
    for at in times:
        await sink.append(name("ticks"), 0, b"x", timestamp_ms=at)
    await sink.close()
    source = await log.source({TopicPartition(name("ticks"), 0): "beginning"})
    assert [r.timestamp_ms for r in await take(source, 4)] == times == [0, 0, 86_400_000, T0]


async def test_hostile_bytes_are_stored_as_they_are(log, name):
    rng = np.random.default_rng(3)
    await log.create([spec(name("late"))])
    values = [b"", b"\0", b"\xff" * 100, bytes(range(256)), *(rng.bytes(99) for _ in range(20))]
    sink = await log.sink()
    for value in values:
        await sink.append(name("late"), 0, value, timestamp_ms=T0, key=value or None)
    await sink.close()
    source = await log.source({TopicPartition(name("late"), 0): "beginning"})
    records = await take(source, len(values))
    assert [r.value for r in records] == values
    assert [r.key for r in records] == [value or None for value in values]


async def test_records_as_large_as_promised(log, name):
    await log.create([spec(name("policy"))])
    big = np.random.default_rng(3).bytes(MAX_RECORD_BYTES)
    sink = await log.sink()
    await sink.append(name("policy"), 0, big[:900_000], timestamp_ms=T0)
    await sink.append(name("policy"), 0, big, timestamp_ms=T0)
    with pytest.raises(BrokerError, match="too large"):
        await sink.append(name("policy"), 0, big + b"x", timestamp_ms=T0)
    await sink.append(name("policy"), 0, b"after", timestamp_ms=T0)
    await sink.close()
    source = await log.source({TopicPartition(name("policy"), 0): "beginning"})
    records = await take(source, 3)
    assert [len(r.value) for r in records] == [900_000, MAX_RECORD_BYTES, 5]
    assert records[1].value == big


async def test_unknown_streams_and_partitions(log, name):
    await log.create([spec(name("ticks"), 2)])
    sink = await log.sink()
    for stream, partition in ((name("tick"), 0), (name("ticks"), 2), (name("ticks"), -1)):
        with pytest.raises(TopicError):
            await sink.append(stream, partition, b"x", timestamp_ms=T0)
        with pytest.raises(TopicError):
            await log.source({TopicPartition(stream, partition): "beginning"})
        with pytest.raises(TopicError):
            await log.offset_at(stream, partition, T0)
    with pytest.raises(TopicError):
        await log.end_offsets(name("tick"))
    assert name("tick") not in await log.streams(), "reading must not create a stream"


async def test_creating(log, name):
    assert await log.create([spec(name("a"), 3), spec(name("b"))]) == [name("a"), name("b")]
    assert await log.create([spec(name("a"), 3), spec(name("c"))]) == [name("c")]
    with pytest.raises(TopicError, match="3 partitions"):
        await log.create([spec(name("a"), 4)])
    with pytest.raises(TopicError):
        await log.create([spec("no spaces please")])
    known = await log.streams()
    assert [known.get(name(s)) for s in "abcd"] == [3, 1, 1, None]


async def test_deleting(log, name):
    await log.create([spec(name("a")), spec(name("b"))])
    await write(log, name("a"), [b"x"])
    await log.delete([name("a"), name("never-was")])
    assert name("a") not in await log.streams()
    sink = await log.sink()
    with pytest.raises(TopicError):
        await sink.append(name("a"), 0, b"x", timestamp_ms=T0)
    await sink.append(name("b"), 0, b"x", timestamp_ms=T0)
    await log.create([spec(name("a"))])
    await write(log, name("a"), [b"fresh"])
    source = await log.source({TopicPartition(name("a"), 0): "beginning"})
    assert [r.value for r in await take(source, 1)] == [b"fresh"]


async def test_closing_twice_and_using_what_is_closed(log, name):
    await log.create([spec(name("ticks"))])
    sink = await log.sink()
    source = await log.source({TopicPartition(name("ticks"), 0): "beginning"})
    for closable in (sink, source, log):
        await closable.close()
        await closable.close()
    with pytest.raises(StreambotError):
        await sink.append(name("ticks"), 0, b"x", timestamp_ms=T0)
    with pytest.raises(StreambotError):
        await source.read(timeout_s=0.1)
    with pytest.raises(StreambotError):
        await log.streams()


async def test_who_waits_for_a_record_may_be_cancelled(log, name):
    """The record goes on, and nobody waits longer for it than for any other."""
    await log.create([spec(name("orders"))])
    sink = await log.sink()
    for k in range(20):
        (await sink.append(name("orders"), 0, b"%d" % k, timestamp_ms=T0)).cancel()
    async with asyncio.timeout(10):
        await sink.flush()
    (await sink.append(name("orders"), 0, b"20", timestamp_ms=T0)).cancel()
    async with asyncio.timeout(10):
        await sink.close()
    source = await log.source({TopicPartition(name("orders"), 0): "beginning"})
    assert [r.value for r in await take(source, 21)] == [b"%d" % k for k in range(21)]


@pytest.mark.parametrize("what", ["source", "sink"])
async def test_who_opens_a_client_may_be_cancelled(log, name, what):
    """At any moment of it; nothing stays open, which would be told as a warning."""
    await log.create([spec(name("orders"))])
    for k in range(40):
        opened = (
            log.sink() if what == "sink" else log.source({TopicPartition(name("orders"), 0): 0})
        )
        task = asyncio.create_task(opened)
        await asyncio.sleep(k * 0.0005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).close()
    gc.collect()


async def test_closing_the_log_closes_what_came_from_it(log, name):
    await log.create([spec(name("ticks"))])
    sink = await log.sink()
    source = await log.source({TopicPartition(name("ticks"), 0): "beginning"})
    await sink.append(name("ticks"), 0, b"x", timestamp_ms=T0)
    await log.close()
    with pytest.raises(StreambotError):
        await sink.append(name("ticks"), 0, b"x", timestamp_ms=T0)
    with pytest.raises(StreambotError):
        await source.read(timeout_s=0.1)


async def test_a_waiting_reader_gets_what_is_written_meanwhile(log, name):
    await log.create([spec(name("fills"))])
    source = await log.source({TopicPartition(name("fills"), 0): "end"})
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(source.read(timeout_s=PATIENCE_S))
        await asyncio.sleep(0.1)
        await write(log, name("fills"), [b"x"])
    assert [r.value for r in waiting.result()] == [b"x"]


async def test_writing_and_reading_at_once(log, name):
    await log.create([spec(name("ticks"), 4)])
    payload = np.random.default_rng(3).bytes(100_000)

    async def produce(partition: int) -> None:
        sink = await log.sink()
        for k in range(60):
            await sink.append(
                name("ticks"), partition, k.to_bytes(4) + payload, timestamp_ms=T0 + k
            )
        await sink.close()

    source = await log.source({TopicPartition(name("ticks"), p): "beginning" for p in range(4)})
    async with asyncio.TaskGroup() as tasks:
        for partition in range(4):
            tasks.create_task(produce(partition))
        reading = tasks.create_task(take(source, 240))
    for partition in range(4):
        mine = [r.value for r in reading.result() if r.partition == partition]
        assert mine == [k.to_bytes(4) + payload for k in range(60)]


async def test_one_sink_used_by_several_tasks(log, name):
    await log.create([spec(name("ticks"), 4)])
    sink = await log.sink()

    async def produce(partition: int) -> None:
        for k in range(100):
            await sink.append(name("ticks"), partition, b"%d" % k, timestamp_ms=T0 + k)

    async with asyncio.TaskGroup() as tasks:
        for partition in range(4):
            tasks.create_task(produce(partition))
    await sink.close()
    assert await log.end_offsets(name("ticks")) == [100] * 4
