"""DataLoader: what it reads, how little of it, and what it refuses, by file and row."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streambot.data.loader import DataLoader
from streambot.data.source import ParquetBars
from streambot.domain.errors import ConfigError, DataError
from tests.unit.data.bar_files import DAY, MINUTE, Rows, random_rows, stock, write_parquet

START = 1_704_067_200 * 10**9


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows_of(count: int, step: int = MINUTE) -> Rows:
    return random_rows(np.random.default_rng(5), START, count, step)


GOOD = "ts,open,high,low,close,volume\n2024-01-01T09:15:00Z,10,11,9,10.5,100\n2024-01-01T09:16:00Z,10.5,11,10,10.5,\n"


def test_parquet_and_csv_of_the_same_bars_read_alike(tmp_path) -> None:
    table = rows_of(500).table()
    parquet = write_parquet(tmp_path / "a.parquet", table, group=64)
    import pyarrow.csv as pa_csv

    pa_csv.write_csv(table, tmp_path / "b.csv")
    one, other = DataLoader(parquet), DataLoader(tmp_path / "b.csv")
    assert one.timeframe() == other.timeframe() == MINUTE
    for a, b in zip(
        one.segment(None, START, START + DAY), other.segment(None, START, START + DAY), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_chunks_put_together_are_the_file(tmp_path) -> None:
    path = write_parquet(tmp_path / "a.parquet", rows_of(1000).table(), group=100)
    chunks = list(DataLoader(path).raw(rows=64))
    assert max(len(chunk) for chunk in chunks) <= 64
    assert np.concatenate([chunk.ts for chunk in chunks]).tolist() == [
        row[0] for row in rows_of(1000).rows
    ]


def test_a_segment_reads_its_row_groups_and_no_other(tmp_path, monkeypatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", rows_of(1000).table(), group=100)
    # A day of margin lies around the times asked for: dates become sessions.
    far = write_parquet(tmp_path / "b.parquet", rows_of(1000, DAY).table(), group=100)
    read: list[int] = []
    original = ParquetBars._tables

    def counted(self, file, groups, batch_rows):
        for first, table in original(self, file, groups, batch_rows):
            read.extend(range(first // 100, (first + table.num_rows - 1) // 100 + 1))
            yield first, table

    loader = DataLoader(far)
    monkeypatch.setattr(ParquetBars, "_tables", counted)
    monkeypatch.setattr("streambot.data.loader.HEAD_ROWS", 64)
    segment = loader.segment(None, START + 555 * DAY, START + 560 * DAY)
    assert [(ts - START) // DAY for ts in segment.ts.tolist()] == [555, 556, 557, 558, 559]
    assert set(read) <= {0, 5}  # the first one is looked at to see which way the file runs
    assert len(DataLoader(path).segment(None, START + 10**18, START + 2 * 10**18)) == 0


@pytest.mark.parametrize("kind", ["string", "dictionary", "large_string"])
def test_long_files_whatever_the_type_of_their_symbols(tmp_path, kind) -> None:
    tables = [rows_of(50).table(symbol) for symbol in ("B", "A")]
    table = pa.concat_tables(tables)
    symbols = table["symbol"].combine_chunks()
    symbols = (
        symbols.dictionary_encode()
        if kind == "dictionary"
        else symbols.cast(pa.large_string() if kind == "large_string" else pa.string())
    )
    table = table.set_column(table.schema.get_field_index("symbol"), "symbol", symbols)
    loader = DataLoader(write_parquet(tmp_path / "long.parquet", table, group=13))
    assert loader.symbols == ("A", "B")
    assert sum(len(chunk) for chunk in loader.raw("A")) == 50
    with pytest.raises(DataError, match="2 instruments: A, B"):
        list(loader)


def test_processed_bars_are_ticks_and_steps_and_rounding_is_counted(tmp_path) -> None:
    text = "ts,open,high,low,close,volume\n" + "".join(
        f"2024-01-01T09:{minute:02}:00Z,{price},{price},{price},{price},{volume}\n"
        for minute, price, volume in [
            (0, 100.05, 3),
            (1, 100.0500000001, 0),
            (2, 100.125, ""),
            (3, 100.1, 2),
        ]
    )
    path = write_csv(tmp_path / "x.csv", text)
    spy = stock("x", tick_size=Decimal("0.05"))
    with pytest.raises(
        DataError, match="1 of 4 bars have prices off the tick grid of 0.05"
    ) as refused:
        list(DataLoader(path, instruments={"x": spy}).bars())
    assert "tick_size: 0.025" in refused.value.hint
    loader = DataLoader(path, instruments={"x": spy}, round_prices=True)
    (bars,) = loader.bars()
    assert bars.close.tolist() == [2001, 2001, 2003, 2002]  # 2002.5 goes away from zero
    assert bars.volume.tolist() == [3, 0, -1, 2]
    report = loader.report()
    assert (report.rounded, report.zero_volume, report.no_volume) == (1, 1, 1)
    with pytest.raises(ConfigError, match="no declaration of x"):
        list(DataLoader(path).bars())


def test_one_price_in_a_hundred_may_be_off_the_grid_and_is_counted(tmp_path) -> None:
    rows = [(START + n * MINUTE, 200, 200, 200, 200, 1) for n in range(200)]
    table = Rows(rows).table()
    closes = table["close"].to_numpy().copy()
    closes[7] += 0.02
    table = table.set_column(4, "close", pa.array(closes)).set_column(2, "high", pa.array(closes))
    loader = DataLoader(write_parquet(tmp_path / "x.parquet", table), instruments={"x": stock("x")})
    assert loader.report().rounded == 1


BAD = [
    (
        "2024-01-01T09:15:00Z,10,11,9,10.5,1\n2024-01-01T09:14:00Z,1,1,1,1,1\n2024-01-01T09:16:00Z,1,1,1,1,1",
        "09:14:00Z comes after 2024-01-01T09:15:00Z",
        ":line 3",
    ),
    (
        "2024-01-01T09:15:00Z,10,11,9,10.5,1\n2024-01-01T09:15:00Z,1,1,1,1,1",
        "is there twice",
        ":line 3",
    ),
    ("2024-01-01T09:15:00Z,10,11,9,,1", "close is empty or not a number", ":line 2:close"),
    ("2024-01-01T09:15:00Z,10,inf,9,10,1", "high is infinite", ":line 2:high"),
    ("2024-01-01T09:15:00Z,10,11,0,10,1", "low is 0", ":line 2:low"),
    ("2024-01-01T09:15:00Z,10,11,-9,10,1", "low is -9", ":line 2:low"),
    ("2024-01-01T09:15:00Z,10,8,9,10,1", "high is below low", ":line 2:high"),
    ("2024-01-01T09:15:00Z,10,9.5,9,9.2,1", "high is not the highest", ":line 2:high"),
    ("2024-01-01T09:15:00Z,10,12,10.5,11,1", "low is not the lowest", ":line 2:low"),
    ("2024-01-01T09:15:00Z,10,12,9,11,-1", "volume is -1", ":line 2:volume"),
    ("2024-01-01T09:15:00Z,10,12,9,abc,1", "'abc' is not a number", ":line 2:close"),
    (
        "2024-01-01T09:15:00Z,10,12,9,11,1\n2024-01-01T09:16:00Z,10,12",
        "3 cells where the header has 6",
        ":line 3",
    ),
    (
        "2024-01-01T09:15:00Z,10,12,9,11,1\nyesterday,10,12,9,11,1",
        "'yesterday' is not a time",
        ":line 3",
    ),
    (
        "\n\n2024-01-01T09:15:00Z,10,12,9,11,1\n\n2024-01-01T09:15:00Z,10,12,9,11,1",
        "is there twice",
        ":line 6",
    ),
    (",10,12,9,11,1\n2024-01-01T09:15:00Z,10,12,9,11,1", "the stamp is missing", ":line 2"),
    ("03/04/2024 09:15,10,12,9,11,1", "may be day first or month first", ":line 2:ts"),
    ("soon,10,12,9,11,1", "'soon' is no time that is known here", ":line 2:ts"),
]


@pytest.mark.parametrize(("body", "message", "place"), BAD)
def test_bad_rows_are_named_by_line_and_column(tmp_path, body, message, place) -> None:
    path = write_csv(tmp_path / "bad.csv", "ts,open,high,low,close,volume\n" + body + "\n")
    with pytest.raises(DataError) as error:
        list(DataLoader(path))
    assert message in str(error.value)
    assert error.value.where == f"{path}{place}"
    assert error.value.exit_code == 4


def test_a_bad_row_deep_in_a_long_parquet_file_is_named_by_its_row(tmp_path) -> None:
    rows = rows_of(3000).rows
    rows[2500], rows[2501] = rows[2501], rows[2500]
    table = pa.concat_tables([rows_of(10).table("A"), Rows(rows).table("B")])
    loader = DataLoader(write_parquet(tmp_path / "l.parquet", table, group=400))
    with pytest.raises(DataError, match="B: .* comes after") as error:
        list(loader.raw("B"))
    assert error.value.where.endswith("l.parquet:row 2512")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("empty.csv", "", "the file is empty"),
        ("blank.csv", "\n\n", "the file is empty"),
        ("header.csv", "ts,open,high,low,close\n", "a header and no rows"),
        ("text.parquet", "not parquet at all", "not a readable Parquet file"),
        ("what.xlsx", "x", "is no kind of bar file"),
        ("cols.csv", "ts,open,high,low,closing\n1,1,1,1,1\n", "no column for `close`; found: `ts`"),
        ("cols2.csv", "a,b\n1,2\n", "no column for `time`, `open`, `high`, `low`, `close`"),
        ("two.csv", "ts,open,Open,high,low,close\n1,1,1,1,1,1\n", "both read as 'open'"),
    ],
)
def test_files_that_are_no_bars(tmp_path, name, content, message) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError) as error:
        list(DataLoader(path))
    assert message in str(error.value)
    assert error.value.where.startswith(str(path))


def test_a_near_miss_of_a_column_is_suggested(tmp_path) -> None:
    path = write_csv(tmp_path / "c.csv", "ts,open,high,low,closing\n2024-01-01T00:00Z,1,1,1,1\n")
    with pytest.raises(DataError) as error:
        DataLoader(path)
    assert error.value.hint == "did you mean `closing`?"
    assert len(next(DataLoader(path, columns={"close": "closing"}).raw())) == 1


def test_a_folder_a_truncated_file_and_an_empty_parquet_file(tmp_path) -> None:
    with pytest.raises(DataError, match="this is a folder"):
        DataLoader(tmp_path)
    whole = write_parquet(tmp_path / "w.parquet", rows_of(5000).table())
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        DataLoader(torn)
    scrambled = bytearray(whole.read_bytes())
    scrambled[200:1200] = b"\xff" * 1000
    torn.write_bytes(bytes(scrambled))
    with pytest.raises(DataError):
        list(DataLoader(torn))
    pq.write_table(rows_of(5).table().slice(0, 0), torn)
    with pytest.raises(DataError, match="has no rows"):
        DataLoader(torn)


NAIVE = "date,open,high,low,close\n2024-03-10 09:30:00,1,1,1,1\n2024-03-10 09:31:00,1,1,1,1\n"


def test_naive_stamps_need_a_zone_and_the_fix_is_named(tmp_path) -> None:
    path = write_csv(tmp_path / "n.csv", NAIVE)
    with pytest.raises(DataError, match="time zone missing") as error:
        list(DataLoader(path))
    assert error.value.where == f"{path}:line 2"
    assert "timezone" in error.value.hint
    expected = np.datetime64("2024-03-10T13:30", "ns").astype(np.int64)  # EDT since that morning
    assert next(DataLoader(path, timezone="America/New_York").raw()).ts[0] == expected
    zone = {"n": stock("n", timezone="America/New_York")}
    assert next(DataLoader(path, instruments=zone).raw()).ts[0] == expected
    with pytest.raises(ConfigError, match="unknown time zone"):
        list(DataLoader(path, timezone="Mars/Olympus"))


@pytest.mark.parametrize("stamp", ["2024-03-10 02:30:00", "2024-11-03 01:30:00"])
def test_an_hour_that_clocks_skip_or_repeat_is_refused(tmp_path, stamp) -> None:
    path = write_csv(tmp_path / "n.csv", f"date,open,high,low,close\n{stamp},1,1,1,1\n")
    with pytest.raises(DataError, match="happened twice or never in America/New_York"):
        list(DataLoader(path, timezone="America/New_York"))
    assert len(next(DataLoader(path, timezone="Asia/Kolkata").raw())) == 1


@pytest.mark.parametrize(
    ("header", "stamp", "expected"),
    [
        ("ts", "2024-01-31T09:15:00+05:30", "2024-01-31T03:45"),
        ("timestamp", "2024-01-31 09:15:00", "2024-01-31T09:15"),
        ("Datetime", "31.01.2024 09:15", "2024-01-31T09:15"),
        ("Date", "2024/01/31", "2024-01-31T00:00"),
        ("DATE", "31-Jan-2024", "2024-01-31T00:00"),
        ("time", "20240131 091500", "2024-01-31T09:15"),
        ("open_time", "1706692500", "2024-01-31T09:15"),
        ("open_time", "1706692500000", "2024-01-31T09:15"),
        ("<DATE>", "2024.01.31 09:15", "2024-01-31T09:15"),
        ("date,time", "2024-01-31,09:15", "2024-01-31T09:15"),
    ],
)
def test_stamps_as_people_write_them(tmp_path, header, stamp, expected) -> None:
    path = write_csv(tmp_path / "s.csv", f"{header},O,H,L,C\n{stamp},1,1,1,1\n")
    got = next(DataLoader(path, timezone="UTC").raw()).ts[0]
    assert got == np.datetime64(expected, "ns").astype(np.int64)


def test_a_file_that_is_newest_first_is_turned_and_an_unsorted_one_is_not(tmp_path) -> None:
    rows = rows_of(2000)
    table = rows.table()
    backwards = table.take(pa.array(range(1999, -1, -1)))
    for path in (
        write_parquet(tmp_path / "k.parquet", backwards, group=300),
        tmp_path / "k.csv",
    ):
        if path.suffix == ".csv":
            import pyarrow.csv as pa_csv

            pa_csv.write_csv(backwards, path)
        loader = DataLoader(path, instruments={"k": stock("k")})
        got = np.concatenate([bars.ts for bars in loader.raw(rows=128)])
        assert got.tolist() == [row[0] for row in rows.rows]
        report = loader.report()
        assert report.newest_first
        assert report.bars == 2000
        assert np.concatenate([bars.close for bars in loader.bars()]).tolist() == [
            row[4] for row in rows.rows
        ]
    mixed = backwards.take(pa.array([*range(1000), 1500, *range(1000, 1500), *range(1501, 2000)]))
    path = write_parquet(tmp_path / "m.parquet", mixed)
    with pytest.raises(DataError, match="comes after"):
        DataLoader(path, instruments={"m": stock("m")}).report()


def test_quotes_replay_one_side_and_crossed_ones_are_counted(tmp_path) -> None:
    header = "ts," + ",".join(
        f"{side}_{price}" for side in ("bid", "ask") for price in ("open", "high", "low", "close")
    )
    body = "2024-01-01T00:00:00Z,1,1,1,1,2,2,2,2\n2024-01-01T00:01:00Z,1,3,1,3,2,2,2,2\n"
    path = write_csv(tmp_path / "q.csv", f"{header}\n{body}")
    known = {"q": stock("q", tick_size=Decimal(1))}
    for side, opened in (("bid", 1), ("ask", 2)):
        loader = DataLoader(path, instruments=known, quote_side=side)
        assert next(loader.bars()).open.tolist() == [opened, opened]
        assert next(loader.bars()).volume.tolist() == [-1, -1]  # what is offered is not traded
        assert loader.report().crossed == 1
    with pytest.raises(ConfigError, match="neither `bid` nor `ask`"):
        DataLoader(path, quote_side="mid")


def test_daily_dates_are_days_of_the_exchange(tmp_path) -> None:
    xnys = {"exchange": "XNYS", "timezone": "America/New_York"}
    dates = ["2024-01-02", "2024-01-03", "2024-01-04"]
    midnight_utc = write_csv(
        tmp_path / "a.csv", "date,o,h,l,c\n" + "".join(f"{d},1,1,1,1\n" for d in dates)
    )
    instant = write_csv(
        tmp_path / "b.csv", "date,o,h,l,c\n" + "".join(f"{d}T00:00:00Z,1,1,1,1\n" for d in dates)
    )
    local = write_csv(
        tmp_path / "c.csv", "date,o,h,l,c\n" + "".join(f"{d} 00:00:00,1,1,1,1\n" for d in dates)
    )
    for path in (midnight_utc, instant, local):
        name = path.stem
        report = DataLoader(
            path, instruments={name: stock(name, tick_size=Decimal(1), **xnys)}
        ).report()
        assert report.timeframe_ns == DAY
        assert report.sessions == 3
        assert str(np.datetime64(report.first_ns, "ns"))[:16] == "2024-01-02T14:30"
        assert str(np.datetime64(report.last_ns, "ns"))[:16] == "2024-01-04T21:00"
        assert report.unknown_dates == report.missing_sessions == 0


def test_good_file_in_full(tmp_path) -> None:
    (bars,) = DataLoader(write_csv(tmp_path / "good.csv", GOOD))
    assert bars.close.tolist() == [10.5, 10.5]
    assert np.isnan(bars.volume[1])
    assert DataLoader(tmp_path / "good.csv").symbols == ("good",)


def test_a_file_of_yfinance_with_its_three_header_rows(tmp_path) -> None:
    path = write_csv(
        tmp_path / "y.csv",
        "Price,Close,High,Low,Open,Volume\nTicker,^NSEI,^NSEI,^NSEI,^NSEI,^NSEI\nDatetime,,,,,\n"
        "2024-01-01 03:45:00+00:00,11,12,9,10,0\n2024-01-01 03:46:00+00:00,x,12,9,10,0\n",
    )
    good = write_csv(tmp_path / "g.csv", path.read_text().replace("x,", "11,"))
    assert DataLoader(good).symbols == ("^NSEI",)
    assert next(DataLoader(good).raw()).close.tolist() == [11, 11]
    with pytest.raises(DataError, match="'x' is not a number") as error:
        list(DataLoader(path))
    assert error.value.where.endswith("y.csv:line 5:Close")
    two = path.read_text().replace("^NSEI,^NSEI,^NSEI,^NSEI,^NSEI", "^NSEI,^NSEI,^NSEI,^NSEI,SPY")
    with pytest.raises(DataError, match="2 tickers side by side"):
        DataLoader(write_csv(tmp_path / "two.csv", two))


def test_files_of_spreadsheets_and_zipped_ones(tmp_path) -> None:
    import gzip

    semicolons = GOOD.replace(",", ";")
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbf" + semicolons.replace("\n", "\r\n").encode())
    (tmp_path / "z.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    for name in ("s.csv", "z.csv.gz"):
        (bars,) = DataLoader(tmp_path / name)
        assert bars.close.tolist() == [10.5, 10.5]
    (tmp_path / "utf16.csv").write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(DataError, match="not UTF-8 text"):
        DataLoader(tmp_path / "utf16.csv")


def test_a_stock_without_volume_and_numbers_as_other_types(tmp_path) -> None:
    table = pa.table(
        {
            "date": pa.array([19_000, 19_001], pa.date32()),
            "o": pa.array([10, 11], pa.int32()),
            "h": pa.array([Decimal("10.5"), Decimal("11.5")], pa.decimal128(10, 2)),
            "l": pa.array([9.5, 10.5], pa.float32()),
            "c": pa.array([10.0, 11.0]),
        }
    )
    loader = DataLoader(write_parquet(tmp_path / "t.parquet", table), instruments={"t": stock("t")})
    (bars,) = loader.bars()
    assert bars.high.tolist() == [210, 230]
    assert bars.volume.tolist() == [-1, -1]
    words = table.set_column(4, "c", pa.array(["10", "11"]))
    with pytest.raises(DataError, match="column holds string, not numbers"):
        list(DataLoader(write_parquet(tmp_path / "w.parquet", words)))


def test_numbers_that_are_too_large_or_too_small_to_count(tmp_path) -> None:
    for price, message in (("1e17", "a number is too large"), ("0.001", "is less than one tick")):
        text = f"ts,o,h,l,c\n2024-01-01T00:00:00Z,{price},{price},{price},{price}\n"
        path = write_csv(tmp_path / "n.csv", text)
        with pytest.raises(DataError, match=message) as error:
            list(DataLoader(path, instruments={"n": stock("n")}).bars())
        assert error.value.where == f"{path}:line 2"
    early = write_csv(tmp_path / "e.csv", "ts,o,h,l,c\n1500-01-01T00:00:00Z,1,1,1,1\n")
    with pytest.raises(DataError):
        list(DataLoader(early))
