"""A second, slow engine: one reading of `docs/market-rules.md` in plain Python, for tests.

It shares no code with `streambot.engine` and takes no shortcut: every tick is looked at, every
number is a Python integer or float, every rule stands where its sentence stands in the page. A run
is told as a list of ticks, the close times of all barriers, and the orders (from outside) or the
answers (of an agent inside) by barrier. What happens comes out as plain dictionaries with the fields
of `domain.events`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

Fact = dict[str, Any]


class Tick(NamedTuple):
    """One tick: `interval` is the barrier that it leads to."""

    interval: int
    ts: int
    price: int
    opens_source_bar: bool = False
    closes_bar: bool = False
    closes_session: bool = False


class Order(NamedTuple):
    """What waits for the next bar; None where the order does not say."""

    action: str
    quantity: int = 0
    premium: int | None = None
    expiry: int | None = None
    width: int | None = None
    lot_size: int | None = None
    model: str = "given"


@dataclass(frozen=True)
class Terms:
    """Constants of an instrument and a run, in ticks, money units and nanoseconds."""

    option: bool = False
    marked: bool = False
    lot_size: int = 1
    tick_money: int = 1
    fee_entry: int = 0
    fee_exit: int = 0
    fee_settlement: int = 0
    slippage: int = 0
    premium_slippage: int = 0
    most_lots: int = 10
    max_gap: int = 7 * 86_400 * 10**9
    limit_bp: int = 2_000
    halts: bool = True
    fills_at_tick: bool = False
    enforced: bool = False
    trail_bp: int | None = None
    trail_atr: float = 3.0
    mark_every: int = 0
    capital: int = 1_000_000
    model: str = "bachelier"
    k: float = 0.75
    daily_atr: float | None = None
    min_days: int = 1
    expires_after: int | None = None
    sessions: tuple[tuple[int, int], ...] = ()
    contracts: tuple[tuple[int, int | None], ...] = ()


class Wilder:
    """ATR(14): the mean of the true ranges until there are 14, Wilder's average from then on."""

    def __init__(self) -> None:
        self.ranges: list[float] = []
        self.value = 0.0
        self._before: int | None = None

    def add(self, high: int, low: int, close: int) -> None:
        spread = high - low
        if self._before is not None:
            spread = max(spread, abs(high - self._before), abs(low - self._before))
        self._before = close
        self.ranges.append(spread)
        if len(self.ranges) <= 14:
            self.value = sum(self.ranges) / len(self.ranges)
        else:
            self.value = (13 * self.value + spread) / 14


@dataclass
class Position:
    side: int
    quantity: int
    lot_size: int
    entry: int
    best: int
    width: int
    stop: int
    premium: int = 0
    model: str | None = None
    expiry: int | None = None
    time_value: int = 0

    @property
    def units(self) -> int:
        return self.quantity * self.lot_size


def up_to_a_tick(price: float) -> int:
    return max(1, math.ceil(price - 1e-6))


