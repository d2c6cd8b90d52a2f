"""Orders as lines: what another program may write, and what it may not."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.domain.events import ActionKind, OrdersThrough, SubmitOrder
from streambot.streams.orders import MAX_LINE_BYTES, decode_orders, encode_orders

BUY = {"instrument": "SPY", "barrier": 3, "action": "BUY_LONG", "quantity": 2}
LINE = {"agent": "sma-cross", "partition": 1, "through_barrier": 5, "orders": [BUY]}
positive = st.integers(1, 2**63 - 1)


@st.composite
def lines(draw: st.DrawFn) -> OrdersThrough:
    through = draw(st.integers(-1, 2**63 - 1))
    orders = st.builds(
        SubmitOrder,
        instrument=st.text(min_size=1, max_size=20),
        barrier=st.integers(0, max(through, 0)),
        action=st.sampled_from([kind for kind in ActionKind if kind is not ActionKind.HOLD]),
        quantity=st.integers(0, 2**63 - 1),
        premium_ticks=st.none() | st.integers(0, 2**63 - 1),
        expiry_ts=st.none() | st.integers(-(2**63), 2**63 - 1),
        trail_width_ticks=st.none() | positive,
        lot_size=st.none() | positive,
    )
    return OrdersThrough(
        agent=draw(st.text(min_size=1, max_size=20)),
        partition=1,
        through_barrier=through,
        orders=tuple(draw(st.lists(orders, max_size=4))) if through >= 0 else (),
        policy=draw(st.none() | st.dictionaries(st.text(max_size=5), st.floats(-1e9, 1e9))),
    )


def reason(value: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_orders(value, 1)
    return caught.value.reason


def line(**changes: object) -> bytes:
    return json.dumps(LINE | changes).encode()


def order(**changes: object) -> bytes:
    return line(orders=[BUY | changes])


@given(st.lists(lines(), min_size=1, max_size=4))
def test_round_trip(written):
    assert decode_orders(encode_orders(written), 1) == written


def test_the_bytes_are_the_ones_that_the_engine_task_writes():
    written = decode_orders(line(), 1)
    assert encode_orders(written) == msgspec.json.encode(written[0]) + b"\n"


def test_no_orders_means_hold_and_is_a_line():
    (silent,) = decode_orders(b'{"agent":"x","partition":1,"through_barrier":9}', 1)
    assert silent.orders == ()
    assert silent.through_barrier == 9


def test_fields_that_are_not_known_are_ignored():
    (read,) = decode_orders(line(since="2031", orders=[BUY | {"colour": "red"}]), 1)
    assert read.orders[0].quantity == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "short"), (b" \n ", "short"), (b"\xff\xfe", "schema"), (b"[]", "schema"),
        (b"{}", "schema"), (b"null", "schema"), (b"[" * 100_000, "schema"),
        (line()[:-5], "schema"), (line() + b"\n\n" + line(), "schema"), (line() * 2, "schema"),
        (line(partition=2), "foreign"), (line(partition="1"), "schema"),
        (line(agent=""), "domain"), (line(agent="x" * 300), "domain"), (line(agent=7), "schema"),
        (line(through_barrier=-2), "domain"), (line(through_barrier=2), "domain"),
        (line(through_barrier=1.5), "schema"), (line(through_barrier=2**63), "domain"),
        (line(orders=None), "schema"), (line(policy={"w": "1"}), "schema"),
        (line(note="x" * MAX_LINE_BYTES), "length"),
        (order(action="BUY"), "schema"), (order(action="HOLD"), "domain"),
        (order(quantity=-1), "domain"), (order(quantity=True), "schema"),
        (order(quantity=1e30), "schema"), (order(quantity=2**70), "domain"),
        (order(premium_ticks=-1), "domain"), (order(trail_width_ticks=0), "domain"),
        (order(lot_size=0), "domain"), (order(barrier=-1), "domain"),
        (order(barrier=6), "domain"), (order(instrument=""), "domain"),
    ],
)  # fmt: skip
def test_what_is_refused(value, expected):
    assert reason(value) == expected


def test_a_message_names_the_line_and_the_field():
    with pytest.raises(DecodeError, match=r"line 2: order for 'SPY': `lot_size` is 0"):
        decode_orders(line() + b"\n" + order(lot_size=0), 1)


@given(st.binary(max_size=300))
def test_random_bytes_give_lines_or_an_error(value):
    try:
        decode_orders(value, 1)
    except DecodeError as error:
        assert error.reason in {"short", "length", "schema", "domain", "foreign"}  # noqa: PT017
