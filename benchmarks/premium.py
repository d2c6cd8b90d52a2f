"""How far the proxy premium is from what real options at the money cost.

Real premiums: five-minute bars of at-the-money calls and puts of the nearest monthly contract of NIFTY and
BANKNIFTY (`$STREAMBOT_DATA`), bars with a volume of at least 1,000. The proxy sees what a run would see at that
close: Wilder's ATR(14) of the daily bars before that day, and the trading days to the expiry.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.harness import Check, Row, SkippedError
from streambot.data.sessions import exchange_sessions
from streambot.domain.bundled import bundled_path
from streambot.domain.instruments import AtrPremium, BachelierPremium, Instrument
from streambot.domain.registry import load_registry
from streambot.engine.premium import model_price, round_up, trading_days
from streambot.engine.slots import MODEL_ATR, MODEL_BACHELIER
from streambot.market.atr import ATR_PERIOD, true_range, update_atr

INDIA = ZoneInfo("Asia/Kolkata")
FIVE_MINUTES_NS = 300_000_000_000
LEAST_VOLUME = 1_000
TARGET_PERCENT = 20.0


def _folder() -> Path:
    given = os.environ.get("STREAMBOT_DATA")
    if not given or not Path(given).is_dir():
        raise SkippedError("$STREAMBOT_DATA names no folder of real market data")
    return Path(given)


def daily_atr(folder: Path, symbol: str) -> dict[dt.date, float]:
    """ATR in price units that is known before each date, where 14 true ranges exist."""
    table = pq.read_table(folder / "nse_50_daily_2023_2026.parquet")
    rows = (
        table.filter(pc.equal(table["symbol"].cast("string"), symbol)).sort_by("date").to_pylist()
    )
    known: dict[dt.date, float] = {}
    atr, close = 0.0, 0.0
    for count, row in enumerate(rows):
        if count >= ATR_PERIOD:
            known[row["date"]] = atr
        spread = true_range(row["high"], row["low"], close, count > 0)
        atr = update_atr(atr, count, spread, ATR_PERIOD)
        close = row["close"]
    return known


def monthly_expiries(folder: Path) -> list[dt.date]:
    """Dates of the monthly contracts, moved for holidays as the exchange moved them."""
    table = pq.read_table(folder / "nifty_expiry_calendar_2021_2026.parquet")
    return sorted(
        dt.date.fromisoformat(row["actual_expiry_date"][:10])
        for row in table.to_pylist()
        if "month" in row["expiry_type"].lower()
    )


def percent_errors(
    folder: Path, option: Instrument, model: int, k: float
) -> npt.NDArray[np.float64]:
    """|proxy - real| / real in percent, a figure for every traded bar of both legs."""
    table = pq.read_table(folder / "nse_atm_options_5m_2026.parquet")
    table = table.filter(
        pc.and_(
            pc.equal(table["underlying"].cast("string"), option.chart),
            pc.greater_equal(table["volume"], LEAST_VOLUME),
        )
    )
    sessions = exchange_sessions(option.exchange or "XBOM")
    close_of = {
        int(date): int(close) for date, close in zip(sessions.dates, sessions.closes, strict=True)
    }
    expiries = [
        close_of[(date - dt.date(1970, 1, 1)).days]
        for date in monthly_expiries(folder)
        if (date - dt.date(1970, 1, 1)).days in close_of
    ]
    known = daily_atr(folder, option.chart)
    tick = float(option.tick_size)
    errors = []
    for opened, real in zip(
        table["ts"].cast("int64").to_numpy() * 1_000, table["close"].to_numpy(), strict=True
    ):
        now = int(opened) + FIVE_MINUTES_NS
        date = dt.datetime.fromtimestamp(int(opened) / 1e9, INDIA).date()
        expiry = next((ts for ts in expiries if ts >= now), None)
        if date not in known or expiry is None:
            continue
        days = trading_days(sessions.opens, sessions.closes, now, expiry)
        proxy = round_up(model_price(model, k, known[date] / tick, days, 0.0)) * tick
        errors.append(abs(proxy - real) / real * 100.0)
    return np.array(errors)


def rows() -> Iterator[Row]:
    """Median error of both models for both underlyings."""
    folder = _folder()
    registry = load_registry(bundled_path("instruments.yaml"))
    checks, notes = [], []
    for symbol in ("NIFTY_OPT", "BANKNIFTY_OPT"):
        option = registry[symbol]
        for name, model, k, target in (
            ("bachelier", MODEL_BACHELIER, BachelierPremium().k, TARGET_PERCENT),
            ("atr", MODEL_ATR, AtrPremium().k, None),
        ):
            errors = percent_errors(folder, option, model, k)
            checks.append(
                Check(
                    f"{name}, {option.chart}", [float(np.median(errors))], at_most=target, unit="%"
                )
            )
            notes.append(
                f"{name}, {option.chart}: {len(errors):,} bars, quartiles {np.percentile(errors, 25):.0f} % and"
                f" {np.percentile(errors, 75):.0f} %"
            )
    yield Row(
        "premium proxy, median error against real at-the-money premiums", "%", {}, checks, notes
    )
