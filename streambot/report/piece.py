"""What one piece of a run did: a worker its partitions, a replay its frames."""

from __future__ import annotations

import msgspec

from streambot.report.summary import InstrumentSummary, Latency

WORKER_SCHEMA = "streambot.worker/1"
REPLAY_SCHEMA = "streambot.replay/1"
ACTOR_SCHEMA = "streambot.actor/1"


class WorkerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's partitions, as `--json` prints them.

    Attributes:
        state: `complete` where all of its partitions reached their end, else `interrupted`.
        partitions: which of the run's it worked on; `of` is how many there are.
        reopened: how often a task was opened again after a doubt.
        digests: of each of its instruments, where it made all their events itself; `verify` has
            the digest of the whole run.
    """

    schema: str = WORKER_SCHEMA
    run: str
    state: str
    stopped_by: str | None
    worker: int
    workers: int
    partitions: list[int]
    of: int
    instruments: list[str]
    bars: int
    ticks: int
    fills: int
    rejected: dict[str, int]
    expired: dict[str, int]
    settled: int
    breached: int
    pnl_gross: dict[str, str]
    pnl_net: dict[str, str]
    brokerage: dict[str, str]
    by_instrument: dict[str, InstrumentSummary]
    duplicates: int
    dead_letters: int
    reopened: int
    wall_s: float
    ticks_per_s: float
    broker: str
    delivery: str
    successor: str | None = None


class ReplaySummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay published, as `--json` prints it.

    Attributes:
        state: `complete` (END stands in every partition) or `interrupted`.
        ticks: published by this process; `ticks_total`: of the whole replay.
        speed_effective: market seconds per second of wall time.
        successor: the run that a seek went on with.
    """

    schema: str = REPLAY_SCHEMA
    run: str
    state: str
    stopped_by: str | None
    instruments: list[str]
    agents: list[str]
    partitions: int
    frames: int
    ticks: int
    ticks_total: int
    speed_asked: str
    speed_effective: float
    wall_s: float
    ticks_per_s: float
    lateness_ms: Latency
    reopened: int
    broker: str
    delivery: str
    folder: str
    warnings: list[str]
    successor: str | None = None


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is about to do."""

    run: str
    partitions: tuple[int, ...]
    of: int
    instruments: tuple[str, ...]
    timezone: str
    policy: str
    ticks: int
    broker: str
    delivery: str


class WorkerProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker is. `event_time`: UTC ns, None before the first frame."""

    event_time: int | None
    ticks: int
    ticks_per_s: float
    fills: int
    rejected: int
    waits_for: tuple[str, ...]


class ActorSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent in a process of its own did, as `--json` prints it. Money is its mirror's.

    Attributes:
        policy: what decided.
        merge: `lockstep`, or `free run`.
        state: `complete` where the run ended and all of its fills agreed, else `interrupted`.
        answers: records that this process sent, and `orders` in them.
        unsent: orders that were not sent in a free run, by reason: `kept_back` (one for the
            instrument was on its way), `missed` (the market had gone on).
        compared: events of the engine that were those of the mirror; `unconfirmed`: events of the
            mirror that the engine has not had yet.
        weights: sequences of the weights of a training that have decided, where it serves those.
    """

    schema: str = ACTOR_SCHEMA
    run: str
    agent: str
    policy: str
    merge: str
    state: str
    stopped_by: str | None
    partitions: int
    instruments: list[str]
    bars: int
    ticks: int
    answers: int
    orders: int
    unsent: dict[str, int]
    compared: int
    unconfirmed: int
    fills: int
    rejected: dict[str, int]
    expired: dict[str, int]
    settled: int
    breached: int
    pnl_gross: dict[str, str]
    pnl_net: dict[str, str]
    brokerage: dict[str, str]
    by_instrument: dict[str, InstrumentSummary]
    reopened: int
    wall_s: float
    ticks_per_s: float
    broker: str
    successor: str | None = None
    weights: list[int] = []


class ActorOutline(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor is about to do."""

    run: str
    agent: str
    others: tuple[str, ...]
    policy: str
    merge: str
    partitions: int
    instruments: tuple[str, ...]
    timezone: str
    ticks: int
    broker: str


class ActorProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Where an actor is. `event_time`: UTC ns, None before the first frame.

    Attributes:
        waits: for other agents, or for the engine of a free run.
        mirrored: everything is answered; only fills are still to be compared.
    """

    event_time: int | None
    ticks: int
    ticks_per_s: float
    answers: int
    orders: int
    compared: int
    unconfirmed: int
    waits: bool
    mirrored: bool
