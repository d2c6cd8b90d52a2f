"""Bar files as batches of numpy columns: Parquet by row groups, CSV by blocks, nothing at once.

A batch is what the file holds, in the file's order and its own numbers: no tick grid, no zone, no
opinion. `reverse` reads a newest-first file from its end.
"""

from __future__ import annotations

import bisect
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from streambot.data.arrow import values_of
from streambot.data.columns import ColumnMap, map_columns
from streambot.data.stamps import (
    Place,
    StampFormat,
    StampKind,
    column_kind,
    detect_format,
    epoch_factor,
    parse_texts,
    times_of_day,
    typed_stamps,
)
from streambot.domain.errors import DataError
from streambot.domain.units import NANOS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

DEFAULT_BATCH_ROWS = 65_536
_PAGE_BUFFER = 1 << 16  # read a row group page by page, not whole: memory stays flat


class Batch(NamedTuple):
    """Rows of a file, in its order.

    Attributes:
        ts: int64 [n], ns as stored: UTC, or wall time (`BarFile.stamps`).
        open, high, low, close: float64 [n], NaN where the cell is empty.
        volume: float64 [n], NaN where the cell is empty; None without such a column.
        symbol: int32 [n], code of the instrument (`BarFile.codes`); None in a file of one.
        other_close: float64 [n], close of the other side of a quote; None without it.
        first_row: row number of the first one, from 0.
        row_step: 1, or -1 when the file is read from its end.
    """

    ts: Int64Array
    open: Float64Array
    high: Float64Array
    low: Float64Array
    close: Float64Array
    volume: Float64Array | None
    symbol: npt.NDArray[np.int32] | None
    other_close: Float64Array | None
    first_row: int
    row_step: int


class BarFile(Protocol):
    """A file of bars that can be read again and again."""

    path: Path
    columns: ColumnMap
    stamps: StampKind
    codes: dict[str, int]
    """Code of every symbol met so far."""

    @property
    def rows_at_most(self) -> int:
        """A bound of the count of rows, known without reading."""

    def place(self, row: int) -> str:
        """File and row, or line, for a message."""

    def symbols(self) -> tuple[str, ...]:
        """Instruments of the file, in the order in which they come; empty without a symbol column."""

    def batches(
        self,
        *,
        batch_rows: int = DEFAULT_BATCH_ROWS,
        span: tuple[int, int] | None = None,
        rows: tuple[int, int] | None = None,
        reverse: bool = False,
    ) -> Iterator[Batch]:
        """The rows in order.

        Args:
            batch_rows: about how many rows at a time.
            span: [from, to) of stored stamps; rows outside may be left out, not must.
            rows: [from, to) of row numbers; rows outside may be left out, not must.
            reverse: from the last row to the first.
        """


class TextStamps:
    """Reads the stamps of one file: fixes the form of texts and epochs by the first value."""

    def __init__(
        self, path: Path, columns: ColumnMap, time_format: str | None, place: Place
    ) -> None:
        self._where = str(path)
        self._place = place
        self._column = columns.time
        self._given = time_format
        self._form: StampFormat | None = None
        self._factor: int | None = None

    def kind(self, column: pa.Array, *, joined: bool) -> StampKind:
        """What the stamps leave open; reads the first value of texts."""
        known = None if joined else column_kind(column.type)
        if known is not None:
            return known
        if self._form is None:
            values = column.drop_null()
            if not len(values):
                raise DataError("the stamp is missing", where=self._place(0))
            place = f"{self._place(0)}:{self._column}"
            self._form = detect_format(str(values[0].as_py()), given=self._given, where=place)
        return self._form.kind

    def read(self, column: pa.Array, of_day: pa.Array | None, first_row: int) -> Int64Array:
        """Nanoseconds of a column, joined with the times of day where those are apart."""
        if of_day is not None:
            column = pa.compute.binary_join_element_wise(
                column.cast(pa.string()), times_of_day(of_day), " "
            )
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            self.kind(column, joined=True)
            if self._form is None:  # `kind` set it or raised
                raise DataError("the stamps are missing", where=self._where)
            return parse_texts(column, self._form, place=self._place, first_row=first_row)
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if is_number and len(column) and self._factor is None:
            self._factor = epoch_factor(float(column[0].as_py() or 0), where=self._where)
        return typed_stamps(column, place=self._place, first_row=first_row, factor=self._factor)


