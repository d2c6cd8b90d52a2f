"""Where each partition of a run starts: at its beginning, at a snapshot, or behind a log that lasts.

A log that died with its process starts empty: frames are numbered from 0 again, from the first
barrier that the snapshot has not closed. A log that lasts is continued: the reader goes on at the
snapshot's offset, the writer behind the last frame there is, in the middle of an interval if need
be, and the outputs behind the last record of each topic. Files are cut back to what the snapshots
cover, because what came later is written again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import DataError, DecodeError
from streambot.processor.outputs import ACCEPTED, DEAD_LETTER, OUTPUTS
from streambot.processor.snapshot import TaskSnapshot, load_snapshot
from streambot.processor.state_log import restore_state
from streambot.processor.stream_files import cut_back, file_of
from streambot.processor.task import TaskCore
from streambot.replay.framing import Position
from streambot.replay.resumption import resume_point
from streambot.streams.frame import decode_frame
from streambot.streams.ports import Start, TopicPartition
from streambot.streams.reading import read_last
from streambot.streams.sequence import ChainState, SequenceGuard
from streambot.wiring.tasks import make_core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from streambot.processor.manifest import RunManifest
    from streambot.streams.ports import Log
    from streambot.wiring.places import Place
    from streambot.wiring.preparation import Prepared

FILES = (*OUTPUTS, DEAD_LETTER)
"""Streams that every run keeps as files."""
_NO_LIMIT = 1 << 62
_SCAN_RECORDS = 64
_SCAN_TIMEOUT_S = 30.0


class PartitionStart(NamedTuple):
    """Where one partition starts.

    Attributes:
        core: new, or restored from the snapshot.
        reader: where the engine's reader of the ticks stands.
        offset: first record that it reads.
        writer: where the replay's writer stands.
        position: the same in barriers and rows of the open interval.
        written: number of the last input that each output topic has a record of; for dead letters
            the offset of the last record that was buried.
        replayed: the log holds all ticks of the partition already.
        ended: the task is done: nothing is left to do.
    """

    core: TaskCore
    reader: ChainState
    offset: Start
    writer: ChainState
    position: Position
    written: dict[str, int]
    duplicates: int = 0
    dead_letters: int = 0
    replayed: bool = False
    ended: bool = False


class _LineOwner(msgspec.Struct):
    instrument: str = ""
    partition: int | None = None


def partition_map(manifest: RunManifest) -> dict[str, int]:
    """Partition of every symbol."""
    return {
        instrument.symbol: partition
        for instrument, partition in zip(manifest.instruments, manifest.partition_of, strict=True)
    }


def line_partition(manifest: RunManifest) -> Callable[[bytes], int]:
    """Tells the partition of a line of any of the run's files."""
    partition_of = partition_map(manifest)
    decode = msgspec.json.Decoder(_LineOwner).decode

    def owner(line: bytes) -> int:
        whose = decode(line)
        return partition_of[whose.instrument] if whose.partition is None else whose.partition

    return owner


def new_starts(prepared: Prepared, manifest: RunManifest) -> list[PartitionStart]:
    """The partitions of a new run."""
    starts = []
    for partition in range(manifest.partitions):
        state = ChainState.start(manifest.run_id, partition)
        core = make_core(manifest, partition, prepared.context, prepared.agent, None)
        starts.append(PartitionStart(core, state, "beginning", state, Position(), {}))
    return starts


def files_of(manifest: RunManifest) -> tuple[str, ...]:
    """Streams that a run keeps as files."""
    return (*FILES, ACCEPTED) if manifest.free_run else FILES


def load_snapshots(folder: Path, manifest: RunManifest) -> list[TaskSnapshot | None]:
    """The last snapshot of each partition.

    Raises:
        DataError: one is damaged.
    """
    return [load_snapshot(folder, manifest.run, p) for p in range(manifest.partitions)]


def cut_files(
    folder: Path, manifest: RunManifest, snapshots: list[TaskSnapshot | None]
) -> dict[str, list[int]]:
    """Cut the streams' files back to what the snapshots cover; returns the lines that stay.

    Raises:
        DataError: a file has fewer lines than its snapshots say, or a line of nobody's.
    """
    owner = line_partition(manifest)
    lines: dict[str, list[int]] = {}
    for stream in files_of(manifest):
        keep = [0 if s is None else s.lines.get(stream, 0) for s in snapshots]
        try:
            lines[stream] = cut_back(folder, stream, keep, owner)
        except (msgspec.MsgspecError, KeyError, IndexError) as cause:
            raise DataError(
                f"has a line that is not of this run: {cause}", where=str(file_of(folder, stream))
            ) from cause
        if lines[stream] != keep:
            raise DataError(
                f"has {lines[stream]} lines by partition; the snapshots count on {keep}",
                where=str(file_of(folder, stream)),
                hint="the file was altered: start the run again",
            )
    return lines


def whole_lines(folder: Path, manifest: RunManifest) -> dict[str, list[int]]:
    """Cut what a kill left half written off the streams' files; returns the lines that stay.

    Raises:
        DataError: a line of nobody's.
    """
    owner = line_partition(manifest)
    all_of_them = [_NO_LIMIT] * manifest.partitions
    try:
        return {s: cut_back(folder, s, all_of_them, owner) for s in files_of(manifest)}
    except (msgspec.MsgspecError, KeyError, IndexError) as cause:
        raise DataError(f"a line is not of this run: {cause}", where=str(folder)) from cause


