"""Apache Kafka, exactly once: throughput, latency at live pace, recovery after a kill.

The broker runs on the same cores as everything else, from `$KAFKA_HOME`. Its limit is the bare client
moving the same frames, and results of the same size, with `acks=all`, in one process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.bars import MINUTE_NS
from benchmarks.command import COMMAND, environment, last_words, simulate
from benchmarks.dataset import write_bars, write_registry
from benchmarks.harness import MIN_ROUNDS, Check, Row, SkippedError, ratio
from benchmarks.pipeline import PARTITIONS, STREAMS, SYMBOLS, frames_of
from benchmarks.raw_log import raw_clients
from streambot.adapters.broker import ApacheBroker
from streambot.adapters.kafka import APACHE, KafkaLog
from streambot.domain.config import Resolved, SimulationConfig, parse_speed
from streambot.replay.emission import Published
from streambot.report.progress import SilentObserver
from streambot.streams.ports import Source, TopicPartition
from streambot.wiring.publishing import run_publishing
from streambot.wiring.scenario import with_origins
from streambot.wiring.stopping import StopRequest

TARGET_TICKS_PER_S = 2e6
TARGET_OF_RAW = 0.6
TARGET_P50_MS, TARGET_P99_MS = 60.0, 160.0
TARGET_RECOVERY_S = 3.0
LIVE_SPEED = "120x"
LIVE_MINUTES = 60
WARM_S = 10.0
"""Frames of the first seconds, in which the worker starts, do not count."""
TRADER = """
from streambot.domain.events import CLOSE, buy


class Flip:
    def on_bar(self, bar, account):
        return CLOSE if account.position else buy(1)

    def state(self):
        return None

    def restore(self, state):
        pass
"""
_LIMIT_S = 120.0


def _home() -> Path:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        raise SkippedError("$KAFKA_HOME is not set")
    return Path(home)


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[str]:
    """A broker of `$KAFKA_HOME` while the block runs; its address."""
    async with ApacheBroker(_home(), folder / "broker") as broker:
        yield broker.address


def throughput(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Ticks a second of `simulate` on Apache Kafka, and of the bare client over the same bytes."""
    bars = 50_000 if quick else 400_000
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        yield asyncio.run(_throughput(Path(folder), bars, rounds))


async def _throughput(home: Path, bars: int, rounds: int) -> Row:
    data, registry = home / "bars.parquet", home / "instruments.yaml"
    write_bars(data, SYMBOLS, bars, MINUTE_NS)
    write_registry(registry, SYMBOLS)
    frames = frames_of(data, registry)
    async with broker(home) as servers:
        flags = ["--data", str(data), "--registry", str(registry), "--speed", "max"]
        flags += ["--partitions", str(PARTITIONS), "--policy", "sma-cross"]
        flags += ["--bootstrap-servers", servers]

        async def ours(number: int) -> tuple[int, float, int]:
            runs = home / f"runs{number}"
            name = f"bench{number}"
            done = await asyncio.to_thread(simulate, *flags, "--run", name, runs_dir=runs)
            out = sum((runs / name / stream).stat().st_size for stream in STREAMS)
            async with await KafkaLog.open(servers) as log:
                topics = await log.streams()
                await log.delete([topic for topic in topics if f".{name}." in topic])
            return done.summary["ticks"], done.summary["ticks_per_s"], out

        ticks, _, out_bytes = await ours(0)
        await raw_clients(servers, APACHE, frames, out_bytes)
        rates: dict[str, list[float]] = {"streambot": [], "raw aiokafka": []}
        for number in range(1, rounds + 1):
            rates["streambot"].append((await ours(number))[1])
            seconds = await raw_clients(servers, APACHE, frames, out_bytes)
            rates["raw aiokafka"].append(ticks / seconds)
    size = sum(map(len, (value for mine in frames for value in mine)))
    return Row(
        "Parquet to fills and P&L, Apache Kafka, exactly once, 8 instruments, 4 partitions",
        "ticks/s",
        rates,
        [
            Check("streambot", rates["streambot"], at_least=TARGET_TICKS_PER_S, unit="ticks/s"),
            ratio(rates, "streambot", "raw aiokafka", at_least=TARGET_OF_RAW),
        ],
        [
            f"{ticks:,} ticks, {size / 2**20:,.0f} MiB of frames, {out_bytes / 2**20:,.1f} MiB of results"
        ],
    )


def latency(rounds: int = MIN_ROUNDS) -> Iterator[Row]:
    """From the emission of a tick to the moment at which a reader sees the fill that it caused.

    Replay, worker and reader are three processes, as people have them.
    """
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        yield asyncio.run(_latency(Path(folder), rounds))


async def _latency(home: Path, rounds: int) -> Row:
    data, registry = home / "bars.parquet", home / "instruments.yaml"
    write_bars(data, SYMBOLS, LIVE_MINUTES, MINUTE_NS)
    write_registry(registry, SYMBOLS)
    (home / "flip.py").write_text(TRADER)
    p50, p99, trips = [], [], []
    seen_all = 0
    async with broker(home) as servers:
        for number in range(rounds):
            run = f"live{number}"
            config = SimulationConfig(
                data=(str(data),), registry=str(registry), speed=parse_speed(LIVE_SPEED),
                policy=f"{home}/flip.py:Flip", bootstrap_servers=servers, run=run, runs_dir=str(home / "runs"),
                partitions=PARTITIONS, max_quantity=10,
            )  # fmt: skip
            seen = await _seen(with_origins(config), run, servers, home)
            if len(seen) < 20:
                raise SkippedError(f"only {len(seen)} fills were seen")
            cuts = statistics.quantiles(seen, n=100)
            p50.append(cuts[49] * 1e3)
            p99.append(cuts[98] * 1e3)
            trips.append(await _round_trip(servers, run) * 1e3)
            seen_all += len(seen)
    return Row(
        "tick to visible fill at live pace, Apache Kafka, three processes",
        "ms",
        {"one record, produced and received": trips},
        [
            Check("p50", p50, at_most=TARGET_P50_MS, unit="ms"),
            Check("p99", p99, at_most=TARGET_P99_MS, unit="ms"),
        ],
        [f"{LIVE_SPEED}, {seen_all} records of fills over {rounds} rounds"],
    )