class ColumnReader:
    """Turns Arrow batches of one file into `Batch`es."""

    def __init__(
        self, path: Path, columns: ColumnMap, time_format: str | None, place: Place
    ) -> None:
        self._where = str(path)
        self._place = place
        self._columns = columns
        self.times = TextStamps(path, columns, time_format, place)
        self.codes: dict[str, int] = {}

    def batch(self, table: pa.RecordBatch, first_row: int) -> Batch:
        """The columns of `table`, whose first row is row `first_row` of the file."""
        columns = self._columns
        of_day = table.column(columns.time_of_day) if columns.time_of_day else None
        return Batch(
            ts=self.times.read(table.column(columns.time), of_day, first_row),
            open=self._floats(table, columns.open),
            high=self._floats(table, columns.high),
            low=self._floats(table, columns.low),
            close=self._floats(table, columns.close),
            volume=self._floats(table, columns.volume) if columns.volume else None,
            symbol=self.read_codes(table, columns.symbol, first_row) if columns.symbol else None,
            other_close=self._floats(table, columns.other_close) if columns.other_close else None,
            first_row=first_row,
            row_step=1,
        )

    def _floats(self, table: pa.RecordBatch, name: str) -> Float64Array:
        column = table.column(name)
        kind = column.type
        if not pa.types.is_float64(kind):
            if not (
                pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
            ):
                raise DataError(f"column holds {kind}, not numbers", where=f"{self._where}:{name}")
            column = column.cast(pa.float64(), safe=False)
        if column.null_count:
            column = column.fill_null(float("nan"))
        return values_of(column, np.float64)

    def read_codes(self, table: pa.RecordBatch, name: str, first_row: int) -> npt.NDArray[np.int32]:
        """Codes of the symbols of `table`; a symbol that is new gets the next one."""
        column = table.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        if column.null_count:
            row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise DataError("the symbol is missing", where=f"{self._place(row)}:{name}")
        words = column.dictionary.to_pylist()
        codes = np.array(
            [self.codes.setdefault(str(word), len(self.codes)) for word in words], dtype=np.int32
        )
        return np.asarray(
            codes[values_of(column.indices, np.dtype(str(column.indices.type)))], dtype=np.int32
        )


def reversed_batch(batch: Batch) -> Batch:
    """The same rows, last first."""
    arrays: dict[str, Any] = {
        name: None if values is None else np.ascontiguousarray(values[::-1])
        for name, values in batch._asdict().items()
        if name not in {"first_row", "row_step"}
    }
    last = batch.first_row + batch.row_step * (len(batch.ts) - 1)
    return Batch(**arrays, first_row=last, row_step=-batch.row_step)


