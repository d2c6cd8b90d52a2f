"""Three made-up charts whose days differ: one is whole, one begins later, one has holes and ends sooner."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streambot.domain.instruments import Brokerage, Instrument, InstrumentType
from streambot.domain.registry import declare_yaml
from streambot.env.settings import make_config
from tests.env_world import Chart, prepared, segments_of
from tests.trained import Given

SYMBOLS = ("AAA", "BBB", "CCC")
FIRST_DAY, DAYS, BARS_A_DAY, MINUTES = 18_000, 40, 12, 5
SETTINGS: dict[str, Any] = {
    "window": 3, "max_quantity": 3, "lookback": 20, "zscore_window": 32, "warmup": 8,
    "regime_windows": [16], "capital": "3000", "episode_bars": 50,
}  # fmt: skip
"""Of an environment, as a checkpoint keeps them."""


def instruments() -> list[Instrument]:
    return [
        Instrument(
            symbol=symbol, type=InstrumentType.STOCK, lot_size=2, tick_size=Decimal("0.01"),
            currency="EUR", timezone="UTC", brokerage=Brokerage(entry=Decimal(1), exit=Decimal(1)),
        )
        for symbol in SYMBOLS
    ]  # fmt: skip


def days_of(symbol: str) -> list[int]:
    """Dates on which a symbol has bars."""
    days = range(FIRST_DAY, FIRST_DAY + DAYS)
    if symbol == "BBB":
        return list(days[4:])
    return [d for d in days[:-6] if d % 7 != 3] if symbol == "CCC" else list(days)


def write_bars(
    folder: Path, *, seed: int = 3, last_day: int | None = None, until: str = ""
) -> Path:
    """The bars, as a file that people could have.

    Args:
        last_day: no bars behind this date.
        until: another future from this ISO time on, with the same past.
    """
    columns: dict[str, list[Any]] = {
        n: [] for n in ("symbol", "ts", "open", "high", "low", "close")
    }
    columns["volume"] = []
    for k, symbol in enumerate(SYMBOLS):
        rng, after = np.random.default_rng([seed, k]), np.random.default_rng([seed, k, 1])
        price = 10_000 + 2_000 * k
        for day in days_of(symbol):
            for bar in range(BARS_A_DAY):
                ts = np.datetime64(day, "D") + np.timedelta64(9 * 60 + MINUTES * bar, "m")
                draws = after if until and ts >= np.datetime64(until) else rng
                opened, price = price, price + int(draws.integers(-40, 41))
                columns["symbol"].append(symbol)
                columns["ts"].append(ts)
                columns["open"].append(opened / 100)
                columns["close"].append(price / 100)
                columns["high"].append((max(opened, price) + int(draws.integers(9))) / 100)
                columns["low"].append((min(opened, price) - int(draws.integers(9))) / 100)
                columns["volume"].append(int(draws.integers(1, 500)))
    table = pa.table({
        **{name: pa.array(values) for name, values in columns.items() if name != "ts"},
        "ts": pa.array(np.array(columns["ts"], "datetime64[us]"), pa.timestamp("us", "UTC")),
    })  # fmt: skip
    if last_day is not None:
        end = np.datetime64(last_day + 1, "D").astype("datetime64[us]")
        table = table.filter(pc.less(table["ts"], pa.scalar(end, pa.timestamp("us", "UTC"))))
    path = folder / "three.parquet"
    pq.write_table(table.sort_by([("ts", "ascending"), ("symbol", "ascending")]), path)
    return path


def write_registry(folder: Path) -> Path:
    path = folder / "three.yaml"
    path.write_text(declare_yaml(instruments()))
    return path


def three_markets(folder: Path, **bars: Any) -> Given:
    """Segments of the three, built in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_bars(folder, **bars)
    charts = [Chart(path, s, "0.01", "", "UTC", "EUR", "1", 2) for s in SYMBOLS]
    env = make_config(SETTINGS)
    return Given(segments_of(prepared(charts, instruments(), env, folder), env))
