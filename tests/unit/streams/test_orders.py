"""Orders as lines: what another program may write, and what it may not."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.domain.events import ActionKind, OrdersThrough, SubmitOrder
from streambot.streams.orders import (
    MAX_LINE_BYTES,
    MAX_SAID_BYTES,
    decode_orders,
    encode_orders,
    newest_said,
    said_between,
    said_key,
    said_of,
)

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


symbols = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._&^-]{0,8}", fullmatch=True)
closes = st.tuples(symbols, st.integers(0, 40))


@given(
    st.dictionaries(closes, st.floats(0, 1), max_size=30), st.integers(-1, 41), st.integers(-1, 41)
)
def test_what_a_policy_says_of_a_close_is_found_again(weights, after, through):
    """Whatever symbols there are, one that begins like another one among them."""
    policy = {"weights": 7.0}
    for (symbol, barrier), weight in weights.items():
        policy[said_key(symbol, barrier, "mean-reversion")] = weight
    for (symbol, barrier), weight in weights.items():
        assert said_of(policy, symbol, barrier) == {"weights": 7.0, "mean-reversion": weight}
    assert said_of(policy, "no-such", 0) == {"weights": 7.0}
    kept = said_between(policy, after, through)
    assert kept is not None
    for (symbol, barrier), weight in weights.items():
        found = kept.get(said_key(symbol, barrier, "mean-reversion"))
        assert found == (weight if after < barrier <= through else None)
    assert newest_said(policy) == policy


def test_of_too_many_closes_the_last_ones_are_kept():
    policy = {"weights": 1.0} | {
        said_key(symbol, barrier, "trend"): 0.5 for symbol in "AB" for barrier in range(9_000)
    }
    kept = newest_said(policy)
    assert kept["weights"] == 1.0
    assert len(json.dumps(kept)) < MAX_SAID_BYTES
    first = min(int(key.partition("@")[2].partition(".")[0]) for key in kept if "@" in key)
    assert 0 < first < 8_000
    for symbol in "AB":
        assert all(
            said_key(symbol, barrier, "trend") in kept for barrier in range(first + 1, 9_000)
        )


def test_a_line_of_before_says_nothing_of_its_policy():
    (read,) = decode_orders(line(), 1)
    assert read.policy is None
    assert said_between(None, 0, 9) is None
