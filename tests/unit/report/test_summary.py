"""A summary adds up exactly, by currency, and shows every count with its zero."""

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from streambot.domain.events import RejectReason
from streambot.domain.instruments import Instrument, InstrumentType
from streambot.report.summary import SlotTotals, add_money, instrument_summary, percent, sum_slots


def stock(symbol: str, currency: str = "USD", tick: str = "0.01") -> Instrument:
    return Instrument(
        symbol=symbol, type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal(tick),
        currency=currency,
    )  # fmt: skip


def slot(**changes) -> SlotTotals:
    fields = {
        "bars": 10, "ticks": 40, "capital": 100_000, "equity": 99_500, "cash": 50_000, "lots": 1,
        "realized_pnl": 200, "brokerage": 100, "max_drawdown": 900, "max_drawdown_peak": 100_300,
        "fills": 3, "proxied_fills": 0, "rejected": {"flat": 2}, "expired": {"gap": 1},
        "settled": 0, "breached": 0, "halted": False,
    }  # fmt: skip
    return SlotTotals(**(fields | changes))


def test_gross_is_net_plus_brokerage_and_splits_into_realized_and_unrealized():
    one = instrument_summary(stock("A"), slot())
    assert one.pnl_net == "-5.00"
    assert one.pnl_gross == "-4.00"
    assert one.brokerage == "1.00"
    assert one.pnl_realized == "2.00"
    assert one.pnl_unrealized == "-6.00"
    assert one.max_drawdown == "9.00"
    assert one.max_drawdown_pct == 0.8973


def test_every_reason_is_there_with_its_zero():
    totals = sum_slots([(stock("A"), slot()), (stock("B"), slot(rejected={}))])
    assert list(totals.rejected) == [reason.value for reason in RejectReason]
    assert totals.rejected["flat"] == 2
    assert totals.rejected["halted"] == 0
    assert totals.expired == {"gap": 2, "end_of_data": 0}
    assert totals.fills == 6


def test_currencies_are_never_added_together():
    totals = sum_slots([(stock("A"), slot()), (stock("B", "JPY", "1"), slot(brokerage=7))])
    assert totals.pnl_net == {"USD": "-5.00", "JPY": "-500"}
    assert totals.brokerage == {"USD": "1.00", "JPY": "7"}


def test_money_units_of_one_currency_may_differ():
    totals = sum_slots([(stock("A"), slot()), (stock("E", tick="0.00001"), slot(brokerage=3))])
    assert totals.brokerage == {"USD": "1.00003"}


@given(st.lists(st.tuples(st.integers(-(10**15), 10**15), st.integers(0, 8)), max_size=20))
def test_sums_of_money_are_exact(amounts):
    exact = sum((Decimal(n).scaleb(-d) for n, d in amounts), Decimal(0))
    assert Decimal(add_money(amounts)) == exact


def test_an_overdrawn_slot_is_said_to_be_insolvent():
    assert instrument_summary(stock("A"), slot(cash=-1)).insolvent
    assert not instrument_summary(stock("A"), slot(cash=0)).insolvent


def test_percent_of_nothing_is_zero():
    assert percent(5, 0) == 0.0
    assert percent(5, -3) == 0.0


def test_no_float_carries_money():
    one = msgspec.to_builtins(instrument_summary(stock("A"), slot()))
    floats = {name for name, value in one.items() if isinstance(value, float)}
    assert floats == {"proxied_share", "max_drawdown_pct"}
