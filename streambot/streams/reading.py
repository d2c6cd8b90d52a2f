"""Reading a stream up to where it ends now, from its start or backwards from its end.

Transactions leave holes: the last offset of a partition may hold no record, so "the record before
the end" has to be looked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.domain.errors import BrokerError
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from streambot.streams.ports import Log, Record, Start

_RECORDS = 256
_TIMEOUT_S = 0.05
"""Short: marks of transactions are passed without a record that would end the wait."""
_PATIENCE = 600
"""Reads without anything new before the end is reached: then the log is not to be trusted."""
_FIRST_LOOK = 8


async def read_to_end(
    log: Log,
    stream: str,
    starts: Mapping[int, Start] | None = None,
    ends: Mapping[int, int] | None = None,
    *,
    max_records: int = _RECORDS,
) -> AsyncIterator[list[Record]]:
    """Batches of records of all (or the given) partitions, up to their ends at the time of the call.

    Args:
        log: where the stream is.
        stream: full name.
        starts: where to begin in each partition; None: all partitions from their beginning.
        ends: the ends, where the caller knows them.
        max_records: in a batch.

    Raises:
        StreambotError: the log is gone, or does not give what it says it has.
    """
    if ends is None:
        ends = dict(enumerate(await log.end_offsets(stream)))
    firsts = await log.beginning_offsets(stream)
    if starts is None:
        starts = dict.fromkeys(ends, "beginning")
    places: dict[TopicPartition, Start] = {}
    for partition, start in starts.items():
        first = firsts[partition] if start == "beginning" else start
        if isinstance(first, int) and first < ends[partition]:
            places[TopicPartition(stream, partition)] = max(first, firsts[partition])
    if not places:
        return
    source = await log.source(places)
    try:
        idle = 0
        while any(at < ends[place.partition] for place, at in source.positions().items()):
            records = await source.read(max_records=max_records, timeout_s=_TIMEOUT_S)
            found = [record for record in records if record.offset < ends[record.partition]]
            if found:
                yield found
            idle = 0 if records else idle + 1
            if idle > _PATIENCE:
                raise BrokerError("records that should be there do not come", where=stream)
    finally:
        await source.close()


async def read_back(
    log: Log, stream: str, partition: int, count: int, end: int | None = None
) -> list[Record]:
    """The last records of a partition: at least `count` of them, where there are so many.

    Args:
        log: where the stream is.
        stream: full name.
        partition: of it.
        count: of records.
        end: where the partition ends; None: where it ends now.
    """
    if end is None:
        end = (await log.end_offsets(stream))[partition]
    first = (await log.beginning_offsets(stream))[partition]
    look = max(count, _FIRST_LOOK)
    while True:
        start = max(first, end - look)
        records = [
            record
            async for batch in read_to_end(log, stream, {partition: start}, {partition: end})
            for record in batch
        ]
        if len(records) >= count or start == first:
            return records
        look *= 4


async def read_last(log: Log, stream: str, partition: int) -> Record | None:
    """The last record of a partition; None where it has none."""
    records = await read_back(log, stream, partition, 1)
    return records[-1] if records else None
