"""A run on a broker whose streams a test writes, and what its roll-up should say: for tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import numpy as np

from streambot.adapters.kafka import KafkaLog
from streambot.domain.errors import DecodeError
from streambot.processor.durable import write_atomic
from streambot.processor.run_state import RunRecord, RunState
from streambot.report.rollup import RolledRun, Rollup
from streambot.streams.dead_letter import dead_letter
from streambot.streams.ports import Record, StreamSpec
from streambot.streams.reading import read_to_end
from tests.rollups import INSTRUMENTS, made, mark

FAUST = Path(sys.executable).parent / "faust"
LIMIT_S = 60.0
STOP_S = 5.0
"""A roll-up ends within two seconds by its own limits; the rest is for a machine that has much else to do."""
Said = dict[tuple[str, str], list[bytes]]


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll, with a limit."""
    limit = time.monotonic() + LIMIT_S
    while not await holds():
        assert time.monotonic() < limit, what
        await asyncio.sleep(0.02)


class World:
    """A run of three partitions.

    Args:
        log: on its broker.
        folder: of the run.
        barriers: how many it has.
    """

    def __init__(self, log: KafkaLog, folder: Path, name: str, barriers: int, seed: int) -> None:
        self.log = log
        self.folder = folder
        self.run: RolledRun = msgspec.structs.replace(made((0, 1, 2, 0), limit_bp=1_000), run=name)
        self.barriers = barriers
        self.topics = {
            stream: f"streambot.{name}.{stream}"
            for stream in ("pnl", "fills", "dead-letter", "portfolio", "alerts")
        }
        self._rng = np.random.default_rng(seed)
        self._core = Rollup(self.run)
        self.expected: Said = {}

    async def create(self) -> None:
        """The streams that a run makes, and its `run.json`, running."""
        await self.log.create(
            [StreamSpec(name=self.topics[s], partitions=3) for s in ("pnl", "fills", "dead-letter")]
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_record(RunState.RUNNING)

    def write_record(self, state: RunState) -> None:
        record = RunRecord(
            run=self.run.run, state=state, pid=os.getpid(), broker=self.log.servers,
            embedded=False, topics={s: self.topics[s] for s in ("pnl", "fills", "dead-letter")},
            started_at="2020-12-07T00:00:00Z", manifest=msgspec.Raw(msgspec.json.encode(self.run)),
        )  # fmt: skip
        write_atomic(self.folder / "run.json", msgspec.json.encode(record))

    def records(self) -> list[tuple[str, int, bytes, tuple, int]]:
        """Everything the run writes: stream, partition, value, headers, time in ms."""
        out: list[tuple[str, int, bytes, tuple, int]] = []
        equity, halted = [100_000] * 4, [False] * 4
        for k in range(self.barriers):
            for p in range(3):
                lines = []
                for n in (n for n in range(4) if self.run.partition_of[n] == p):
                    equity[n] = max(40_000, equity[n] + int(self._rng.integers(-9_000, 9_001)))
                    halted[n] = halted[n] or bool(self._rng.random() < 0.002)
                    seq = k if k < self.barriers // 2 or n != 1 else k + 3  # a gap in BBB
                    lines.append(mark(n, seq, k, equity[n], halted=halted[n]))
                out.append(("pnl", p, b"".join(lines), (("frame_seq", str(k).encode()),), k))
                if k % 40 == 7:
                    breach = (
                        b'{"kind":"SlotBreached","instrument":"%s","seq":%d,"ts_event":%d,'
                        b'"barrier":%d,"reason":"drawdown","on_breach":"alert"}\n'
                        % (INSTRUMENTS[p].symbol.encode(), k // 40, k * 100, k)
                    )
                    out.append(("fills", p, breach, (), k))
                if k % 25 == 3:
                    bad = Record("streambot.r.ticks", p, k, k, None, b"bad %d" % k, ())
                    letter = dead_letter(bad, DecodeError("no frame", reason="magic"))
                    out.append(("dead-letter", p, letter.value, letter.headers, k))
        return out

    def expect(self, stream: str, partition: int, value: bytes, headers: tuple, ms: int) -> None:
        """What an undisturbed roll-up says of one more record."""
        if stream == "pnl":
            self._keep(self._core.marks(partition, value))
        elif stream == "fills":
            self._keep(self._core.fills(value))
        else:
            said = {name: text.decode() for name, text in headers}
            source = (said["stream"], int(said["partition"]), int(said["offset"]))
            self._keep(self._core.dead_letter(partition, source, said["reason"], ms * 1_000_000))

    def expect_end(self) -> None:
        self._keep(self._core.finish())

    def _keep(self, lines) -> None:
        for line in lines:
            self.expected.setdefault((line.stream, line.series), []).append(line.data)

    async def raw(self) -> list[tuple[str, bytes]]:
        """Lines of the outputs as they stand on the broker, repeats included."""
        there = await self.log.streams()
        return [
            (stream, record.value)
            for stream in ("portfolio", "alerts")
            if self.topics[stream] in there
            async for batch in read_to_end(self.log, self.topics[stream])
            for record in batch
        ]

    async def said(self) -> Said:
        """What a reader sees that drops numbers it has seen."""
        return by_series(await self.raw())

    async def is_complete(self) -> bool:
        return (await self.said()) == self.expected

    async def rolled(self) -> int:
        """Records of `portfolio`."""
        there = await self.log.streams()
        topic = self.topics["portfolio"]
        return (await self.log.end_offsets(topic))[0] if topic in there else 0


def by_series(lines: list[tuple[str, bytes]]) -> Said:
    """Lines by stream and series, repeats dropped by number; a hole fails."""
    found: Said = {}
    for stream, line in lines:
        said = msgspec.json.decode(line)
        series = found.setdefault((stream, said.get("series") or said["currency"]), [])
        if said["seq"] >= len(series):
            assert said["seq"] == len(series), f"a hole before {line!r}"
            series.append(line)
    return found


def start_worker(world: World, cwd: Path, run: str = "") -> subprocess.Popen[str]:
    """`faust -A streambot.adapters.faust_app worker` for the run's folder, or as `run` names it."""
    cwd.mkdir(exist_ok=True)
    return subprocess.Popen(
        [FAUST, "-A", "streambot.adapters.faust_app", "worker"],
        cwd=cwd, env={**os.environ, "STREAMBOT_RUN": run or str(world.folder)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


async def ended(worker: subprocess.Popen[str]) -> str:
    """What it said, once it has ended."""
    out, _ = await asyncio.to_thread(worker.communicate, timeout=LIMIT_S)
    return out
