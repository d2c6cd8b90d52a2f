"""The streams of a complete run as Parquet, beside their NDJSON: for notebooks and reports.

Prices and money are exact decimals. Files are read and written block by block, so memory does not
grow with the run. The NDJSON stays what counts; a Parquet file is whole or absent.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from streambot.domain.units import MAX_MONEY_DECIMALS
from streambot.processor.durable import disk_error
from streambot.processor.stream_files import file_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK_BYTES = 4 << 20
_DECIMAL = pa.decimal128(38, MAX_MONEY_DECIMALS)
_COMMON = [
    ("instrument", pa.string()),
    ("seq", pa.int64()),
    ("ts_event", pa.int64()),
    ("barrier", pa.int64()),
]
_ORDER = pa.struct(
    [
        ("instrument", pa.string()),
        ("barrier", pa.int64()),
        ("action", pa.string()),
        ("quantity", pa.int64()),
        ("premium_ticks", pa.int64()),
        ("expiry_ts", pa.int64()),
        ("trail_width_ticks", pa.int64()),
        ("lot_size", pa.int64()),
        ("premium_model", pa.string()),
    ]
)
SCHEMAS = {
    "fills": pa.schema(
        [
            ("kind", pa.string()),
            *_COMMON,
            ("effect", pa.string()),
            ("reason", pa.string()),
            ("action", pa.string()),
            ("on_breach", pa.string()),
            ("side", pa.int64()),
            ("quantity", pa.int64()),
            ("lot_size", pa.int64()),
            ("price", _DECIMAL),
            ("option_value", _DECIMAL),
            ("premium", _DECIMAL),
            ("premium_model", pa.string()),
            ("brokerage", _DECIMAL),
            ("realized_pnl", _DECIMAL),
            ("cash", _DECIMAL),
            ("gap_fill", pa.bool_()),
        ]
    ),
    "pnl": pa.schema(
        [
            *_COMMON,
            ("cause", pa.string()),
            ("price", _DECIMAL),
            ("cash", _DECIMAL),
            ("equity", _DECIMAL),
            ("risk_equity", _DECIMAL),
            ("lots", pa.int64()),
            ("realized_pnl", _DECIMAL),
            ("brokerage_paid", _DECIMAL),
            ("trailing_stop_price", _DECIMAL),
            ("distance_to_trail", pa.float64()),
            ("halted", pa.bool_()),
        ]
    ),
    "orders": pa.schema(
        [
            ("agent", pa.string()),
            ("partition", pa.int64()),
            ("through_barrier", pa.int64()),
            ("orders", pa.list_(_ORDER)),
        ]
    ),
}
"""Columns of each stream; events lack some of them, and have null there."""


def write_table(folder: Path, stream: str) -> Path:
    """Write `<stream>.parquet` from `<stream>.ndjson`, and return its path.

    Raises:
        StreambotError: the disk refuses; no half file stays.
    """
    source = file_of(folder, stream)
    target = source.with_suffix(".parquet")
    partial = target.with_name(f".{target.name}.tmp")
    schema = SCHEMAS[stream]
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for block in _blocks(source):
                table = pj.read_json(
                    pa.BufferReader(block),
                    read_options=pj.ReadOptions(use_threads=False, block_size=len(block)),
                    parse_options=pj.ParseOptions(
                        explicit_schema=schema, unexpected_field_behavior="ignore"
                    ),
                )
                writer.write_table(table.select(schema.names))
        partial.replace(target)
    except OSError as cause:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise disk_error(target, cause) from cause
    return target


def _blocks(path: Path) -> Iterator[bytes]:
    """The file in blocks of whole lines."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block + file.readline()
