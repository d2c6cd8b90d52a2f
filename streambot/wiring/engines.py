"""The engine tasks of a run in one process: one runner a partition, of the kind that its log needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.domain.errors import UsageError
from streambot.processor.exactly_once import ExactlyOnceRunner
from streambot.processor.intake import NOTHING, Intake, PartitionIntake
from streambot.processor.runner import EngineRunner, TaskRunner
from streambot.processor.stream_files import StreamFiles, file_of
from streambot.streams.ports import TopicPartition
from streambot.streams.sequence import SequenceGuard
from streambot.wiring.projection import Projection
from streambot.wiring.starts import PartitionStart, files_of, line_partition
from streambot.wiring.tasks import identity, outside_of, task_plan

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from streambot.processor.manifest import RunManifest
    from streambot.processor.outside import Orders
    from streambot.streams.ports import Source
    from streambot.wiring.opening import OpenRun
    from streambot.wiring.places import Place
    from streambot.wiring.watching import Watch

READERS = 4
"""Readers of the ticks at most: a fetch is a round trip, and several are under way at once."""
_RECOUNT_LINES = 1_024


def exactly_once_engines(
    run: OpenRun,
    place: Place,
    topics: dict[str, str],
    files: StreamFiles,
    executor: ThreadPoolExecutor,
    watch: Watch,
) -> list[TaskRunner]:
    """The engine tasks on a log with transactions."""
    manifest, prepared = run.manifest, run.prepared
    projection = Projection(
        place.log, topics, files, watch, files_of(manifest), watch.found_committed
    )
    return [
        ExactlyOnceRunner(
            task_plan(
                run.settings.config.namespace, manifest, partition, topics,
                prepared.context, prepared.agent,
            ),
            place.log, executor, on_committed=projection.committed, on_opened=projection.opened,
        )
        for partition in range(manifest.partitions)
    ]  # fmt: skip


async def plain_engines(
    run: OpenRun,
    place: Place,
    topics: dict[str, str],
    starts: list[PartitionStart],
    files: StreamFiles,
    executor: ThreadPoolExecutor,
    watch: Watch,
) -> tuple[list[Intake], list[TaskRunner]]:
    """The engine tasks on a log without, and the readers they share."""
    manifest = run.manifest
    going = [partition for partition, start in enumerate(starts) if not start.ended]
    readers: dict[int, PartitionIntake] = {}
    intakes: list[Intake] = []
    for first in range(min(READERS, len(going))):
        mine = going[first::READERS]
        source = await place.log.source(
            {
                TopicPartition(topics["ticks"], partition): starts[partition].offset
                for partition in mine
            }
        )
        intakes.append(Intake(source, mine))
        readers |= {partition: intakes[-1].of(partition) for partition in mine}
    sink = await place.log.sink() if place.readable else None
    runners: list[TaskRunner] = [
        EngineRunner(
            who=identity(manifest, partition),
            core=start.core,
            guard=SequenceGuard(topics["ticks"], manifest.run_id, partition, state=start.reader),
            source=readers.get(partition, NOTHING),
            orders=await _outside(run, place, topics, partition),
            answer_timeout_s=manifest.answer_timeout_s,
            offset=0 if start.offset == "beginning" else int(start.offset),
            sink=sink,
            topics=topics,
            files=files,
            folder=run.folder.path,
            executor=executor,
            on_processed=watch.processed,
            on_stored=watch.stored,
            written=start.written,
            duplicates=start.duplicates,
            dead_letters=start.dead_letters,
        )
        for partition, start in enumerate(starts)
    ]
    return intakes, runners


async def _outside(
    run: OpenRun, place: Place, topics: dict[str, str], partition: int
) -> tuple[Orders, Source] | None:
    """Agents outside a task of the plain runner, and where their orders come from."""
    make = outside_of(run.manifest, partition)
    if make is None:
        return None
    if run.resumed or not place.readable:
        raise UsageError(
            "agents in other processes need a broker that keeps their orders",
            where="--agent",
            hint="give --bootstrap-servers of Apache Kafka; `streambot broker start` starts one",
        )
    source = await place.log.source({TopicPartition(topics["orders"], partition): "beginning"})
    return make(None), source


def recount_marks(
    folder: Path, starts: list[PartitionStart], watch: Watch, manifest: RunManifest
) -> None:
    """Follow the portfolio through the marks that the files hold already."""
    owner = line_partition(manifest)
    waiting: list[list[bytes]] = [[] for _ in starts]
    with file_of(folder, "pnl").open("rb") as file:
        for line in file:
            partition = owner(line)
            waiting[partition].append(line)
            if len(waiting[partition]) == _RECOUNT_LINES:
                watch.recount(partition, b"".join(waiting[partition]))
                waiting[partition].clear()
    for partition, start in enumerate(starts):
        watch.recount(partition, b"".join(waiting[partition]), start.reader.barrier)
