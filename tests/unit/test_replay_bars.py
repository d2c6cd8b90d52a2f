"""The bundled bars are the source's own values, complete, with source and license beside them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from streambot.domain.bundled import bundled_path
from streambot.domain.registry import load_registry
from tools.build_replay import SOURCES, content_digest

BARS = Path(__file__).resolve().parents[2] / "replay" / "bars"
INDEX = yaml.safe_load((BARS / "SOURCES.yaml").read_text(encoding="utf-8"))


def test_every_file_is_listed_and_every_listed_file_is_there():
    assert {path.name for path in BARS.glob("*.parquet")} == set(INDEX)
    assert {f"{source.name}.parquet" for source in SOURCES} == set(INDEX)


@pytest.mark.parametrize("name", sorted(INDEX))
def test_values_are_the_ones_taken_from_the_source(name):
    table = pq.read_table(BARS / name)
    entry = INDEX[name]
    assert table.num_rows == entry["rows"]
    assert content_digest(table) == entry["content_sha256"]
    assert sorted(set(table["symbol"].to_pylist())) == entry["symbols"]


@pytest.mark.parametrize("name", sorted(INDEX))
def test_source_and_license_travel_with_the_file(name):
    entry = INDEX[name]
    metadata = {k.decode(): v.decode() for k, v in pq.read_schema(BARS / name).metadata.items()}
    assert metadata["license"] == entry["license"]
    assert metadata["source"] == f"{entry['package']}: {entry['member']}"
    assert metadata["ts_convention"] == "bar OPEN time, UTC"
    assert (BARS / entry["license_text"]).stat().st_size > 1000


@pytest.mark.parametrize("name", sorted(INDEX))
def test_bars_are_sorted_unique_and_consistent(name):
    rows = pq.read_table(BARS / name).to_pylist()
    keys = [(row["ts"], row["symbol"]) for row in rows]
    assert keys == sorted(set(keys))
    for row in rows:
        assert 0 < row["low"] <= min(row["open"], row["close"])
        assert row["high"] >= max(row["open"], row["close"])
        assert row["volume"] >= 0


@pytest.mark.parametrize("name", sorted(INDEX))
def test_columns_and_types(name):
    schema = pq.read_schema(BARS / name)
    assert schema.names == ["symbol", "ts", "open", "high", "low", "close", "volume"]
    assert schema.field("ts").type == pa.timestamp("us", tz="UTC")
    assert {schema.field(column).type for column in ("open", "high", "low", "close")} == {
        pa.float64()
    }


@pytest.mark.parametrize("name", sorted(INDEX))
def test_prices_and_volumes_lie_on_the_grid_of_the_bundled_instruments(name):
    """Else a newcomer's first run would be refused, or rounded."""
    registry = load_registry(bundled_path("instruments.yaml"))
    for row in pq.read_table(BARS / name).to_pylist():
        instrument = registry[row["symbol"]]
        for column in ("open", "high", "low", "close"):
            ticks = row[column] / float(instrument.tick_size)
            assert abs(ticks - round(ticks)) < 1e-3, (column, row)
        steps = row["volume"] / float(instrument.volume_step)
        assert abs(steps - round(steps)) < 1e-3 * max(1, steps * 1e-9), row


def test_spy_is_four_whole_sessions_with_their_closing_auction():
    local = [
        ts.astimezone(ZoneInfo("America/New_York"))
        for ts in pq.read_table(BARS / "spy_1m_2020.parquet")["ts"].to_pylist()
    ]
    for day in (15, 16, 17, 18):
        minutes = [ts for ts in local if ts.date() == dt.date(2020, 12, day)]
        assert minutes[0].time() == dt.time(9, 30)
        assert minutes[-1].time() == dt.time(16, 0)
        assert len(minutes) == 391


def test_no_daily_stock_jumps_as_a_split_would():
    """A two-for-one split, left in, would halve a price overnight."""
    last: dict[str, float] = {}
    for row in pq.read_table(BARS / "us_stocks_1d_2000_2013.parquet").to_pylist():
        before = last.get(row["symbol"])
        if before is not None:
            assert 0.6 < row["open"] / before < 1.6, row
        last[row["symbol"]] = row["close"]
