"""The segment store behind the environments: how fast it is made, stepped from, and what memory it takes.

Made from Parquet and from a run recorded on Kafka, against reading the file and writing as many bytes. Memory is that
of a process of its own: anonymous pages are what it needs, pages of mapped files are what the system may take back.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from benchmarks.bars import MINUTE_NS
from benchmarks.command import ROOT, environment, last_words, simulate
from benchmarks.dataset import write_bars, write_registry
from benchmarks.engine import CAPITAL
from benchmarks.env import UNIT, play_vector
from benchmarks.harness import MIN_ROUNDS, Check, Row, SkippedError, interleave, ratio
from benchmarks.pipeline import PARTITIONS, SYMBOLS
from streambot.data.segments import Segments, open_segments
from streambot.env.sources import StoredSource
from streambot.env.vector_env import VectorTradingEnv
from streambot.wiring.environments import split_settings, stored_source

TARGET_TICKS_PER_S = 1e6
TARGET_STEPPING = 0.9
TARGET_ANONYMOUS_MIB = 64.0
TARGET_FAULTS = 8.0
ENVIRONMENTS = 1_024
STEPPED = 200_000
RESETS = 2_000
RUN = "bench-store"
_COLUMNS = ("ticks", "bars", "window", "slow")


def build(folder: Path, **settings: object) -> StoredSource:
    """The store of what `settings` name, kept under `folder` and not in this user's cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        split = split_settings(settings)
        return stored_source(split.simulation, split.env.features, folder)
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


class _Maker:
    """Makes the same store again and again; `source` is the last one."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self._folder, self._settings = folder, settings
        self.source: StoredSource | None = None

    def __call__(self) -> int:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self.source = build(self._folder, **self._settings)
        return len(self.segments.ticks)

    @property
    def segments(self) -> Segments:
        assert self.source is not None
        return open_segments(self.source.folder)


def _read_and_write(data: Path, maker: _Maker, scratch: Path) -> Callable[[], int]:
    """The floor: the file read, and the bytes of the store written, with nothing in between."""

    def work() -> int:
        pq.read_table(data)
        segments = maker.segments
        with scratch.open("wb") as out:
            for name in _COLUMNS:
                out.write(np.ascontiguousarray(getattr(segments, name)).view(np.uint8).data)
        return len(segments.ticks)

    return work


def from_parquet(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Ticks a second from bars in Parquet to a store on disk, and steps a second from it."""
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        home = Path(folder)
        data, registry = _data(home, quick)
        maker = _Maker(home / "store", data=str(data), registry=str(registry))
        maker()
        contestants: dict[str, Callable[[], int]] = {
            "streambot": maker,
            "read and write": _read_and_write(data, maker, home / "scratch"),
        }
        rates = interleave(contestants, rounds)
        yield _built("segment store from Parquet, 8 instruments", rates, maker)
        yield _stepping("stepping from Parquet", {"from Parquet": maker}, rounds, quick)


