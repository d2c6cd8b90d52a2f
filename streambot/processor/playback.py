"""Recorded orders as the agent of another run over the same ticks.

An order is given once the barrier that it answers is closed, whatever the frames are cut like; so
the same ticks with the same orders give the same events. Of a free run the orders are those that it
accepted. They come from the partitions of the run that was recorded, which need not be those of
this one.

They are read as the run advances: up to the barrier that a frame needs, and what lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from streambot.domain.errors import DecodeError
from streambot.domain.events import AcceptedOrders, OrdersThrough, SubmitOrder
from streambot.processor.core_state import CoreState, decode_core
from streambot.processor.manifest import RunManifest
from streambot.processor.outputs import ACCEPTED
from streambot.processor.outside import NOBODY, needed_answer
from streambot.processor.task import TaskCore
from streambot.streams.orders import decode_orders, encode_orders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streambot.engine.ordering import SlotContext
    from streambot.processor.step_output import StepOutput
    from streambot.streams.frame import Frame

RECORDED = "recorded"
"""The policy that gives recorded orders, and the agent that they are written down under."""
_ALL = 1 << 62


class RecordedOrders(NamedTuple):
    """The orders of a run, as an agent.

    Attributes:
        manifest: of the run.
        open: values of the records of one partition of its `stream`, in order, as often as it is
            asked.
        limit: barriers that count.
    """

    manifest: RunManifest
    open: Callable[[int], Iterator[bytes]]
    limit: int = _ALL

    @property
    def agents(self) -> tuple[str, ...]:
        """Who gave them."""
        return self.manifest.agents or (self.manifest.policy.spec,)

    @property
    def in_order(self) -> bool:
        """They stand frame by frame as they were given, whoever gave them."""
        return self.manifest.free_run or self.manifest.policy.spec == RECORDED

    @property
    def stream(self) -> str:
        """Where they stand."""
        return ACCEPTED if self.manifest.free_run else "orders"


class OrderBook:
    """Orders of one partition of the recorded run, in the order of their barriers.

    Args:
        orders: the run.
        partition: which of its partitions.
    """

    def __init__(self, orders: RecordedOrders, partition: int) -> None:
        self._values: Iterator[bytes] | None = orders.open(partition)
        self._partition = partition
        self._in_order = orders.in_order
        self._limit = orders.limit
        manifest = orders.manifest
        self._symbols = {manifest.instruments[n].symbol for n in manifest.members(partition)}
        self._through = dict.fromkeys(orders.agents, NOBODY)
        self._waiting: dict[str, list[SubmitOrder]] = {agent: [] for agent in orders.agents}
        self._last_frame = NOBODY

    def until(self, barrier: int) -> list[SubmitOrder]:
        """The orders that answer barriers up to `barrier` and were not given before."""
        while self._values is not None and min(self._through.values()) <= barrier:
            value = next(self._values, None)
            if value is None:
                self._values = None
            else:
                self._add(value)
        found: list[SubmitOrder] = []
        for waiting in self._waiting.values():
            found += [order for order in waiting if order.barrier <= barrier]
            waiting[:] = [order for order in waiting if order.barrier > barrier]
        if not self._in_order:
            found.sort(key=lambda order: order.barrier)
        return found

    def _add(self, value: bytes) -> None:
        try:
            lines = decode_orders(value, self._partition)
        except DecodeError:
            return  # the engine did not obey it either
        foreign = any(
            order.instrument not in self._symbols for line in lines for order in line.orders
        )
        if foreign or any(line.agent not in self._through for line in lines):
            return
        if self._in_order:
            self._add_accepted(value)
        else:
            for line in lines:
                self._add_answer(line)

    def _add_answer(self, line: OrdersThrough) -> None:
        """Orders of one agent; its first answer to a barrier counts."""
        before = self._through[line.agent]
        new = [order for order in line.orders if before < order.barrier < self._limit]
        self._waiting[line.agent] += sorted(new, key=lambda order: order.barrier)
        self._through[line.agent] = max(before, line.through_barrier)

    def _add_accepted(self, value: bytes) -> None:
        """Orders of all agents in front of one frame."""
        first, *_ = self._waiting.values()
        lines = [msgspec.json.decode(line, type=AcceptedOrders) for line in value.splitlines()]
        for line in lines:
            if line.frame_seq <= self._last_frame:
                return  # a repeat of a log without transactions
            first.extend(order for order in line.orders if order.barrier < self._limit)
            for agent, through in self._through.items():
                self._through[agent] = max(through, line.through_barrier)
        self._last_frame = lines[-1].frame_seq


class PlayedCore(TaskCore):
    """A task whose co-located agent gives recorded orders.

    Args:
        manifest, partition, context: see `TaskCore`.
        orders: `RecordedOrders`.
    """

    def __init__(
        self,
        manifest: RunManifest,
        partition: int,
        context: Mapping[str, SlotContext],
        orders: Any,  # noqa: ANN401  # the base class takes other agents
    ) -> None:
        super().__init__(manifest, partition, context, None)
        recorded = orders.manifest
        symbols = {instrument.symbol for instrument in self.instruments}
        theirs = {
            partition
            for instrument, partition in zip(
                recorded.instruments, recorded.partition_of, strict=True
            )
            if instrument.symbol in symbols
        }
        self._books = [OrderBook(orders, partition) for partition in sorted(theirs)]
        self._slots_by_symbol = {i.symbol: slot for slot, i in enumerate(self.instruments)}
        self._played = [0] * len(self.instruments)
        self._skip = [0] * len(self.instruments)

    def step(self, frame: Frame, orders: Sequence[SubmitOrder] = ()) -> StepOutput:
        """See `TaskCore.step`; nobody else orders."""
        del orders
        through = needed_answer(frame)
        given = self._due(through)
        line = self._line(given, frame.frame_seq, through)
        return super().step(frame, given)._replace(orders=line)

    def finish(self, orders: Sequence[SubmitOrder] = ()) -> StepOutput:
        """See `TaskCore.finish`."""
        del orders
        given = self._due(_ALL)
        last = max((order.barrier for order in given), default=NOBODY)
        line = self._line(given, _ALL, last) if given else None
        return super().finish(given)._replace(orders=line)

    def state(self) -> CoreState:
        """See `TaskCore.state`: how many orders a slot was given stands in place of a strategy."""
        state = super().state()
        slots = tuple(
            msgspec.structs.replace(slot, strategy=played)
            for slot, played in zip(state.slots, self._played, strict=True)
        )
        return msgspec.structs.replace(state, slots=slots)

    @classmethod
    def restore(
        cls,
        manifest: RunManifest,
        partition: int,
        context: Mapping[str, SlotContext],
        agent: Any,  # noqa: ANN401  # see `__init__`
        data: bytes | CoreState,
    ) -> Self:
        """See `TaskCore.restore`."""
        core = super().restore(manifest, partition, context, agent, data)
        state = decode_core(data) if isinstance(data, bytes) else data
        core._go_on([int(slot.strategy or 0) for slot in state.slots])  # noqa: SLF001  # its own
        return core

    def _go_on(self, played: list[int]) -> None:
        self._played, self._skip = played, list(played)

    def _due(self, through: int) -> list[SubmitOrder]:
        """The orders to give now. Those given before the state that this started from are not."""
        given: list[SubmitOrder] = []
        for order in (order for book in self._books for order in book.until(through)):
            slot = self._slots_by_symbol.get(order.instrument)
            if slot is None:
                continue
            if self._skip[slot]:
                self._skip[slot] -= 1
                continue
            self._played[slot] += 1
            given.append(order)
        return given

    def _line(self, given: list[SubmitOrder], frame_seq: int, through: int) -> bytes:
        """What the `orders` stream gets."""
        line = AcceptedOrders(
            agent=RECORDED,
            partition=self.partition,
            through_barrier=through,
            orders=tuple(given),
            frame_seq=frame_seq,
            row=0,
        )
        return encode_orders([line])
