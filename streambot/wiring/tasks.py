"""Engine tasks on a log with transactions, as every process makes them: `simulate` and workers alike."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from streambot.processor.outside import FreeRun, Lockstep, Orders, Outsiders, OutsideState
from streambot.processor.playback import PlayedCore, RecordedOrders
from streambot.processor.task import TaskCore
from streambot.processor.task_opening import TaskPlan
from streambot.processor.worker import TaskIdentity
from streambot.streams.committing import CommittingSink
from streambot.streams.finishing import open_finished
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streambot.engine.ordering import SlotContext
    from streambot.engine.scripts import Script
    from streambot.processor.agents import StrategyFactory
    from streambot.processor.core_state import CoreState
    from streambot.processor.manifest import RunManifest
    from streambot.streams.ports import Log


def engine_owner(namespace: str, run: str, partition: int) -> str:
    """Name of the transactions of a task: the same in every process, so that one fences the other."""
    return f"{namespace}.engine.{run}.{partition}"


def engine_group(namespace: str, run: str) -> str:
    """Group under which the tasks of a run commit their offsets, for tools that show lag."""
    return f"{namespace}.engine.{run}"


async def replay_sink(
    log: Log, namespace: str, manifest: RunManifest, ticks: str
) -> CommittingSink:
    """The one writer of a run's ticks; fences its predecessor."""
    owner = f"{namespace}.replay.{manifest.run}"
    return CommittingSink(await open_finished(log, owner, ticks_of(manifest, ticks)))


def ticks_of(manifest: RunManifest, ticks: str) -> list[TopicPartition]:
    """Where the replay of a run writes, and nobody else."""
    return [TopicPartition(ticks, partition) for partition in range(manifest.partitions)]


def identity(manifest: RunManifest, partition: int) -> TaskIdentity:
    """Whose frames the task of a partition takes."""
    return TaskIdentity(manifest.run, manifest.run_id, partition, len(manifest.instruments))


def outside_of(
    manifest: RunManifest, partition: int
) -> Callable[[OutsideState | None], Orders] | None:
    """The agents outside a task; None where its agent sits inside."""
    if not manifest.agents:
        return None
    symbols = frozenset(manifest.instruments[n].symbol for n in manifest.members(partition))
    kind = FreeRun if manifest.free_run else Lockstep
    return partial(kind, Outsiders(manifest.agents, partition, symbols))


def make_core(
    manifest: RunManifest,
    partition: int,
    context: Mapping[str, SlotContext],
    agent: Script | StrategyFactory | RecordedOrders | None,
    state: CoreState | None,
) -> TaskCore:
    """The machine of a partition: new, or at a state."""
    inside = None if manifest.agents else agent
    if isinstance(inside, RecordedOrders):
        if state is None:
            return PlayedCore(manifest, partition, context, inside)
        return PlayedCore.restore(manifest, partition, context, inside, state)
    if state is None:
        return TaskCore(manifest, partition, context, inside)
    return TaskCore.restore(manifest, partition, context, inside, state)


def task_plan(
    namespace: str,
    manifest: RunManifest,
    partition: int,
    topics: Mapping[str, str],
    context: Mapping[str, SlotContext],
    agent: Script | StrategyFactory | RecordedOrders | None,
) -> TaskPlan:
    """The task of a partition, whatever process runs it."""
    return TaskPlan(
        who=identity(manifest, partition),
        owner=engine_owner(namespace, manifest.run, partition),
        group=engine_group(namespace, manifest.run),
        topics=topics,
        make_core=partial(make_core, manifest, partition, context, agent),
        make_orders=outside_of(manifest, partition),
        answer_timeout_s=manifest.answer_timeout_s,
    )
