"""What is known of a run while it goes: counts, speed, latency, drawdown; told to its observer.

Everything here happens on the event loop, a few microseconds a frame.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streambot.report.drawdown import PortfolioDrawdown, SlotCapital
from streambot.report.progress import Progress
from streambot.report.quantiles import WallTimes
from streambot.report.summary import add_money

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streambot.data.timeline import Plan
    from streambot.processor.manifest import RunManifest
    from streambot.processor.runner import Processed, TaskRunner
    from streambot.processor.tally import SlotStatus
    from streambot.replay.backlog import Backlog
    from streambot.replay.service import Published, ReplayService
    from streambot.report.progress import Observer

_NANOS = 1e9


class _Mark(msgspec.Struct, gc=False):
    instrument: str
    barrier: int
    equity: str


class Watch:
    """Listens to the replay and to the runners of one run.

    Args:
        manifest: the run.
        plan: what it replays.
        backlog: frames between replay and engine.
        observer: told of records and progress.
        ticks_before: ticks processed before this process took the run up.
        keeps_gaps: closed hours count as market time of the replay.
    """

    def __init__(
        self,
        manifest: RunManifest,
        plan: Plan,
        backlog: Backlog,
        observer: Observer,
        *,
        ticks_before: int,
        keeps_gaps: bool,
    ) -> None:
        self._manifest = manifest
        self._plan = plan
        self._backlog = backlog
        self._observer = observer
        self._ticks_before = ticks_before
        self._bars = sum(r.bars * r.timeframe_ns // plan.decision_ns for r in plan.instruments)
        self._market_ns = plan.open_ns + (plan.closed_ns if keeps_gaps else 0)
        self._number = {i.symbol: n for n, i in enumerate(manifest.instruments)}
        self._published_at: dict[tuple[int, int], int] = {}
        self._marks = msgspec.json.Decoder(_Mark)
        self._late_ns: int | None = None
        self._started: int | None = None
        self._stopped: int | None = None
        self._replay: ReplayService | None = None
        self.latency = WallTimes()
        self.lateness = WallTimes()
        self.drawdown = PortfolioDrawdown(
            [
                SlotCapital(i.currency, capital, i.money_decimals)
                for i, capital in zip(manifest.instruments, manifest.capital, strict=True)
            ],
            manifest.partitions,
        )

    def follow(self, replay: ReplayService) -> None:
        """Tell how this replay stands as well."""
        self._replay = replay

    def published(self, frame: Published) -> None:
        """A frame was handed to the log."""
        if self._started is None:
            self._started = frame.at
        self._published_at[frame.partition, frame.frame_seq] = frame.at
        if frame.late_ns is not None:
            self._late_ns = frame.late_ns
            self.lateness.add(frame.late_ns)

    def processed(self, frame: Processed) -> None:
        """The engine is through with a frame."""
        self._backlog.processed(1, frame.size)
        if "fills" not in frame.recorded:
            self._published_at.pop((frame.partition, frame.frame_seq), None)
        self.drawdown.add(frame.partition, frame.equity, frame.closed)
        for stream, lines in frame.recorded.items():
            self._observer.recorded(stream, frame.partition, lines)

    def stored(self, partition: int, frame_seq: int, at: int) -> None:
        """The fills of a frame are acknowledged."""
        published = self._published_at.pop((partition, frame_seq), None)
        if published is not None:
            self.latency.add(at - published)

    def recount(self, partition: int, lines: bytes, closed: int | None = None) -> None:
        """Follow the portfolio through lines of `pnl` that an earlier process wrote.

        Args:
            partition: whose lines they are.
            lines: in their order.
            closed: barriers that the partition has closed; None: as the last line shows.
        """
        marks = self._marks.decode_lines(lines) if lines else []
        if closed is None:
            closed = marks[-1].barrier + 1 if marks else 0
        columns = [
            (mark.barrier, self._number[mark.instrument], int(mark.equity.replace(".", "")))
            for mark in marks
        ]
        self.drawdown.add(partition, np.array(columns, np.int64).reshape(-1, 3).T.copy(), closed)

    def found_committed(self, stream: str, partition: int, lines: bytes) -> None:
        """A restart found outputs that were committed, and that nobody here was told of."""
        if stream == "pnl":
            self.recount(partition, lines)
        self._observer.recorded(stream, partition, lines)

    def end(self) -> None:
        """The last frame is through: the wall time of the run stops."""
        self._stopped = time.monotonic_ns()

    @property
    def wall_s(self) -> float:
        """Seconds since the first frame was published."""
        if self._started is None:
            return 0.0
        return ((self._stopped or time.monotonic_ns()) - self._started) / _NANOS

    def ticks_per_s(self, ticks: int) -> float:
        """Ticks processed by this process, per second."""
        wall = self.wall_s
        return (ticks - self._ticks_before) / wall if wall > 0 else 0.0

    def speed(self, ticks: int) -> float:
        """Market seconds per second of wall time, without pauses; its share is that of ticks done."""
        paused = 0 if self._replay is None else self._replay.stood_ns
        wall = self.wall_s - paused / _NANOS
        if wall <= 0 or not self._plan.ticks:
            return 0.0
        done = (ticks - self._ticks_before) / self._plan.ticks
        return done * self._market_ns / _NANOS / wall

    def progress(self, runners: Sequence[TaskRunner]) -> Progress:
        """Where the run is."""
        slots = [slot for runner in runners for slot in runner.status]
        ticks = sum(slot.ticks for slot in slots)
        watermarks = [w for runner in runners if (w := runner.watermark) is not None]
        return Progress(
            event_time=min(watermarks, default=self._plan.first_ns),
            bars_done=sum(slot.bars for slot in slots),
            bars_total=self._bars,
            ticks=ticks,
            done=min(1.0, ticks / self._plan.ticks) if self._plan.ticks else 1.0,
            wall_s=round(self.wall_s, 3),
            speed_effective=self.speed(ticks),
            ticks_per_s=self.ticks_per_s(ticks),
            late_ms=None if self._late_ns is None else round(self._late_ns / 1e6, 3),
            frames_behind=self._backlog.frames,
            fills=sum(slot.fills for slot in slots),
            rejected=sum(sum(slot.rejected.values()) for slot in slots),
            open_positions=sum(slot.lots != 0 for slot in slots),
            equity=self._equity(slots),
            status="running" if self._replay is None else self._replay.status.value,
            speed_asked=None if self._replay is None else str(self._replay.speed),
        )

    def _equity(self, slots: Iterable[SlotStatus]) -> dict[str, str]:
        amounts: dict[str, list[tuple[int, int]]] = {}
        for slot in slots:
            instrument = self._manifest.instruments[self._number[slot.symbol]]
            rows = amounts.setdefault(instrument.currency, [])
            rows.append((slot.equity, instrument.money_decimals))
        return {currency: add_money(rows) for currency, rows in sorted(amounts.items())}
