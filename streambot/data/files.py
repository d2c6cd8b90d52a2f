"""Opens a bar file by its name's ending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.data.csvfile import CsvBars
from streambot.data.source import BarFile, ParquetBars
from streambot.domain.errors import DataError
from streambot.domain.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PARQUET_ENDINGS = (".parquet", ".pq")
CSV_ENDINGS = (".csv", ".txt", ".tsv", ".csv.gz", ".csv.zst", ".csv.bz2")


def is_bar_file(path: Path) -> bool:
    """True where the name ends like a bar file's."""
    return path.name.lower().endswith((*PARQUET_ENDINGS, *CSV_ENDINGS))


def open_bars(
    path: Path,
    *,
    quote_side: str = "bid",
    columns: Mapping[str, str] | None = None,
    time_format: str | None = None,
) -> BarFile:
    """Open a file of bars and map its columns.

    Args:
        path: a Parquet or CSV file.
        quote_side: `bid` or `ask`, for files of quotes.
        columns: the file's names of the parts of a bar, where they are no usual ones.
        time_format: `strptime` pattern of stamps that two conventions could write.

    Raises:
        DataError: the file is missing, unreadable, empty, or has no bars.
    """
    if path.is_dir():
        raise DataError("this is a folder", where=str(path), hint="name the files in it")
    if not path.exists():
        raise DataError(
            "no such file",
            where=str(path),
            hint="check the path; `streambot data ls` lists bundled bars",
        )
    if path.stat().st_size == 0:
        raise DataError("the file is empty", where=str(path))
    name = path.name.lower()
    if name.endswith(PARQUET_ENDINGS):
        return ParquetBars(path, quote_side=quote_side, given=columns, time_format=time_format)
    if name.endswith(CSV_ENDINGS):
        return CsvBars(path, quote_side=quote_side, given=columns, time_format=time_format)
    raise DataError(
        f"{path.suffix or path.name!r} is no kind of bar file that is known here",
        where=str(path),
        hint="Parquet (.parquet) or CSV (.csv, .csv.gz)",
    )


def symbol_of_file(path: Path, file: BarFile) -> str:
    """Symbol of a file of one instrument: what its header names, else the file's name without endings."""
    layout = getattr(file, "layout", None)
    if layout is not None and layout.symbol:
        return str(layout.symbol)
    return path.name.split(".")[0]


def symbol_code(file: BarFile, symbol: str) -> int | None:
    """Code of `symbol` in `file`; None in a file of one instrument.

    Raises:
        DataError: the file has no such symbol.
    """
    if file.columns.symbol is None:
        return None
    if symbol in file.codes or symbol in file.symbols():
        return file.codes[symbol]
    raise DataError(
        f"no bars of {symbol} in the file",
        where=f"{file.path}:{file.columns.symbol}",
        hint=did_you_mean(symbol, sorted(file.codes)),
    )
