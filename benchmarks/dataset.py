"""Parquet files and registries for the rows that measure whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bars import START_NS, TICK, random_walk

ROW_GROUP = 65_536
_OWN_WALKS = 8_000_000  # bars; beyond that all symbols share one walk
_OWN_WALKS = 1_000_000


def write_bars(path: Path, symbols: list[str], count: int, step_ns: int) -> None:
    """`count` bars of `step_ns` for every symbol, rows by time, then symbol, in row groups.

    Written piece by piece, so that the size of the file is not the size of this process.
    """
    schema = pa.schema(
        [
            ("symbol", pa.dictionary(pa.int16(), pa.string())),
            ("ts", pa.timestamp("us", tz="UTC")),
            *((name, pa.float64()) for name in ("open", "high", "low", "close")),
            ("volume", pa.int64()),
        ]
    )
    names = pa.array(symbols)
    piece = max(1, ROW_GROUP // len(symbols))
    if count * len(symbols) <= _OWN_WALKS:
        walks = [random_walk(count, seed=seed) for seed in range(len(symbols))]
    else:
        walks = [random_walk(count)] * len(symbols)
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
        for lo in range(0, count, piece):
            hi = min(count, lo + piece)
            rows = hi - lo
            ts = np.repeat(START_NS + np.arange(lo, hi, dtype=np.int64) * step_ns, len(symbols))
            codes = np.tile(np.arange(len(symbols), dtype=np.int16), rows)
            columns = [
                pa.DictionaryArray.from_arrays(pa.array(codes), names),
                pa.array(ts // 1_000, pa.timestamp("us", tz="UTC")),
            ]
            for field in ("open", "high", "low", "close", "volume"):
                parts = [getattr(walk, field)[lo:hi] for walk in walks]
                column = np.stack(parts, axis=1).reshape(-1)
                columns.append(pa.array(column if field == "volume" else column * TICK))
            writer.write_table(
                pa.Table.from_arrays(columns, schema=schema), row_group_size=ROW_GROUP
            )


def write_registry(path: Path, symbols: list[str]) -> None:
    """Stocks in cents, round the clock."""
    lines = ["instruments:"]
    for symbol in symbols:
        lines += [
            f"  {symbol}:",
            "    type: STOCK",
            "    lot_size: 1",
            "    tick_size: 0.01",
            "    brokerage: {entry: 1, exit: 1}",
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
