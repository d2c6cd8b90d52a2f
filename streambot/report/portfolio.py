"""The slots of one currency added up, barrier by barrier; see `report.rollup`.

What a mark changes is held until its barrier is complete. Then all changes of that barrier are
applied, in any order: they are of different slots, or one behind the other.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.events import AlertKind, PortfolioRolled
from streambot.domain.units import exact_decimal
from streambot.report.alerts import RollupLine
from streambot.report.summary import percent

if TYPE_CHECKING:
    from streambot.report.alerts import AlertBook


class Slot(msgspec.Struct):
    """A slot as it is rolled up; amounts in the currency's finest money unit."""

    number: int
    decimals: int
    scale: int
    book: CurrencyBook
    equity: int
    cash: int
    realized: int = 0
    brokerage: int = 0
    lots: int = 0
    halted: bool = False
    told_halted: bool = False


class Change(NamedTuple):
    """What a mark says of its slot; `missed`: marks that should have come before it."""

    slot: Slot
    ts: int
    equity: int
    cash: int
    realized: int
    brokerage: int
    lots: int
    halted: bool
    missed: int


class CurrencyBook:
    """All slots of one currency."""

    def __init__(self, currency: str, decimals: int, limit_bp: int, book: AlertBook) -> None:
        self.currency = currency
        self.decimals = decimals
        self.partitions: set[int] = set()
        self.capital = self.equity = self.cash = self.realized = self.brokerage = 0
        self.open = self.halted = self.marks = self.missing = 0
        self.waiting = 0
        self.ts = 0
        self._limit_bp = limit_bp
        self._alerts = book
        self._seq = 0
        self._peak = 0
        self._fall, self._fall_peak = 0, 0
        self._beyond_since: int | None = None
        self._pending: dict[int, list[Change]] = {}
        self._barriers: list[int] = []

    def begin(self, partition: int, capital: int) -> None:
        """A slot of this currency."""
        self.partitions.add(partition)
        self.capital += capital
        self.equity = self.cash = self._peak = self.capital

    def hold(self, barrier: int, change: Change) -> None:
        """A change that counts once every partition is through `barrier`."""
        if barrier not in self._pending:
            self._pending[barrier] = []
            heappush(self._barriers, barrier)
        self._pending[barrier].append(change)
        self.waiting += 1

    def settle(self, below: int | None, out: list[RollupLine]) -> None:
        """Roll up all barriers below `below`; None: all there are."""
        while self._barriers and (below is None or self._barriers[0] < below):
            barrier = heappop(self._barriers)
            changes = self._pending.pop(barrier)
            self.waiting -= len(changes)
            for change in changes:
                self._apply(change)
            self._roll(barrier, out)

    def _apply(self, change: Change) -> None:
        slot = change.slot
        self.equity += change.equity - slot.equity
        self.cash += change.cash - slot.cash
        self.realized += change.realized - slot.realized
        self.brokerage += change.brokerage - slot.brokerage
        self.open += (change.lots != 0) - (slot.lots != 0)
        self.halted += change.halted - slot.halted
        slot.equity, slot.cash = change.equity, change.cash
        slot.realized, slot.brokerage = change.realized, change.brokerage
        slot.lots, slot.halted = change.lots, change.halted
        self.marks += 1
        self.missing += change.missed
        self.ts = max(self.ts, change.ts)

    def _roll(self, barrier: int, out: list[RollupLine]) -> None:
        self._peak = max(self._peak, self.equity)
        fall = self._peak - self.equity
        if fall > self._fall:
            self._fall, self._fall_peak = fall, self._peak
        net = self.equity - self.capital
        rolled = PortfolioRolled(
            seq=self._seq,
            ts_event=self.ts,
            barrier=barrier,
            currency=self.currency,
            equity=self._money(self.equity),
            cash=self._money(self.cash),
            peak=self._money(self._peak),
            drawdown=self._money(fall),
            drawdown_pct=percent(fall, self._peak),
            max_drawdown=self._money(self._fall),
            max_drawdown_pct=percent(self._fall, self._fall_peak),
            pnl_net=self._money(net),
            pnl_realized=self._money(self.realized),
            pnl_unrealized=self._money(net + self.brokerage - self.realized),
            brokerage=self._money(self.brokerage),
            open_positions=self.open,
            halted=self.halted,
            marks=self.marks,
            missing=self.missing,
        )
        data = msgspec.json.encode(rolled)
        out.append(RollupLine("portfolio", self.currency, self._seq, self.ts, data))
        self._seq += 1
        self._watch(fall, out)

    def _watch(self, fall: int, out: list[RollupLine]) -> None:
        """Strictly beyond the limit is beyond, as for a slot (`docs/market-rules.md`)."""
        beyond = fall * 10_000 > self._limit_bp * self._peak
        if beyond == (self._beyond_since is not None):
            return
        since = self.ts if self._beyond_since is None else self._beyond_since
        said = {
            "alert": AlertKind.DRAWDOWN,
            "where": self.currency,
            "ts_event": self.ts,
            "since": since,
            "amount": self._money(fall),
            "unit": self.currency,
            "percent": percent(fall, self._peak),
            "limit_percent": self._limit_bp / 100,
        }
        how = f"{self._money(fall)} {self.currency}, {percent(fall, self._peak):.2f} %"
        limit = f"the limit of {self._limit_bp / 100:g} %"
        series = f"portfolio/{self.currency}"
        if beyond:
            self._beyond_since = self.ts
            text = f"the portfolio is {how} below its peak, beyond {limit}"
            out.append(self._alerts.raised(series, message=text, **said))
        else:
            self._beyond_since = None
            text = f"the portfolio is back within {limit}: {how} below its peak"
            out.append(self._alerts.cleared(series, message=text, **said))

    def _money(self, amount: int) -> str:
        return exact_decimal(amount, self.decimals)
