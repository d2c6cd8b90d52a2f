"""What a schedule disturbs: a small market, its frames with junk among them, and what must come out.

What must come out is said by the core alone, record by record, without a log, a runner or a
transaction: a campaign that compared runs with runs would not see what all of them do wrong.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

import msgspec
import numpy as np

from streambot.domain.events import CLOSE, HOLD, OrdersThrough, buy, sell
from streambot.engine.scripts import Script
from streambot.processor.core_state import encode_state
from streambot.processor.outputs import WRITTEN, outputs_of
from streambot.processor.snapshot import TaskSnapshot
from streambot.processor.task_opening import TaskPlan
from streambot.processor.worker import Worker
from streambot.streams.orders import decode_orders, encode_orders
from streambot.streams.ports import Record
from streambot.streams.sequence import SequenceGuard
from tests.unit.processor.market import MINUTE, Market
from tests.unit.processor.task_bench import TaskBench, cut_frames, frames_of

TICKS, ORDERS = "sb.run.ticks", "sb.run.orders"
SCHEDULES_EACH = 20
"""Schedules of one scenario, so that its market is made once."""

Written = tuple[bytes | None, bytes, Any, int]
"""Key, value, headers and time of an output record: what the record digest is over."""


class Counting:
    """A strategy of Python whose state is told."""

    def __init__(self) -> None:
        self.seen = 0

    def on_bar(self, bar, account):
        del bar
        self.seen += 1
        if self.seen % 3:
            return HOLD
        return CLOSE if account.position else (buy(1) if self.seen % 2 else sell(1))

    def state(self) -> dict[str, int]:
        return {"seen": self.seen}

    def restore(self, state) -> None:
        self.seen = state["seen"]


class Forgetful:
    """A strategy of Python that cannot tell its state: its task starts again from the first frame."""

    def __init__(self) -> None:
        self.seen = 0

    def on_bar(self, bar, account):
        del bar
        self.seen += 1
        return HOLD if self.seen % 3 else CLOSE if account.position else buy(1)


class Expected(NamedTuple):
    """What the core alone says.

    Attributes:
        written: records of every output stream, in order; of dead letters those of the ticks.
        buried: values of the dead letters of the orders, in the order of their offsets.
        counts: by offset of the next record of the ticks, the count of records by stream.
        slots: by number of the next frame, the state of every slot, encoded.
    """

    written: dict[str, list[Written]]
    buried: list[bytes]
    counts: dict[int, dict[str, int]]
    slots: dict[int, dict[bytes, bytes]]


class Scenario(NamedTuple):
    """A run of one partition.

    Attributes:
        ticks: values by offset; None: something that takes an offset and is no record.
        orders: values of agents outside, in their order.
        resumable: the core can tell its state.
    """

    number: int
    bench: TaskBench
    ticks: list[bytes | None]
    orders: list[bytes]
    resumable: bool
    expected: Expected

    def plan(self) -> TaskPlan:
        return self.bench.plan()


def dirty(frames: list[bytes], random: Random, how_much: float) -> list[bytes | None]:
    """The frames with repeats, poison and holes among them, none of them missing."""
    out: list[bytes | None] = []
    for number, frame in enumerate(frames):
        while random.random() < how_much:
            kind = random.randrange(4)
            if kind == 0 and number:
                out.append(frames[random.randrange(number)])
            elif kind == 1:
                out.append(poison(random.choice(frames), random))
            elif kind == 2:
                out.append(random.randbytes(random.randrange(40)))
            else:
                out.append(None)
        out.append(frame)
    return out


def poison(frame: bytes, random: Random) -> bytes:
    """A frame with a flipped bit behind its checksum, or cut short."""
    if random.random() < 0.3:
        return frame[: random.randrange(len(frame))]
    at = random.randrange(8, len(frame))
    return frame[:at] + bytes([frame[at] ^ 1 << random.randrange(8)]) + frame[at + 1 :]


@lru_cache(maxsize=4)
def scenario_of(number: int) -> Scenario:
    """The scenario of that number, always the same."""
    random, rng = Random(f"scenario {number}"), np.random.default_rng(number)
    market = Market("ABC"[: random.randint(1, 3)], bars=random.randint(6, 24), seed=number)
    kind = random.choice(("script", "script", "agents", "agents", "counting", "forgetful"))
    agents = ("me", "you")[: random.randint(1, 2)] if kind == "agents" else ()
    strategy = {"counting": Counting, "forgetful": Forgetful}.get(kind, Script.RANDOM)
    bench = TaskBench(
        None, market, agent=strategy, agents=agents, pnl_every_ns=random.choice((1, 2, 5)) * MINUTE
    )
    frames = (
        cut_frames(market, bench.manifest, 0, rng)
        if random.random() < 0.5
        else frames_of(market, bench.manifest, 0, max_rows=random.choice((8, 16, 40)))
    )
    orders = answers(market, frames, agents, random) if agents else []
    ticks = dirty(frames, random, random.choice((0.0, 0.1, 0.3)))
    return Scenario(
        number=number, bench=bench, ticks=ticks, orders=orders, resumable=kind != "forgetful",
        expected=expected_of(bench, ticks, orders),
    )  # fmt: skip


def answers(
    market: Market, frames: list[bytes], agents: tuple[str, ...], random: Random
) -> list[bytes]:
    """What the agents outside write: the orders of a random one inside, dealt out among them.

    Restarted agents repeat themselves, and there is junk among the answers.
    """
    inside = TaskBench(None, market, agent=Script.RANDOM)
    found = expected_of(inside, list(frames), []).written["orders"]
    lines = [line for _, value, *_ in found for line in decode_orders(value, 0)]
    each: list[list[bytes]] = []
    for agent in agents:
        mine, at = [], 0
        while at < len(lines):
            group = lines[at : at + random.randint(1, 4)]
            at += len(group)
            orders = tuple(o for line in group for o in line.orders if dealt(o, agent, agents))
            line = OrdersThrough(
                agent=agent, partition=0, through_barrier=group[-1].through_barrier, orders=orders
            )
            mine.append(encode_orders([line]))
            if random.random() < 0.1:
                mine += mine[-random.randint(1, 3) :]
            if random.random() < 0.2:
                mine.append(b"?" + random.randbytes(random.randrange(20)))
        each.append(mine)
    last = [mine.index(next(v for v in reversed(mine) if v[:1] == b"{")) for mine in each]
    out: list[bytes] = []
    taken = [0] * len(each)
    # What comes behind the last answer that is needed is perhaps not read any more.
    while any(at <= needed for at, needed in zip(taken, last, strict=True)):
        n = random.choice([n for n, mine in enumerate(each) if taken[n] < len(mine)])
        out.append(each[n][taken[n]])
        taken[n] += 1
    return out


def dealt(order, agent: str, agents: tuple[str, ...]) -> bool:
    """True where the order is that agent's."""
    return agents[(order.barrier + ord(order.instrument[0])) % len(agents)] == agent


