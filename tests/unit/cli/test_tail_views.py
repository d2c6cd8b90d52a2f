"""Lines of `tail`: fixed columns, the exchange's time, money with its currency; JSON as recorded."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from streambot.cli.lines import Traded
from streambot.cli.tail_views import STREAMS, gate_text, make_view, order_rows, tick_row, timed
from streambot.domain.instruments import Expiries, Instrument, InstrumentType
from tests.unit.cli.told import OPEN

SPY = Instrument(
    symbol="SPY", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.0001"),
    timezone="America/New_York",
)  # fmt: skip
OPTION = Instrument(
    symbol="SPY_OPT", type=InstrumentType.OPTION, underlying="SPY", lot_size=100,
    tick_size=Decimal("0.0001"), timezone="America/New_York", expiries=Expiries(expires_after=3),
)  # fmt: skip
TRADED = Traded({"SPY": SPY, "SPY_OPT": OPTION}, {"SPY": 10_000_000_000, "SPY_OPT": 10_000_000_000})


def filled(**changes: Any) -> dict[str, Any]:
    row = {
        "kind": "OrderFilled", "instrument": "SPY", "seq": 3, "ts_event": OPEN, "barrier": 7,
        "effect": "entry", "reason": "order", "side": 1, "quantity": 2, "lot_size": 1,
        "price": "372.1234", "option_value": None, "premium": None, "premium_model": None,
        "brokerage": "1.0000", "realized_pnl": None, "cash": "999254.7532", "gap_fill": False,
    }  # fmt: skip
    return row | changes


def line(stream: str, row: dict[str, Any]) -> str:
    """The human line, the padding of its columns taken out."""
    return " ".join(make_view(stream, TRADED).human(row).split())


def test_an_entry() -> None:
    assert line("fills", filled()) == (
        "2020-12-15 09:30:00 EST SPY BUY_LONG 2 2 372.1234 1.0000 999,254.7532 USD"
    )


def test_an_exit_has_its_pnl_and_what_caused_it() -> None:
    row = filled(effect="exit", reason="trailing_stop", realized_pnl="-12.5000", gap_fill=True)
    text = line("fills", row)
    assert "CLOSE" in text
    assert "-12.5000" in text
    assert text.endswith("USD trailing_stop, gap")


def test_an_option_says_call_or_put_and_who_priced_it() -> None:
    row = filled(
        instrument="SPY_OPT", side=-1, lot_size=100, premium="1.5000", premium_model="bachelier"
    )
    text = line("fills", row)
    assert "SPY_OPT SELL_SHORT 2 200 372.1234 1.5000" in text
    assert text.endswith("put, proxy")


@pytest.mark.parametrize(
    ("row", "end"),
    [
        (
            {
                "kind": "OrderRejected",
                "action": "BUY_LONG",
                "quantity": 3,
                "reason": "insufficient_cash",
            },
            "rejected BUY_LONG 3: insufficient_cash",
        ),
        (
            {"kind": "OrderExpired", "action": "CLOSE", "quantity": 0, "reason": "end_of_data"},
            "expired CLOSE: end_of_data",
        ),
        (
            {"kind": "SlotBreached", "reason": "drawdown", "on_breach": "halt"},
            "breached drawdown: halt",
        ),
    ],
)
def test_events_that_are_no_fill(row: dict[str, Any], end: str) -> None:
    common = {"instrument": "SPY", "seq": 0, "ts_event": OPEN, "barrier": 1}
    assert line("fills", common | row).endswith(end)


def test_a_settlement() -> None:
    row = {
        "kind": "PositionSettled", "instrument": "SPY_OPT", "seq": 1, "ts_event": OPEN, "barrier": 1,
        "side": 1, "quantity": 1, "lot_size": 100, "price": "370.0000", "option_value": "2.5000",
        "brokerage": "0.0000", "realized_pnl": "100.0000", "cash": "1000100.0000",
    }  # fmt: skip
    text = line("fills", row)
    assert "settled 1 100 370.0000 2.5000 +100.0000 0.0000 1,000,100.0000 USD" in text


def test_a_mark_has_pnl_after_brokerage_with_brokerage_beside_it() -> None:
    row = {
        "instrument": "SPY", "seq": 0, "ts_event": OPEN, "barrier": 4, "cause": "session",
        "price": "372.0000", "cash": "999254.7532", "equity": "999998.7532", "risk_equity": "1",
        "lots": 2, "realized_pnl": "0.0000", "brokerage_paid": "1.0000",
        "trailing_stop_price": "371.0000", "distance_to_trail": 0.5, "halted": True,
    }  # fmt: skip
    assert line("pnl", row) == (
        "2020-12-15 09:30:00 EST SPY session 372.0000 +2 -1.2468 1.0000 +0.0000 999,998.7532 USD "
        "371.0000 halted"
    )
    assert "flat" in line("pnl", row | {"lots": 0, "trailing_stop_price": None})


def test_a_tick_in_decimals() -> None:
    row = tick_row(SPY, OPEN + 5_000_000, 3_721_234, 120, 2 | 4, 7)
    assert row["price"] == "372.1234"
    assert row["size"] == "120"
    assert line("ticks", row) == (
        "2020-12-15 09:30:00.005 EST SPY 372.1234 120 7 close session close"
    )
    assert tick_row(SPY, OPEN, 1, -1, 1, 0)["size"] is None  # no volume is not a volume of 0
    assert tick_row(SPY, OPEN, 1, 0, 1, 0)["size"] == "0"


def test_an_order() -> None:
    row = {
        "agent": "sma-cross", "partition": 0, "through_barrier": 9, "instrument": "SPY_OPT",
        "barrier": 8, "action": "BUY_LONG", "quantity": 1, "premium_ticks": 15_000,
        "expiry_ts": OPEN, "trail_width_ticks": 25, "lot_size": 100,
    }  # fmt: skip
    assert line("orders", row) == (
        "8 SPY_OPT BUY_LONG 1 1.5000 2020-12-15 09:30:00 EST 0.0025 sma-cross"
    )


SAID = {
    "SPY@8.trend": 0.41, "SPY@8.mean-reversion": 0.2249, "SPY@8.volatility": 0.3651, "SPY@9.trend": 1.0,
    "SPY_OPT@8.trend": 0.1, "weights": 1200.0,
}  # fmt: skip


def learned(**changes: Any) -> dict[str, Any]:
    order = {
        "instrument": "SPY", "barrier": 8, "action": "CLOSE", "quantity": 0, "premium_ticks": None,
        "expiry_ts": None, "trail_width_ticks": None, "lot_size": None,
    }  # fmt: skip
    whole = {"agent": "runs/best", "partition": 0, "through_barrier": 9, "orders": [order]}
    (row,) = order_rows(whole | {"policy": SAID} | changes)
    return row


def test_an_order_of_a_mixture_says_which_experts_gave_it() -> None:
    row = learned()
    assert row["policy"] == {
        "trend": 0.41, "mean-reversion": 0.2249, "volatility": 0.3651, "weights": 1200.0,
    }  # fmt: skip
    assert line("orders", row).endswith(
        "runs/best gate trend 0.41 · volatility 0.37 · mean-reversion 0.22"
    )
    document = json.loads(make_view("orders", TRADED).machine(row))
    assert document["policy"] == row["policy"]


@pytest.mark.parametrize("width", range(60, 200, 7))
@pytest.mark.parametrize("agent", ["best", "checkpoints/of/a/very/long/training"])
def test_the_gate_keeps_within_the_terminal(width: int, agent: str) -> None:
    view = make_view("orders", TRADED._replace(trained=True), width)
    plain, shown = view.human(learned(agent=agent, policy=None)), view.human(learned(agent=agent))
    assert shown.startswith(plain)
    assert len(shown) <= max(width, len(plain))
    if agent == "best" and width >= 80:
        assert "gate trend 0.41" in shown
    if agent == "best" and width >= 160:
        assert shown.endswith("gate trend 0.41 · volatility 0.37 · mean-reversion 0.22")


@pytest.mark.parametrize("said", [None, {}, "loud", {"weights": 3.0}, {"trend": "much"}])
def test_what_is_no_gate_shows_none(said: object) -> None:
    assert gate_text(said, None) == ""
    row = learned(policy=said)
    assert make_view("orders", TRADED).human(row) == make_view("orders", TRADED).human(
        {name: value for name, value in row.items() if name != "policy"}
    )


def test_a_dead_letter() -> None:
    row = {
        "stream": "sb.r.ticks",
        "partition": 1,
        "offset": 4,
        "reason": "crc",
        "message": "damaged",
    }
    assert line("dead-letter", row) == "sb.r.ticks/1 4 crc damaged"


def test_json_is_the_record_with_schema_and_time_in_front() -> None:
    view = make_view("fills", TRADED)
    document = json.loads(view.machine(timed(filled())))
    assert list(document)[:2] == ["schema", "time"]
    assert document["schema"] == "streambot.fill/1"
    assert document["time"] == "2020-12-15T14:30:00Z"
    assert {k: v for k, v in document.items() if k not in {"schema", "time"}} == filled()


@pytest.mark.parametrize("stream", STREAMS)
def test_a_narrow_terminal_keeps_what_matters(stream: str) -> None:
    wide, narrow = (make_view(stream, TRADED, width).heading() for width in (None, 80))
    assert len(narrow) <= max(80, len(narrow.strip()))
    assert set(narrow.split()) <= set(wide.split())
    if stream == "fills":
        assert "brokerage" in narrow
        assert "gross P&L" in narrow
        assert "cash" not in narrow


def test_fields_for_the_filter_are_those_of_the_records() -> None:
    assert set(filled()) <= set(make_view("fills", TRADED).fields)
    assert "time" in make_view("pnl", TRADED).fields
    assert "premium_ticks" in make_view("orders", TRADED).fields
    assert set(tick_row(SPY, OPEN, 1, 1, 0, 0)) <= set(make_view("ticks", TRADED).fields)


def rolled(**changes: Any) -> dict[str, Any]:
    row = {
        "kind": "PortfolioRolled", "seq": 4, "ts_event": OPEN, "barrier": 1_234, "currency": "USD",
        "equity": "1978001.5000", "cash": "1000000.0000", "peak": "2000000.0000",
        "drawdown": "21998.5000", "drawdown_pct": 1.0999, "max_drawdown": "40000.0000",
        "max_drawdown_pct": 2.0, "pnl_net": "-21998.5000", "pnl_realized": "-20000.0000",
        "pnl_unrealized": "-1990.5000", "brokerage": "8.0000", "open_positions": 1, "halted": 0,
        "marks": 99, "missing": 0,
    }  # fmt: skip
    return row | changes


def test_a_portfolio() -> None:
    """Money with its currency, P&L after brokerage with brokerage beside it."""
    assert line("portfolio", rolled()) == (
        "2020-12-15 09:30:00 EST 1,234 1,978,001.5000 USD -21,998.5000 8.0000 -20,000.0000 "
        "-1,990.5000 1.10 % 2.00 % 1"
    )
    assert line("portfolio", rolled(halted=2, missing=3)).endswith("2 halted, 3 marks missing")


def test_an_alert_says_since_when_and_that_it_is_over() -> None:
    row = {
        "kind": "AlertRaised", "series": "portfolio/USD", "seq": 0, "ts_event": OPEN,
        "alert": "drawdown", "where": "USD", "amount": "30001.00", "unit": "USD", "since": OPEN,
        "message": "the portfolio is down", "percent": 10.01, "limit_percent": 10.0,
    }  # fmt: skip
    assert line("alerts", row) == "2020-12-15 09:30:00 EST raised drawdown the portfolio is down"
    over = row | {"kind": "AlertCleared", "ts_event": OPEN + 60 * 10**9, "message": "it is back"}
    assert line("alerts", over) == (
        "2020-12-15 09:31:00 EST over drawdown 2020-12-15 09:30:00 EST it is back"
    )


def test_what_became_of_commands_and_nothing_that_a_terminal_obeys():
    """Whoever can write to the broker can write a status: its words are shown, and not obeyed."""
    view = make_view("status", Traded({}, {}))
    row = {
        "at": 1_700_000_000 * 10**9, "sender": "cli-1", "command": "pause", "applied": False,
        "reason": "it is \x1b[2Jpaused", "barrier": 1_234, "status": "paused", "speed": "100x",
    }  # fmt: skip
    line = view.human(row)
    assert line.split()[:5] == ["2023-11-14T22:13:20Z", "pause", "refused", "paused", "100x"]
    assert "1,234" in line
    assert line.isprintable()
    assert view.human({"schema": "other"}).split() == ["other"]
