"""An actor beside the engine task of `task_bench`, on one log."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from streambot.engine.scripts import Script
from streambot.processor.actor import ActorPlan, ActorRunner
from streambot.processor.mirror import Alone, Asked
from streambot.processor.mirror_orders import OnArrival, OthersInLockstep, Sent
from streambot.processor.outside import Outsiders
from streambot.processor.task import TaskCore
from tests.unit.processor.task_bench import TaskBench


class Crash(BaseException):
    """The process is gone."""


def owner_of(agent: str) -> str:
    return f"sb.actor.run.{agent}.0"


class Actor(NamedTuple):
    """An agent of the run of a bench, in what stands for a process of its own."""

    bench: TaskBench
    policy: object = Script.RANDOM
    name: str = "me"

    def plan(self) -> ActorPlan:
        manifest = self.bench.manifest
        alone = len(manifest.agents) == 1
        acts_on = "accepted" if manifest.free_run else None if alone else "orders"
        return ActorPlan(
            who=self.bench.who, agent=self.name, owner=owner_of(self.name),
            topics=self.bench.topics, make_mirror=self._mirror, acts_on=acts_on,
        )  # fmt: skip

    def _mirror(self, sent: Sent):
        bench, manifest = self.bench, self.bench.manifest
        core = TaskCore(manifest, 0, {}, self.policy)
        given = (bench.who, core, self.name, bench.topics["ticks"])
        if manifest.free_run:
            return Asked(*given, OnArrival(self.name, "orders/0", sent))
        if len(manifest.agents) == 1:
            return Alone(*given)
        symbols = frozenset(i.symbol for i in manifest.instruments)
        others = OthersInLockstep(Outsiders(manifest.agents, 0, symbols), core)
        return Asked(*given, others, silent=self.policy is Script.FLAT)

    def runner(self, **more) -> ActorRunner:
        return ActorRunner(self.plan(), self.bench.log, self.bench.executor, **more)

    async def die(self, points: dict[str, int]) -> bool:
        """Run until a point is reached for the n-th time, and lose what is not committed by then.

        False: it ended before.
        """

        def reached(point: str) -> None:
            points[point] = points.get(point, 0) - 1
            if points[point] == 0:
                self.bench.log._owners.pop(owner_of(self.name), None)
                raise Crash(point)

        try:
            await self.runner(reached=reached).run()
        except Crash:
            return True
        return False


async def run_beside(bench: TaskBench, *actors: Actor) -> list[ActorRunner]:
    """The engine and the actors, all to their end."""
    runners = [actor.runner() for actor in actors]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(runner.run()) for runner in (bench.runner(), *runners)]
    assert all(task.result() for task in tasks)
    return runners
