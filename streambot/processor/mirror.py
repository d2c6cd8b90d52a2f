"""An agent's mirror of the engine task of one partition: ticks in, answers and expected fills out.

The mirror runs the engine's own core over the same ticks, with the policy inside it, so the policy
sees what it would see inside the engine task: the same bars, the same account, in the same order.

*Alone* in lockstep, an agent knows every order of the run: its own. The core obeys the policy, and a
whole frame is answered at once.

*Among others*, or where orders take effect when they arrive, it does not. Then the policy is asked at
every close, its order is taken back out of the core and sent, and the core acts on what the run's log
says: the orders of all agents (`OthersInLockstep`), or what the engine accepted (`OnArrival`). The
mirror goes on an interval at a time, as far as that is known.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import numpy as np

from streambot.domain.errors import DecodeError, StreamError
from streambot.domain.events import OrdersThrough
from streambot.domain.ticks import TickBlock
from streambot.processor.worker import STATUS_EVERY_NS, Worker
from streambot.streams.frame import Frame, FrameKind, decode_frame
from streambot.streams.orders import decode_orders
from streambot.streams.sequence import SequenceGuard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.domain.events import SubmitOrder
    from streambot.processor.step_output import StepOutput
    from streambot.processor.tally import SlotStatus
    from streambot.processor.task import TaskCore
    from streambot.processor.worker import TaskIdentity
    from streambot.streams.ports import Record

MAX_WAITING = 64
"""Frames that may wait for orders before no more are read."""


class Mirrored(NamedTuple):
    """What a frame, or an interval of it, led to.

    Attributes:
        offset, frame_seq, t_hi: of the frame.
        answer: what the policy wants; None: nothing was asked.
        fills: events of the frame, once it is through; None: none.
        whole: the frame is through.
    """

    offset: int
    frame_seq: int
    t_hi: int
    answer: OrdersThrough | None = None
    fills: bytes | None = None
    whole: bool = True


class Mirror(Protocol):
    """The mirror of one partition."""

    @property
    def core(self) -> TaskCore:
        """The state machine. Look at it only while the mirror does not work."""

    @property
    def status(self) -> list[SlotStatus]:
        """How the slots stood a moment ago."""

    @property
    def ended(self) -> bool:
        """True behind END."""

    @property
    def room(self) -> bool:
        """False while so many frames wait that no more should be read."""

    @property
    def waits(self) -> bool:
        """True where the next frame needs orders that have not come."""

    @property
    def many(self) -> bool:
        """True while so many orders were read ahead that no more should be, unless it waits."""

    @property
    def more(self) -> bool:
        """True where it stopped with an answer that should be sent first: let it work on."""

    @property
    def unsent(self) -> dict[str, int]:
        """Orders of the policy that are not sent, by reason."""

    @property
    def watermark(self) -> int | None:
        """Event time up to which it has seen everything, UTC ns; None at the start."""

    def work(
        self, ticks: Sequence[Record], orders: Sequence[Record] = ()
    ) -> tuple[list[Mirrored], Exception | None]:
        """What the next records led to, up to a failure, which is returned beside it."""


class Alone:
    """Mirror of the only agent of a run in lockstep.

    Args:
        who: whose frames they are.
        core: with the policy inside.
        agent: name that its orders are given under.
        topic: full name of the ticks, for messages.
    """

    waits = many = more = False
    room = True

    def __init__(self, who: TaskIdentity, core: TaskCore, agent: str, topic: str) -> None:
        guard = SequenceGuard(topic, who.run_id, who.partition)
        self._worker = Worker(who, core, guard, 0)
        self._agent = agent

    @property
    def core(self) -> TaskCore:
        """See `Mirror.core`."""
        return self._worker.core

    @property
    def status(self) -> list[SlotStatus]:
        """See `Mirror.status`."""
        return self._worker.status

    @property
    def ended(self) -> bool:
        """See `Mirror.ended`."""
        return self._worker.ended

    @property
    def unsent(self) -> dict[str, int]:
        """See `Mirror.unsent`."""
        return {}

    @property
    def watermark(self) -> int | None:
        """See `Mirror.watermark`."""
        return self._worker.chain.t_hi

    def work(
        self, ticks: Sequence[Record], orders: Sequence[Record] = ()
    ) -> tuple[list[Mirrored], Exception | None]:
        """See `Mirror.work`."""
        del orders
        steps, failure = self._worker.work(ticks)
        out = []
        for step in steps:
            frame, output = step.frame, step.output
            if frame is not None:
                answer = None if output is None else answer_of(output, self.core, self._agent)
                fills = None if output is None else output.fills
                out.append(Mirrored(step.record.offset, frame.frame_seq, frame.t_hi, answer, fills))
        return out, failure


def answer_of(output: StepOutput, core: TaskCore, agent: str) -> OrdersThrough | None:
    """The answer of the policy inside a core, under the name of its agent."""
    if output.orders is None:
        return None
    (line,) = decode_orders(output.orders, core.partition)
    return msgspec.structs.replace(line, agent=agent)


class Orders(Protocol):
    """What a core acts on whose own policy is only asked."""

    @property
    def many(self) -> bool:
        """True while so much was read ahead that no more should be, unless the mirror waits."""

    @property
    def unsent(self) -> dict[str, int]:
        """Orders of the policy that are not sent, by reason."""

    def add(self, record: Record) -> None:
        """The next record of the stream came.

        Raises:
            StreamError: it is damaged.
        """

    def ready(self, part: Frame) -> bool:
        """True once it is known what a part of a frame is given."""

    def take(self, part: Frame) -> Sequence[SubmitOrder]:
        """What it is given."""

    def asked(self, part: Frame, answer: OrdersThrough) -> OrdersThrough | None:
        """What the policy answers behind a part: what to send of it; None: nothing.

        Raises:
            VerificationError: it had answered something else before it was started again.
        """


class _Turn(NamedTuple):
    """A part of a frame, whose turn has not come; or what is wrong with a record."""

    offset: int
    part: Frame | None = None
    whole: bool = True
    wrong: StreamError | None = None


class Asked:
    """Mirror of an agent that is one of several, or whose orders take effect when they arrive.

    Args:
        who: whose frames they are.
        core: with the policy inside.
        agent: name that its orders are given under.
        topic: full name of the ticks, for messages.
        orders: what the core acts on.
        silent: the policy never orders: whole frames are answered as soon as they are there.
        eager: the policy takes its time: an answer is handed over before the next close is shown.
        obeys: the core does what the policy says, for nobody else does anything.
    """

    def __init__(
        self,
        who: TaskIdentity,
        core: TaskCore,
        agent: str,
        topic: str,
        orders: Orders,
        *,
        silent: bool = False,
        eager: bool = False,
        obeys: bool = False,
    ) -> None:
        self.core = core
        self.more = False
        self._eager = eager
        self._obeys = obeys
        self.ended = False
        self.waits = False
        self.status = core.status()
        self.watermark: int | None = None
        self._who = who
        self._agent = agent
        self._guard = SequenceGuard(topic, who.run_id, who.partition)
        self._orders = orders
        self._silent = silent
        self._queue: deque[_Turn] = deque()
        self._frames = 0
        self._fills: list[bytes] = []
        self._next_status = 0

    @property
    def room(self) -> bool:
        """See `Mirror.room`."""
        return self._frames < MAX_WAITING

    @property
    def many(self) -> bool:
        """See `Mirror.many`."""
        return self._orders.many

    @property
    def unsent(self) -> dict[str, int]:
        """See `Mirror.unsent`."""
        return self._orders.unsent

    def work(
        self, ticks: Sequence[Record], orders: Sequence[Record] = ()
    ) -> tuple[list[Mirrored], Exception | None]:
        """See `Mirror.work`."""
        out: list[Mirrored] = []
        failure: Exception | None = None
        try:
            for record in orders:
                self._orders.add(record)
            for record in ticks:
                self._read(record, out)
            self._run(out)
        except Exception as cause:  # noqa: BLE001  # handed over, not hidden
            failure = cause
        now = time.monotonic_ns()
        if self.ended or failure is not None or now >= self._next_status:
            self.status = self.core.status()
            self._next_status = now + STATUS_EVERY_NS
        return out, failure

    def _read(self, record: Record, out: list[Mirrored]) -> None:
        who = self._who
        try:
            frame = decode_frame(record.value, who.run_id, who.partition, who.n_instruments)
        except DecodeError:
            return  # the engine buries it
        try:
            if not self._guard.accept(frame):
                return
        except StreamError as wrong:
            self._queue.append(_Turn(record.offset, wrong=wrong))
            return
        self._frames += 1
        parts = parts_of(frame)
        self._queue += [_Turn(record.offset, part, part is parts[-1]) for part in parts]
        if self._silent and len(frame.closes):
            through = frame.barrier_lo + len(frame.closes) - 1
            line = OrdersThrough(
                agent=self._agent, partition=who.partition, through_barrier=through
            )
            self._orders.asked(frame, line)
            out.append(Mirrored(record.offset, frame.frame_seq, frame.t_hi, line, whole=False))

    def _run(self, out: list[Mirrored]) -> None:
        self.waits = self.more = False
        while self._queue and not self.ended:
            if self._eager and out and out[-1].answer is not None:
                self.more = True
                return
            turn = self._queue[0]
            if turn.wrong is not None:
                raise turn.wrong
            if turn.part is not None:
                if turn.part.kind is not FrameKind.CONTROL and not self._orders.ready(turn.part):
                    self.waits = True
                    return
                out.append(self._step(turn.offset, turn.part, whole=turn.whole))
                self._frames -= turn.whole
            self._queue.popleft()

    def _step(self, offset: int, part: Frame, *, whole: bool) -> Mirrored:
        answer = None
        if part.kind is FrameKind.END:
            self._note(self.core.finish(self._orders.take(part)))
            self.ended = True
        elif part.kind is FrameKind.DATA:
            output = self.core.step(part, self._orders.take(part))
            self._note(output)
            answer = answer_of(output, self.core, self._agent)
            if answer is not None:
                for order in () if self._obeys else answer.orders:
                    self.core.withdraw(order.instrument)
                answer = None if self._silent else self._orders.asked(part, answer)
        if not whole:
            return Mirrored(offset, part.frame_seq, part.t_hi, answer, whole=False)
        self.watermark = part.t_hi
        fills, self._fills = b"".join(self._fills), []
        return Mirrored(offset, part.frame_seq, part.t_hi, answer, fills or None)

    def _note(self, output: StepOutput) -> None:
        if output.fills is not None:
            self._fills.append(output.fills)


def parts_of(frame: Frame) -> list[Frame]:
    """A frame as frames of one interval each; any way of cutting rows gives the same events."""
    ticks, closes = frame.ticks, frame.closes
    if len(closes) + (len(ticks) > 0) < 2:
        return [frame]
    cuts = [0, *np.searchsorted(ticks.bar, np.arange(1, len(closes) + 1)).tolist(), len(ticks)]
    parts = []
    for k in range(len(closes) + 1):
        if k == len(closes) and cuts[k] == len(ticks):
            break  # nothing of the interval that is open
        rows = slice(cuts[k], cuts[k + 1])
        bar = np.zeros(rows.stop - rows.start, np.uint16)
        bar.flags.writeable = False  # as the other columns, which are views of the frame's bytes
        part = TickBlock(
            instrument=ticks.instrument[rows],
            bar=bar,
            flags=ticks.flags[rows],
            ts=ticks.ts[rows],
            price=ticks.price[rows],
            size=ticks.size[rows],
        )
        parts.append(
            msgspec.structs.replace(
                frame,
                barrier_lo=frame.barrier_lo + k,
                barrier_hi=frame.barrier_lo + k,
                closes=closes[k : k + 1],
                ticks=part,
            )
        )
    return parts
