"""What a person's own strategy sees and answers.

`class Strategy: def on_bar(self, bar, account) -> Action`, with optional `on_fill(event)`,
`state()` and `restore(state)`. One instance per instrument: it sees that instrument only, at bar
closes only. `bar` and `account` hold floats in the instrument's currency: what decides may round,
what happens to money is computed in integers.
"""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.domain.errors import StrategyError
from streambot.domain.events import HOLD, Action, EngineEvent
from streambot.engine.decode import NoActionError, action_code, decode_events
from streambot.engine.drive import Ahead, make_ahead
from streambot.engine.slots import ACT_HOLD, CAPACITY, LOG, NONE, SLOT, VIEW_FIELDS, word
from streambot.engine.trailing import distance_to_trail

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.domain.instruments import Instrument

Records = npt.NDArray[np.void]
_FEWEST_AHEAD, _MOST_AHEAD = 32, 2_048
_AT = {name: k for k, name in enumerate(VIEW_FIELDS)}
_NOT_THEIRS = (
    f"{Path(__file__).parent.parent}/",
    f"{sysconfig.get_path('stdlib')}/",
    f"{sysconfig.get_path('purelib')}/",
    "<frozen",
)
"""Where code is that a strategy's author did not write: this package, Python, installed packages."""


def _words(records: Records) -> memoryview:
    """Records as words of eight bytes, a row each where there are several."""
    words: Any = records.view(np.int64)
    return memoryview(words if len(records) == 1 else words.reshape(len(records), -1))


_EVENT_SEQ, _MARK_SEQ = word(SLOT, "event_seq"), word(SLOT, "mark_seq")
_N_EVENTS, _N_MARKS = word(LOG, "n_events"), word(LOG, "n_marks")
_N_ORDERS, _N_VIEWS = word(LOG, "n_orders"), word(LOG, "n_views")


class Bar(msgspec.Struct, frozen=True, gc=False):
    """A closed bar.

    Attributes:
        ts: close time, UTC ns: when the bar was knowable.
        open, high, low, close: prices.
        volume: in the instrument's unit.
        barrier: number of the bar's close in the run.
    """

    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    barrier: int


class Account:
    """The slot's account at the close of the bar that is being shown; it changes from bar to bar."""

    __slots__ = ("_at", "_columns", "_money", "_states", "_tick")

    def __init__(self, instrument: Instrument, ahead: Ahead) -> None:
        self._tick = float(instrument.tick_size)
        self._money = 10.0**-instrument.money_decimals
        # A memoryview gives plain integers four times faster than an array does.
        self._columns = [memoryview(column) for column in ahead.views]
        self._states = ahead.states
        self._at = 0

    @property
    def position(self) -> int:
        """Signed lots: positive long, negative short, 0 flat."""
        return int(self._columns[_LOTS][self._at])

    @property
    def cash(self) -> float:
        """Cash of the slot."""
        return self._columns[_AT["cash"]][self._at] * self._money

    @property
    def equity(self) -> float:
        """Cash plus the value of the open position."""
        return self._columns[_AT["equity"]][self._at] * self._money

    @property
    def unrealized_pnl(self) -> float:
        """P&L of the open position before brokerage; 0 when flat."""
        return self._columns[_AT["unrealized"]][self._at] * self._money

    @property
    def entry_price(self) -> float | None:
        """Fill price of the entry; None when flat."""
        return self._price("entry_price")

    @property
    def trailing_stop_price(self) -> float | None:
        """The trailing stop; None when flat."""
        return self._price("stop")

    @property
    def distance_to_trail(self) -> float | None:
        """1 at the best price, 0 at the stop, clipped to [-3, 3]; None when flat."""
        if self.position == 0:
            return None
        at, columns = self._at, self._columns
        side = 1 if self.position > 0 else -1
        close, stop, width = (int(columns[_AT[n]][at]) for n in ("close", "stop", "width"))
        return float(distance_to_trail(side, close, stop, width))

    @property
    def halted(self) -> bool:
        """True once a breach of the drawdown limit halted the slot."""
        return bool(self._columns[_AT["halted"]][self._at])

    @property
    def view(self) -> dict[str, int]:
        """The close in the engine's own integers, by `slots.VIEW_FIELDS`."""
        return {
            name: int(column[self._at])
            for name, column in zip(VIEW_FIELDS, self._columns, strict=True)
        }

    @property
    def slot(self) -> Records:
        """The engine's record of the slot at the close, `SLOT` [1]; read, never written."""
        return self._states[self._at : self._at + 1]

    def _price(self, name: str) -> float | None:
        ticks = int(self._columns[_AT[name]][self._at])
        return None if ticks == NONE else ticks * self._tick


