"""Lines of many slots become one record in the order of their rows; compiled items are JSON."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.domain.events import SubmitOrder
from streambot.engine.decode import decode_orders
from streambot.engine.slots import NONE, ORDER
from streambot.processor.journal import LineWriter
from streambot.processor.page import Page
from tests.unit.processor.market import stock

LINES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 30), st.text("xyz", max_size=5)), max_size=40
)


@given(LINES)
def test_lines_are_ordered_by_row_then_slot_then_as_they_came(lines):
    page = Page(4)
    for slot in range(4):
        mine = sorted((row, text) for s, row, text in lines if s == slot)
        for part in (mine[:3], mine[3:]):
            if part:
                texts = [f"{text}\n".encode() for _, text in part]
                page.add(
                    slot,
                    np.array([row for row, _ in part], np.int64),
                    np.frombuffer(b"".join(texts), np.uint8),
                    np.cumsum([len(t) for t in texts]),
                )
    assert page.lines == len(lines)
    expected = sorted((row, slot, text) for slot, row, text in lines)
    record = page.take()
    assert record == ("".join(f"{text}\n" for *_, text in expected).encode() if lines else None)
    assert page.take() is None
    assert page.lines == 0


INT = st.integers(-(2**61), 2**61)


@given(
    st.lists(
        st.tuples(INT, st.integers(0, 3), INT, *(st.one_of(st.just(NONE), INT) for _ in range(4))),
        min_size=1,
        max_size=10,
    )
)
def test_compiled_orders_are_the_json_of_the_slow_way(rows):
    records = np.zeros(len(rows), ORDER)
    for record, (barrier, action, quantity, *optional) in zip(records, rows, strict=True):
        record["barrier"], record["action"], record["quantity"] = barrier, action, quantity
        for name, value in zip(("premium", "expiry", "width", "lot_size"), optional, strict=True):
            record[name] = value
    data, ends = LineWriter(stock("A"), halts=True).orders(records)
    assert ends[-1] == len(data)
    text = b"[" + data.tobytes()[:-1] + b"]"
    assert text == msgspec.json.encode(decode_orders(records, "A"))
    assert msgspec.json.decode(text, type=list[SubmitOrder])


def test_an_empty_page_is_no_record():
    assert Page(0).take() is None


@pytest.mark.parametrize("slots", [1, 7])
def test_one_block_is_passed_on_as_it_is(slots):
    page = Page(slots)
    page.add(0, np.array([3, 3]), np.frombuffer(b"a\nb\n", np.uint8), np.array([2, 4]))
    assert page.take() == b"a\nb\n"
