"""Contracts of an option: weekdays, holidays, months, and lots by expiry."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np

from streambot.data.expiries import expiries, lot_of
from streambot.data.sessions import date_of, exchange_sessions
from streambot.domain.instruments import (
    Expiries,
    ExpiryRule,
    Instrument,
    InstrumentType,
    LotRule,
    Series,
    Weekday,
)
from tests.unit.data.bar_files import stock

D = dt.date


def option(**fields) -> Instrument:
    return Instrument(
        symbol="X",
        type=InstrumentType.OPTION,
        tick_size=Decimal("0.05"),
        exchange="XNYS",
        **({"lot_size": 10} | fields),
    )


def sessions(first: str, last: str, exchange: str = "XNYS"):
    ns = [int(np.datetime64(text, "ns").astype(np.int64)) for text in (first, last)]
    return exchange_sessions(exchange).between(*ns)


def dates(table) -> list[dt.date]:
    return [date_of(int(ts) // 86_400_000_000_000) for ts in table.ts]


WEEKLY = ExpiryRule(series=Series.WEEKLY, weekday=Weekday.FRI)
MONTHLY = ExpiryRule(series=Series.MONTHLY, weekday=Weekday.FRI)


def test_a_holiday_moves_an_expiry_to_the_session_before_at_its_close() -> None:
    table = expiries(
        option(expiries=Expiries(rules=(WEEKLY,))), sessions("2024-03-18", "2024-04-10")
    )
    assert dates(table) == [D(2024, 3, 22), D(2024, 3, 28), D(2024, 4, 5)]  # Good Friday
    assert str(np.datetime64(int(table.ts[1]), "ns"))[:16] == "2024-03-28T20:00"
    assert table.lot.tolist() == [10, 10, 10]


def test_a_monthly_contract_is_the_last_of_its_month_and_takes_its_weeks_place() -> None:
    lots = (
        LotRule(lot=50, series=Series.MONTHLY),
        LotRule(lot=25, series=Series.WEEKLY, to_expiry=D(2024, 1, 12)),
        LotRule(lot=75, series=Series.WEEKLY, from_expiry=D(2024, 1, 13)),
    )
    table = expiries(
        option(expiries=Expiries(rules=(WEEKLY, MONTHLY)), lot_size=lots),
        sessions("2024-01-02", "2024-02-10"),
    )
    assert list(zip(dates(table), table.lot.tolist(), strict=True)) == [
        (D(2024, 1, 5), 25),
        (D(2024, 1, 12), 25),
        (D(2024, 1, 19), 75),
        (D(2024, 1, 26), 50),
        (D(2024, 2, 2), 75),
        (D(2024, 2, 9), 75),
    ]


def test_a_rule_holds_between_its_dates_and_a_contract_without_a_lot_does_not_exist() -> None:
    rules = (
        ExpiryRule(series=Series.WEEKLY, weekday=Weekday.THU, to_date=D(2024, 1, 11)),
        ExpiryRule(series=Series.WEEKLY, weekday=Weekday.TUE, from_date=D(2024, 1, 12)),
    )
    lots = (LotRule(lot=5, to_expiry=D(2024, 1, 11)), LotRule(lot=6, from_expiry=D(2024, 1, 23)))
    table = expiries(
        option(expiries=Expiries(rules=rules), lot_size=lots), sessions("2024-01-02", "2024-02-01")
    )
    assert list(zip(dates(table), table.lot.tolist(), strict=True)) == [
        (D(2024, 1, 4), 5),
        (D(2024, 1, 11), 5),
        (D(2024, 1, 23), 6),
        (D(2024, 1, 30), 6),
    ]


def test_a_table_of_dates_and_a_count_of_sessions() -> None:
    span = sessions("2024-01-02", "2024-01-20")
    given = Expiries(dates=(D(2024, 1, 15), D(2024, 1, 9), D(2029, 1, 2)))  # the 15th is a holiday
    assert dates(expiries(option(expiries=given), span)) == [D(2024, 1, 9), D(2024, 1, 12)]
    counted = expiries(option(expiries=Expiries(expires_after=3)), span)
    np.testing.assert_array_equal(counted.ts, span.closes)
    assert counted.min_days == 3


def test_the_table_ends_with_the_calendar_and_a_stock_has_none() -> None:
    span = sessions("2026-12-01", "2027-06-01", "XBOM")
    table = expiries(
        option(expiries=Expiries(rules=(ExpiryRule(series=Series.WEEKLY, weekday=Weekday.TUE),))),
        span,
    )
    assert dates(table)[-1] == D(2026, 12, 29)
    assert len(expiries(stock("S"), span).ts) == 0


def test_lot_rows_have_open_ends() -> None:
    rows = (LotRule(lot=1, to_expiry=D(2020, 1, 1)), LotRule(lot=2))
    assert lot_of(rows, D(2019, 1, 1), None) == 1
    assert lot_of(rows, D(2021, 1, 1), Series.WEEKLY) == 2
    assert lot_of(7, D(2021, 1, 1), None) == 7