_LOTS = _AT["lots"]


class Strategy(Protocol):
    """A person's own agent; `on_fill`, `state` and `restore` are optional (see the module)."""

    def on_bar(self, bar: Bar, account: Account) -> Action:
        """The answer to a closed bar: `HOLD`, `CLOSE`, `buy(lots)` or `sell(lots)`."""
        ...


def users_line(error: BaseException, at_fault: object = None) -> str:
    """`file:line` of the innermost frame of `error` in its author's own code.

    Args:
        error: what was raised.
        at_fault: method of the author's that answered nonsense: named where no frame is theirs.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(f.filename.startswith(place) for place in _NOT_THEIRS)]
    if own:
        return f"{own[-1].filename}:{own[-1].lineno}"
    code = getattr(at_fault, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


class Advance(Protocol):
    """One call of a driver over this slot's rows."""

    def __call__(self, start: int, back_to: int, action: int, quantity: int, closes: int, /) -> int:
        """Run on from row `start`, at most `closes` closes ahead; the first row not run."""
        ...


class StrategyPlayer:
    """Asks one Python strategy at every close of one slot, and keeps the slot's log straight.

    The driver runs ahead as if every answer were HOLD; the first other answer takes the slot back
    to that close. What was logged beyond it is forgotten, as if it had never happened.

    Args:
        strategy: the agent.
        instrument: what its slot trades.
        halts: what a breach does, for the events shown to `on_fill`.
    """

    def __init__(self, strategy: Strategy, instrument: Instrument, *, halts: bool = True) -> None:
        self.strategy = strategy
        self.ahead = make_ahead(_MOST_AHEAD)
        self._instrument = instrument
        self._halts = halts
        self._account = Account(instrument, self.ahead)
        self._on_fill: Callable[[EngineEvent], None] | None = getattr(strategy, "on_fill", None)
        # For what this package itself puts in an agent's place: the records, before they are text.
        self._on_records: Callable[[Records], None] | None = getattr(strategy, "on_records", None)
        self._listens = self._on_fill is not None or self._on_records is not None
        self._policy_said: Callable[[], dict[str, float]] | None = getattr(
            strategy, "policy_said", None
        )
        self._closes = _FEWEST_AHEAD
        self._told = 0
        # Bars of closes that are still to be shown: orders cannot change them, a run ahead
        # that was taken back has them already.
        self._bars: list[Bar] = []
        # Plain integers of records, without the cost of numpy's scalars.
        self._states = _words(self.ahead.states)
        self._positions = memoryview(self.ahead.views[_AT["position"]])
        self._scale = float(instrument.tick_size)
        self._step = float(instrument.volume_step)

    def play(
        self, advance: Advance, rows: int, slot: Records, log: Records, drain: Callable[[], None]
    ) -> None:
        """Run the slot to the end of its rows.

        Args:
            advance: the driver, bound to the slot and its rows; it must write to `self.ahead`.
            rows: count of rows.
            slot: `SLOT` [1], the slot's record.
            log: `LOG` [1].
            drain: empties the log; called whenever all that it holds is final.

        Raises:
            StrategyError: the strategy raised, or answered something that is no action.
        """
        state, states = _words(slot), self._states
        counts = _words(log)
        # What was emptied before this strategy came is not its own.
        self._told = max(self._told, state[_EVENT_SEQ] - counts[_N_EVENTS])
        start, back_to, action, quantity = 0, -1, ACT_HOLD, 0
        while True:
            if back_to < 0:
                events, marks = state[_EVENT_SEQ], state[_MARK_SEQ]
            else:
                events, marks = states[back_to, _EVENT_SEQ], states[back_to, _MARK_SEQ]
            first_event, first_mark = events - counts[_N_EVENTS], marks - counts[_N_MARKS]
            reached = advance(start, back_to, action, quantity, self._closes)
            seen = counts[_N_VIEWS]
            at, action, quantity = self._ask(seen, log, first_event)
            if at == seen:
                # The rest of the log is final too: told now, before the next close is shown.
                self._tell(state[_EVENT_SEQ], log, first_event)
                if reached == rows:
                    drain()
                    return
                start, back_to = reached, -1
                self._closes = min(2 * self._closes, _MOST_AHEAD)
            else:
                counts[_N_EVENTS] = states[at, _EVENT_SEQ] - first_event
                counts[_N_MARKS] = states[at, _MARK_SEQ] - first_mark
                start, back_to = self._positions[at], at
                self._closes = min(max(_FEWEST_AHEAD, 2 * (at + 1)), _MOST_AHEAD)
            if 2 * max(counts[_N_EVENTS], counts[_N_MARKS], counts[_N_ORDERS]) > CAPACITY:
                drain()

    def tell_rest(self, slot: Records, log: Records) -> None:
        """Tell what the log holds from outside `play`; call it before the log is emptied.

        Args:
            slot: `SLOT` [1], the slot's record.
            log: `LOG` [1].

        Raises:
            StrategyError: `on_fill` raised.
        """
        events = _words(slot)[_EVENT_SEQ]
        first_event = events - _words(log)[_N_EVENTS]
        self._told = max(self._told, first_event)
        self._tell(events, log, first_event)

    def _ask(self, seen: int, log: Records, first_event: int) -> tuple[int, int, int]:
        """Show the closes one after the other up to the first answer that is not HOLD."""
        account, on_bar, listens = self._account, self.strategy.on_bar, self._listens
        bars = self._bars
        if seen > len(bars):
            self._make_bars(len(bars), seen)
        at = 0
        try:
            for bar in bars:
                account._at = at  # noqa: SLF001  # the player is the account's other half
                if listens:
                    self._tell(self._states[at, _EVENT_SEQ], log, first_event)
                answer = on_bar(bar, account)
                if answer is not HOLD:
                    code, quantity = action_code(answer)
                    if code != ACT_HOLD:
                        del bars[: at + 1]
                        return at, code, quantity
                at += 1
                if at == seen:
                    break
        except StrategyError:
            raise
        except Exception as error:
            answered = isinstance(error, NoActionError)
            said = str(error) if answered else f"{type(error).__name__}: {error}"
            raise StrategyError(
                f"{type(self.strategy).__name__} failed at barrier "
                f"{int(self.ahead.views[_AT['barrier'], at])} of {self._instrument.symbol}: {said}",
                where=users_line(error, type(self.strategy).on_bar),
                hint="on_bar must return HOLD, CLOSE, buy(lots) or sell(lots)" if answered else "",
            ) from error
        del bars[:seen]
        return seen, ACT_HOLD, 0

    def _make_bars(self, first: int, end: int) -> None:
        """Bars of the views `first` to `end - 1`, behind those that are there."""
        views = self.ahead.views[:, first:end]
        prices = (views[_AT["open"] : _AT["close"] + 1] * self._scale).tolist()
        volumes = (views[_AT["volume"]] * self._step).tolist()
        closes, barriers = views[_AT["close_ts"]].tolist(), views[_AT["barrier"]].tolist()
        self._bars += map(Bar, closes, *prices, volumes, barriers)

    def _tell(self, until: int, log: Records, first_event: int) -> None:
        """Pass the events before number `until` to `on_fill`, once each."""
        if self._on_records is not None and until > self._told:
            self._on_records(log["events"][0][self._told - first_event : until - first_event])
        if self._on_fill is not None and until > self._told:
            records = log["events"][0][self._told - first_event : until - first_event]
            for event in decode_events(records, self._instrument.symbol, halts=self._halts):
                try:
                    self._on_fill(event)
                except Exception as error:
                    raise StrategyError(
                        f"{type(self.strategy).__name__}.on_fill failed at event {event.seq} of "
                        f"{event.instrument}: {type(error).__name__}: {error}",
                        where=users_line(error),
                    ) from error
        self._told = until

    def policy_said(self) -> dict[str, float]:
        """What a learned policy has said of itself since the last call, as `OrdersThrough.policy`."""
        return {} if self._policy_said is None else self._policy_said()

    @property
    def resumable(self) -> bool:
        """True where the strategy can put its state into a snapshot."""
        return hasattr(self.strategy, "state") and hasattr(self.strategy, "restore")

    def state(self) -> dict[str, Any]:
        """What a snapshot keeps: the strategy's own state and what it was told.

        Raises:
            StrategyError: `state()` raised, or gave something that JSON cannot hold.
        """
        try:
            own = self.strategy.state()  # type: ignore[attr-defined]  # see `resumable`
            msgspec.json.encode(own)
        except Exception as error:
            raise StrategyError(
                f"{type(self.strategy).__name__}.state() must return plain data: {error}",
                where=users_line(error),
            ) from error
        return {"own": own, "told": self._told}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the strategy back to what `state` gave.

        Raises:
            StrategyError: `restore()` raised.
        """
        self._told = state["told"]
        try:
            self.strategy.restore(state["own"])  # type: ignore[attr-defined]  # see `resumable`
        except Exception as error:
            raise StrategyError(
                f"{type(self.strategy).__name__}.restore() failed on what state() gave: "
                f"{type(error).__name__}: {error}",
                where=users_line(error),
            ) from error
