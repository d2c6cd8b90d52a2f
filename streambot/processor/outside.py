"""Orders of agents in other processes, joined to the frames that they act in.

*Lockstep*: the rows of interval k + 1 run once every agent has answered barrier k. A frame therefore
waits for the barrier before its last row's interval, and is given exactly the orders up to there: an
answer that came earlier than needed waits for the frame that needs it, so that what a frame does
never depends on when an answer arrived. Agents are asked in the order of the manifest.

*Free run*: an order takes effect when it arrives, as live: in front of the next frame at which its
instrument has closed the bar that the order answers, and has none open. It then answers the last bar
closed. What took effect in front of every frame is told, nothing included: so the run can be repeated
from its log, and an agent knows how far the engine is.

An agent that was restarted answers again; the first answer to a barrier counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from streambot.domain.errors import DecodeError
from streambot.domain.events import AcceptedOrders, OrdersThrough, SubmitOrder
from streambot.streams.orders import decode_orders, encode_orders

if TYPE_CHECKING:
    from streambot.processor.task import TaskCore
    from streambot.streams.frame import Frame

NOBODY = -1
"""`through` of an agent that has not answered yet."""


class OutsideState(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot keeps: answers so far, and orders that no frame was given yet, by agent."""

    through: dict[str, int] = {}
    waiting: dict[str, tuple[SubmitOrder, ...]] = {}


class Outsiders(NamedTuple):
    """Agents outside a task.

    Attributes:
        agents: names, in the order of the manifest.
        partition: whose orders they give.
        symbols: instruments of it.
    """

    agents: tuple[str, ...]
    partition: int
    symbols: frozenset[str]


class Given(NamedTuple):
    """What a frame is given.

    Attributes:
        orders: complete, of all agents.
        accepted: record of the `accepted` stream; None in lockstep.
    """

    orders: Sequence[SubmitOrder] = ()
    accepted: bytes | None = None


class Orders(Protocol):
    """Where the orders of a task come from."""

    def add(self, value: bytes) -> None:
        """A record of the `orders` stream came.

        Raises:
            DecodeError: it is none, or of an agent that the run does not know.
        """

    def missing(self, barrier: int) -> list[str]:
        """Agents that have not answered that barrier and are waited for."""

    def take(self, frame: Frame, core: TaskCore) -> Given:
        """What the next frame is given; its agents have answered."""

    def state(self) -> OutsideState:
        """What a snapshot keeps."""


class Inside:
    """No agent outside: the task's own agent decides, or nobody."""

    def add(self, value: bytes) -> None:
        """Nobody may order."""
        raise DecodeError("the run has no agents outside", reason="foreign")

    def missing(self, barrier: int) -> list[str]:
        """Nobody is waited for."""
        del barrier
        return []

    def take(self, frame: Frame, core: TaskCore) -> Given:
        """Nothing."""
        del frame, core
        return Given()

    def state(self) -> OutsideState:
        """Nothing to keep."""
        return OutsideState()


class _Book:
    """Answers of the agents of one partition, as they come."""

    def __init__(self, who: Outsiders, state: OutsideState | None = None) -> None:
        state = state or OutsideState()
        agents, self._partition, self._symbols = who
        self.through = {agent: state.through.get(agent, NOBODY) for agent in agents}
        self.waiting = {agent: list(state.waiting.get(agent, ())) for agent in agents}

    def add(self, value: bytes) -> None:
        lines = decode_orders(value, self._partition)
        for line in lines:
            if line.agent not in self.through:
                raise DecodeError(
                    f"the run knows no agent {line.agent!r}, only {', '.join(self.through)}",
                    reason="foreign",
                )
            strange = {order.instrument for order in line.orders} - self._symbols
            if strange:
                raise DecodeError(
                    f"{min(strange)!r} is not of partition {self._partition}", reason="foreign"
                )
        for line in lines:
            self._add(line)

    def _add(self, line: OrdersThrough) -> None:
        before = self.through[line.agent]
        new = [order for order in line.orders if order.barrier > before]
        self.waiting[line.agent] += sorted(new, key=lambda order: order.barrier)
        self.through[line.agent] = max(before, line.through_barrier)

    def state(self) -> OutsideState:
        return OutsideState(
            through=dict(self.through),
            waiting={agent: tuple(orders) for agent, orders in self.waiting.items()},
        )


class Lockstep:
    """Orders of agents that are waited for.

    Args:
        who: the agents, and whose orders they give.
        state: of a snapshot; None: at the start.
    """

    def __init__(self, who: Outsiders, state: OutsideState | None = None) -> None:
        self._book = _Book(who, state)

    def add(self, value: bytes) -> None:
        """See `Orders.add`."""
        self._book.add(value)

    def missing(self, barrier: int) -> list[str]:
        """See `Orders.missing`."""
        return [agent for agent, through in self._book.through.items() if through < barrier]

    @property
    def waiting(self) -> int:
        """Orders that no frame was given yet."""
        return sum(map(len, self._book.waiting.values()))

    def take(self, frame: Frame, core: TaskCore) -> Given:
        """See `Orders.take`."""
        del core
        through = needed_answer(frame)
        taken: list[SubmitOrder] = []
        for orders in self._book.waiting.values():
            due = sum(order.barrier <= through for order in orders)
            taken += orders[:due]
            del orders[:due]
        return Given(taken)

    def state(self) -> OutsideState:
        """See `Orders.state`."""
        return self._book.state()


class FreeRun:
    """Orders that take effect when they arrive.

    Args:
        who: the agents, and whose orders they give.
        state: of a snapshot; None: at the start.
    """

    def __init__(self, who: Outsiders, state: OutsideState | None = None) -> None:
        self._book = _Book(who, state)
        self._partition = who.partition

    def add(self, value: bytes) -> None:
        """See `Orders.add`."""
        self._book.add(value)

    def missing(self, barrier: int) -> list[str]:
        """Nobody is waited for."""
        del barrier
        return []

    def take(self, frame: Frame, core: TaskCore) -> Given:
        """See `Orders.take`."""
        taken: list[SubmitOrder] = []
        lines: list[OrdersThrough] = []
        for agent, orders in self._book.waiting.items():
            mine = []
            for order in list(orders):
                closed = core.last_closed(order.instrument)
                early = closed is None or closed < order.barrier
                if early and frame.totals is None:
                    continue  # an agent may be ahead of the engine; its order may not
                effective = frame.barrier_lo - 1 if early or closed is None else closed
                mine.append(msgspec.structs.replace(order, barrier=effective))
                orders.remove(order)
            taken += mine
            line = AcceptedOrders(
                agent=agent,
                partition=self._partition,
                through_barrier=needed_answer(frame),
                orders=tuple(mine),
                frame_seq=frame.frame_seq,
                row=0,
            )
            lines.append(line)
        return Given(taken, encode_orders(lines))

    def state(self) -> OutsideState:
        """See `Orders.state`."""
        return self._book.state()


def needed_answer(frame: Frame) -> int:
    """The barrier that must have been answered before a frame runs.

    The one before its last row's interval; of a frame without rows, the one before its first
    interval; at END the last of all.
    """
    if frame.totals is not None:
        return frame.totals.barriers - 1
    last_row = int(frame.ticks.bar[-1]) if len(frame.ticks) else 0
    return frame.barrier_lo + last_row - 1
