"""Many instruments on a few real charts, episodes of them, and the same episodes in an engine task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from streambot.data.segment_build import Recording, build_segments
from streambot.data.segments import Segments
from streambot.domain.config import Capital, SimulationConfig
from streambot.domain.events import HOLD, Action
from streambot.domain.instruments import (
    AtrPremium,
    BachelierPremium,
    Brokerage,
    Expiries,
    Instrument,
    InstrumentType,
    TrailAtr,
    TrailBp,
    Valuation,
)
from streambot.domain.registry import declare_yaml
from streambot.env.config import EnvConfig
from streambot.env.core import Core
from streambot.env.fields import action_of
from streambot.env.follower import Follower
from streambot.wiring.preparation import Prepared, prepare
from streambot.wiring.rerun import Rerun, Tasks

CAPITAL = Decimal(100_000)


class Chart(NamedTuple):
    """Bars of one symbol in a file."""

    path: Path
    symbol: str
    tick: str
    exchange: str
    timezone: str
    currency: str
    daily_atr: str
    lot: int


def aliases(charts: list[Chart], count: int, rng: np.random.Generator) -> list[Instrument]:
    """Instruments of every kind on the charts, with settings drawn at random."""
    made = []
    for n in range(count):
        chart = charts[n % len(charts)]
        option = bool(rng.integers(2))
        trail = (
            TrailBp(bp=int(rng.integers(5, 80)))
            if rng.integers(2)
            else TrailAtr(atr=float(rng.uniform(0.5, 4)))
        )
        fields: dict[str, Any] = {}
        if option:
            model = AtrPremium if rng.integers(2) else BachelierPremium
            fields = {
                "expiries": Expiries(expires_after=int(rng.integers(1, 4))),
                "premium": model(
                    k=float(rng.uniform(0.2, 0.9)), daily_atr=Decimal(chart.daily_atr)
                ),
                "valuation": Valuation.MARKED if rng.integers(2) else Valuation.INTRINSIC,
                "premium_slippage_ticks": int(rng.integers(3)),
            }
        made.append(
            Instrument(
                symbol=f"A{n:03d}",
                type=InstrumentType.OPTION if option else InstrumentType.STOCK,
                underlying=chart.symbol,
                lot_size=chart.lot,
                tick_size=Decimal(chart.tick),
                currency=chart.currency,
                exchange=chart.exchange,
                timezone=chart.timezone,
                brokerage=Brokerage(entry=Decimal(int(rng.integers(30))), exit=Decimal(20)),
                slippage_ticks=int(rng.integers(4)),
                trail=trail,
                enforce_trailing_stop=bool(rng.integers(2)),
                **fields,
            )
        )
    return made


def prepared(
    charts: list[Chart], instruments: list[Instrument], env: EnvConfig, folder: Path, **fields: Any
) -> Prepared:
    """The run of these instruments, as `simulate` would prepare it."""
    registry = folder / "registry.yaml"
    registry.write_text(declare_yaml(instruments))
    config = SimulationConfig(
        data=tuple(dict.fromkeys(str(chart.path) for chart in charts)),
        instruments=tuple(i.symbol for i in instruments),
        registry=str(registry),
        policy="flat",
        round_prices=True,
        capital=Capital(CAPITAL),
        max_quantity=env.max_quantity,
        max_gap_ns=env.max_gap_ns,
        drawdown_limit_bp=env.drawdown_limit_bp,
        pnl_every_ns=0,
        **fields,
    )
    return prepare(config, folder)


def segments_of(run: Prepared, env: EnvConfig, folder: Path | None = None) -> Segments:
    """The segment store of a prepared run."""
    recording = Recording(
        instruments=run.timeline.instruments,
        context=run.context,
        windows=run.timeline.windows(),
        source="a test",
        complete=True,
        decision_ns=run.plan.decision_ns,
    )
    return build_segments(recording, env.features, folder)


class Seen(NamedTuple):
    """One close, as an agent sees it; the reward is that of the step which ends with it."""

    barrier: int
    observation: bytes
    mask: bytes
    reward: float
    terms: bytes
    equity: int
    slot: bytes
    events: bytes
    terminated: bool
    truncated: bool


_MARKET_ONLY = ("event_seq", "mark_seq", "next_mark", "ring_at", "above", "fast_sum", "slow_sum")


def seen_of(core: Core, i: int, barrier: int) -> Seen:
    """What environment `i` shows now."""
    e, slot = core.envs[i], core.slots[i : i + 1].copy()
    # Counters of the whole run: an episode begins them anew.
    for name in _MARKET_ONLY:
        slot[name] = 0
    events = core.events[i, : int(e["events_n"])].copy()
    for name in ("seq", "row"):
        events[name] = 0
    return Seen(
        barrier,
        core.observations[i].tobytes(),
        core.masks[i].tobytes(),
        float(core.rewards[i]),
        core.terms[i].tobytes(),
        int(e["equity"]),
        slot.tobytes(),
        events.tobytes(),
        bool(core.terminated[i]),
        bool(core.truncated[i]),
    )


class Episode(NamedTuple):
    """One episode: where it began, what was answered at each close, what was seen."""

    symbol: str
    barrier: int
    bars: int
    actions: dict[int, int]
    seen: list[Seen]


def random_action(rng: np.random.Generator, mask: Any) -> int:
    """Mostly a legal one; HOLD often enough that positions live."""
    draw = rng.random()
    if draw < 0.4:
        return 0
    if draw < 0.95:
        return int(rng.choice(np.flatnonzero(mask)))
    return int(rng.integers(len(mask)))


def play(core: Core, i: int, symbol: str, bar: int, bars: int, rng: np.random.Generator) -> Episode:
    """An episode of environment `i`, alone among the others."""
    only = np.zeros(core.n, np.bool_)
    only[i] = True
    core.ask(i, instrument=symbol, bar=bar, bars=bars)
    core.reset(only)
    first = int(core.slots[i]["barrier"])
    seen, actions = [seen_of(core, i, first)], {}
    while not core.envs[i]["ended"]:
        barrier = int(core.slots[i]["barrier"])
        core.actions[i] = actions[barrier] = random_action(rng, core.masks[i])
        core.step()
        seen.append(seen_of(core, i, int(core.slots[i]["barrier"])))
    return Episode(symbol, first, bars, actions, seen)


class Replayer:
    """A strategy in the stream that answers as an episode did, and notes what it sees."""

    def __init__(self, episode: Episode, follower: Follower, max_quantity: int) -> None:
        self._episode, self._follower = episode, follower
        self._quantity = max_quantity
        self._over = False
        self.seen: list[Seen] = []

    def on_records(self, events: Any) -> None:
        self._follower.note(events)

    def on_bar(self, bar: Any, account: Any) -> Action:
        follower, episode = self._follower, self._episode
        follower.see(account.view, account.slot)
        if bar.barrier == episode.barrier:
            follower.begin(episode.bars)
        if bar.barrier < episode.barrier or self._over:
            return HOLD
        self.seen.append(seen_of(follower.core, 0, bar.barrier))
        self._over = bool(follower.core.envs[0]["ended"])
        return HOLD if self._over else action_of(episode.actions[bar.barrier], self._quantity)


def in_the_stream(
    run: Prepared, episodes: Mapping[str, Episode], env: EnvConfig, **cut: Any
) -> dict[str, list[Seen]]:
    """The same episodes through the engine tasks of the run, frame by frame."""
    replayers: dict[str, Replayer] = {}
    manifest = run.manifest("parity")
    order: Iterator[str] = iter([
        manifest.instruments[n].symbol
        for p in range(manifest.partitions)
        for n in manifest.members(p)
    ])  # fmt: skip

    def factory() -> Replayer:
        symbol = next(order)
        instrument = next(i for i in manifest.instruments if i.symbol == symbol)
        follower = Follower(instrument, run.context[symbol], env, decision_ns=manifest.decision_ns)
        replayers[symbol] = Replayer(episodes[symbol], follower, env.max_quantity)
        return replayers[symbol]

    manifest = msgspec.structs.replace(manifest, agents=())
    for _ in Rerun(Tasks(manifest, run.context, factory)).over_windows(
        run.timeline.windows(), **cut
    ):
        pass
    return {symbol: replayer.seen for symbol, replayer in replayers.items()}