async def _seen(settings: Resolved, run: str, servers: str, home: Path) -> list[float]:
    """Seconds from emission to sight, for every record of fills."""
    emitted: dict[tuple[int, int], int] = {}

    def published(frame: Published) -> None:
        emitted[frame.partition, frame.frame_seq] = frame.at

    worker = await _worker(run, servers, home)
    found: list[float] = []
    try:
        async with await KafkaLog.open(servers) as log:
            replay = asyncio.create_task(
                run_publishing(
                    settings, SilentObserver(), StopRequest(), home, on_published=published
                )
            )
            await _until_there(log, f"streambot.{run}.fills", replay)
            source = await log.source(
                {
                    TopicPartition(f"streambot.{run}.fills", p): "beginning"
                    for p in range(PARTITIONS)
                }
            )
            idle = 0
            while not replay.done() or idle < 4:
                idle = 0 if (read := await _read_times(source, emitted, found)) else idle + 1
                del read
            await replay
    finally:
        await _end(worker)
    return found


async def _read_times(
    source: Source, emitted: dict[tuple[int, int], int], found: list[float]
) -> int:
    records = await source.read(timeout_s=0.5)
    now = time.monotonic_ns()
    for record in records:
        at = emitted.get((record.partition, int(dict(record.headers)["frame_seq"])))
        if at is not None and at > min(emitted.values()) + WARM_S * 1e9:
            found.append((now - at) / 1e9)
    return len(records)


async def _worker(run: str, servers: str, home: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND, "worker", "--run", run, "--bootstrap-servers", servers, "--wait", "60s",
        "--no-rollup", "--quiet", "--runs-dir", str(home / "runs"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _round_trip(servers: str, run: str) -> float:
    """Seconds from handing a record over to reading it, the median of many."""
    from streambot.streams.ports import StreamSpec

    name = f"round-trip.{run}"
    async with await KafkaLog.open(servers) as log:
        await log.create([StreamSpec(name=name)])
        sink, source = await log.sink(), await log.source({TopicPartition(name, 0): "beginning"})
        times = []
        for _ in range(100):
            began = time.perf_counter()
            await sink.append(name, 0, b"x", timestamp_ms=0)
            while not await source.read(timeout_s=1.0):
                pass
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def recovery(rounds: int = MIN_ROUNDS) -> Iterator[Row]:
    """From `kill -9` of a worker, and its start by a supervisor, to the next committed fill."""
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        yield asyncio.run(_recovery(Path(folder), rounds))


async def _recovery(home: Path, rounds: int) -> Row:
    data, registry = home / "bars.parquet", home / "instruments.yaml"
    write_bars(data, SYMBOLS, 20_000, MINUTE_NS)
    write_registry(registry, SYMBOLS)
    took: list[float] = []
    async with broker(home) as servers:
        command = [
            *COMMAND, "replay", "--data", str(data), "--registry", str(registry), "--speed", "6000x",
            "--policy", "random", "--run", "kill", "--bootstrap-servers", servers,
            "--runs-dir", str(home / "runs"), "--quiet",
        ]  # fmt: skip
        replay = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
        )
        worker = await _worker("kill", servers, home)
        try:
            async with await KafkaLog.open(servers) as log:
                source = await _fills_of(log, replay)
                for _ in range(rounds):
                    await _next_fill(source)
                    worker.send_signal(signal.SIGKILL)
                    began = time.perf_counter()
                    await worker.wait()
                    while await source.read(timeout_s=0.05):  # committed before the kill
                        pass
                    worker = await _worker("kill", servers, home)
                    await _next_fill(source)
                    took.append(time.perf_counter() - began)
        finally:
            for process in (worker, replay):
                await _end(process)
    return Row(
        "recovery after kill -9 of a worker: next committed fill",
        "s",
        {},
        [Check("from the kill", took, at_most=TARGET_RECOVERY_S, unit="s")],
        ["the start of Python and the reading of compiled code included"],
    )


async def _until_there(log: KafkaLog, topic: str, writer: asyncio.Future[Any]) -> None:
    limit = time.monotonic() + _LIMIT_S
    while topic not in await log.streams():
        if writer.done() or time.monotonic() > limit:
            raise SkippedError(f"{topic} did not come")
        await asyncio.sleep(0.05)


async def _fills_of(log: KafkaLog, replay: asyncio.subprocess.Process) -> Source:
    ended = asyncio.ensure_future(replay.wait())
    try:
        await _until_there(log, "streambot.kill.fills", ended)
    except SkippedError:
        said = await replay.stderr.read() if replay.stderr is not None else b""
        raise SkippedError(f"the replay did not start: {last_words(said.decode())}") from None
    return await log.source(
        {TopicPartition("streambot.kill.fills", p): "end" for p in range(PARTITIONS)}
    )


async def _next_fill(source: Source) -> None:
    limit = time.monotonic() + _LIMIT_S
    while not any(b"OrderFilled" in record.value for record in await source.read(timeout_s=0.5)):
        if time.monotonic() > limit:
            raise SkippedError(f"no fill within {_LIMIT_S:g} s")
