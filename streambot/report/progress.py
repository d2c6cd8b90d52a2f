"""What a run tells the person who watches it: the plan before it starts, then progress.

`wiring` calls an `Observer` from the event loop, so its methods must be quick and must not raise.
Durations are nanoseconds of wall time, event times UTC nanoseconds, money exact decimal strings.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is about to happen, known before the first tick.

    Attributes:
        run: name of the run; its folder is `folder`.
        timezone: of the exchange, for times shown to people.
        speed_asked: `max`, `100x`, ...
        gaps: what was asked of closed hours: `skip`, `keep`, `max:30s`.
        wall_ns: expected duration as asked; None at `max`, where the machine decides.
        wall_ns_skip: expected duration with closed hours removed; None at `max`.
        wall_ns_keep: expected duration with closed hours kept; None at `max`.
        speed_for_one_minute: the speed that would take one minute, where the run takes more than
            ten; else None.
        broker: what carries the streams, with its address.
        delivery: the delivery guarantee the run has, in words.
        resumed_at_barrier: first barrier that a resumed run plays again; None for a new run.
    """

    run: str
    folder: str
    instruments: tuple[str, ...]
    timezone: str
    sessions: int
    bars: int
    ticks: int
    first_ts: int
    last_ts: int
    partitions: int
    policy: str
    speed_asked: str
    gaps: str
    wall_ns: int | None
    wall_ns_skip: int | None
    wall_ns_keep: int | None
    speed_for_one_minute: str | None
    broker: str
    delivery: str
    resumed_at_barrier: int | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run is.

    Attributes:
        event_time: close of the last barrier that every partition has closed.
        bars_done: decision bars closed so far, of `bars_total`.
        done: share of the ticks processed, 0 to 1.
        speed_effective: market seconds per second of wall time so far, closed hours as asked, pauses
            left out.
        late_ms: how far the last emission was behind its schedule; None at `max`.
        frames_behind: frames published that the engine has not processed yet.
        open_positions: slots that hold a position.
        equity: sum over the slots of a currency, by currency.
        status: of the replay: `running`, `paused`, ...
        speed_asked: at the moment; None: as the plan said.
        executes: False where frames are published only, and somebody else works on them.
    """

    event_time: int
    bars_done: int
    bars_total: int
    ticks: int
    done: float
    wall_s: float
    speed_effective: float
    ticks_per_s: float
    late_ms: float | None
    frames_behind: int
    fills: int
    rejected: int
    open_positions: int
    equity: dict[str, str]
    status: str = "running"
    speed_asked: str | None = None
    executes: bool = True


class Observer(Protocol):
    """Someone who watches a run."""

    def planned(self, plan: RunPlan) -> None:
        """The run is about to start."""

    def progressed(self, progress: Progress) -> None:
        """About four times a second while the run goes, and once at its end."""

    def recorded(self, stream: str, partition: int, lines: bytes) -> None:
        """A record of `orders`, `fills` or `pnl`: one event a line, as in the run's files."""

    def warned(self, message: str) -> None:
        """Something that the person should know; each message once."""


class SilentObserver:
    """An observer that looks away: for tests and for `--quiet`."""

    def planned(self, plan: RunPlan) -> None:
        """Ignore it."""

    def progressed(self, progress: Progress) -> None:
        """Ignore it."""

    def recorded(self, stream: str, partition: int, lines: bytes) -> None:
        """Ignore it."""

    def warned(self, message: str) -> None:
        """Ignore it."""
