"""Resident memory of a long replay: it must not grow with the length.

The same instruments over a short and a long span, full speed, the log inside the process (the broker's memory would be
its own); the peak of each process is what the system says of it at its end.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import MINUTE_NS
from benchmarks.command import COMMAND, ROOT, environment, last_words
from benchmarks.dataset import write_bars, write_registry
from benchmarks.harness import Check, Row, SkippedError

TARGET_MB = 500.0
TARGET_GROWTH_MB = 64.0


def rows(quick: bool = False) -> Iterator[Row]:
    """Peak memory over a tenth of the bars and over all of them."""
    count, length = (10, 100_000) if quick else (100, 200_000)
    symbols = [f"S{number}" for number in range(count)]
    peaks: list[float] = []
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        home = Path(folder)
        registry = home / "instruments.yaml"
        write_registry(registry, symbols)
        for bars in (length // 10, length):
            data = home / f"bars{bars}.parquet"
            write_bars(data, symbols, bars, MINUTE_NS)
            peak, ticks_per_s = _run(data, registry, home / f"runs{bars}")
            peaks.append(peak)
            rates[f"{count} x {bars:,} bars"] = [ticks_per_s]
    checks = [
        Check(f"peak memory, {count} x {length:,} bars", [peaks[1]], at_most=TARGET_MB, unit="MB"),
        Check(
            "more than over a tenth of them",
            [peaks[1] - peaks[0]],
            at_most=TARGET_GROWTH_MB,
            unit="MB",
        ),
    ]
    yield Row("memory of a long replay, log inside the process", "ticks/s", rates, checks)


def _run(data: Path, registry: Path, runs_dir: Path) -> tuple[float, float]:
    arguments = [
        *COMMAND, "simulate", "--data", str(data), "--registry", str(registry), "--speed", "max",
        "--policy", "flat", "--broker", "in-process", "--json", "--runs-dir", str(runs_dir),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments], cwd=ROOT, capture_output=True, text=True,
        env=environment(), check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SkippedError(f"simulate failed: {last_words(done.stderr)}")
    peak, rate = json.loads(done.stdout.splitlines()[-1])
    return peak, rate


def _watch(arguments: list[str]) -> int:
    """Run a command; print its peak memory in MB and its ticks a second."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        summary = json.loads(done.stdout.splitlines()[-1])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
        print(json.dumps([peak, summary["ticks_per_s"]]))
    return done.returncode


if __name__ == "__main__":
    sys.exit(_watch(sys.argv[1:]))
