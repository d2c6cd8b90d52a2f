"""What a run is: everything that decides its fills, and nothing else.

Two runs with equal manifests (apart from name and partitions) over the same bars have the same
event digest. The manifest stands in `run.json`, so it is also what a resumed run starts from.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

from streambot.domain.errors import ConfigError
from streambot.domain.instruments import Instrument
from streambot.engine.slots import SlotLimits


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The agent of a run.

    Attributes:
        spec: `flat`, `random`, `buy-hold`, `sma-cross`, `path.py:Class`, `pkg.mod:Class`, or the
            folder of a checkpoint.
        lots: size of a scripted agent's orders.
        fast, slow: bars of the averages of `sma-cross`.
        weights: digest of the weights of a trained policy, as its checkpoint says it; empty: none.
        sees: digest of what such a policy observes, and how far it looks back; empty: none.
    """

    spec: str = "flat"
    lots: int = 1
    fast: int = 10
    slow: int = 30
    weights: str = ""
    sees: str = ""


class RunManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of a run.

    Attributes:
        run: name of the run.
        instruments: what is traded, sorted by symbol; the index is the number in frames.
        partitions: count of partitions of the run's streams.
        partition_of: partition of each instrument, in the order of `instruments`.
        capital: initial cash of each slot, money units, in the order of `instruments`.
        decision_ns: decision timeframe.
        stop_fill: `stop` where ticks are made from bars, `tick` where they are real.
        pnl_every_ns: event time between marks; 0: every bar.
        sources: what was replayed: files with their digests, calendar version.
        agents: agents in other processes that give the orders; without any, the policy does, inside
            the engine task.
        free_run: their orders take effect when they arrive; otherwise the engine waits for them.
        answer_timeout_s: how long it waits.
        parent: the run that a seek left for this one; it decides nothing.
    """

    run: str
    instruments: tuple[Instrument, ...]
    partitions: int
    partition_of: tuple[int, ...]
    capital: tuple[int, ...]
    decision_ns: int
    stop_fill: Literal["stop", "tick"] = "stop"
    pnl_every_ns: int = 0
    max_quantity: int = 10
    max_gap_ns: int = 7 * 86_400 * 10**9
    drawdown_limit_bp: int = 2_000
    on_breach: Literal["halt", "alert"] = "halt"
    seed: int = 0
    policy: PolicySettings = PolicySettings()
    sources: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    free_run: bool = False
    answer_timeout_s: float = 30.0
    parent: str | None = None

    def __post_init__(self) -> None:
        symbols = [instrument.symbol for instrument in self.instruments]
        if symbols != sorted(set(symbols)):
            raise ConfigError("a manifest lists each instrument once, sorted by symbol")
        if not len(symbols) == len(self.partition_of) == len(self.capital):
            raise ConfigError("a manifest needs a partition and a capital for each instrument")
        if len(set(self.agents)) != len(self.agents) or (self.free_run and not self.agents):
            raise ConfigError("a manifest names each agent once, and only agents run free")
        if any(not 0 <= p < self.partitions for p in self.partition_of):
            raise ConfigError(f"a partition lies outside 0 to {self.partitions - 1}")

    @property
    def run_id(self) -> bytes:
        """16 bytes that name the run in its frames."""
        return blake2b(self.run.encode(), digest_size=16).digest()

    @property
    def limits(self) -> SlotLimits:
        """The settings that every slot obeys."""
        return SlotLimits(
            max_quantity=self.max_quantity,
            max_gap_ns=self.max_gap_ns,
            drawdown_limit_bp=self.drawdown_limit_bp,
            halt_on_breach=self.on_breach == "halt",
            stop_at_tick=self.stop_fill == "tick",
            mark_every_ns=self.pnl_every_ns,
            seed=self.seed,
        )

    def members(self, partition: int) -> list[int]:
        """Numbers of the instruments of a partition, increasing."""
        return [n for n, p in enumerate(self.partition_of) if p == partition]
