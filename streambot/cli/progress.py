"""What a person sees while a run goes: a banner, then a bar on a terminal, else a line every 10 s.

All of it is narration, on stderr. When nobody reads it any more (a closed pipe) the run is asked to
stop, as with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from streambot.cli.console import console, on_terminal, say, terminal_width, warn
from streambot.cli.fill_teller import FillTeller
from streambot.cli.human import count, duration, flow, moment, money, percent, place, span, speed
from streambot.cli.keyboard import HINT
from streambot.domain.replay_settings import parse_speed
from streambot.domain.units import NANOS_PER_SECOND
from streambot.domain.words import few

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.live import Live

    from streambot.cli.keyboard import Keyboard
    from streambot.report.progress import Progress, RunPlan
    from streambot.report.summary import Summary

SECONDS_BETWEEN_LINES = 10.0
LONG_RUN_S = 600
MOST_WARNINGS = 8
"""All of them stand in `summary.json`."""


class ConsoleObserver:
    """Tells a run to the person at the terminal.

    Args:
        stop: asks the run to stop; called when stderr is closed.
        quiet: tell warnings only.
        clock: seconds, monotonic.

    Attributes:
        plan: of the run that goes, or went last.
        keys: listened to while a paced run goes; None: nobody listens.
    """

    def __init__(
        self,
        stop: Callable[[], None],
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan: RunPlan | None = None
        self.keys: Keyboard | None = None
        self._stop = stop
        self._quiet = quiet
        self._clock = clock
        self._live: Live | None = None
        self._said_at = clock()
        self._left = TimeLeft()
        self._warned: set[str] = set()
        self._fills = FillTeller(clock)

    def planned(self, plan: RunPlan) -> None:
        """Print the banner, and start the bar on a terminal."""
        self.plan = plan
        self._left = TimeLeft()
        untold = len(self._warned) - MOST_WARNINGS
        if untold > 0:
            with self._reader():
                warn(f"and {untold:,} more like these, all in {place(plan.folder)}/summary.json")
        if self._quiet:
            return
        with self._reader():
            for line in banner(plan, terminal_width(stderr=True)):
                say(line)
            if on_terminal(stderr=True):
                from rich.live import Live

                self._live = Live(
                    console=console(stderr=True),
                    auto_refresh=False,
                    transient=True,
                )
                self._live.start()
            if self.keys is not None and plan.wall_ns is not None and self.keys.start():
                say(HINT, style="dim")

    def progressed(self, progress: Progress) -> None:
        """Redraw the bar, or print a line when ten seconds have gone."""
        if self.plan is None or self._quiet:
            return
        with self._reader():
            if self._live is not None:
                left = self._left(self.plan, progress)
                self._live.update(_bar(self.plan, progress, left), refresh=True)
            elif self._clock() - self._said_at >= SECONDS_BETWEEN_LINES:
                self._said_at = self._clock()
                say(
                    f"{percent(progress.done):>5}  {_where(self.plan, progress)}  {_state(progress)}"
                )

    def recorded(self, stream: str, partition: int, lines: bytes) -> None:
        """Tell fills of a paced run as they happen, a few a second at most."""
        del partition
        if stream == "alerts":
            self._alert(lines)
            return
        if self.plan is None or self._quiet or stream != "fills" or self.plan.wall_ns is None:
            return
        with self._reader():
            self._fills.tell(self.plan, lines)

    def _alert(self, lines: bytes) -> None:
        """Told like a warning, also to those who want to be told nothing else."""
        import msgspec

        for line in lines.splitlines():
            said = msgspec.json.decode(line)
            over = "" if said["kind"] == "AlertRaised" else " (over)"
            self.warned(f"{said['message']}{over}")

    def say(self, text: str) -> None:
        """A word of narration above the bar."""
        with self._reader():
            say(text)

    def warned(self, message: str) -> None:
        """Print a warning, each text once."""
        if message in self._warned:
            return
        self._warned.add(message)
        if len(self._warned) <= MOST_WARNINGS:
            with self._reader():
                warn(message)

    def close(self) -> None:
        """Take the bar away; the summary follows."""
        if self.keys is not None:
            self.keys.stop()
        live, self._live = self._live, None
        with self._reader():
            if live is not None:
                live.stop()
            if self.plan is not None:
                self._fills.close(self.plan)

    def sought(self, summary: Summary, successor: str) -> None:
        """A seek has ended the run: say what it came to; another one is about to start."""
        self.close()
        zone_name = self.plan.timezone if self.plan is not None else "UTC"
        self.plan = None
        if not self._quiet:
            with self._reader():
                for line in essentials(summary, zone_name):
                    say(line)
                say(f"run {successor} goes on")

    @contextlib.contextmanager
    def _reader(self) -> Iterator[None]:
        """An observer must not raise: a closed stderr ends the run instead."""
        try:
            yield
        except (OSError, ValueError):
            self._live = None
            self._stop()


def banner(plan: RunPlan, width: int | None = None) -> list[str]:
    """What is about to happen, how long it will take, and where it goes."""
    blocks = [
        [
            f"run {plan.run}",
            few(plan.instruments),
            count(plan.sessions, "session"),
            count(plan.bars, "bar"),
            count(plan.ticks, "tick"),
        ],
        [
            span(plan.first_ts, plan.last_ts, plan.timezone),
            f"policy {plan.policy}",
            count(plan.partitions, "partition"),
        ],
        [plan.broker, *plan.delivery.split("; "), f"files in {place(plan.folder)}"],
        _how_long(plan),
    ]
    if plan.resumed_at_barrier is not None:
        blocks.insert(1, [f"resumed: goes on at barrier {plan.resumed_at_barrier:,}"])
    if plan.wall_ns is not None and plan.wall_ns > LONG_RUN_S * 1_000_000_000:
        blocks.append([f"that is long: --speed {plan.speed_for_one_minute} would take one minute"])
    return [line for block in blocks for line in flow(block, width)]


def _how_long(plan: RunPlan) -> list[str]:
    if plan.wall_ns is None or plan.wall_ns_skip is None or plan.wall_ns_keep is None:
        return ["as fast as this machine goes"]
    gaps = {"skip": "gaps skipped", "keep": "gaps kept"}.get(plan.gaps, f"gaps {plan.gaps}")
    return [
        f"at {plan.speed_asked}, {gaps}: about {duration(plan.wall_ns / 1e9)}",
        (
            f"(closed hours skipped {duration(plan.wall_ns_skip / 1e9)}, "
            f"kept {duration(plan.wall_ns_keep / 1e9)})"
        ),
    ]


class TimeLeft:
    """Tells how long a run will take yet; one of them for each run."""

    def __init__(self) -> None:
        self._done_before: float | None = None
        self._disturbed = False

    def __call__(self, plan: RunPlan, progress: Progress) -> str:
        """Time left, once enough has gone by to tell."""
        asked = progress.speed_asked or plan.speed_asked
        paused = progress.status != "running"
        if self._done_before is None:
            self._done_before = progress.done if plan.resumed_at_barrier is not None else 0.0
        self._disturbed = self._disturbed or paused or asked != plan.speed_asked
        if paused or progress.done <= 0.01 or progress.done >= 1 or progress.wall_s < 1:
            return ""
        if plan.wall_ns is None:
            return "" if self._disturbed else _told_left(progress.wall_s * (1 / progress.done - 1))
        if not self._disturbed:
            return _told_left(max(plan.wall_ns / 1e9 - progress.wall_s, 0.0))
        now = parse_speed(asked)
        if now.is_max or self._done_before >= 1:
            return ""
        share = (1 - progress.done) / (1 - self._done_before)
        return _told_left(
            plan.wall_ns / 1e9 * share * parse_speed(plan.speed_asked).ratio / now.ratio
        )


def _told_left(seconds: float) -> str:
    return f"{duration(round(seconds))} left"


def essentials(summary: Summary, zone_name: str) -> list[str]:
    """A run that a seek has ended, in three lines; all of it is in its `summary.json`."""
    until = "" if summary.event_to is None else f" at {until_text(summary.event_to, zone_name)}"
    net = "  ".join(money(value, code, signed=True) for code, value in summary.pnl_net.items())
    return [
        f"run {summary.run} ended{until} (barrier {summary.barriers:,}), left by a seek",
        f"  {count(summary.bars, 'bar')}, {count(summary.fills, 'fill')}, net P&L {net}",
        f"  digest {summary.digest}   files in {place(summary.folder)}",
    ]


def until_text(text: str, zone_name: str) -> str:
    """`2020-12-15 10:31:00 EST` of an ISO text."""
    return moment(int(dt.datetime.fromisoformat(text).timestamp()) * NANOS_PER_SECOND, zone_name)


def _bar(plan: RunPlan, progress: Progress, left: str) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1), expand=True)
    for ratio in (None, 1, None, None, None):
        line.add_column(no_wrap=True, ratio=ratio)
    line.add_row(
        Text(moment(progress.event_time, plan.timezone), style="bold"),
        ProgressBar(total=1.0, completed=progress.done),
        percent(progress.done),
        _speed(plan, progress),
        left,
    )
    return Group(line, Text(_state(progress), style="dim", no_wrap=True, overflow="ellipsis"))


def _where(plan: RunPlan, progress: Progress) -> str:
    return f"{moment(progress.event_time, plan.timezone)}  {_speed(plan, progress)}"


def _speed(plan: RunPlan, progress: Progress) -> str:
    asked = f"(asked {progress.speed_asked or plan.speed_asked})"
    if progress.status == "paused":
        return f"PAUSED {asked}"
    return f"{speed(progress.speed_effective)} {asked}"


def _state(progress: Progress) -> str:
    if not progress.executes:
        parts = [f"{count(progress.ticks, 'tick')} published, {progress.ticks_per_s:,.0f}/s"]
        return "  ".join([*parts, *_lateness(progress)])
    # To the cent: this line is read in passing, the exact amounts are in the summary.
    equity = "  ".join(f"{Decimal(value):,.2f} {code}" for code, value in progress.equity.items())
    parts = [
        f"{count(progress.ticks, 'tick')}, {progress.ticks_per_s:,.0f}/s",
        f"fills {progress.fills:,}",
        f"rejected {progress.rejected:,}",
        f"open {progress.open_positions:,}",
        f"equity {equity}",
    ]
    return "  ".join([*parts, *_lateness(progress)])


def _lateness(progress: Progress) -> list[str]:
    if progress.late_ms is None or progress.late_ms < 50:
        return []
    return [f"{progress.late_ms:,.0f} ms behind"]