async def starts_on_log(
    prepared: Prepared, manifest: RunManifest, log: Log, topics: Mapping[str, str]
) -> list[PartitionStart]:
    """The partitions of a run whose state is on its log: where the replay goes on.

    The cores are for those who ask how far the run was; every task restores its own. Call it once
    the replay's predecessor is fenced.
    """
    starts = []
    for partition in range(manifest.partitions):
        last = await read_last(log, topics["ticks"], partition)
        point = resume_point(last, manifest.run_id, partition, len(manifest.instruments))
        task = await restore_state(log, topics["state"], partition)
        state = None if task is None else task.core
        core = make_core(manifest, partition, prepared.context, prepared.agent, state)
        reader = ChainState.start(manifest.run_id, partition) if task is None else task.chain
        starts.append(
            PartitionStart(core, reader, 0, point.writer, point.position, {}, replayed=point.ended)
        )
    return starts


async def resumed_starts(
    prepared: Prepared,
    manifest: RunManifest,
    snapshots: list[TaskSnapshot | None],
    folder: Path,
    place: Place,
    topics: Mapping[str, str],
) -> list[PartitionStart]:
    """The partitions of a run that goes on. The files were cut back already.

    Raises:
        StreambotError: a snapshot or the log does not fit the run.
    """
    starts = []
    for partition, snapshot in enumerate(snapshots):
        start = _restored(prepared, manifest, partition, snapshot)
        if place.lasting and not start.ended:
            start = await _continued(start, manifest, partition, snapshot, place.log, topics)
        starts.append(start)
    for stream in ("fills", "pnl"):
        with file_of(folder, stream).open("rb") as file:
            _feed_digests(starts, manifest, stream, file)
    return starts


def _restored(
    prepared: Prepared, manifest: RunManifest, partition: int, snapshot: TaskSnapshot | None
) -> PartitionStart:
    fresh = ChainState.start(manifest.run_id, partition)
    if snapshot is None or snapshot.core is None:
        core = make_core(manifest, partition, prepared.context, prepared.agent, None)
        return PartitionStart(core, fresh, "beginning", fresh, Position(), {})
    core = make_core(manifest, partition, prepared.context, prepared.agent, snapshot.core)
    state = msgspec.structs.replace(fresh, barrier=snapshot.barrier)
    return PartitionStart(
        core, state, "beginning", state, Position(snapshot.barrier), {},
        snapshot.duplicates, snapshot.dead_letters, snapshot.ended, snapshot.ended,
    )  # fmt: skip


async def _continued(
    start: PartitionStart,
    manifest: RunManifest,
    partition: int,
    snapshot: TaskSnapshot | None,
    log: Log,
    topics: Mapping[str, str],
) -> PartitionStart:
    """The start behind what the log holds: frames from the snapshot on are read once, to count."""
    reader = start.reader if snapshot is None else snapshot.chain
    offset: Start = "beginning" if snapshot is None else snapshot.offset
    guard = SequenceGuard(topics["ticks"], manifest.run_id, partition, state=reader)
    place = TopicPartition(topics["ticks"], partition)
    end = (await log.end_offsets(place.stream))[partition]
    open_rows = 0
    source = await log.source({place: offset})
    try:
        while source.positions()[place] < end:
            records = await source.read(max_records=_SCAN_RECORDS, timeout_s=_SCAN_TIMEOUT_S)
            if not records:
                raise DataError("records that should be there do not come", where=f"{place}")
            for record in records:
                try:
                    frame = decode_frame(
                        record.value, manifest.run_id, partition, len(manifest.instruments)
                    )
                except DecodeError:
                    continue  # the engine will bury it
                if guard.accept(frame):
                    inside = int((frame.ticks.bar >= len(frame.closes)).sum())
                    open_rows = inside if len(frame.closes) else open_rows + inside
    finally:
        await source.close()
    written = {
        stream: await _last_number(log, topics[stream], partition, header)
        for stream, header in (*((s, "frame_seq") for s in OUTPUTS), (DEAD_LETTER, "offset"))
    }
    return start._replace(
        reader=reader,
        offset=offset,
        writer=guard.state,
        position=Position(guard.state.barrier, open_rows),
        written=written,
        replayed=guard.ended,
    )


async def _last_number(log: Log, topic: str, partition: int, header: str) -> int:
    """The number in the header of a topic's last record; -1 without one."""
    end = (await log.end_offsets(topic))[partition]
    if end == 0:
        return -1
    source = await log.source({TopicPartition(topic, partition): end - 1})
    try:
        records = await source.read(max_records=1, timeout_s=_SCAN_TIMEOUT_S)
    finally:
        await source.close()
    if not records:
        raise DataError("its last record does not come", where=f"{topic}/{partition}")
    return int(dict(records[-1].headers)[header])


def _feed_digests(
    starts: list[PartitionStart], manifest: RunManifest, stream: str, lines: Iterable[bytes]
) -> None:
    decode = msgspec.json.Decoder(_LineOwner).decode
    partition_of = partition_map(manifest)
    for line in lines:
        symbol = decode(line).instrument
        starts[partition_of[symbol]].core.digest.update(symbol, stream, line)
