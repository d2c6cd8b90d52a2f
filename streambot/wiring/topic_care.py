"""Topics of a run on a broker, held against their declarations, and put right.

What differs is decided by `domain.topic_plan`; here it is asked and done. Nothing is changed while
any difference is one that cannot be taken away.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import TopicError
from streambot.domain.topic_plan import FoundTopic, TopicPlan, compare
from streambot.streams.ports import StreamSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.adapters.kafka import KafkaLog
    from streambot.domain.topic_plan import DeclaredTopic

_SETTLE_LIMIT_S = 15.0
_SETTLE_PAUSE_S = 0.05


class Applied(NamedTuple):
    """What was done. `before`: the differences there were; all of them are gone."""

    before: TopicPlan
    created: tuple[str, ...]


async def plan_topics(log: KafkaLog, declared: Sequence[DeclaredTopic]) -> TopicPlan:
    """How the broker's topics differ from the declared ones. Changes nothing.

    Raises:
        BrokerError: it is gone or refuses.
    """
    there = await log.streams()
    counts = {topic.topic: there[topic.topic] for topic in declared if topic.topic in there}
    settings = await log.settings(list(counts))
    return compare(
        declared,
        {name: FoundTopic(count, settings.get(name)) for name, count in counts.items()},
    )


async def apply_topics(log: KafkaLog, declared: Sequence[DeclaredTopic]) -> Applied:
    """Create what is missing and set what differs; a second time, there is nothing to do.

    Raises:
        TopicError: a topic has another count of partitions (then nothing is changed), or the
            broker does not take what is declared.
        BrokerError: it is gone or refuses.
    """
    plan = await plan_topics(log, declared)
    if plan.immovable:
        first = plan.immovable[0]
        more = len(plan.immovable) - 1
        raise TopicError(
            f"has {first.found} partitions, declared are {first.declared}: {first.why}"
            + (f" (and {more} more topics)" if more else "")
            + "; nothing was changed",
            where=first.topic,
            hint="start a new run under another name with the partitions that you want",
        )
    created = await log.create(
        [
            StreamSpec(name=topic.topic, partitions=topic.partitions, config=topic.settings)
            for topic in plan.missing
        ]
    )
    for topic, settings in plan.settings.items():
        await log.alter(topic, settings)
    if not plan.equal:
        await _until_equal(log, declared)
    return Applied(plan, tuple(created))


async def _until_equal(log: KafkaLog, declared: Sequence[DeclaredTopic]) -> None:
    """A broker tells what it was told a moment later."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + _SETTLE_LIMIT_S
    while not (left := await plan_topics(log, declared)).equal:
        if loop.time() > limit:
            first = left.differences[0]
            raise TopicError(
                f"the broker took the change, and still has {first.name or 'no such topic'} "
                f"{first.found}, not {first.declared}",
                where=first.topic,
            )
        await asyncio.sleep(_SETTLE_PAUSE_S)
