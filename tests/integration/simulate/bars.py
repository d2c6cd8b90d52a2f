"""Bars, settings and runs for the tests of whole simulations."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streambot.domain.config import Resolved, resolve
from streambot.report.progress import Progress, RunPlan
from streambot.report.summary import Summary
from streambot.wiring import StopRequest, run_simulation

MINUTE_US = 60_000_000
FIRST_US = 1_606_833_000_000_000  # 2020-12-01 14:30 UTC
CHILD = Path(__file__).with_name("child.py")

REGISTRY = """\
instruments:
  AAA: &stock
    type: STOCK
    lot_size: 1
    tick_size: 0.01
    brokerage: {entry: 0.5, exit: 0.5}
  BBB: *stock
  CCC: *stock
  DDD: *stock
  EEE: *stock
  AAA_OPT:
    type: OPTION
    underlying: AAA
    lot_size: 10
    tick_size: 0.01
    brokerage: {entry: 1, exit: 1}
    premium: {model: bachelier, daily_atr: 2.5}
    expiries: {expires_after: 2}
"""


def write_bars(
    path: Path, symbols: str | list[str] = "AAA BBB CCC DDD EEE", *, bars: int = 600, seed: int = 1
) -> Path:
    """Minute bars of random walks; some are missing, a third of them in each other symbol.

    The walk of a symbol depends on its name alone, the order of rows and files on `symbols`.
    """
    names = symbols.split() if isinstance(symbols, str) else symbols
    columns: dict[str, list] = {n: [] for n in ("symbol", "ts", "open", "high", "low", "close")}
    rows = []
    for position, name in enumerate(names):
        rng = np.random.default_rng([seed, *name.encode()])
        walk = 10_000 + np.cumsum(rng.integers(-8, 9, bars * 4)).reshape(bars, 4)
        walk = np.maximum(walk, 100) / 100
        there = rng.random(bars) > (0.3 if ord(name[0]) % 2 else 0.0)
        for k in np.flatnonzero(there).tolist():
            o, a, b, c = walk[k]
            at = FIRST_US + k * MINUTE_US + (k // 390) * (1_440 - 390) * MINUTE_US
            rows.append((at, position, name, o, max(walk[k]), min(walk[k]), c))
            del a, b
    rows.sort(key=lambda row: (row[0], row[1]))
    for at, _, name, o, h, low, c in rows:
        for column, value in zip(columns.values(), (name, at, o, h, low, c), strict=True):
            column.append(value)
    table = pa.table(
        {
            "symbol": pa.array(columns["symbol"]).dictionary_encode(),
            "ts": pa.array(columns["ts"], pa.timestamp("us", "UTC")),
            **{n: pa.array(columns[n], pa.float64()) for n in ("open", "high", "low", "close")},
        }
    )
    pq.write_table(table, path)
    return path


def settings(folder: Path, **flags: str) -> Resolved:
    """Settings of a run over `folder/bars.parquet`, kept in `folder/runs`."""
    registry = folder / "instruments.yaml"
    if not registry.exists():
        registry.write_text(REGISTRY)
    given = {
        "data": str(folder / "bars.parquet"), "registry": str(registry),
        "runs_dir": str(folder / "runs"), "speed": "max", "broker": "in-process",
        "policy": "random", "pnl_every": "5m", "max_gap": "7d", "seed": "7",
    }  # fmt: skip
    return resolve(given | flags, {}, None)


class Told:
    """An observer that remembers, and may act when the run is so far."""

    def __init__(self) -> None:
        self.plans: list[RunPlan] = []
        self.progress: list[Progress] = []
        self.warnings: list[str] = []
        self.records: list[tuple[str, int, bytes]] = []
        self.at_record = None

    def planned(self, plan: RunPlan) -> None:
        self.plans.append(plan)

    def progressed(self, progress: Progress) -> None:
        self.progress.append(progress)

    def recorded(self, stream: str, partition: int, lines: bytes) -> None:
        self.records.append((stream, partition, lines))
        if self.at_record is not None:
            self.at_record(len(self.records))

    def warned(self, message: str) -> None:
        self.warnings.append(message)


def run(
    folder: Path, *, resume: str | None = None, told: Told | None = None, **flags: str
) -> Summary:
    """A whole simulation, from here."""
    return asyncio.run(
        run_simulation(settings(folder, **flags), observer=told, resume=resume, cwd=folder)
    )


def stopped_after(folder: Path, records: int, **flags: str) -> Summary:
    """A run that is asked to stop once so many records were written."""
    stop, told = StopRequest(), Told()
    told.at_record = lambda n: stop.request() if n == records else None
    return asyncio.run(
        run_simulation(settings(folder, **flags), observer=told, stop=stop, cwd=folder)
    )
