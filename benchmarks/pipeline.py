"""A whole run at full speed: Parquet to fills and P&L through the embedded broker.

8 instruments on 4 partitions, no output per tick. The limit is the bare Kafka client moving the very frames of that
run, and results of the same size, in a process like the run's (`raw_log.py`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import MINUTE_NS
from benchmarks.command import ROOT, environment, last_words, simulate
from benchmarks.dataset import write_bars, write_registry
from benchmarks.harness import MIN_ROUNDS, Check, Row, SkippedError, ratio
from benchmarks.raw_log import write_frames
from streambot.data.feed import Feed
from streambot.data.timeline import Timeline
from streambot.domain.registry import load_registry
from streambot.replay.framing import Framing
from streambot.streams.sequence import FrameChain

SYMBOLS = [f"S{number}" for number in range(8)]
PARTITIONS = 4
TARGET_TICKS_PER_S = 3e6
TARGET_OF_RAW = 0.6
STREAMS = ("orders.ndjson", "fills.ndjson", "pnl.ndjson")


def frames_of(path: Path, registry: Path) -> list[list[bytes]]:
    """The frames that a run over that file publishes at full speed."""
    known = load_registry(registry)
    timeline = Timeline([Feed(instrument=known[symbol], path=path) for symbol in SYMBOLS])
    framing = Framing([number % PARTITIONS for number in range(len(SYMBOLS))], PARTITIONS)
    chains = [FrameChain(bytes(16), partition, len(SYMBOLS)) for partition in range(PARTITIONS)]
    frames: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    for window in timeline.windows():
        for draft in framing.open(window).all():
            chain = chains[draft.partition]
            value = chain.data(draft.closes, draft.ticks, t_lo=draft.t_lo, t_hi=draft.t_hi)
            frames[draft.partition].append(value)
    return frames


def rows(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Ticks a second of the run, and of the bare client over the same bytes, in turn."""
    bars = 50_000 if quick else 400_000
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        home = Path(folder)
        data, registry, kept = home / "bars.parquet", home / "instruments.yaml", home / "frames"
        write_bars(data, SYMBOLS, bars, MINUTE_NS)
        write_registry(registry, SYMBOLS)
        write_frames(kept, frames_of(data, registry))
        flags = ["--data", str(data), "--registry", str(registry), "--speed", "max"]
        flags += ["--partitions", str(PARTITIONS), "--policy", "sma-cross", "--broker", "embedded"]

        def ours(number: int) -> tuple[int, float, int]:
            runs = home / f"runs{number}"
            summary = simulate(*flags, runs_dir=runs).summary
            out = sum(file.stat().st_size for name in STREAMS for file in runs.glob(f"*/{name}"))
            return summary["ticks"], summary["ticks_per_s"], out

        ticks, _, out_bytes = ours(0)
        rates: dict[str, list[float]] = {"streambot": [], "raw aiokafka": []}
        for number in range(1, rounds + 1):
            rates["streambot"].append(ours(number)[1])
            rates["raw aiokafka"].append(ticks / _floor(kept, out_bytes))
        size = kept.stat().st_size
    checks = [
        Check("streambot", rates["streambot"], at_least=TARGET_TICKS_PER_S, unit="ticks/s"),
        ratio(rates, "streambot", "raw aiokafka", at_least=TARGET_OF_RAW),
    ]
    notes = [
        f"{ticks:,} ticks, {size / 2**20:,.0f} MiB of frames, {out_bytes / 2**20:,.1f} MiB of results"
    ]
    yield Row(
        "Parquet to fills and P&L, embedded broker, 8 instruments, 4 partitions",
        "ticks/s",
        rates,
        checks,
        notes,
    )


def _floor(kept: Path, out_bytes: int) -> float:
    command = [sys.executable, "-m", "benchmarks.raw_log", str(kept), str(out_bytes)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        check=False,
    )
    if done.returncode != 0:
        raise SkippedError(f"the bare client failed: {last_words(done.stderr)}")
    return float(done.stdout.split()[-1])
