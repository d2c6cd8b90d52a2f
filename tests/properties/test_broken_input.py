"""G9, G10: whatever order frames come in, the engine works off exactly those that are next, or stops.

What must happen is said by a model of a few lines; what happens is looked at in the guard and the
worker together, as a runner uses them.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import SequenceGapError, StreamError
from streambot.processor.core_state import encode_state
from streambot.processor.outputs import outputs_of
from streambot.processor.worker import Worker
from streambot.streams.ports import Record
from streambot.streams.sequence import SequenceGuard
from tests.unit.processor.market import Market
from tests.unit.processor.task_bench import TaskBench, cut_frames

TICKS = "sb.run.ticks"
GOOD, FOREIGN, POISON = "good", "foreign", "poison"


class Item(NamedTuple):
    """A record of the ticks: frame `number` of the run; of another run of its name; or junk."""

    kind: str
    number: int = 0


class Outcome(NamedTuple):
    """What became of a stream of items.

    Attributes:
        accepted: count of frames worked off.
        repeats: frames dropped.
        buried: records that are no frames.
        gap: expected and received number, where a frame was missing.
        wrong: it stopped for another reason.
    """

    accepted: int
    repeats: int
    buried: int
    gap: tuple[int, int] | None = None
    wrong: bool = False


@cache
def frames(seed: int) -> list[bytes]:
    """Frames of a market, cut anywhere."""
    market = Market("AB", bars=14, seed=seed)
    manifest = market.manifest(partitions=1)
    return cut_frames(market, manifest, 0, np.random.default_rng(1))


@cache
def bench() -> TaskBench:
    return TaskBench(None, Market("AB", bars=14, seed=1))


COUNT = len(frames(1))


def foreign(number: int) -> Item:
    """Never the first one: nothing in front of it could tell that it is of another run."""
    return Item(FOREIGN, max(1, number % len(frames(2))))


def value_of(item: Item) -> bytes:
    if item.kind == POISON:
        frame = frames(1)[item.number]
        return frame[:-1] + bytes([frame[-1] ^ 1])
    return frames(1 if item.kind == GOOD else 2)[item.number]


def model(items: list[Item]) -> Outcome:
    """What must happen."""
    accepted = repeats = buried = 0
    for kind, number in items:
        if accepted == COUNT:
            break  # the end was reached: nothing behind it is looked at
        if kind == POISON:
            buried += 1
        elif number > accepted:
            return Outcome(accepted, repeats, buried, gap=(accepted, number))
        elif number < accepted:
            if kind == FOREIGN and number == accepted - 1:
                return Outcome(accepted, repeats, buried, wrong=True)
            repeats += 1
        elif kind == FOREIGN:
            return Outcome(accepted, repeats, buried, wrong=True)
        else:
            accepted += 1
    return Outcome(accepted, repeats, buried)


class Life(NamedTuple):
    """What happened: the outcome, all outputs of frames, the state at the end."""

    outcome: Outcome
    outputs: list[bytes]
    state: bytes


def live(items: list[Item], batch: int) -> Life:
    """Guard and worker over records, some at a time, as a runner reads them."""
    plan = bench().plan()
    core = plan.make_core(None)
    worker = Worker(plan.who, core, SequenceGuard(TICKS, plan.who.run_id, 0), 0)
    records = [
        Record(TICKS, 0, offset, 0, None, value_of(item), ()) for offset, item in enumerate(items)
    ]
    outputs, buried, failure = [], 0, None
    for at in range(0, len(records), batch):
        steps, failure = worker.work(records[at : at + batch])
        for step in steps:
            buried += step.dead is not None
            outputs += [r.value for r in outputs_of(step) if step.dead is None]
        if failure is not None or worker.stopped:
            break
    gap = None
    if isinstance(failure, SequenceGapError):
        gap = (failure.expected, failure.received)
        assert f"{TICKS}/0" in str(failure), "the partition is named"
    elif failure is not None:
        assert isinstance(failure, StreamError)
    accepted = worker.chain.frame_seq
    outcome = Outcome(accepted, worker.repeats, buried, gap, failure is not None and gap is None)
    return Life(outcome, outputs, encode_state(core.state()))


@cache
def undisturbed(count: int) -> Life:
    """The first frames, and nothing else."""
    return live([Item(GOOD, number) for number in range(count)], 1)


def check(items: list[Item], batch: int) -> Outcome:
    life = live(items, batch)
    assert life.outcome == model(items)
    expected = undisturbed(life.outcome.accepted)
    assert life.outputs == expected.outputs
    assert life.state == expected.state
    return life.outcome


WHOLE = [Item(GOOD, number) for number in range(COUNT)]
places = st.integers(0, COUNT - 1)
batches = st.integers(1, COUNT + 5)


@settings(max_examples=100)
@given(st.lists(st.tuples(places, places), max_size=8), batches)
def test_repeats_however_late_change_nothing(repeats, batch):
    """A frame that comes again, at once or much later, alone or in a row of its like, is dropped."""
    items = list(WHOLE)
    for number, behind in repeats:
        at = next(n for n, item in enumerate(items) if item == Item(GOOD, max(number, behind)))
        items.insert(at + 1, Item(GOOD, number))
    outcome = check(items, batch)
    assert (outcome.accepted, outcome.gap, outcome.wrong) == (COUNT, None, False)


@settings(max_examples=100)
@given(st.sets(places, min_size=1, max_size=4), batches)
def test_a_missing_frame_stops_the_task_in_front_of_it(missing, batch):
    """Not the last ones: of those nothing follows that would tell, and the end does not come."""
    outcome = check([item for item in WHOLE if item.number not in missing], batch)
    first = min(missing)
    assert outcome.accepted == first
    after = [n for n in range(first, COUNT) if n not in missing]
    assert outcome.gap == ((first, after[0]) if after else None)


@settings(max_examples=50)
@given(places, batches)
def test_a_stream_without_its_head_is_refused(head, batch):
    outcome = check(WHOLE[head:], batch)
    assert outcome == (Outcome(0, 0, 0, gap=(0, head)) if head else Outcome(COUNT, 0, 0))


@settings(max_examples=100)
@given(st.permutations(range(COUNT)), batches)
def test_frames_out_of_order_are_never_worked_off(order, batch):
    """Any order that is not the right one stops the task at the first frame that comes too early."""
    outcome = check([Item(GOOD, number) for number in order], batch)
    right = next((n for n, number in enumerate(order) if n != number), COUNT)
    assert outcome.accepted == right


edits = st.lists(
    st.tuples(
        st.sampled_from(["drop", "repeat", "swap", "foreign", "replace", "poison", "spoil", "cut"]),
        st.integers(0, 60),
        st.integers(0, 60),
    ),
    max_size=6,
)


@settings(max_examples=400)
@given(edits, batches)
def test_whatever_is_done_to_a_stream_what_comes_out_is_a_prefix(edits, batch):
    items = list(WHOLE)
    for kind, a, b in edits:
        if not items:
            break
        at, to = a % len(items), b % len(items)
        if kind == "drop":
            del items[at]
        elif kind == "repeat":
            items.insert(to, items[at])
        elif kind == "swap":
            items[at], items[to] = items[to], items[at]
        elif kind == "foreign":
            items.insert(to, foreign(a))
        elif kind == "replace":
            items[at] = foreign(items[at].number)
        elif kind == "poison":
            items.insert(to, Item(POISON, a % COUNT))
        elif kind == "spoil":
            items[at] = Item(POISON, items[at].number)
        else:
            del items[: a % 3]
    check(items, batch)
