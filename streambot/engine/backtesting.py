"""`BacktestingEngine`: the rules of the market over one slot, for a person and a notebook.

The same compiled core as the stream task and the environment, without Kafka, clock or files:

    engine = BacktestingEngine(instrument, capital=Decimal(100_000))
    result = engine.run(bars, MyStrategy())        # or Script.SMA_CROSS, or nothing
    engine.submit(SubmitOrder(...)); engine.run(more_bars)

It goes on where it stopped: bars may come in pieces, and every piece gives the same events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streambot.domain.bars import BarBlock
from streambot.domain.errors import DataError, UsageError
from streambot.domain.events import Action, ActionKind, EngineEvent, Mark, SubmitOrder
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.engine.barrier import end_of_data
from streambot.engine.decode import (
    action_code,
    check_order,
    decode_events,
    decode_marks,
    encode_orders,
)
from streambot.engine.drive import NO_VIEWS, advance_bars, advance_ticks, make_log
from streambot.engine.kernel import settle_expired
from streambot.engine.log import reject_now
from streambot.engine.ordering import Calendar, empty_calendar, take_given
from streambot.engine.scripts import Script
from streambot.engine.slots import (
    ACT_HOLD,
    EVENT,
    MARK,
    MAX_AVERAGE,
    ORDER,
    REJ_DUPLICATE,
    RING,
    SlotLimits,
    make_params,
    new_slot,
)
from streambot.engine.strategy import Strategy, StrategyPlayer
from streambot.engine.valuation import equity_at, unrealized_at
from streambot.jit import njit

if TYPE_CHECKING:
    from streambot.domain.instruments import Instrument

_NONE = np.zeros(0, np.int64)
_NO_BARS = BarBlock(_NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, np.zeros(0, np.uint8))
DEFAULT_CAPITAL = Decimal(1_000_000)


class BacktestResult:
    """What one call of `run` brought; put together and decoded when asked for."""

    def __init__(
        self, instrument: Instrument, events: list[bytes], marks: list[bytes], *, halts: bool
    ) -> None:
        self._instrument = instrument
        self._events = events
        self._marks = marks
        self._halts = halts

    @cached_property
    def event_records(self) -> npt.NDArray[np.void]:
        """`EVENT` [n], in order of processing."""
        return np.frombuffer(b"".join(self._events), EVENT)

    @cached_property
    def mark_records(self) -> npt.NDArray[np.void]:
        """`MARK` [m]."""
        return np.frombuffer(b"".join(self._marks), MARK)

    @cached_property
    def events(self) -> list[EngineEvent]:
        """Fills, rejections, expiries, settlements and breaches, in order of processing."""
        return decode_events(self.event_records, self._instrument.symbol, halts=self._halts)

    @cached_property
    def marks(self) -> list[Mark]:
        """State of the slot at barriers, fills, settlements and session closes."""
        return decode_marks(self.mark_records, self._instrument.symbol)


@njit
def is_sorted(times: npt.NDArray[Any]) -> bool:
    """True where no time, or interval, is earlier than the one before it."""
    backwards = 0
    for k in range(1, len(times)):
        backwards += times[k] < times[k - 1]
    return backwards == 0


class BacktestingEngine:
    """One slot: one instrument, its own cash.

    Args:
        instrument: what is traded, with its costs.
        capital: initial cash in the instrument's currency.
        limits: settings of the run; by default a mark at every bar.
        calendar: sessions and contracts; needed by options whose orders are completed here.
    """

    def __init__(
        self,
        instrument: Instrument,
        *,
        capital: Decimal = DEFAULT_CAPITAL,
        limits: SlotLimits | None = None,
        calendar: Calendar | None = None,
    ) -> None:
        self.instrument = instrument
        self.limits = limits or SlotLimits()
        self._params = make_params(instrument, instrument.money(capital), self.limits)
        self._slot = new_slot(self._params)
        self._ring = np.zeros(1, RING)
        self._log = make_log()
        self._calendar = calendar or empty_calendar()
        self._given: list[SubmitOrder] = []
        self._player: StrategyPlayer | None = None
        self._barrier = 0

    def use_script(self, script: Script, *, lots: int = 1, fast: int = 10, slow: int = 30) -> None:
        """Let a scripted agent decide from here on.

        Args:
            lots: size of its orders.
            fast, slow: bars in the two averages of `SMA_CROSS`.

        Raises:
            UsageError: the averages are not 1 <= fast < slow <= 256, or lots < 1.
        """
        if not 1 <= fast < slow <= MAX_AVERAGE or lots < 1:
            raise UsageError(
                f"averages of {fast} and {slow} bars, {lots} lots: need 1 <= fast < slow <= "
                f"{MAX_AVERAGE} and at least one lot"
            )
        p = self._params[0]
        p["script"], p["script_lots"], p["script_fast"], p["script_slow"] = script, lots, fast, slow

    def submit(self, order: SubmitOrder) -> None:
        """Queue a complete order that answers barrier `order.barrier`.

        Barriers count this engine's bars from 0. The order acts at the first tick of the bar after
        that barrier; an order for a barrier before the last one is rejected (`no_bar`).

        Raises:
            UsageError: a number that no order can carry.
        """
        check_order(order)
        if order.action != ActionKind.HOLD:
            self._given.append(order)

    def run(
        self,
        data: BarBlock | TickBlock,
        strategy: Strategy | Script | Iterable[SubmitOrder] | None = None,
        *,
        closes: npt.NDArray[np.int64] | None = None,
        end: bool = True,
    ) -> BacktestResult:
        """Run over bars, or over ticks.

        Args:
            data: bars (each closes a barrier), or ticks with their interval in `bar`.
            strategy: an object with `on_bar`, a script, or complete orders; None: what is queued.
            closes: with ticks: close time of every interval, UTC ns.
            end: this is the end of the data: an order that still waits expires.

        Returns:
            The events and marks of this call.

        Raises:
            StrategyError: the strategy raised, or answered something that is no action.
            DataError: ticks without the close times of their intervals, or bars that go back in time.
        """
        if isinstance(strategy, Script):
            self.use_script(strategy)
            self._player = None
        elif isinstance(strategy, Iterable):
            for order in strategy:
                self.submit(order)
        elif strategy is not None:
            self._params[0]["script"] = Script.NONE
            if self._player is None or self._player.strategy is not strategy:
                self._player = StrategyPlayer(
                    strategy, self.instrument, halts=self.limits.halt_on_breach
                )
        self._check(data, closes)
        given = self._encode_given(data, closes)
        events: list[bytes] = []
        marks: list[bytes] = []

        def drain() -> None:
            self._drain(events, marks)

        ahead = NO_VIEWS if self._player is None else self._player.ahead
        self._log["n_given"] = 0

        def advance(start: int, back_to: int, action: int, quantity: int, closes: int, /) -> int:
            common = (self._params, self._slot, self._ring, 0, self._calendar, self._log, ahead)
            answer = (start, back_to, action, quantity, closes)
            if isinstance(data, TickBlock):
                return advance_ticks(*common, given, data, ends, self._barrier, rows, *answer)
            return advance_bars(*common, given, data, self._barrier, *answer)

        rows, ends = np.arange(len(data) if isinstance(data, TickBlock) else 0), closes
        if self._player is not None:
            self._player.play(advance, len(data), self._slot, self._log, drain)
        else:
            at = 0
            while at < len(data):
                at = advance(at, -1, ACT_HOLD, 0, 0)
                drain()
        self._barrier += len(data) if closes is None else len(closes)
        self._finish(given, closes, drain, end=end)
        return BacktestResult(
            self.instrument,
            events,
            marks,
            halts=self.limits.halt_on_breach,
        )

    def _finish(
        self,
        given: npt.NDArray[np.void],
        closes: npt.NDArray[np.int64] | None,
        drain: Callable[[], None],
        *,
        end: bool,
    ) -> None:
        """Barriers behind the last row; with `end` the end of the data."""
        p, s, log = self._params[0], self._slot[0], self._log[0]
        while log["n_given"] < len(given) and given[log["n_given"]]["barrier"] < self._barrier:
            take_given(p, s, given, log, self._barrier, -1)
            if self._player is not None:
                self._player.tell_rest(self._slot, self._log)
            drain()
        self._given = self._given[int(log["n_given"]) :]
        if closes is not None and len(closes):
            settle_expired(p, s, log, closes[-1], -1)
        if end:
            end_of_data(s, log, -1)
        if self._player is not None:
            self._player.tell_rest(self._slot, self._log)
        drain()

    def _check(self, data: BarBlock | TickBlock, closes: npt.NDArray[np.int64] | None) -> None:
        if isinstance(data, TickBlock) and closes is None:
            raise DataError("ticks need `closes`, the close time of every interval")
        last = int(self._slot["close_ts"][0])
        if not len(data):
            return
        in_order = is_sorted(data.ts) and int(data.ts[0]) >= last
        if isinstance(data, TickBlock):
            in_order = in_order and is_sorted(data.bar)
        if not in_order:
            raise DataError("bars and ticks must come in time order", hint="sort them by `ts`")
        if isinstance(data, TickBlock) and closes is not None:
            # An interval may stay open at the end, but no bar closes in it.
            known, reached = len(closes), int(data.bar[-1])
            closing = data.flags[np.searchsorted(data.bar, known) :] & TickFlag.BAR_CLOSE
            if reached > known or closing.any():
                raise DataError(
                    f"ticks reach interval {reached}, `closes` has {known} close times",
                    hint="give the close time of every interval in which a bar closes",
                )

    def _encode_given(
        self, data: BarBlock | TickBlock, closes: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.void]:
        if not self._given:
            return np.zeros(0, ORDER)
        ends = closes if isinstance(data, TickBlock) else data.ts + data.duration
        self._given.sort(key=lambda order: order.barrier)
        times = []
        for order in self._given:
            at = order.barrier - self._barrier
            known = ends is not None and 0 <= at < len(ends)
            last = int(self._slot["close_ts"][0])
            times.append(int(ends[at]) if known and ends is not None else last)
        return encode_orders(self._given, times)

    def _drain(self, events: list[bytes], marks: list[bytes]) -> None:
        log = self._log[0]
        if log["n_events"]:
            events.append(log["events"][: log["n_events"]].tobytes())
        if log["n_marks"]:
            marks.append(log["marks"][: log["n_marks"]].tobytes())
        log["n_events"] = log["n_marks"] = log["n_orders"] = 0

    @property
    def cash(self) -> Decimal:
        """Cash, in the instrument's currency, exact."""
        return self._amount(int(self._slot["cash"][0]))

    @property
    def equity(self) -> Decimal:
        """Cash plus the value of the open position at the last price."""
        s = self._slot[0]
        return self._amount(int(equity_at(self._params[0], s, s["last_price"])))

    @property
    def unrealized_pnl(self) -> Decimal:
        """P&L of the open position before brokerage; 0 when flat."""
        s = self._slot[0]
        return self._amount(int(unrealized_at(self._params[0], s, s["last_price"])))

    @property
    def realized_pnl(self) -> Decimal:
        """P&L of all closed positions before brokerage."""
        return self._amount(int(self._slot["realized"][0]))

    @property
    def brokerage_paid(self) -> Decimal:
        """Brokerage of all orders and settlements."""
        return self._amount(int(self._slot["brokerage_paid"][0]))

    @property
    def position(self) -> int:
        """Signed lots: positive long, negative short, 0 flat."""
        return int(self._slot["side"][0] * self._slot["quantity"][0])

    @property
    def trailing_stop_price(self) -> Decimal | None:
        """The trailing stop of the open position, from the best price reached; None when flat."""
        if self.position == 0:
            return None
        return int(self._slot["stop"][0]) * self.instrument.tick_size

    @property
    def _trailing_stop_price(self) -> Decimal | None:
        """The name that the trailing stop had in the project's plan."""
        return self.trailing_stop_price

    def snapshot(self) -> bytes:
        """State of the slot: a fresh engine with the same settings goes on from it."""
        return self._slot.tobytes() + self._ring.tobytes() + self._barrier.to_bytes(8, "little")

    def restore(self, data: bytes) -> None:
        """Take the slot to what `snapshot` gave.

        Raises:
            DataError: the bytes are no snapshot of this version.
        """
        slot, ring = self._slot.nbytes, self._ring.nbytes
        if len(data) != slot + ring + 8:
            raise DataError(f"{len(data)} bytes are no snapshot of a slot ({slot + ring + 8})")
        self._slot = np.frombuffer(data[:slot], self._slot.dtype).copy()
        self._ring = np.frombuffer(data[slot : slot + ring], RING).copy()
        self._barrier = int.from_bytes(data[slot + ring :], "little")

    def _amount(self, money: int) -> Decimal:
        return Decimal(money).scaleb(-self.instrument.money_decimals)

    def act(self, action: Action) -> None:
        """Answer the last close with an action; the order is completed from what is known.

        Premium, contract, lot size and trailing width are computed as the stream task does. A second
        answer to a close is rejected (`duplicate_order`), which the next `run` tells.

        Raises:
            UsageError: no bar has closed yet.
        """
        code, quantity = action_code(action)
        if int(self._slot["bars"][0]) == 0:
            raise UsageError("no bar has closed yet: an order answers a bar's close")
        s = self._slot[0]
        if code != ACT_HOLD and s["order_action"] != ACT_HOLD:
            reject_now(s, self._log[0], s["close_ts"], code, quantity, REJ_DUPLICATE, -1)
            return
        advance_bars(
            self._params,
            self._slot,
            self._ring,
            0,
            self._calendar,
            self._log,
            NO_VIEWS,
            np.zeros(0, ORDER),
            _NO_BARS,
            self._barrier,
            0,
            -1,
            code,
            quantity,
            0,
        )
