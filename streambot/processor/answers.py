"""What an agent in another process has answered, held against what it answers now.

An agent that is started again answers again. The engine keeps the first answer to a barrier, so the
second one must be the same: an agent that changed its mind would mirror a run that never was.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.errors import DecodeError, VerificationError
from streambot.processor.outside import NOBODY
from streambot.streams.orders import decode_orders, encode_orders, said_between
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from streambot.domain.events import OrdersThrough, SubmitOrder
    from streambot.streams.ports import Log, Record

MOST_ORDERS = 2_000
"""Orders in one line: below `streams.orders.MAX_LINE_BYTES`, whatever they carry."""
_HINT = (
    "give it the policy it was started with; a policy answers by its bars and account alone: "
    "no clock, no randomness without a fixed seed"
)


def place_of(order: SubmitOrder) -> tuple[int, str]:
    """What an order answers: at most one of an agent's orders does."""
    return order.barrier, order.instrument


class Answers:
    """Answers of one agent for one partition, those on the log first.

    Args:
        agent: its name.
        where: stream and partition, for messages.

    Attributes:
        through: last barrier answered.
    """

    def __init__(self, agent: str, where: str) -> None:
        self._agent = agent
        self._where = where
        self._found: deque[SubmitOrder] = deque()
        self.through = NOBODY

    def found(self, line: OrdersThrough) -> None:
        """The next line of this agent on the log. The first answer to a barrier counts."""
        new = [order for order in line.orders if order.barrier > self.through]
        self._found += sorted(new, key=place_of)
        self.through = max(self.through, line.through_barrier)

    def rest(self, line: OrdersThrough) -> OrdersThrough | None:
        """What of an answer is not on the log; None: all of it is.

        What is found up to its last barrier must have been told.

        Raises:
            VerificationError: what is on the log says something else.
        """
        orders = sorted(line.orders, key=place_of)
        again = [order for order in orders if order.barrier <= self.through]
        end = min(self.through, line.through_barrier)
        before = []
        while self._found and self._found[0].barrier <= end:
            before.append(self._found.popleft())
        if before != again:
            raise changed_mind(self._agent, self._where, before, again)
        if line.through_barrier <= self.through:
            return None
        self.through = line.through_barrier
        return msgspec.structs.replace(line, orders=tuple(orders[len(again) :]))


def changed_mind(
    agent: str, where: str, before: Iterable[SubmitOrder], now: Iterable[SubmitOrder]
) -> VerificationError:
    """The error that names the first answer that differs from the one on the log."""
    first, second = ({place_of(order): order for order in orders} for orders in (before, now))
    at = min(
        place for place in first.keys() | second.keys() if first.get(place) != second.get(place)
    )
    barrier, symbol = at
    return VerificationError(
        f"{agent} answers barrier {barrier} of {symbol} with {_text(second.get(at))}, "
        f"but had answered {_text(first.get(at))} before it was started again",
        where=where,
        hint=_HINT,
    )


def _text(order: SubmitOrder | None) -> str:
    return "HOLD" if order is None else msgspec.json.encode(order).decode()


def encode_answer(line: OrdersThrough) -> bytes:
    """Value of a record: one line, or several where one would be too long."""
    orders = sorted(line.orders, key=place_of)
    lines, after = [], NOBODY
    while len(orders) > MOST_ORDERS:
        # A barrier is answered by one line: what follows it on the log would come too late.
        end = MOST_ORDERS
        while end < len(orders) and orders[end].barrier == orders[end - 1].barrier:
            end += 1
        if end == len(orders):
            break
        lines.append(_part(line, orders[:end], after, orders[end].barrier - 1))
        after = lines[-1].through_barrier
        del orders[:end]
    lines.append(_part(line, orders, after, line.through_barrier))
    return encode_orders(lines)


def _part(
    line: OrdersThrough, orders: list[SubmitOrder], after: int, through: int
) -> OrdersThrough:
    said = said_between(line.policy, after, through)
    return msgspec.structs.replace(
        line, through_barrier=through, orders=tuple(orders), policy=said or None
    )


def lines_of(records: Iterable[Record], agent: str, partition: int) -> list[OrdersThrough]:
    """The lines of one agent; what is no answer was buried by the engine, and is left out."""
    found = []
    for record in records:
        try:
            lines = decode_orders(record.value, partition)
        except DecodeError:
            continue
        found += [line for line in lines if line.agent == agent]
    return found


class Found:
    """The answers of an agent on the log, read as far as they are needed.

    Args:
        log: where they are.
        topic: full name of the `orders` stream.
        partition: of it.
        end: where it ended once nobody else could answer under this name.
        agent: whose answers.
    """

    def __init__(self, log: Log, topic: str, partition: int, end: int, agent: str) -> None:
        self._batches: AsyncIterator[list[Record]] | None = read_to_end(
            log, topic, {partition: "beginning"}, {partition: end}
        )
        self._agent = agent
        self._partition = partition

    async def tell(self, answers: Answers, through: int) -> None:
        """Tell of all there is up to a barrier.

        Raises:
            StreambotError: the log is gone.
        """
        while self._batches is not None and answers.through < through:
            batch = await anext(self._batches, None)
            if batch is None:
                self._batches = None
                return
            for line in lines_of(batch, self._agent, self._partition):
                answers.found(line)

    async def close(self) -> None:
        """Let go of the log."""
        close = getattr(self._batches, "aclose", None)
        self._batches = None
        if close is not None:
            await close()