class ParquetBars:
    """A Parquet file of bars, read row group by row group and page by page."""

    def __init__(
        self,
        path: Path,
        *,
        quote_side: str = "bid",
        given: Mapping[str, str] | None = None,
        time_format: str | None = None,
    ) -> None:
        self.path = path
        with _opened(path) as file:
            self._schema = file.schema_arrow
            self._meta = file.metadata
        names = self._schema.names
        self.columns = map_columns(names, quote_side=quote_side, given=given, where=str(path))
        if self._meta.num_rows == 0:
            raise DataError("the file has no rows", where=str(path))
        self._starts = [0]
        for index in range(self._meta.num_row_groups):
            self._starts.append(self._starts[-1] + self._meta.row_group(index).num_rows)
        self._reader = ColumnReader(path, self.columns, time_format, self.place)
        self.codes = self._reader.codes
        self._knows_symbols = False
        self.stamps = self._stamp_kind()

    def symbols(self) -> tuple[str, ...]:
        """See `BarFile.symbols`: reads that column alone, once."""
        name = self.columns.symbol
        if name is None:
            return ()
        if not self._knows_symbols:
            with _opened(self.path, dictionary=name) as file:
                first = 0
                for table in file.iter_batches(columns=[name], use_threads=False):
                    self._reader.read_codes(table, name, first)
                    first += table.num_rows
            self._knows_symbols = True
        return tuple(self.codes)

    def place(self, row: int) -> str:
        """File and row for a message."""
        return f"{self.path}:row {row + 1}"

    @property
    def rows_at_most(self) -> int:
        """See `BarFile.rows_at_most`."""
        return self.rows

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """What the file says about itself."""
        return dict(self._schema.metadata or {})

    @property
    def rows(self) -> int:
        """Count of rows."""
        return int(self._meta.num_rows)

    def _stamp_kind(self) -> StampKind:
        known = (
            None
            if self.columns.time_of_day
            else column_kind(self._schema.field(self.columns.time).type)
        )
        if known is not None:
            return known
        next(self.batches(batch_rows=1))
        return self._reader.times.kind(pa.array([], pa.string()), joined=True)

    def batches(
        self,
        *,
        batch_rows: int = DEFAULT_BATCH_ROWS,
        span: tuple[int, int] | None = None,
        rows: tuple[int, int] | None = None,
        reverse: bool = False,
    ) -> Iterator[Batch]:
        """See `BarFile.batches`: whole row groups are left out by their statistics."""
        wanted = self._row_groups(span, rows)
        with _opened(self.path, dictionary=self.columns.symbol) as file:
            if reverse:
                for group in reversed(wanted):
                    whole = [
                        self._reader.batch(table, first)
                        for first, table in self._tables(file, [group], batch_rows)
                    ]
                    yield from (reversed_batch(batch) for batch in reversed(whole))
                return
            for first, table in self._tables(file, wanted, batch_rows):
                yield self._reader.batch(table, first)

    def _tables(
        self, file: pq.ParquetFile, groups: list[int], batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        # A batch may span row groups, so neighbours are read as one run with consecutive rows.
        runs: list[list[int]] = []
        for group in groups:
            if runs and runs[-1][-1] == group - 1:
                runs[-1].append(group)
            else:
                runs.append([group])
        for run in runs:
            first = self._starts[run[0]]
            try:
                for table in file.iter_batches(
                    batch_size=batch_rows,
                    row_groups=run,
                    columns=list(self.columns.read),
                    use_threads=False,
                ):
                    yield first, table
                    first += table.num_rows
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(
                    f"the file is damaged near row {first + 1}: {error}",
                    where=str(self.path),
                    hint="write or fetch the file again",
                ) from error

    def _row_groups(self, span: tuple[int, int] | None, rows: tuple[int, int] | None) -> list[int]:
        count = self._meta.num_row_groups
        low, high = 0, count
        if rows is not None:
            low = max(0, bisect.bisect_right(self._starts, rows[0]) - 1)
            high = min(count, bisect.bisect_left(self._starts, rows[1]))
        groups = [group for group in range(low, high) if self._meta.row_group(group).num_rows]
        if span is None or self.columns.time_of_day is not None:
            return groups
        return [group for group in groups if self._may_overlap(group, span)]

    def _may_overlap(self, group: int, span: tuple[int, int]) -> bool:
        index = self._schema.names.index(self.columns.time)
        chunk = self._meta.row_group(group).column(index)
        statistics = chunk.statistics if chunk.path_in_schema == self.columns.time else None
        if statistics is None or not statistics.has_min_max:
            return True
        kind = self._schema.field(self.columns.time).type
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            return True
        # As integers of the file's own unit: as Python's datetimes they would bring in pandas.
        unit = _UNITS.get(json.loads(statistics.logical_type.to_json()).get("timeUnit", ""))
        if unit is not None:
            stored = pa.timestamp(unit, getattr(kind, "tz", None))
            raw = np.array([statistics.min_raw, statistics.max_raw], np.int64)
            bounds = pa.Array.from_buffers(stored, 2, [None, pa.py_buffer(raw)])
        else:
            bounds = pa.array([statistics.min, statistics.max], kind)
        low, high = (int(t) for t in typed_stamps(bounds, place=self.place, first_row=0))
        margin = 0 if self.stamps is StampKind.INSTANT else NANOS_PER_DAY
        return high >= span[0] - margin and low < span[1] + margin


_UNITS = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}


def _opened(path: Path, *, dictionary: str | None = None) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            path,
            pre_buffer=False,
            buffer_size=_PAGE_BUFFER,
            read_dictionary=[dictionary] if dictionary else None,
        )
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path)) from error
    except PermissionError as error:
        raise DataError("the file may not be read", where=str(path)) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"not a readable Parquet file: {error}",
            where=str(path),
            hint="is it complete, and really Parquet?",
        ) from error