def expected_of(bench: TaskBench, ticks: list[bytes | None], orders: list[bytes]) -> Expected:
    """What comes out when everything is given to the core one by one."""
    plan = bench.plan()
    core = plan.make_core(None)
    guard = SequenceGuard(TICKS, plan.who.run_id, 0)
    worker = Worker(
        plan.who, core, guard, 0, None if plan.make_orders is None else plan.make_orders(None)
    )
    written: dict[str, list[Written]] = {stream: [] for stream in WRITTEN}
    counts, slots = {0: dict.fromkeys(WRITTEN, 0)}, {0: slots_of(core)}
    given = [Record(ORDERS, 0, n, 0, None, value, ()) for n, value in enumerate(orders)]
    buried, failure = worker.work([], given)
    assert failure is None
    for offset, value in enumerate(ticks):
        if value is not None:
            record = Record(bench.topics["ticks"], 0, offset, 0, None, value, ())
            steps, failure = worker.work([record])
            assert failure is None, failure
            assert len(steps) == 1
            for out in outputs_of(steps[0]):
                written[out.stream].append((out.key, out.value, out.headers, out.timestamp_ms))
            slots[worker.chain.frame_seq] = slots_of(core)
        counts[offset + 1] = {stream: len(records) for stream, records in written.items()}
    assert worker.ended
    return Expected(
        written, [step.record.value for step in buried if step.dead is not None], counts, slots
    )


def slots_of(core) -> dict[bytes, bytes]:
    """State of every slot, as the `state` stream has it."""
    if not core.resumable:
        return {}
    return {slot.symbol.encode(): encode_state(slot) for slot in core.state().slots}


def is_of_orders(headers) -> bool:
    """True for a dead letter that came among the orders."""
    return dict(headers)["stream"] == ORDERS.encode()


def decoded_task(value: bytes) -> TaskSnapshot:
    """The task's own record of the `state` stream."""
    return msgspec.msgpack.decode(value, type=TaskSnapshot)
