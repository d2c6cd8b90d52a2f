"""CSV files of bars, streamed in blocks.

The delimiter and the header are read from the first lines; every column that is used has a fixed
type, so a late row is never read by another rule than an early one. A file as `yfinance` writes it
(three header rows) is recognised by those rows and its ticker kept.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv

from streambot.data.columns import PRICES, map_columns
from streambot.data.source import (
    DEFAULT_BATCH_ROWS,
    Batch,
    ColumnReader,
    reversed_batch,
)
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_DELIMITERS = (",", ";", "\t", "|")
_BLOCK_BYTES = 1 << 20
_LONGEST_HEADER = 1 << 16
_NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "#N/A"]


class CsvLayout(NamedTuple):
    """What the first lines of a file say.

    Attributes:
        names: column names.
        delimiter: one character.
        skip: lines before the first row.
        symbol: the instrument, where the header names it; else None.
    """

    names: tuple[str, ...]
    delimiter: str
    skip: int
    symbol: str | None


def read_layout(path: Path) -> CsvLayout:
    """Read the header of `path`.

    Raises:
        DataError: the file is missing, unreadable, empty, or no text.
    """
    with _opened(path) as stream:
        head = stream.read(_LONGEST_HEADER)
    try:
        text = head.decode(
            "utf-8-sig", errors="strict" if len(head) < _LONGEST_HEADER else "ignore"
        )
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not UTF-8 text", where=str(path), hint="save it as UTF-8"
        ) from error
    lines = text.splitlines()
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        raise DataError("the file is empty", where=str(path))
    delimiter = max(_DELIMITERS, key=lines[0].count)
    rows = [next(csv.reader([line], delimiter=delimiter)) for line in lines[:3]]
    skipped = len(text.splitlines()) - len(lines)
    if len(rows) == 3 and rows[0][0].strip() == "Price" and rows[1][0].strip() == "Ticker":
        names = [rows[2][0].strip(), *(name.strip() for name in rows[0][1:])]
        tickers = {name.strip() for name in rows[1][1:]}
        if len(tickers) > 1:
            raise DataError(
                f"{len(tickers)} tickers side by side",
                where=f"{path}:line {skipped + 2}",
                hint="download one ticker a file, or stack them with a `symbol` column",
            )
        return CsvLayout(tuple(names), delimiter, skipped + 3, tickers.pop() if tickers else None)
    return CsvLayout(tuple(name.strip() for name in rows[0]), delimiter, skipped + 1, None)


class CsvBars:
    """A CSV file of bars (`.gz`, `.bz2`, `.zst` and `.lz4` are unpacked on the way)."""

    def __init__(
        self,
        path: Path,
        *,
        quote_side: str = "bid",
        given: Mapping[str, str] | None = None,
        time_format: str | None = None,
    ) -> None:
        self.path = path
        self.layout = read_layout(path)
        self.columns = map_columns(
            self.layout.names,
            quote_side=quote_side,
            given=given,
            where=f"{path}:line {self.layout.skip}",
        )
        self._reader = ColumnReader(path, self.columns, time_format, self.place)
        self.codes = self._reader.codes
        first = next(self._tables(), None)
        if first is None or not first.num_rows:
            raise DataError("the file has a header and no rows", where=str(path))
        self._reader.batch(first.slice(0, 1), 0)
        self._knows_symbols = False
        joined = self.columns.time_of_day is not None
        self.stamps = self._reader.times.kind(first.column(self.columns.time), joined=joined)

    @property
    def rows_at_most(self) -> int:
        """See `BarFile.rows_at_most`: no bar has less than ten letters, packed ten times at best."""
        packed = self.path.suffix.lower() in {".gz", ".zst", ".bz2", ".lz4"}
        return self.path.stat().st_size * (10 if packed else 1) // 10 + 1

    def symbols(self) -> tuple[str, ...]:
        """See `BarFile.symbols`: reads the file once."""
        if self.columns.symbol is not None and not self._knows_symbols:
            for _ in self.batches():
                pass
            self._knows_symbols = True
        return tuple(self.codes)

    def place(self, row: int) -> str:
        """File and line for a message; empty lines are counted too."""
        left = row
        with _opened(self.path) as stream, io.TextIOWrapper(stream, "utf-8", "replace") as text:
            for number, line in enumerate(text, 1):
                if number > self.layout.skip and line.strip("\r\n"):
                    if left == 0:
                        return f"{self.path}:line {number}"
                    left -= 1
        return f"{self.path}:row {row + 1}"

    def batches(
        self,
        *,
        batch_rows: int = DEFAULT_BATCH_ROWS,
        span: tuple[int, int] | None = None,
        rows: tuple[int, int] | None = None,
        reverse: bool = False,
    ) -> Iterator[Batch]:
        """See `BarFile.batches`. A CSV has no index: rows are parsed from the start, and `reverse` holds all."""
        if reverse:
            backwards = [reversed_batch(batch) for batch in self.batches(batch_rows=batch_rows)]
            while backwards:
                yield backwards.pop()
            return
        first = 0
        for table in self._tables():
            for offset in range(0, table.num_rows, batch_rows):
                part = table.slice(offset, batch_rows)
                if rows is None or (first < rows[1] and first + part.num_rows > rows[0]):
                    yield self._reader.batch(part, first)
                first += part.num_rows
            if rows is not None and first >= rows[1]:
                return

    def _tables(self) -> Iterator[pa.RecordBatch]:
        columns = self.columns
        types: dict[str, Any] = {name: pa.float64() for name in columns.read}
        types[columns.time] = pa.string()
        if columns.time_of_day:
            types[columns.time_of_day] = pa.string()
        if columns.symbol:
            types[columns.symbol] = pa.dictionary(pa.int32(), pa.string())
        with _opened(self.path) as stream:
            try:
                reader = pa_csv.open_csv(
                    stream,
                    read_options=pa_csv.ReadOptions(
                        block_size=_BLOCK_BYTES,
                        use_threads=False,
                        skip_rows=self.layout.skip,
                        column_names=list(self.layout.names),
                    ),
                    parse_options=pa_csv.ParseOptions(delimiter=self.layout.delimiter),
                    convert_options=pa_csv.ConvertOptions(
                        column_types=types,
                        include_columns=list(columns.read),
                        null_values=_NULLS,
                        strings_can_be_null=True,
                    ),
                )
                while True:
                    try:
                        table = reader.read_next_batch()
                    except StopIteration:
                        return
                    if table.num_rows:
                        yield table
            except pa.ArrowInvalid as error:
                if "Empty CSV" in str(error):
                    return
                raise self._explained(error) from error

    def _explained(self, error: pa.ArrowInvalid) -> DataError:
        """What Arrow could not read, with line, column and value: found by reading again, slowly."""
        layout = self.layout
        numeric = [
            (layout.names.index(name), name)
            for name in (
                *(getattr(self.columns, price) for price in PRICES),
                self.columns.volume,
                self.columns.other_close,
            )
            if name is not None
        ]
        with _opened(self.path) as stream, io.TextIOWrapper(stream, "utf-8", "replace") as text:
            for _ in range(layout.skip):
                next(text)
            lines = csv.reader(text, delimiter=layout.delimiter)
            for cells in lines:
                where = f"{self.path}:line {layout.skip + lines.line_num}"
                if cells and len(cells) != len(layout.names):
                    return DataError(
                        f"{len(cells)} cells where the header has {len(layout.names)}",
                        where=where,
                        hint="is the line torn, or a delimiter inside an unquoted value?",
                    )
                for index, name in numeric if cells else []:
                    value = cells[index].strip()
                    if value not in _NULLS and not _is_number(value):
                        return DataError(
                            f"{cells[index]!r} is not a number",
                            where=f"{where}:{name}",
                            hint="plain numbers only: 1234.5, without thousands marks or currency",
                        )
        return DataError(f"not a readable CSV file: {error}", where=str(self.path))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _opened(path: Path) -> BinaryIO:
    try:
        stream: BinaryIO = pa.input_stream(str(path), compression="detect")
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path)) from error
    except PermissionError as error:
        raise DataError("the file may not be read", where=str(path)) from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"the file cannot be read: {error}", where=str(path)) from error
    return stream
