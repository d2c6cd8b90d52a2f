"""What a mirror acts on that does not obey its own policy: see `mirror`."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import DecodeError, StreamError
from streambot.domain.events import AcceptedOrders, OrdersThrough, SubmitOrder
from streambot.processor.answers import changed_mind
from streambot.processor.outside import NOBODY, Lockstep, needed_answer
from streambot.streams.orders import encode_orders

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streambot.processor.outside import Outsiders
    from streambot.processor.task import TaskCore
    from streambot.streams.frame import Frame
    from streambot.streams.ports import Record

MANY_ORDERS = 50_000
MANY_FRAMES = 256
_accepted = msgspec.json.Decoder(AcceptedOrders)


class OthersInLockstep:
    """The orders of all agents, each barrier once all have answered it, as the engine joins them.

    Args:
        who: the agents, and whose orders they give.
        core: the mirror's.
    """

    def __init__(self, who: Outsiders, core: TaskCore) -> None:
        self._book = Lockstep(who)
        self._core = core

    @property
    def many(self) -> bool:
        """See `mirror.Orders.many`."""
        return self._book.waiting > MANY_ORDERS

    @property
    def unsent(self) -> dict[str, int]:
        """See `mirror.Orders.unsent`."""
        return {}

    def add(self, record: Record) -> None:
        """See `mirror.Orders.add`."""
        try:
            self._book.add(record.value)
        except DecodeError:
            return  # the engine buries it

    def ready(self, part: Frame) -> bool:
        """See `mirror.Orders.ready`."""
        return not self._book.missing(needed_answer(part))

    def take(self, part: Frame) -> Sequence[SubmitOrder]:
        """See `mirror.Orders.take`."""
        return self._book.take(part, self._core).orders

    def asked(self, part: Frame, answer: OrdersThrough) -> OrdersThrough:
        """See `mirror.Orders.asked`. The own answer is known before the log says it."""
        del part
        self._book.add(encode_orders([answer]))
        return answer


class OwnOrders:
    """Nothing but what the policy says, which the core does: the agent is the only one of its run."""

    many = False

    @property
    def unsent(self) -> dict[str, int]:
        """See `mirror.Orders.unsent`."""
        return {}

    def add(self, record: Record) -> None:
        """See `mirror.Orders.add`."""

    def ready(self, part: Frame) -> bool:
        """See `mirror.Orders.ready`."""
        del part
        return True

    def take(self, part: Frame) -> Sequence[SubmitOrder]:
        """See `mirror.Orders.take`."""
        del part
        return ()

    def asked(self, part: Frame, answer: OrdersThrough) -> OrdersThrough:
        """See `mirror.Orders.asked`."""
        del part
        return answer


class Sent(NamedTuple):
    """What an agent had sent before it was started again.

    Attributes:
        through: last barrier that it answered.
        orders: all of them.
        frames: frames that the engine was through, or more: a decision in an older one comes too
            late to be sent now.
    """

    through: int = NOBODY
    orders: tuple[SubmitOrder, ...] = ()
    frames: int = 0


class OnArrival:
    """What the engine of a free run accepted, frame by frame.

    A new order for an instrument is kept back while the last one has not taken effect: the policy
    does not know of it yet, and would order the same again. One that was decided before the actor was
    there is not sent either: the market has gone on.

    Args:
        agent: whose policy is asked.
        where: stream and partition of its orders, for messages.
        sent: what is on the log of it.
    """

    def __init__(self, agent: str, where: str, sent: Sent) -> None:
        self._agent = agent
        self._where = where
        self._sent: dict[int, dict[str, SubmitOrder]] = {}
        for order in sent.orders:
            self._sent.setdefault(order.barrier, {})[order.instrument] = order
        self._through = sent.through
        self._too_old = sent.frames - 1
        self._frames: deque[tuple[int, list[AcceptedOrders]]] = deque()
        self._seen = -1
        self._on_its_way: Counter[str] = Counter()
        self._kept_back = self._missed = 0

    @property
    def many(self) -> bool:
        """See `mirror.Orders.many`."""
        return len(self._frames) > MANY_FRAMES

    @property
    def unsent(self) -> dict[str, int]:
        """See `mirror.Orders.unsent`."""
        return {"kept_back": self._kept_back, "missed": self._missed}

    def add(self, record: Record) -> None:
        """See `mirror.Orders.add`."""
        try:
            number = int(dict(record.headers)["frame_seq"])
            lines = [_accepted.decode(line) for line in record.value.splitlines()]
        except (KeyError, ValueError, msgspec.MsgspecError) as cause:
            raise StreamError(
                f"is no record of what a free run accepted: {cause}",
                where=f"{record.stream}/{record.partition}/{record.offset}",
                hint="the topic was altered: start the run again",
            ) from cause
        if number > self._seen:
            self._seen = number
            self._frames.append((number, lines))

    def ready(self, part: Frame) -> bool:
        """See `mirror.Orders.ready`."""
        return self._seen >= part.frame_seq

    def take(self, part: Frame) -> Sequence[SubmitOrder]:
        """See `mirror.Orders.take`. In front of its first part a frame is given all."""
        taken: list[SubmitOrder] = []
        while self._frames and self._frames[0][0] <= part.frame_seq:
            for line in self._frames.popleft()[1]:
                taken += line.orders
                if line.agent == self._agent:
                    self._on_its_way.subtract(order.instrument for order in line.orders)
        return taken

    def asked(self, part: Frame, answer: OrdersThrough) -> OrdersThrough | None:
        """See `mirror.Orders.asked`. A part closes one barrier."""
        sent = self._sent.pop(answer.through_barrier, {})
        now = {order.instrument: order for order in answer.orders}
        again = [now[symbol] for symbol in sent if symbol in now]
        if again != list(sent.values()):
            raise changed_mind(self._agent, self._where, sent.values(), again)
        out = [o for o in answer.orders if o.instrument in sent or self._goes_out(o, part)]
        self._on_its_way.update(order.instrument for order in out)
        if answer.through_barrier <= self._through:
            return None
        self._through = answer.through_barrier
        return msgspec.structs.replace(answer, orders=tuple(out))

    def _goes_out(self, order: SubmitOrder, part: Frame) -> bool:
        """True for an order that is sent now."""
        if self._on_its_way[order.instrument] > 0:
            self._kept_back += 1
            return False
        late = order.barrier <= self._through or part.frame_seq < self._too_old
        self._missed += late
        return not late


def sent_of(lines: Iterable[OrdersThrough], frames: int) -> Sent:
    """What an agent had sent, of its lines in their order; the first answer to a barrier counts."""
    through = NOBODY
    orders: list[SubmitOrder] = []
    for line in lines:
        orders += [order for order in line.orders if order.barrier > through]
        through = max(through, line.through_barrier)
    return Sent(through, tuple(orders), frames)
