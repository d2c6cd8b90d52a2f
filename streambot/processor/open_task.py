"""A task between fence and failure, and what its transactions are made of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from streambot.processor.intake import Pair
from streambot.processor.outputs import OutputRecord
from streambot.processor.runner import Processed
from streambot.processor.snapshot import TaskSnapshot
from streambot.processor.state_log import StateWriter, last_commit

if TYPE_CHECKING:
    from streambot.processor.worker import Step, Worker
    from streambot.streams.ports import Source, Transactions


class Committed(NamedTuple):
    """What a transaction made visible.

    Attributes:
        frames: in their order.
        records: all outputs, in their order.
    """

    partition: int
    frames: list[Processed]
    records: list[OutputRecord]


class Batch(NamedTuple):
    """What a transaction holds."""

    frames: list[Processed]
    records: list[OutputRecord]
    snapshot: TaskSnapshot


class Pending:
    """Steps that no transaction holds yet.

    Args:
        every_s: they wait no longer than that.
        most_bytes: of input, at which they wait no longer.
    """

    def __init__(self, every_s: float, most_bytes: int) -> None:
        self._every_s = every_s
        self._most_bytes = most_bytes
        self.steps: list[Step] = []
        self.size = 0
        self._last = asyncio.get_running_loop().time()

    @property
    def full(self) -> bool:
        """No more should be added."""
        return self.size >= self._most_bytes

    def add(self, steps: list[Step]) -> None:
        """Steps were made."""
        self.steps += steps
        self.size += sum(len(step.record.value) for step in steps)

    def due(self, *, at_once: bool) -> bool:
        """True where a transaction should be made of them."""
        late = asyncio.get_running_loop().time() - self._last >= self._every_s
        return bool(self.steps) and (at_once or late or self.full)

    def take(self) -> list[Step]:
        """All of them; none wait any more."""
        steps, self.steps, self.size = self.steps, [], 0
        self._last = asyncio.get_running_loop().time()
        return steps


class OpenTask:
    """A task between fence and failure: everything that is thrown away together.

    Args:
        transactions: of its name.
        worker: at the state restored.
        sources: of its ticks, and of the orders of agents outside, if there are any.
        restored: the state; None: a new task.
        written: number of the last record of each series of outputs.
        read_records: most records of one read.
    """

    def __init__(
        self,
        transactions: Transactions,
        worker: Worker,
        sources: list[Source],
        restored: TaskSnapshot | None,
        written: dict[str, int],
        read_records: int,
    ) -> None:
        self.transactions = transactions
        self.worker = worker
        self.sources = sources
        ticks, *orders = sources
        self.incoming = Pair(ticks, orders[0] if orders else None, max_records=read_records)
        self.opens = 1 + (restored.opens if restored is not None else 0)
        self.writer = StateWriter(last_commit(restored) if restored is not None else 0)
        self.written = written
        kept = restored if restored is not None and restored.core is not None else None
        self.duplicates = kept.duplicates if kept is not None else 0
        self.dead_letters = kept.dead_letters if kept is not None else 0

    async def close(self) -> None:
        """Throw it away; what is not committed is gone."""
        await self.incoming.close()
        await asyncio.gather(
            self.transactions.close(), *(source.close() for source in self.sources),
            return_exceptions=True,
        )  # fmt: skip
