"""What happened in each slot, counted: part of a snapshot, and what summaries are made of."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.engine.decode import REASONS
from streambot.engine.slots import (
    EV_BREACHED,
    EV_EXPIRED,
    EV_FILLED,
    EV_REJECTED,
    EV_SETTLED,
    EXP_END,
    EXP_GAP,
    MODEL_NONE,
    NONE,
)
from streambot.engine.valuation import equity_at

_DETAILS = 16
_KINDS = 5
_TICKS = _KINDS * _DETAILS
_PROXIED = _TICKS + 1
_COUNTS = _PROXIED + 1


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A slot as it stands: money units and ticks of its instrument, counts since the start."""

    symbol: str
    bars: int
    ticks: int
    capital: int
    cash: int
    equity: int
    lots: int
    realized_pnl: int
    brokerage: int
    max_drawdown: int
    max_drawdown_peak: int
    fills: int
    proxied_fills: int
    rejected: dict[str, int]
    expired: dict[str, int]
    settled: int
    breached: int
    halted: bool
    last_price: int | None


class SlotTally:
    """Counts of events by kind and reason, of ticks and of proxied fills, a row a slot.

    Attributes:
        counts: int64 [slots, n]; its bytes are the snapshot.
    """

    def __init__(self, slots: int) -> None:
        self.counts = np.zeros((slots, _COUNTS), np.int64)

    def count(self, slot: int, records: npt.NDArray[np.void]) -> None:
        """Add events of a slot; records are `EVENT` [n]."""
        codes = records["kind"] * _DETAILS + records["detail"]
        self.counts[slot, :_TICKS] += np.bincount(codes, minlength=_TICKS)
        proxied = (records["kind"] == EV_FILLED) & (records["premium_model"] != MODEL_NONE)
        proxied |= records["kind"] == EV_SETTLED
        self.counts[slot, _PROXIED] += int(proxied.sum())

    def add_ticks(self, slot: int, ticks: int) -> None:
        """Add ticks that a slot has seen."""
        self.counts[slot, _TICKS] += ticks

    def status(self, slot: int, symbol: str, p: Any, s: Any) -> SlotStatus:
        """How a slot stands.

        Args:
            slot: its row.
            symbol: its instrument.
            p: its `PARAMS` record.
            s: its `SLOT` record.
        """
        counts = self.counts[slot, :_TICKS].reshape(_KINDS, _DETAILS)
        price = int(s["last_price"])
        cash = int(s["cash"])
        settled = int(counts[EV_SETTLED].sum())
        return SlotStatus(
            symbol=symbol,
            bars=int(s["bars"]),
            ticks=int(self.counts[slot, _TICKS]),
            capital=int(p["capital"]),
            cash=cash,
            equity=cash if price == NONE else int(equity_at(p, s, price)),
            lots=int(s["side"] * s["quantity"]),
            realized_pnl=int(s["realized"]),
            brokerage=int(s["brokerage_paid"]),
            max_drawdown=int(s["max_drawdown"]),
            max_drawdown_peak=int(s["drawdown_peak"]),
            fills=int(counts[EV_FILLED].sum()) + settled,
            proxied_fills=int(self.counts[slot, _PROXIED]),
            rejected={
                str(reason): int(counts[EV_REJECTED, code]) for code, reason in enumerate(REASONS)
            },
            expired={
                "gap": int(counts[EV_EXPIRED, EXP_GAP]),
                "end_of_data": int(counts[EV_EXPIRED, EXP_END]),
            },
            settled=settled,
            breached=int(counts[EV_BREACHED].sum()),
            halted=bool(s["halted"]),
            last_price=None if price == NONE else price,
        )
