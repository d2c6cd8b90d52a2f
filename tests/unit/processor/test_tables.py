"""Parquet beside the NDJSON: the same rows, exact decimals, and a column for every field of a line."""

import json
from decimal import Decimal

import msgspec
import pyarrow.parquet as pq
import pytest

from streambot.domain.events import (
    Mark,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrdersThrough,
    PositionSettled,
    SlotBreached,
    SubmitOrder,
)
from streambot.processor import tables
from streambot.processor.tables import SCHEMAS, write_table

MONEY = {"price", "cash", "equity", "risk_equity", "brokerage", "brokerage_paid", "realized_pnl",
         "premium", "option_value", "trailing_stop_price"}  # fmt: skip


def test_every_field_of_every_event_has_its_column():
    events = (OrderFilled, OrderRejected, OrderExpired, PositionSettled, SlotBreached)
    fields = {f for kind in events for f in kind.__struct_fields__} | {"kind"}
    assert fields == set(SCHEMAS["fills"].names)
    assert set(Mark.__struct_fields__) == set(SCHEMAS["pnl"].names)
    assert set(OrdersThrough.__struct_fields__) - {"policy"} == set(SCHEMAS["orders"].names)
    orders = SCHEMAS["orders"].field("orders").type.value_type
    assert set(SubmitOrder.__struct_fields__) == {f.name for f in orders}


@pytest.mark.parametrize("block", [1 << 10, 16 << 20])
def test_rows_and_decimals_survive(tmp_path, monkeypatch, block):
    monkeypatch.setattr(tables, "_BLOCK_BYTES", block)
    lines = [
        {
            "instrument": "A", "seq": n, "ts_event": 1_606_832_000_000_000_000 + n, "barrier": n,
            "cause": "barrier", "price": "0.00001", "cash": f"-{n}.1", "equity": "99999999999.12345678",
            "risk_equity": "1", "lots": -n, "realized_pnl": "0.00", "brokerage_paid": "0.00",
            "trailing_stop_price": None if n % 2 else "1.5", "distance_to_trail": None if n % 2 else 0.25,
            "halted": False,
        }
        for n in range(100)
    ]  # fmt: skip
    (tmp_path / "pnl.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = pq.read_table(write_table(tmp_path, "pnl")).to_pylist()
    assert len(rows) == 100
    for row, line in zip(rows, lines, strict=True):
        for name, value in line.items():
            expected = Decimal(value) if name in MONEY and value is not None else value
            assert row[name] == expected, name


def test_orders_keep_their_nesting(tmp_path):
    order = SubmitOrder(instrument="A", barrier=3, action="CLOSE")
    line = OrdersThrough(
        agent="x", partition=1, through_barrier=3, orders=(order,), policy={"g": 1.0}
    )
    (tmp_path / "orders.ndjson").write_bytes(msgspec.json.encode(line) + b"\n")
    [row] = pq.read_table(write_table(tmp_path, "orders")).to_pylist()
    assert row["orders"][0]["action"] == "CLOSE"
    assert row["orders"][0]["premium_ticks"] is None


def test_an_empty_stream_is_an_empty_table(tmp_path):
    (tmp_path / "fills.ndjson").touch()
    assert pq.read_table(write_table(tmp_path, "fills")).num_rows == 0
