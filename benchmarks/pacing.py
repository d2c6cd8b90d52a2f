"""How far emissions are from their schedule, and whether they drift from it.

Eight instruments with bars as long as `speed` market seconds, so that at each speed about 32 ticks are due every second of
wall time, with the engine, the embedded broker and the summary beside it, as in any run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.command import simulate
from benchmarks.dataset import write_bars, write_registry
from benchmarks.harness import MIN_ROUNDS, Check, Row

SECONDS = 12
SPEEDS = (1, 10, 100)
SYMBOLS = [f"S{number}" for number in range(8)]
SECOND_NS = 1_000_000_000
TARGET_MS = 10.0


def rows(rounds: int = MIN_ROUNDS) -> Iterator[Row]:
    """p99 of emission minus schedule, and how much longer the run took than its schedule, at each speed."""
    for speed in SPEEDS:
        late: list[float] = []
        drift: list[float] = []
        with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
            home = Path(folder)
            data, registry = home / "bars.parquet", home / "instruments.yaml"
            write_bars(data, SYMBOLS, SECONDS, speed * SECOND_NS)
            write_registry(registry, SYMBOLS)
            for number in range(rounds):
                done = simulate(
                    "--data", str(data), "--registry", str(registry), "--speed", f"{speed}x",
                    "--policy", "random", "--broker", "embedded", runs_dir=home / f"runs{number}",
                )  # fmt: skip
                late.append(float(done.summary["lateness_ms"]["p99"]))
                drift.append((speed / float(done.summary["speed_effective"]) - 1.0) * 100.0)
        yield Row(
            f"pacing at {speed}x",
            "ms",
            {},
            [
                Check("p99 of emission minus schedule", late, at_most=TARGET_MS, unit="ms"),
                Check("asked over effective speed, less 1", drift, at_most=1.0, unit="%"),
            ],
        )
