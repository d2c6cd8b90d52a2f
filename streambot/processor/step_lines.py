"""The lines of a step: what the engine's log held, written as records, counted and hashed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.domain.events import OrdersThrough
from streambot.processor.journal import EventDigest, LineWriter
from streambot.processor.page import Page
from streambot.processor.step_output import StepOutput
from streambot.streams.orders import newest_said

if TYPE_CHECKING:
    from streambot.processor.manifest import RunManifest
    from streambot.processor.tally import SlotTally

_NO_ITEMS = b'"orders":[]'


class StepLines:
    """Collects the lines of one partition's slots.

    Args:
        manifest: the run.
        partition: which of its partitions.
        tally: counts the events.

    Attributes:
        digest: of all fills and marks so far.
    """

    def __init__(self, manifest: RunManifest, partition: int, tally: SlotTally) -> None:
        self._partition = partition
        self._agent = manifest.policy.spec
        self._members = manifest.members(partition)
        instruments = [manifest.instruments[n] for n in self._members]
        self._symbols = [instrument.symbol for instrument in instruments]
        halts = manifest.limits.halt_on_breach
        self._writers = [LineWriter(i, halts=halts) for i in instruments]
        self._tally = tally
        slots = len(instruments)
        self._fills, self._marks, self._orders = Page(slots), Page(slots), Page(slots)
        self._equity: list[npt.NDArray[np.int64]] = []
        self._said: dict[str, float] = {}
        self.digest = EventDigest(self._symbols)

    def drain(self, slot: int, log: Any) -> None:
        """Make lines of what a slot left in the log, a `LOG` record, and empty it."""
        symbol = self._symbols[slot]
        if log["n_events"]:
            records = log["events"][: log["n_events"]]
            self._tally.count(slot, records)
            lines = self._writers[slot].events(records)
            self.digest.update(symbol, "fills", lines.data.data)
            self._fills.add(slot, records["row"], *lines)
        if log["n_marks"]:
            records = log["marks"][: log["n_marks"]]
            lines = self._writers[slot].marks(records)
            self.digest.update(symbol, "pnl", lines.data.data)
            self._marks.add(slot, records["row"], *lines)
            equity = np.empty((3, len(records)), np.int64)
            equity[0], equity[1], equity[2] = (
                records["barrier"],
                self._members[slot],
                records["equity"],
            )
            self._equity.append(equity)
        if log["n_orders"]:
            records = log["orders"][: log["n_orders"]]
            self._orders.add(slot, records["barrier"], *self._writers[slot].orders(records))
        log["n_events"] = log["n_marks"] = log["n_orders"] = 0

    def said(self, policy: dict[str, float]) -> None:
        """Note what a learned policy says of the closes of a slot; it goes with the orders."""
        self._said |= policy

    def take(self, answered: int | None) -> StepOutput:
        """What the step brought; nothing is left behind.

        Args:
            answered: barrier up to which the agent inside has answered; None: it was not asked.
        """
        orders = None if answered is None else self._orders_line(answered)
        events, marks = self._fills.lines, self._marks.lines
        equity = np.concatenate(self._equity, axis=1) if self._equity else None
        self._equity = []
        return StepOutput(orders, self._fills.take(), self._marks.take(), events, marks, equity)

    def _orders_line(self, through: int) -> bytes:
        said, self._said = newest_said(self._said), {}
        line = OrdersThrough(
            agent=self._agent, partition=self._partition, through_barrier=through,
            policy=said or None,
        )  # fmt: skip
        encoded = msgspec.json.encode(line) + b"\n"
        items = self._orders.take()
        if items is None:
            return encoded
        return encoded.replace(_NO_ITEMS, b'"orders":[' + items[:-1] + b"]", 1)
