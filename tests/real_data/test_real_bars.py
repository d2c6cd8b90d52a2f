"""Real bars of `$STREAMBOT_DATA`: what they are known to hold is found, and all of it replays."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from streambot.data.expiries import expiries
from streambot.data.feed import Feed
from streambot.data.inspection import infer_instrument, inspect
from streambot.data.loader import DataLoader
from streambot.data.sessions import date_of, exchange_sessions
from streambot.data.timeline import Plan, Timeline
from streambot.domain.errors import DataError
from streambot.domain.instruments import (
    Expiries,
    ExpiryRule,
    Instrument,
    InstrumentType,
    LotRule,
    Series,
    Weekday,
)

pytestmark = pytest.mark.real_data

MINUTE = 60 * 10**9
DAY = 1440 * MINUTE
MUMBAI = {"exchange": "XBOM", "timezone": "Asia/Kolkata"}
NEW_YORK = {"exchange": "XNYS", "timezone": "America/New_York"}


def stock(symbol: str, tick: str = "0.05", **fields) -> Instrument:
    known = {"type": InstrumentType.STOCK, "lot_size": 1, "tick_size": Decimal(tick)}
    return Instrument(symbol=symbol, **(known | fields))


def timeline(
    path: Path, symbols: list[str], tick: str = "0.05", *, settings=None, side="bid", **fields
) -> Timeline:
    feeds = [Feed(stock(symbol, tick, **fields), path, quote_side=side) for symbol in symbols]
    return Timeline(feeds, **(settings or {}))


def counted(line: Timeline) -> tuple[int, int, Plan]:
    """Ticks and barriers of a replay, after the checks that every replay must pass."""
    ticks = barriers = 0
    before = None
    for window in line.windows():
        block = window.ticks
        assert window.barrier_lo == barriers
        assert (np.diff(block.ts) >= 0).all()
        assert (np.diff(block.bar.astype(np.int64)) >= 0).all()
        assert (np.diff(window.closes) > 0).all()
        # Every tick lies before the close of its interval and not before the one before.
        assert (block.ts < window.closes[block.bar]).all()
        opened = np.concatenate([[before if before is not None else 0], window.closes[:-1]])
        assert (block.ts >= opened[block.bar]).all()
        before = window.closes[-1]
        ticks += len(block)
        barriers += len(window.closes)
    return ticks, barriers, line.plan()


def rows_in(path: Path) -> int:
    return pq.ParquetFile(path).metadata.num_rows


def report_of(plan: Plan, symbol: str):
    return plan.instruments[plan.symbols.index(symbol)]


def test_three_stocks_over_years_keep_their_diwali_evenings(data_folder) -> None:
    path = data_folder / "nse_3stocks_5m_2016_2020.parquet"
    line = timeline(
        path,
        ["HDFCLIFE", "BANDHANBNK", "ICICIPRULI"],
        "0.05",
        settings={"round_prices": True},
        **MUMBAI,
    )
    ticks, barriers, plan = counted(line)
    assert ticks == 4 * rows_in(path) == plan.ticks
    assert plan.decision_ns == 5 * MINUTE
    assert barriers == len(np.unique(pq.read_table(path)["ts"].to_numpy()))
    ici = report_of(plan, "ICICIPRULI")
    assert ici.bars == 65_218
    dates = line.trading_dates("ICICIPRULI")
    opened = np.array([str(stamp)[:10] for stamp in dates.opens.astype("datetime64[ns]")])
    evenings = {
        "2016-10-30": "13:00",
        "2017-10-19": "13:00",
        "2018-11-07": "12:00",
        "2019-10-27": "12:45",
    }
    for evening, begins in evenings.items():
        row = int(np.flatnonzero(opened == evening)[0])
        assert str(dates.opens[row].astype("datetime64[ns]"))[11:16] == begins
        assert dates.closes[row] - dates.opens[row] == 12 * 5 * MINUTE
    assert ici.unknown_dates >= 5  # four evenings and the Saturday of the budget
    assert ici.jumps >= 0
    assert report_of(plan, "BANDHANBNK").jumps >= 1  # -20 % on 2018-10-01 is true, and stays


def test_fifty_instruments_for_a_week_are_aligned(data_folder) -> None:
    path = data_folder / "nse_50_5m_week_2026.parquet"
    symbols = list(DataLoader(path).symbols)
    assert len(symbols) == 50
    line = timeline(path, symbols, "0.01", **MUMBAI)
    ticks, barriers, plan = counted(line)
    assert (ticks, barriers, plan.sessions) == (4 * 18_750, 375, 5)
    assert all(
        report.bars == 375 and report.timeframe_ns == 5 * MINUTE for report in plan.instruments
    )
    assert plan.open_ns == 5 * 375 * MINUTE
    again = timeline(path, symbols[::-1], "0.01", settings={"window_ticks": 3_000}, **MUMBAI)
    blocks = [[window.ticks for window in each.windows()] for each in (line, again)]
    for one, other in zip(
        *(map(np.concatenate, zip(*block, strict=True)) for block in blocks), strict=True
    ):
        if one.dtype != np.uint32:  # intervals count from the start of their window
            np.testing.assert_array_equal(one, other)


def test_daily_bars_stamped_at_midnight_in_mumbai_belong_to_their_dates(data_folder) -> None:
    path = data_folder / "nse_50_daily_2023_2026.parquet"
    line = timeline(
        path, ["NIFTY", "INDUSINDBK"], "0.01", settings={"round_prices": True}, **MUMBAI
    )
    ticks, _, plan = counted(line)
    table = pq.read_table(path, columns=["symbol", "date"]).to_pandas()
    dates = sorted(table[table.symbol == "INDUSINDBK"].date)
    assert ticks == 8 * len(dates)
    assert plan.decision_ns == DAY
    epoch = dt.date(1970, 1, 1)
    opens = line.trading_dates("INDUSINDBK").opens
    assert [epoch + dt.timedelta(days=int(day)) for day in opens // DAY] == dates
    report = report_of(plan, "INDUSINDBK")
    assert report.jumps >= 1  # -27 % on 2025-03-11
    assert report.unknown_dates >= 2  # special Saturdays and the Sunday of the budget
    assert report_of(plan, "NIFTY").zero_volume == 2


def test_pre_open_bars_and_an_index_without_volume_are_kept(data_folder) -> None:
    path = data_folder / "nse_1m_2019.parquet"
    ticks, _, plan = counted(timeline(path, ["NIFTY50", "JUNIORBEES", "YESBANK"], "0.01", **MUMBAI))
    assert ticks == 4 * rows_in(path)
    index = report_of(plan, "NIFTY50")
    assert index.zero_volume == index.bars == 1_509
    assert index.outside_session >= 4  # 09:07 every morning
    assert index.rejected == {"filler": 0}
    assert report_of(plan, "JUNIORBEES").timeframe_ns == MINUTE  # though most minutes are missing


def test_us_minutes_with_extended_hours(data_folder) -> None:
    path = data_folder / "us_equity_1m_trades_2013.parquet"
    line = timeline(
        path,
        ["SPY", "IBM", "BAC", "AIG"],
        "0.01",
        settings={"decision_ns": 60 * MINUTE},
        **NEW_YORK,
    )
    ticks, barriers, plan = counted(line)
    assert ticks == 4 * rows_in(path)
    assert report_of(plan, "SPY").outside_session > 0.25 * report_of(plan, "SPY").bars
    assert barriers < 20 * plan.sessions
    quotes = data_folder / "us_equity_1m_quotes_2013.parquet"
    for side in ("bid", "ask"):
        _, _, plan = counted(
            timeline(
                quotes, ["SPY"], "0.01", side=side, settings={"round_prices": True}, **NEW_YORK
            )
        )
        assert report_of(plan, "SPY").no_volume == report_of(plan, "SPY").bars


def test_currencies_by_bid_and_ask_and_coins_around_the_clock(data_folder) -> None:
    path = data_folder / "fx_1m_quotes_2014.parquet"
    sides = {}
    for side in ("bid", "ask"):
        line = timeline(path, ["EURUSD", "NZDUSD"], "0.00001", side=side)
        ticks, _, plan = counted(line)
        assert ticks == 4 * rows_in(path)
        assert plan.closed_ns > 2 * DAY  # the weekends
        sides[side] = next(line.windows()).ticks.price
    assert sides["bid"].sum() < sides["ask"].sum()
    path = data_folder / "crypto_1m_2018.parquet"
    coins = [
        Feed(stock(symbol, "0.01", volume_step=Decimal("1e-8")), path)
        for symbol in ("BTCUSD", "ETHUSD", "LTCUSD", "BTCEUR")
    ]
    ticks, _, plan = counted(Timeline(coins))
    assert ticks == 4 * rows_in(path)
    assert all(report.volume_rounded == 0 for report in plan.instruments)


def test_everything_at_once_on_one_timeline(data_folder) -> None:
    feeds = [
        Feed(stock("HDFCLIFE", **MUMBAI), data_folder / "nse_3stocks_5m_2016_2020.parquet"),
        Feed(stock("SPY", "0.01", **NEW_YORK), data_folder / "us_equity_1m_trades_2013.parquet"),
        Feed(
            stock("BTCUSD", "0.01", volume_step=Decimal("1e-8")),
            data_folder / "crypto_1m_2018.parquet",
        ),
        Feed(stock("EURUSD", "0.00001"), data_folder / "fx_1m_quotes_2014.parquet"),
        Feed(stock("NIFTY", **MUMBAI), data_folder / "nse_50_daily_2023_2026.parquet"),
    ]
    line = Timeline(feeds, round_prices=True)
    ticks, barriers, plan = counted(line)
    assert ticks == plan.ticks
    assert plan.decision_ns == DAY
    tail = list(line.windows(from_barrier=barriers - 10))
    assert tail[0].barrier_lo == barriers - 10
    assert sum(len(window.closes) for window in tail) == 10


def test_option_premiums_that_collapse_and_roll_are_kept(data_folder) -> None:
    path = data_folder / "nse_atm_options_5m_2026.parquet"
    symbols = list(DataLoader(path).symbols)
    ticks, _, plan = counted(timeline(path, symbols, **MUMBAI))
    assert ticks == 4 * rows_in(path)
    assert sum(report.jumps for report in plan.instruments) > 100


def test_raw_files_with_defects(data_folder) -> None:
    zeel = data_folder / "raw" / "mit_ZEEL_5m_wrong_symbol_filler.csv"
    with pytest.raises(DataError, match="time zone missing"):
        list(DataLoader(zeel))
    with pytest.raises(DataError, match="open is 0 at 2015-05-15") as error:
        list(DataLoader(zeel, timezone="Asia/Kolkata"))
    assert ":line 5135:" in error.value.where
    (found,) = inspect(zeel).symbols
    assert [defect.kind for defect in found.defects] == ["price_not_positive"]
    stray = data_folder / "raw" / "nifty_5m_stray_bar.csv"
    nifty = stock("nifty_5m_stray_bar", **MUMBAI)
    line = Timeline([Feed(nifty, stray, timezone="UTC")])
    ticks, _, plan = counted(line)
    assert plan.instruments[0].rejected == {"filler": 1}
    assert ticks == 4 * (found_rows := inspect(stray).rows - 1)
    assert found_rows == 376
    guessed = infer_instrument(stray)
    assert (guessed.tick_size, guessed.volume_step, guessed.timezone) == (Decimal("0.05"), 1, "UTC")
    with pytest.raises(DataError, match="no kind of bar file"):
        DataLoader(data_folder / "raw" / "lean_nifty50_20190102_two_members.zip")


def lots_of(path: Path) -> tuple[LotRule, ...]:
    rows = pq.read_table(path).to_pylist()

    def date(text: str | None) -> dt.date | None:
        return dt.date.fromisoformat(text[:10]) if text else None

    return tuple(
        LotRule(
            lot=row["contract_lot_size"],
            series=Series(row["expiry_type"]),
            from_expiry=date(row["contract_expiry_from"]),
            to_expiry=date(row["contract_expiry_to"]),
        )
        for row in rows
    )


def test_nifty_contracts_are_those_of_the_exchange(data_folder) -> None:
    """Every expiry since 2021 on its date, holidays included, with its lot (2021 to 2026)."""
    known = pq.read_table(data_folder / "nifty_expiry_calendar_2021_2026.parquet").to_pylist()
    changed = dt.date(2025, 9, 1)
    rules = tuple(
        ExpiryRule(series=series, weekday=weekday, from_date=begin, to_date=end)
        for series in Series
        for weekday, begin, end in (
            (Weekday.THU, None, changed - dt.timedelta(days=1)),
            (Weekday.TUE, changed, None),
        )
    )
    option = Instrument(
        symbol="NIFTY_OPT",
        type=InstrumentType.OPTION,
        underlying="NIFTY",
        tick_size=Decimal("0.05"),
        lot_size=lots_of(data_folder / "nifty_lot_size_rules.parquet"),
        expiries=Expiries(rules=rules),
        **MUMBAI,
    )
    expected = {
        dt.date.fromisoformat(row["actual_expiry_date"][:10]): row["contract_lot_size"]
        for row in known
    }
    first, last = min(expected), max(expected)
    table = expiries(option, exchange_sessions("XBOM"))
    found = {date_of(int(ts) // DAY): int(lot) for ts, lot in zip(table.ts, table.lot, strict=True)}
    found = {date: lot for date, lot in found.items() if first <= date <= last}
    moved = sum(row["expiry_holiday_adjusted"] for row in known)
    assert moved == 16
    assert {date: lot for date, lot in found.items() if date in expected} == expected
    # The calendar of the source lists weeklies until August 2026 only.
    weeklies = [
        dt.date.fromisoformat(row["actual_expiry_date"][:10])
        for row in known
        if row["expiry_type"] == "weekly"
    ]
    assert all(date > max(weeklies) for date in found if date not in expected)