@dataclass
class ReferenceSlot:
    """One slot. `run` plays everything; `events` and `marks` hold what happened, in order."""

    terms: Terms
    events: list[Fact] = field(default_factory=list)
    marks: list[Fact] = field(default_factory=list)
    shown: list[tuple[int, int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cash = self.peak = self.terms.capital
        self.position: Position | None = None
        self.waiting: Order | None = None
        self.decided_at = 0
        self.realized = self.paid = 0
        self.halted = self.alerted = self.must_close = False
        self.price: int | None = None
        self.barrier = -1
        self.closed_at: int | None = None
        self.next_mark: int | None = None
        self.bar: list[int] = []
        self.day: list[tuple[int, int]] = []
        self.atr, self.days = Wilder(), Wilder()

    # The run ------------------------------------------------------------------------------------

    def run(
        self,
        ticks: list[Tick],
        closes: list[int],
        orders: dict[int, list[Order]],
        answers: dict[int, tuple[str, int]] | None = None,
    ) -> None:
        """Play intervals 0, 1, …, each up to its barrier.

        Args:
            ticks: in the order of time.
            closes: close time of every barrier of the run.
            orders: complete orders by barrier, in the order in which they arrived.
            answers: action and lots by barrier of an agent inside.
        """
        at = 0
        for barrier, close in enumerate(closes):
            closed = session = False
            while at < len(ticks) and ticks[at].interval == barrier:
                self._tick(ticks[at])
                closed, session = ticks[at].closes_bar, ticks[at].closes_session
                at += 1
            self._settle_by(close)
            if closed:
                self._close(barrier, close, session)
            self._take(barrier, close, orders.get(barrier, []), closed)
            if closed and answers and barrier in answers:
                self.waiting = self._complete(*answers[barrier], close)
                self.decided_at = close
        if self.waiting is not None:
            self._expire(self.closed_at or 0, "end_of_data")

    # Inside a bar -------------------------------------------------------------------------------

    def _tick(self, tick: Tick) -> None:
        held = self.position
        if held and held.expiry is not None and held.expiry < tick.ts:
            self._settle()
        first = not self.bar
        self.bar.append(tick.price)
        gap = first and self.closed_at is not None and tick.ts > self.closed_at
        entered = False
        if first:
            if self.must_close and self.position:
                self._exit(tick, tick.price, "breach", gap)
            self.must_close = False
            if self.waiting is not None:
                entered = self._act(tick, gap)
        held = self.position
        if held and not entered:
            worth = self._per_unit(tick.price) * held.units * self.terms.tick_money
            met = held.side * (tick.price - held.stop) <= 0
            if not self.terms.option and held.side < 0 and worth <= self.terms.fee_exit:
                self._exit(tick, tick.price, "liquidated", gap)
            elif self.terms.enforced and met:
                jumped = first or tick.opens_source_bar or self.terms.fills_at_tick
                self._exit(tick, tick.price if jumped else held.stop, "trailing_stop", gap)
            elif held.side * (tick.price - held.best) > 0:
                held.best = tick.price
                held.width = self._width(held.best, held.width)
                moved = held.best - held.side * held.width
                held.stop = max(held.stop, moved) if held.side > 0 else min(held.stop, moved)
        self.price = tick.price

    def _act(self, tick: Tick, gap: bool) -> bool:
        order, self.waiting = self.waiting, None
        assert order is not None
        if order.action == "CLOSE":
            if self.halted:
                self._reject(order, tick.ts, "halted")
            elif not self.position:
                self._reject(order, tick.ts, "flat")
            else:
                self._exit(tick, tick.price, "order", gap)
            return False
        if tick.ts - self.decided_at > self.terms.max_gap:
            self.waiting = order
            self._expire(tick.ts, "gap")
            return False
        side = 1 if order.action == "BUY_LONG" else -1
        fill = max(1, tick.price + side * self.terms.slippage)
        lot_size = self.terms.lot_size if order.lot_size is None else order.lot_size
        paid = None if order.premium is None else order.premium + self.terms.premium_slippage
        why = self._refusal(order, tick.ts, lot_size, paid if self.terms.option else fill)
        if why:
            self._reject(order, tick.ts, why)
            return False
        each = (paid or 0) if self.terms.option else fill
        self.cash -= each * order.quantity * lot_size * self.terms.tick_money + self.terms.fee_entry
        self.paid += self.terms.fee_entry
        width = self._width(fill, max(1, order.width or 1))
        self.position = Position(
            side, order.quantity, lot_size, fill, fill, width, fill - side * width
        )
        if self.terms.option:
            self.position.premium = paid or 0
            self.position.model = order.model
            self.position.expiry = order.expiry
            self.position.time_value = (order.premium or 0) if self.terms.marked else 0
        self._event(
            "OrderFilled", tick.ts, effect="entry", reason="order", side=side,
            quantity=order.quantity, lot_size=lot_size, price=fill, brokerage=self.terms.fee_entry,
            cash=self.cash, option_value=None, premium=paid if self.terms.option else None,
            premium_model=order.model if self.terms.option else None, realized_pnl=None,
            gap_fill=gap,
        )  # fmt: skip
        self._mark(tick.ts, "fill", tick.price)
        return True

    def _refusal(self, order: Order, ts: int, lot_size: int, each: int | None) -> str:
        terms = self.terms
        if not 1 <= order.quantity <= terms.most_lots:
            return "invalid_quantity"
        if self.halted:
            return "halted"
        if self.position:
            return "position_open"
        if terms.option and (order.premium is None or order.premium < 1):
            return "premium_unavailable"
        if terms.option and (order.expiry is None or order.expiry <= ts or lot_size < 1):
            return "no_expiry"
        if self.cash < 0:
            return "insolvent"
        out = max(terms.fee_exit, terms.fee_settlement) if terms.option else terms.fee_exit
        cost = (each or 0) * order.quantity * lot_size * terms.tick_money
        return "insufficient_cash" if self.cash < cost + terms.fee_entry + out else ""

    def _exit(self, tick: Tick, price: int, why: str, gap: bool) -> None:
        held = self.position
        assert held is not None
        fill = max(1, price - held.side * self.terms.slippage)
        value = self._per_unit(fill)
        if self.terms.option:
            value = max(0, value - self.terms.premium_slippage)
        was, realized = self._release(value, fill, self.terms.fee_exit)
        self._event(
            "OrderFilled", tick.ts, effect="exit", reason=why, side=was.side,
            quantity=was.quantity, lot_size=was.lot_size, price=fill,
            brokerage=self.terms.fee_exit, cash=self.cash,
            option_value=value if self.terms.option else None, premium=None,
            premium_model=was.model, realized_pnl=realized, gap_fill=gap,
        )  # fmt: skip
        self._mark(tick.ts, "fill", tick.price)

    def _settle_by(self, ts: int) -> None:
        if self.position and self.position.expiry is not None and self.position.expiry <= ts:
            self._settle()

    def _settle(self) -> None:
        held = self.position
        assert held is not None
        assert held.expiry is not None
        assert self.price is not None
        value = max(0, held.side * (self.price - held.entry))
        was, realized = self._release(value, self.price, self.terms.fee_settlement)
        self._event(
            "PositionSettled", held.expiry, side=was.side, quantity=was.quantity,
            lot_size=was.lot_size, price=self.price, option_value=value,
            brokerage=self.terms.fee_settlement, realized_pnl=realized, cash=self.cash,
        )  # fmt: skip
        self._mark(held.expiry, "settlement", self.price)

    def _release(self, value: int, price: int, fee: int) -> tuple[Position, int]:
        held = self.position
        assert held is not None
        money = held.units * self.terms.tick_money
        gained = value - held.premium if self.terms.option else held.side * (price - held.entry)
        self.cash += value * money - fee
        self.realized += gained * money
        self.paid += fee
        self.position = None
        return held, gained * money

    # At a barrier -------------------------------------------------------------------------------

    def _close(self, barrier: int, ts: int, session: bool) -> None:
        high, low, last = max(self.bar), min(self.bar), self.bar[-1]
        self.atr.add(high, low, last)
        self.day.append((high, low))
        if session:
            self.days.add(max(h for h, _ in self.day), min(lo for _, lo in self.day), last)
            self.day = []
        self.bar = []
        self.barrier, self.closed_at = barrier, ts
        if self.position and self.terms.marked:
            self._revalue(ts)
        risk = self._risk_equity(last)
        if risk > self.peak:
            self.peak, self.alerted = risk, False
        beyond = Fraction(self.peak - risk) > Fraction(self.peak * self.terms.limit_bp, 10_000)
        if beyond and not self.halted and not self.alerted:
            on_breach = "halt" if self.terms.halts else "alert"
            self._event("SlotBreached", ts, reason="drawdown", on_breach=on_breach)
            self.halted = self.terms.halts
            self.alerted = not self.terms.halts
            self.must_close = self.terms.halts and self.position is not None
        if session or self.next_mark is None or ts >= self.next_mark:
            self._mark(ts, "session" if session else "barrier", last)
            every = self.terms.mark_every
            self.next_mark = (ts // every + 1) * every if every else ts
        held = self.position
        lots = held.side * held.quantity if held else 0
        self.shown.append((barrier, last, lots, self.cash, self._equity(last)))

    def _take(self, barrier: int, ts: int, orders: list[Order], closed: bool) -> None:
        for order in orders:
            if not closed:
                self._reject(order, ts, "no_bar")
            elif self.waiting is not None:
                self._reject(order, ts, "duplicate_order")
            else:
                self.waiting, self.decided_at = order, ts

    def _complete(self, action: str, quantity: int, ts: int) -> Order:
        """What an agent inside asked for, with all that is known at this close."""
        if action == "CLOSE":
            return Order("CLOSE")
        width = 1 if self.terms.trail_bp else up_to_a_tick(self.terms.trail_atr * self.atr.value)
        if not self.terms.option:
            return Order(action, quantity, width=width)
        expiry, lot_size = self._contract(ts)
        premium, atr = None, self._daily_atr()
        if atr is not None:
            premium = 1
            if expiry is not None:
                premium = up_to_a_tick(self._proxy(atr, self._trading_days(ts, expiry), 0))
        return Order(action, quantity, premium, expiry, width, lot_size, self.terms.model)

    def _contract(self, ts: int) -> tuple[int | None, int | None]:
        today = self._session_of(ts)
        if today is None:
            return None, None
        if self.terms.expires_after is not None:
            last = today + self.terms.expires_after
            known = last < len(self.terms.sessions)
            return (self.terms.sessions[last][1] if known else None), None
        for expiry, lot in self.terms.contracts:
            then = self._session_of(expiry)
            if expiry > ts and then is not None and then - today >= self.terms.min_days:
                return expiry, lot
        return None, None

    def _session_of(self, ts: int) -> int | None:
        for number, (_, close) in enumerate(self.terms.sessions):
            if ts <= close:
                return number
        return None

    def _trading_days(self, ts: int, expiry: int) -> float:
        """The rest of this session, and whole sessions behind it up to the expiry's."""
        days = 0.0
        for opens, closes in self.terms.sessions:
            if closes <= ts or opens >= expiry:
                continue
            days += (closes - max(ts, opens)) / (closes - opens)
        return days

    def _daily_atr(self) -> float | None:
        if self.terms.daily_atr is not None:
            return self.terms.daily_atr
        return self.days.value if len(self.days.ranges) >= 14 else None

    def _proxy(self, atr: float, days: float, moneyness: int) -> float:
        if self.terms.model == "atr":
            return max(0, moneyness) + self.terms.k * atr
        deviation = self.terms.k * atr * math.sqrt(days)
        if deviation == 0:
            return float(max(0, moneyness))
        d = moneyness / deviation
        below = (1 + math.erf(d / math.sqrt(2))) / 2
        return moneyness * below + deviation * math.exp(-d * d / 2) / math.sqrt(2 * math.pi)

    def _revalue(self, ts: int) -> None:
        held, atr = self.position, self._daily_atr()
        if atr is None:
            return
        assert held is not None
        assert held.expiry is not None
        assert self.price is not None
        moneyness = held.side * (self.price - held.entry)
        price = up_to_a_tick(self._proxy(atr, self._trading_days(ts, held.expiry), moneyness))
        held.time_value = max(0, price - max(0, moneyness))

    # What it is worth ---------------------------------------------------------------------------

    def _width(self, best: int, given: int) -> int:
        if self.terms.trail_bp is None:
            return given
        return max(1, -(-best * self.terms.trail_bp // 10_000))

    def _per_unit(self, price: int) -> int:
        held = self.position
        if held is None:
            return 0
        if self.terms.option:
            return max(0, held.side * (price - held.entry)) + held.time_value
        return price if held.side > 0 else 2 * held.entry - price

    def _equity(self, price: int) -> int:
        units = self.position.units if self.position else 0
        return self.cash + self._per_unit(price) * units * self.terms.tick_money

    def _risk_equity(self, price: int) -> int:
        held = self.position
        if held is None or not self.terms.option or self.terms.marked:
            return self._equity(price)
        counted = max(self._per_unit(price), held.premium)
        return self.cash + counted * held.units * self.terms.tick_money

    # What is told -------------------------------------------------------------------------------

    def _event(self, kind: str, ts: int, **more: object) -> None:
        head = {"kind": kind, "seq": len(self.events), "ts_event": ts, "barrier": self.barrier}
        self.events.append(head | more)

    def _reject(self, order: Order, ts: int, why: str) -> None:
        lots = 0 if order.action == "CLOSE" else order.quantity
        self._event("OrderRejected", ts, action=order.action, quantity=lots, reason=why)

    def _expire(self, ts: int, why: str) -> None:
        order, self.waiting = self.waiting, None
        assert order is not None
        lots = 0 if order.action == "CLOSE" else order.quantity
        self._event("OrderExpired", ts, action=order.action, quantity=lots, reason=why)

    def _mark(self, ts: int, cause: str, price: int) -> None:
        held = self.position
        distance = None
        if held:
            distance = held.side * (price - held.stop) / held.width
            distance = min(1.0, max(-3.0, distance))
        self.marks.append({
            "seq": len(self.marks), "ts_event": ts, "barrier": self.barrier, "cause": cause,
            "price": price, "cash": self.cash, "equity": self._equity(price),
            "risk_equity": self._risk_equity(price),
            "lots": held.side * held.quantity if held else 0, "realized_pnl": self.realized,
            "brokerage_paid": self.paid, "trailing_stop_price": held.stop if held else None,
            "distance_to_trail": distance, "halted": self.halted,
        })  # fmt: skip
