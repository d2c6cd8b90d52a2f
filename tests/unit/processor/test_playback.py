"""Recorded orders give the events that they gave, whatever frames and partitions the ticks come in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.events import ActionKind, OrdersThrough, SubmitOrder
from streambot.engine.scripts import Script
from streambot.processor.journal import event_digest
from streambot.processor.outside import FreeRun, Lockstep, Outsiders
from streambot.processor.playback import PlayedCore, RecordedOrders
from streambot.processor.task import TaskCore
from streambot.streams.frame import decode_frame
from streambot.streams.orders import decode_orders, encode_orders
from tests.unit.data.test_recorded import frames_of
from tests.unit.processor.market import MINUTE, Market

SPANS = st.one_of(st.none(), st.lists(st.integers(0, 3 * MINUTE), min_size=1, max_size=5))


def decoded(values, manifest):
    return [
        [decode_frame(v, manifest.run_id, p, len(manifest.instruments)) for v in frames]
        for p, frames in enumerate(values)
    ]


def played(core, frames):
    """Run a core over its frames; its orders records."""
    records = []
    for frame in frames:
        output = core.step(frame) if frame.totals is None else core.finish()
        if output.orders:
            records.append(output.orders)
    return records


def digest(cores) -> str:
    return event_digest({k: v for core in cores for k, v in core.digest.parts().items()})


def again(manifest, orders: RecordedOrders, market, *, restart_every: int = 0, **cut):
    """Digest of the recorded orders over the same market, and the orders written down meanwhile."""
    cores, written = [], []
    for p, frames in enumerate(decoded(frames_of(market, manifest, **cut), manifest)):
        core = PlayedCore(manifest, p, {}, orders)
        records = []
        for n, frame in enumerate(frames):
            output = core.step(frame) if frame.totals is None else core.finish()
            if output.orders:
                records.append(output.orders)
            if restart_every and n % restart_every == 0 and frame.totals is None:
                restored = PlayedCore.restore(manifest, p, {}, orders, core.snapshot())
                restored.digest = core.digest
                core = restored
        cores.append(core)
        written.append(records)
    return digest(cores), written


@settings(max_examples=40)
@given(
    seed=st.integers(1, 4),
    recorded=st.integers(1, 4),
    partitions=st.integers(1, 4),
    max_rows=st.integers(1, 200),
    spans=SPANS,
    restart_every=st.integers(0, 7),
)
def test_the_orders_of_an_agent_inside(seed, recorded, partitions, max_rows, spans, restart_every):
    market = Market("ABCD", bars=70, seed=seed, missing=0.2)
    manifest = market.manifest(partitions=recorded)
    cores = [TaskCore(manifest, p, {}, Script.RANDOM) for p in range(recorded)]
    records = [
        played(core, frames)
        for core, frames in zip(cores, decoded(frames_of(market, manifest), manifest), strict=True)
    ]
    orders = RecordedOrders(manifest, lambda p: iter(records[p]))
    new = market.manifest(run="new", partitions=partitions, policy="recorded")
    found, written = again(
        new, orders, market, max_rows=max_rows, spans=spans, restart_every=restart_every
    )
    assert found == digest(cores)
    copy = RecordedOrders(new, lambda p: iter(written[p]))
    third = market.manifest(run="third", partitions=2, policy="recorded")
    assert again(third, copy, market)[0] == digest(cores), "and what it wrote down repeats it again"


def somebodys_answers(market, manifest, rng, agents):
    """Lines of agents who answer in steps, order twice, and order where no bar has closed."""
    kinds = [ActionKind.BUY_LONG, ActionKind.SELL_SHORT, ActionKind.CLOSE]
    lines = []
    for agent in agents:
        through = -1
        while through < market.bars - 1:
            lo, through = through + 1, min(market.bars - 1, through + int(rng.integers(1, 9)))
            orders = [
                SubmitOrder(
                    instrument=str(rng.choice(market.symbols)),
                    barrier=int(rng.integers(lo, through + 1)),
                    action=(kind := kinds[int(rng.integers(3))]),
                    quantity=0 if kind is ActionKind.CLOSE else int(rng.integers(1, 3)),
                    trail_width_ticks=int(rng.integers(1, 60)),
                )
                for _ in range(int(rng.integers(0, 6)))
            ]
            lines.append(
                OrdersThrough(
                    agent=agent, partition=0, through_barrier=through, orders=tuple(orders)
                )
            )
    lines.sort(key=lambda line: line.through_barrier + int(rng.integers(0, 4)))
    return lines


@settings(max_examples=40)
@given(
    seed=st.integers(1, 10_000),
    spans=SPANS,
    max_rows=st.integers(1, 200),
    partitions=st.integers(1, 3),
    other_spans=SPANS,
)
def test_the_orders_of_agents_outside(seed, spans, max_rows, partitions, other_spans):
    """Whatever the agents did: ordered twice, or where no bar had closed."""
    rng = np.random.default_rng(seed)
    market = Market("ABC", bars=60, missing=0.3)
    agents = ("one", "two")
    manifest = market.manifest(partitions=1, agents=agents)
    values = frames_of(market, manifest, spans=spans, max_rows=max_rows)
    [frames] = decoded(values, manifest)
    book = Lockstep(Outsiders(agents, 0, frozenset("ABC")))
    records = [encode_orders([line]) for line in somebodys_answers(market, manifest, rng, agents)]
    for record in records:
        book.add(record)
    core = TaskCore(manifest, 0, {}, None)
    for frame in frames:
        taken = book.take(frame, core).orders
        core.step(frame, taken) if frame.totals is None else core.finish(taken)
    orders = RecordedOrders(manifest, lambda _: iter([b"junk", *records]))
    other = PlayedCore(manifest, 0, {}, orders)
    played(other, frames)
    assert digest([other]) == digest([core])
    new = market.manifest(run="new", partitions=partitions, policy="recorded")
    assert again(new, orders, market, spans=other_spans)[0] == digest([core])


@settings(max_examples=40)
@given(
    seed=st.integers(1, 10_000),
    spans=SPANS,
    other_spans=SPANS,
    partitions=st.integers(1, 3),
    restart_every=st.integers(0, 7),
)
def test_the_orders_that_a_free_run_accepted(seed, spans, other_spans, partitions, restart_every):
    """Also cut into other frames, in other partitions, twice ordered, and settled meanwhile."""
    rng = np.random.default_rng(seed)
    market = Market("ABC", bars=60, missing=0.3)
    agents = ("one", "two")
    manifest = market.manifest(partitions=1, agents=agents, free_run=True)
    [frames] = decoded(frames_of(market, manifest, spans=spans, max_rows=30), manifest)
    book = FreeRun(Outsiders(agents, 0, frozenset("ABC")))
    records = [encode_orders([line]) for line in somebodys_answers(market, manifest, rng, agents)]
    core, accepted = TaskCore(manifest, 0, {}, None), []
    for frame in frames:
        for _ in range(int(rng.integers(0, 4))):
            if records:
                book.add(records.pop(0))
        given = book.take(frame, core)
        core.step(frame, given.orders) if frame.totals is None else core.finish(given.orders)
        if given.accepted:
            accepted.append(given.accepted)
    orders = RecordedOrders(manifest, lambda _: iter(accepted))
    new = market.manifest(run="new", partitions=partitions, policy="recorded")
    found, written = again(new, orders, market, spans=other_spans, restart_every=restart_every)
    assert found == digest([core])
    copy = RecordedOrders(new, lambda p: iter(written[p]))
    third = market.manifest(run="third", partitions=2, policy="recorded")
    assert again(third, copy, market)[0] == digest([core])


def test_orders_are_read_as_the_run_advances():
    """However long the recording, what waits is what lies between two barriers."""
    market = Market("A", bars=300, missing=0.0)
    manifest = market.manifest(partitions=1)
    [frames] = decoded(frames_of(market, manifest, max_rows=8), manifest)
    records = played(TaskCore(manifest, 0, {}, Script.RANDOM), frames)
    drawn = []

    def counted(_):
        for record in records:
            drawn.append(record)
            yield record

    core = PlayedCore(manifest, 0, {}, RecordedOrders(manifest, counted))
    for n, frame in enumerate(frames[:50]):
        core.step(frame)
        assert len(drawn) <= n + 2


@pytest.mark.parametrize("limit", [10, 40])
def test_what_lies_behind_the_limit_is_not_given(limit):
    market = Market("AB", bars=60)
    manifest = market.manifest(partitions=1)
    [frames] = decoded(frames_of(market, manifest), manifest)
    records = played(TaskCore(manifest, 0, {}, Script.RANDOM), frames)
    core = PlayedCore(manifest, 0, {}, RecordedOrders(manifest, lambda _: iter(records), limit))
    lines = [line for record in played(core, frames) for line in decode_orders(record, 0)]
    given = [order.barrier for line in lines for order in line.orders]
    everything = [
        order.barrier
        for value in records
        for line in decode_orders(value, 0)
        for order in line.orders
    ]
    assert sorted(given) == sorted(barrier for barrier in everything if barrier < limit)
    assert len(given) < len(everything)
