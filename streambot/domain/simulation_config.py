"""The settings of a simulation: typed, frozen, parsed once, passed down (`domain.config`)."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from streambot.domain.kafka_settings import KafkaSecurity
from streambot.domain.replay_settings import BarPath, Gaps, Moment, OhlcPath, Speed
from streambot.domain.units import NANOS_PER_DAY


class QuoteSide(StrEnum):
    """Which side of bid and ask bars is replayed."""

    BID = "bid"
    ASK = "ask"


class OnBreach(StrEnum):
    """What a drawdown beyond the limit does."""

    HALT = "halt"
    ALERT = "alert"


class BrokerChoice(StrEnum):
    """Where the streams of a run live.

    `auto`: Apache Kafka where bootstrap servers are given, else the embedded broker, or the
    in-process log for runs that are too large for it.
    """

    AUTO = "auto"
    EMBEDDED = "embedded"
    IN_PROCESS = "in-process"


class Capital(msgspec.Struct, frozen=True):
    """Cash of every slot at the start, in its instrument's currency."""

    default: Decimal = Decimal(1_000_000)
    by_symbol: dict[str, Decimal] = {}

    def of(self, symbol: str) -> Decimal:
        """The cash that the slot of `symbol` starts with."""
        return self.by_symbol.get(symbol, self.default)

    def __str__(self) -> str:
        named = [f"{symbol}={amount:f}" for symbol, amount in sorted(self.by_symbol.items())]
        return ",".join([f"{self.default:f}", *named])


class SimulationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that `simulate` may be told.

    Attributes:
        data: bar files or folders; empty: the scenario's.
        scenario: name of a bundled scenario, or the path of a scenario file.
        from_run: name of a recorded run whose ticks are replayed instead of bars.
        from_broker: where that recording is; None: where this run goes.
        instruments: symbols to trade, globs allowed; empty: all in the data.
        registry: path of the registry; None: `./instruments.yaml`, else the bundled one.
        infer_instruments: go on with an inferred declaration for symbols that no registry knows.
        round_prices: round prices that are off the tick grid, however many they are.
        speed: market seconds per second of wall time.
        start, end: the part of the data to replay; None: from its first bar, to its last one.
        gaps: what becomes of closed hours at pace.
        bar_path: how a bar becomes ticks.
        quote_side: which side of bid and ask bars is replayed.
        timeframe_ns: the decision timeframe; None: the coarsest of the data.
        policy: `flat`, `random`, `buy-hold`, `sma-cross`, `path.py:Class`, `pkg.mod:Class` or the
            folder of a checkpoint; with `from_run` also `recorded`: the orders that were recorded.
        agents: names of agents in other processes that give the orders instead of the policy.
        free_run: their orders take effect when they arrive; else the engine waits for them.
        answer_timeout_ns: how long it waits, wall time.
        capital: cash of every slot.
        lots: lots of one order of the scripted policies.
        max_quantity: most lots of one order (Q).
        max_gap_ns: an entry whose next bar opens later than this after the decision expires.
        drawdown_limit_bp: drawdown of the risk equity, basis points of its peak.
        on_breach: what a drawdown beyond the limit does.
        pnl_every_ns: event time between two marks on `pnl`; 0: every bar.
        alerts: keep the portfolio roll-up and the alerts beside the engine.
        seed: of everything random.
        partitions: of the run's streams; capped at the number of instruments.
        broker: where the streams live, without bootstrap servers.
        bootstrap_servers: of Apache Kafka; None: none.
        kafka: security of the connection to it.
        namespace: first part of the names of all topics.
        run: name of the run; None: one is made up.
        runs_dir: folder of the runs' folders.
    """

    data: tuple[str, ...] = ()
    scenario: str = "default"
    from_run: str | None = None
    from_broker: str | None = None
    instruments: tuple[str, ...] = ()
    registry: str | None = None
    infer_instruments: bool = False
    round_prices: bool = False
    speed: Speed = Speed(100)
    start: Moment | None = None
    end: Moment | None = None
    gaps: Gaps = Gaps(0)
    bar_path: BarPath = OhlcPath()
    quote_side: QuoteSide = QuoteSide.BID
    timeframe_ns: int | None = None
    policy: str = "sma-cross"
    agents: tuple[str, ...] = ()
    free_run: bool = False
    answer_timeout_ns: int = 30 * 1_000_000_000
    capital: Capital = Capital()
    lots: int = 1
    max_quantity: int = 10
    max_gap_ns: int = 7 * NANOS_PER_DAY
    drawdown_limit_bp: int = 2000
    on_breach: OnBreach = OnBreach.HALT
    pnl_every_ns: int = 15 * 60 * 1_000_000_000
    alerts: bool = False
    seed: int = 0
    partitions: int = 4
    broker: BrokerChoice = BrokerChoice.AUTO
    bootstrap_servers: str | None = None
    kafka: KafkaSecurity = KafkaSecurity()
    namespace: str = "streambot"
    run: str | None = None
    runs_dir: str = "runs"

    def __post_init__(self) -> None:
        if self.lots > self.max_quantity:
            raise ValueError(
                f"`lots` {self.lots} is more than `max_quantity` {self.max_quantity}: every order would be rejected"
            )
        if self.bootstrap_servers is not None and self.broker is not BrokerChoice.AUTO:
            raise ValueError(
                f"`broker` {self.broker} contradicts `bootstrap_servers`: give one of the two"
            )
        if self.free_run and not self.agents:
            raise ValueError("`free_run` needs `agents`: only agents in other processes run free")
        if len(set(self.agents)) != len(self.agents):
            raise ValueError(f"`agents` names one twice: {', '.join(self.agents)}")
        if self.start is not None and self.end is not None and _misordered(self.start, self.end):
            raise ValueError(f"`to` {self.end} is not after `from` {self.start}")


def _misordered(start: Moment, end: Moment) -> bool:
    # Zones of more than a day apart do not exist; what is closer is judged when the zone is known.
    return start.start_ns("UTC") - end.end_ns("UTC") >= (
        0 if start.naive == end.naive else NANOS_PER_DAY
    )
