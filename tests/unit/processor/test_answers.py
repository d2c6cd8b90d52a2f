"""Answers of an agent: on the log once, the same when given again, in lines that are never too long."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from streambot.domain.errors import DivergenceError, VerificationError
from streambot.domain.events import ActionKind, OrdersThrough, SubmitOrder
from streambot.processor import answers as answers_module
from streambot.processor.answers import Answers, encode_answer
from streambot.processor.comparison import Comparison
from streambot.streams.orders import MAX_LINE_BYTES, decode_orders, newest_said, said_key


def order(barrier: int, symbol: str = "A", quantity: int = 1) -> SubmitOrder:
    return SubmitOrder(
        instrument=symbol, barrier=barrier, action=ActionKind.BUY_LONG, quantity=quantity
    )


def line(through: int, *orders: SubmitOrder) -> OrdersThrough:
    return OrdersThrough(agent="me", partition=0, through_barrier=through, orders=orders)


def test_what_is_on_the_log_is_not_given_again():
    answers = Answers("me", "orders/0")
    answers.found(line(2, order(1)))
    answers.found(line(5, order(1, "B"), order(4)))  # barrier 1 was answered before: it came late
    assert answers.rest(line(3, order(1))) is None
    assert answers.rest(line(7, order(4), order(6))) == line(7, order(6))
    assert answers.through == 7


@pytest.mark.parametrize(
    "now", [(), (order(1, quantity=2),), (order(1), order(2)), (order(1, "B"),)]
)
def test_another_answer_than_the_one_on_the_log_is_refused(now):
    answers = Answers("me", "orders/0")
    answers.found(line(2, order(1)))
    with pytest.raises(VerificationError, match=r"me answers barrier [12] of [AB]"):
        answers.rest(line(2, *now))


def test_long_answers_are_cut_between_barriers(monkeypatch):
    orders = [order(k // 3, f"S{k % 3}") for k in range(3_000)]
    monkeypatch.setattr(answers_module, "MOST_ORDERS", 100)
    lines = decode_orders(encode_answer(line(1_200, *orders)), 0)
    assert [o for one in lines for o in one.orders] == orders
    assert lines[-1].through_barrier == 1_200
    for before, after in pairwise(lines):
        assert before.orders[-1].barrier <= before.through_barrier < after.orders[0].barrier
        assert len(before.orders) <= 102


def test_what_a_policy_says_goes_with_its_orders(monkeypatch):
    said = {f"S@{k}.trend": k / 1_000 for k in range(1_000)} | {"weights": 4.0}
    whole = OrdersThrough(
        agent="me", partition=0, through_barrier=1_000, policy=said,
        orders=tuple(order(k, "S") for k in range(1_000)),
    )  # fmt: skip
    monkeypatch.setattr(answers_module, "MOST_ORDERS", 300)
    lines = decode_orders(encode_answer(whole), 0)
    assert len(lines) == 4
    for one in lines:
        assert one.policy == {"weights": 4.0} | {
            f"S@{o.barrier}.trend": o.barrier / 1_000 for o in one.orders
        }


def test_a_frame_full_of_orders_fits_the_lines_that_are_read():
    """Every bar of the largest frame, with everything an order can carry."""
    most = (1 << 63) - 1
    orders = [
        SubmitOrder(
            instrument="S" * 40, barrier=k, action=ActionKind.SELL_SHORT, quantity=most,
            premium_ticks=most, expiry_ts=most, trail_width_ticks=most, lot_size=most,
            premium_model="bachelier",
        )
        for k in range(8_192)
    ]  # fmt: skip
    said = {said_key("S" * 40, k, name): 1 / 3 for k in range(8_192) for name in ("trend", "calm")}
    whole = msgspec.structs.replace(line(8_191, *orders), policy=newest_said(said))
    value = encode_answer(whole)
    assert max(map(len, value.splitlines())) < MAX_LINE_BYTES
    assert sum(len(one.orders) for one in decode_orders(value, 0)) == 8_192


def event(symbol: str, seq: int, text: str = "") -> bytes:
    return (
        f'{{"kind":"OrderFilled","instrument":"{symbol}","seq":{seq},"text":"{text}"}}\n'.encode()
    )


def test_events_of_different_instruments_have_no_order():
    comparison = Comparison("fills/0")
    comparison.own(0, event("A", 0) + event("B", 0) + event("A", 1))
    comparison.theirs(0, event("B", 0) + event("A", 0) + event("A", 1))
    assert comparison.compared == 3
    assert comparison.agrees


@pytest.mark.parametrize("engine_first", [True, False])
@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        (event("A", 0, "x"), event("A", 0, "y"), r'A, event 0.*"y".*"x"'),
        (event("A", 0) + event("B", 3), event("A", 0), "B, event 3.*engine: nothing"),
        (b"", event("C", 7), "C, event 7.*mirror: nothing"),
        (event("A", 0) + event("A", 1), event("A", 1) + event("A", 0), "A, event 0"),
        (event("A", 0), b"no json\n", "A, event 0|no json"),
    ],
)
def test_a_difference_is_named(engine_first, mine, theirs, said):
    comparison = Comparison("fills/0")

    def both() -> None:
        if engine_first:
            comparison.theirs(3, theirs)
        comparison.own(3, mine)
        comparison.theirs(3, theirs)

    with pytest.raises(DivergenceError, match=f"(?s){said}") as caught:
        both()
    assert caught.value.where == "fills/0"


def test_frames_where_one_says_nothing_are_differences():
    silent_engine = Comparison("fills/0")
    silent_engine.own(1, event("A", 0))
    silent_engine.own(2, event("A", 1))
    with pytest.raises(DivergenceError, match="event 0"):
        silent_engine.theirs(2, event("A", 1))
    silent_mirror = Comparison("fills/0")
    silent_mirror.theirs(1, event("A", 0))
    assert silent_mirror.agrees
    with pytest.raises(DivergenceError, match="mirror: nothing"):
        silent_mirror.own(2, event("A", 0))


def test_what_the_engine_repeats_says_nothing_new():
    comparison = Comparison("fills/0")
    for _ in range(2):
        comparison.theirs(1, event("A", 0))
        comparison.theirs(2, event("A", 1))
    comparison.own(1, event("A", 0))
    comparison.own(2, event("A", 1))
    comparison.theirs(1, event("A", 0))
    assert comparison.compared == 2


def test_what_is_left_is_settled_with_all_events():
    """When the broker has gone: the run's file has the events of every instrument."""
    comparison = Comparison("fills/0")
    comparison.own(1, event("A", 0))
    comparison.theirs(1, event("A", 0))
    comparison.own(2, event("A", 1))
    comparison.settle([event("Z", 0), event("A", 0), event("A", 1)])
    assert comparison.compared == 2
    comparison.own(3, event("A", 2))
    with pytest.raises(DivergenceError, match="engine: nothing"):
        comparison.settle([event("A", 0), event("A", 1)])
