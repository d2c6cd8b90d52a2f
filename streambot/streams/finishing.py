"""Transactions that have ended without some partitions knowing of it.

Apache Kafka 4 (4.4.0 at least) writes no end into a partition that has no leader at that moment, and
calls the transaction complete all the same: a broker that is stopped under load leaves
records that are neither visible nor gone. They hold back every reader, and share the fate of
whatever transaction of the same writer ends there next: a task that does its work again would have
written twice. So whoever opens the name of a writer first ends what was left in its places. Positions
of a group are kept in such a partition: a group may be behind what was committed with them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from streambot.domain.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Collection

    from streambot.streams.ports import Log, TopicPartition, Transactions

_TRIES = 4
SETTLE_S = 5.0
"""A broker says that a transaction is committed a moment before every partition knows of it."""
_LOOK_S = 0.02


@runtime_checkable
class Finishing(Protocol):
    """Transactions of a log on which that can happen."""

    async def unfinished(self, places: Collection[TopicPartition]) -> list[TopicPartition]:
        """Those of the places that hold records without an end. Nobody else may write to them."""

    async def include(self, places: Collection[TopicPartition]) -> None:
        """What is left there ends with the transaction that is open."""


async def unfinished(
    transactions: Transactions, places: Collection[TopicPartition]
) -> list[TopicPartition]:
    """Those of the places that hold records without an end; none on a log that always ends them."""
    return await transactions.unfinished(places) if isinstance(transactions, Finishing) else []


async def include(transactions: Transactions, places: Collection[TopicPartition]) -> None:
    """See `Finishing.include`."""
    if isinstance(transactions, Finishing):
        await transactions.include(places)


def may_lag(transactions: Transactions) -> bool:
    """True on a log where a group, too, can miss the end of a transaction: it then has read more."""
    return isinstance(transactions, Finishing)


async def open_finished(log: Log, name: str, places: Collection[TopicPartition]) -> Transactions:
    """The one writer of a name; what an earlier one left in its places without an end is gone.

    Raises:
        BrokerError: see `Log.transactions`; or it does not go.
    """
    for _ in range(_TRIES):
        transactions = await log.transactions(name)
        try:
            left = await unfinished(transactions, places)
            if not left:
                return transactions
            await transactions.begin()
            await include(transactions, left)
        except BaseException:
            await transactions.close()
            raise
        await transactions.close()  # which makes it void
    raise BrokerError("records of somebody else are under way in its places", where=name)


async def ensure_visible(transactions: Transactions, places: Collection[TopicPartition]) -> None:
    """Return once all that was committed in the places can be read.

    Raises:
        BrokerError: some of it has no end after `SETTLE_S`: open the name again, which ends it.
    """
    loop = asyncio.get_running_loop()
    limit = loop.time() + SETTLE_S
    while left := await unfinished(transactions, places):
        if loop.time() > limit:
            names = ", ".join(sorted(f"{place.stream}/{place.partition}" for place in left))
            raise BrokerError(f"what was committed in {names} cannot be read")
        await asyncio.sleep(_LOOK_S)
