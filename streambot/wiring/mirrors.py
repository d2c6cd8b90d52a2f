"""What the actor of an agent does in one partition, by what the run declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.domain.errors import UsageError
from streambot.domain.suggest import did_you_mean
from streambot.engine.scripts import Script
from streambot.processor.actor import ActorPlan
from streambot.processor.mirror import Alone, Asked, Mirror
from streambot.processor.mirror_orders import OnArrival, OthersInLockstep, OwnOrders, Sent
from streambot.processor.outside import Outsiders
from streambot.processor.task import TaskCore
from streambot.wiring.tasks import identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.processor.agents import StrategyFactory
    from streambot.processor.declaration import Declared
    from streambot.processor.manifest import RunManifest


def actor_owner(namespace: str, run: str, agent: str, partition: int) -> str:
    """Name of the transactions of an actor: the same in every process, so that one fences the other."""
    return f"{namespace}.actor.{run}.{agent}.{partition}"


def agent_of(manifest: RunManifest, asked: str | None) -> str:
    """The agent of a run that is meant.

    Raises:
        UsageError: the run has none, has several and none is named, or has none of that name.
    """
    if not manifest.agents:
        raise UsageError(
            f"run {manifest.run} has its agent inside its workers",
            where="--agent",
            hint="start it with `--agent NAME` to have one in a process of its own",
        )
    if asked is None and len(manifest.agents) == 1:
        return manifest.agents[0]
    names = ", ".join(manifest.agents)
    if asked is None:
        raise UsageError(f"run {manifest.run} has several agents: {names}", where="--agent")
    if asked not in manifest.agents:
        raise UsageError(
            f"run {manifest.run} has no agent `{asked}`",
            where="--agent",
            hint=did_you_mean(asked, list(manifest.agents)) or f"its agents: {names}",
        )
    return asked


def actor_plan(
    declared: Declared,
    partition: int,
    agent: str,
    policy: Script | StrategyFactory | None,
    *,
    transactional: bool,
    eager: bool = False,
    make_core: Callable[[Sent], TaskCore] | None = None,
) -> ActorPlan:
    """What the actor of an agent does in one partition.

    Args:
        eager: the policy takes its time over every close: see `Asked`.
        make_core: the mirror's core, told what was answered before, which it answers again; None:
            one with `policy` inside, which answers the same whenever it is asked.
    """
    declaration, context, _ = declared
    manifest, topics = declaration.manifest, declaration.topics
    who = identity(manifest, partition)
    where = f"{topics['orders']}/{partition}"
    symbols = frozenset(manifest.instruments[n].symbol for n in manifest.members(partition))
    alone = manifest.agents == (agent,)

    def make_mirror(sent: Sent) -> Mirror:
        core = (
            TaskCore(manifest, partition, context, policy) if make_core is None else make_core(sent)
        )
        if manifest.free_run:
            orders = OnArrival(agent, where, sent)
            return Asked(who, core, agent, topics["ticks"], orders, eager=eager)
        if alone and eager:
            return Asked(who, core, agent, topics["ticks"], OwnOrders(), eager=True, obeys=True)
        if alone:
            return Alone(who, core, agent, topics["ticks"])
        others = OthersInLockstep(Outsiders(manifest.agents, partition, symbols), core)
        silent = policy is Script.FLAT
        return Asked(who, core, agent, topics["ticks"], others, silent=silent, eager=eager)

    owner = actor_owner(declaration.namespace, manifest.run, agent, partition)
    return ActorPlan(
        who=who,
        agent=agent,
        owner=owner if transactional else None,
        topics=topics,
        make_mirror=make_mirror,
        acts_on="accepted" if manifest.free_run else None if alone else "orders",
        recalls=make_core is not None,
    )