def from_kafka(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """The same from a run that was recorded on Apache Kafka."""
    from benchmarks.kafka import broker

    async def measure(home: Path) -> list[Row]:
        async with broker(home) as servers:
            return await asyncio.to_thread(recorded, servers, home, rounds, quick)

    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        yield from asyncio.run(measure(Path(folder)))


def recorded(servers: str, home: Path, rounds: int, quick: bool) -> list[Row]:
    """Rows of a run that is recorded on the broker at `servers` first.

    Both stores must hold the same ticks and bars.
    """
    data, registry = _data(home, quick)
    flags = ["--data", str(data), "--registry", str(registry), "--speed", "max", "--policy", "flat"]
    flags += ["--partitions", str(PARTITIONS), "--bootstrap-servers", servers, "--run", RUN]
    simulate(*flags, runs_dir=home / "runs")
    parquet = _Maker(home / "parquet", data=str(data), registry=str(registry))
    kafka = _Maker(home / "kafka", from_run=RUN, bootstrap_servers=servers, registry=str(registry))
    rates = interleave({"from Kafka": kafka, "from Parquet": parquet}, rounds)
    for name in _COLUMNS:
        mine, theirs = getattr(kafka.segments, name), getattr(parquet.segments, name)
        assert np.array_equal(mine, theirs), f"both stores must have the same {name}"
    checks = [
        Check("from Kafka", rates["from Kafka"], at_least=TARGET_TICKS_PER_S, unit="ticks/s"),
        ratio(rates, "from Kafka", "from Parquet"),
    ]
    note = f"{len(kafka.segments.ticks):,} ticks, equal to those from Parquet"
    row = Row("segment store from a recorded run", "ticks per CPU second", rates, checks, [note])
    both = {"recorded run": kafka, "from Parquet": parquet}
    return [row, _stepping("stepping from a recorded run", both, rounds, quick)]


def _data(home: Path, quick: bool) -> tuple[Path, Path]:
    data, registry = home / "bars.parquet", home / "instruments.yaml"
    write_bars(data, SYMBOLS, 20_000 if quick else 200_000, MINUTE_NS)
    write_registry(registry, SYMBOLS)
    return data, registry


def _built(what: str, rates: dict[str, list[float]], maker: _Maker) -> Row:
    segments = maker.segments
    checks = [
        Check("streambot", rates["streambot"], at_least=TARGET_TICKS_PER_S, unit="ticks/s"),
        ratio(rates, "streambot", "read and write"),
    ]
    per_tick = segments.nbytes / len(segments.ticks)
    note = f"{len(segments.ticks):,} ticks, {per_tick:.0f} bytes each, bars and features included"
    return Row(what, "ticks per CPU second", rates, checks, [note])


def _stepping(what: str, makers: dict[str, _Maker], rounds: int, quick: bool) -> Row:
    """Steps of 1,024 environments from stores, against the same columns read into memory."""
    steps = (STEPPED if quick else 10 * STEPPED) // ENVIRONMENTS

    def contestant(env: VectorTradingEnv) -> Callable[[], int]:
        return lambda: play_vector(env, steps)

    contestants = {}
    for name, maker in makers.items():
        contestants[name] = contestant(_env(StoredSource(maker.segments.folder or Path())))
    first = next(iter(makers))
    contestants["columns in memory"] = contestant(_env(_InMemory(makers[first].segments)))
    rates = interleave(contestants, rounds)
    others = [name for name in contestants if name != first]
    # What is mapped has small pages; that costs a little, and is shared by all processes.
    targets = {name: TARGET_STEPPING if name in makers else None for name in others}
    checks = [ratio(rates, first, name, at_least=targets[name]) for name in others]
    return Row(f"{what}, {ENVIRONMENTS:,} environments", UNIT, rates, checks)


class _InMemory(NamedTuple):
    segments: Segments

    def open(self, features: object) -> Segments:
        del features
        columns: dict[str, Any] = {
            name: np.array(column)
            for name, column in self.segments._asdict().items()
            if isinstance(column, np.ndarray)
        }
        return self.segments._replace(**columns, folder=None)


def _env(source: Any) -> VectorTradingEnv:  # noqa: ANN401  # any source
    return VectorTradingEnv(source, ENVIRONMENTS, capital=CAPITAL)


def memory(quick: bool = False) -> Iterator[Row]:
    """Resident memory of stepping 1,024 environments over hundreds of instruments.

    A tenth of the bars and all of them: anonymous memory and the cost of a reset must not grow.
    """
    instruments, bars = (20, 10_000) if quick else (200, 20_000)
    seen = []
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        home = Path(folder)
        symbols = [f"S{number}" for number in range(instruments)]
        registry = home / "instruments.yaml"
        write_registry(registry, symbols)
        for length in (bars // 10, bars):
            data = home / "bars.parquet"
            write_bars(data, symbols, length, MINUTE_NS)
            store = build(home / f"store{length}", data=str(data), registry=str(registry))
            data.unlink()
            seen.append(_watched(store.folder))
    small, large = seen
    mib = 2.0**20
    anonymous = [(large["anonymous"] - small["anonymous"]) / mib]
    checks = [
        Check("anonymous memory, growth by opening and stepping", [large["anonymous"] / mib],
              at_most=TARGET_ANONYMOUS_MIB, unit="MiB"),
        Check("more than over a tenth of the bars", anonymous, at_most=8.0, unit="MiB"),
        Check("mapped pages of the store in memory", [large["mapped"] / mib], unit="MiB"),
        Check("page faults of a reset, store just opened", [large["faults"]], at_most=TARGET_FAULTS),
        Check("time of a reset / over a tenth of the bars", [large["reset_s"] / small["reset_s"]], unit="x"),
    ]  # fmt: skip
    notes = [
        f"{instruments} x {bars:,} bars, {large['ticks']:,} ticks, a store of {large['bytes'] / mib:,.0f} MiB",
        f"a reset takes {large['reset_s'] * 1e6:.1f} us ({small['reset_s'] * 1e6:.1f} us over a tenth of the bars)",
        f"{large['rate']:,.0f} environment steps per CPU second",
        "mapped pages can be taken back by the system at any time: they are no memory that a training needs",
    ]
    yield Row(
        f"memory of {STEPPED:,} steps of {ENVIRONMENTS:,} environments", "MiB", {}, checks, notes
    )


def _watched(store: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.env_store", str(store)], cwd=ROOT, capture_output=True,
        text=True, env=environment(), check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SkippedError(f"stepping failed: {last_words(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _resident() -> tuple[int, int]:
    """Anonymous pages and pages of files of this process, bytes."""
    found = {}
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name in {"RssAnon", "RssFile"}:
                found[name] = int(value.split()[0]) * 1024
        return found["RssAnon"], found["RssFile"]
    except (OSError, KeyError):
        raise SkippedError("no /proc/self/status here") from None


def _watch(folder: Path) -> dict[str, float]:
    """Open a store and step; what that added to the memory of this process."""
    from benchmarks.env import vector_env

    play_vector(vector_env(2), 10)  # imports and compiled code are the baseline
    before = _resident()
    alone = VectorTradingEnv(StoredSource(folder), capital=CAPITAL)
    core = alone.core
    core.seed(0, 1)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(RESETS):
        core.reset()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    core.seed(0, 1)  # the same episodes: their pages are mapped now
    began = time.process_time()
    for _ in range(RESETS):
        core.reset()
    reset_s = (time.process_time() - began) / RESETS
    del alone, core  # its mapping would count a second time
    env = _env(StoredSource(folder))
    began = time.process_time()
    stepped = play_vector(env, STEPPED // ENVIRONMENTS)
    rate = stepped / (time.process_time() - began)
    after = _resident()
    return {
        "anonymous": after[0] - before[0],
        "mapped": after[1] - before[1],
        "reset_s": reset_s,
        "faults": faults / RESETS,
        "rate": rate,
        "ticks": len(env.core.segments.ticks),
        "bytes": env.core.segments.nbytes,
    }


if __name__ == "__main__":
    print(json.dumps(_watch(Path(sys.argv[1]))))
