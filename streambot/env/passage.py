"""Accounts that go through a stretch of their instruments once, from its first close to its last.

An episode that is learnt from ends where the drawdown limit, ruin or a long gap ends it. A passage
goes on as the run in the stream does: behind a breach the engine closes the position at the next bar
and lets nothing be entered; over a gap a position is held, a waiting entry expires, and nobody knows
of it before. So what an account ends with is what the same answers end with in `simulate`, to the
last money unit.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.domain.errors import DataError
from streambot.domain.events import (
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PositionSettled,
    SlotBreached,
)
from streambot.domain.instruments import Instrument
from streambot.engine.decode import decode_events
from streambot.env.core import Core
from streambot.env.scripts import most_lots
from streambot.env.starts import rows_between
from streambot.env.world import FOUND_NO_ACTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.data.segments import Segments
    from streambot.domain.replay_settings import Moment
    from streambot.env.config import EnvConfig

Int64Array = npt.NDArray[np.int64]
_NEVER = 2**62


class Stretch(NamedTuple):
    """Bars of one instrument that are gone through.

    Attributes:
        instrument: its number.
        first, last: bars, both included; decisions are taken at every close but the last.
    """

    instrument: int
    first: int
    last: int


def stretches(
    segments: Segments, config: EnvConfig, start: Moment | None, end: Moment | None
) -> tuple[list[Stretch], list[str]]:
    """The bars of every instrument in [start, end), and the symbols that have too few of them.

    The first decision has `config.lookback` bars before it, inside the range or before it.
    """
    found, short = [], []
    for n, instrument in enumerate(segments.head.instruments):
        closes = segments.bars_of(n)["close_ts"]
        low, high = rows_between(closes, start, end, instrument.timezone)
        first = max(low, config.lookback)
        if high - first < 2:
            short.append(instrument.symbol)
        else:
            found.append(Stretch(n, first, high - 1))
    return found, short


class Trades:
    """What an account did, counted.

    Attributes:
        fills: orders, stops, liquidations and closings after a breach that were executed.
        entries, exits: positions that were opened, and closed by a fill.
        settled: options that were settled.
        traded: value of all fills, money units: of an option what was paid for it.
        rejected, expired: orders by reason.
        breached: time of the first breach, UTC ns; None: there was none.
    """

    def __init__(self) -> None:
        self.fills = self.entries = self.exits = self.settled = self.traded = 0
        self.rejected: Counter[str] = Counter()
        self.expired: Counter[str] = Counter()
        self.breached: int | None = None

    def note(self, event: object, tick_money: int) -> None:
        """Count an event of the engine."""
        match event:
            case OrderFilled():
                self.fills += 1
                entry = event.effect == "entry"
                self.entries, self.exits = self.entries + entry, self.exits + (not entry)
                paid = event.premium if entry else event.option_value
                value = event.price if paid is None else paid
                self.traded += value * event.quantity * event.lot_size * tick_money
            case PositionSettled():
                self.settled += 1
            case OrderRejected():
                self.rejected[event.reason.value] += 1
            case OrderExpired():
                self.expired[event.reason] += 1
            case SlotBreached():
                self.breached = event.ts_event if self.breached is None else self.breached


class Account(NamedTuple):
    """What came of one account.

    Attributes:
        instrument: what it traded.
        capital: money units.
        closes: of its bars from the first decision on, UTC ns, [T + 1].
        equity: at each of them, money units, [T + 1].
        lots: the most of one order, up to Q, that its capital bought at the first close.
        held: share of the bars behind the first close at whose close a position was open.
        brokerage: money units.
        trades: what it did.
    """

    instrument: Instrument
    capital: int
    closes: Int64Array
    equity: Int64Array
    lots: int
    held: float
    brokerage: int
    trades: Trades


class Passage:
    """Every stretch, gone through by several accounts side by side.

    Environment `c * len(stretches) + k` of the core is account c of stretch k.

    Args:
        segments: the data.
        config: settings; their range and length of episodes do not count.
        spans: what is gone through.
        accounts: of every stretch.

    Raises:
        ConfigError: the capital does not buy one lot.
        DataError: nothing to go through, or an instrument of the data has less than two bars.

    Attributes:
        core: the environments; their actions are answered in it.
        live: which of them are not at their last close yet, bool [n].
        lots: of every stretch: the most of one order, up to Q, that the capital buys at its first
            close, with some to spare, int64.
        steps: how many steps it takes.
    """

    def __init__(
        self, segments: Segments, config: EnvConfig, spans: Sequence[Stretch], accounts: int
    ) -> None:
        if not spans:
            raise DataError("no instrument has bars in the range", hint="name another range")
        self._spans = tuple(spans)
        whole = msgspec.structs.replace(
            config, episode_bars=None, start=None, end=None, lookback=0, max_gap_ns=_NEVER
        )
        self.core = core = Core(segments, whole, len(spans) * accounts)
        # The limit is the engine's, which lets an entry expire; it ends nothing here.
        core.params["max_gap"] = config.max_gap_ns
        for i in range(core.n):
            span = spans[i % len(spans)]
            symbol = segments.head.instruments[span.instrument].symbol
            core.ask(i, instrument=symbol, bar=span.first, bars=span.last - span.first)
        core.reset()
        self.lots = np.array([most_lots(core, k) for k in range(len(spans))], np.int64)
        lengths = [span.last - span.first for span in spans]
        self.steps, self._at = max(lengths), 0
        self._lengths = np.tile(lengths, accounts)
        self.live = self._lengths > 0
        self._equity = np.zeros((self.steps + 1, core.n), np.int64)
        self._equity[0] = core.envs["equity"]
        self._held = np.zeros(core.n, np.int64)
        self._trades = [Trades() for _ in range(core.n)]
        self._tick_money = [core.instrument_of(i).tick_money for i in range(core.n)]

    def step(self) -> None:
        """One step of every account that is not through, with the core's actions.

        Raises:
            ValueError: what is no action.
        """
        core, live = self.core, self.live
        if core.step() == FOUND_NO_ACTION:
            raise ValueError("an action that is none")
        envs = core.envs
        self._at += 1
        self._equity[self._at] = envs["equity"]
        self._held += live & (core.slots["side"] != 0)
        for i in np.flatnonzero(live & (envs["events_n"] > 0)).tolist():
            for event in decode_events(core.events[i, : int(envs[i]["events_n"])], "", halts=True):
                self._trades[i].note(event, self._tick_money[i])
        self.live = live = self._lengths > self._at
        envs["ended"][live] = 0

    def account(self, i: int) -> Account:
        """What came of environment `i` of the core."""
        span = self._spans[i % len(self._spans)]
        core, last = self.core, int(self._lengths[i])
        bars = core.segments.bars_of(span.instrument)
        return Account(
            instrument=core.instrument_of(i),
            capital=int(core.params[span.instrument]["capital"]),
            closes=np.ascontiguousarray(bars["close_ts"][span.first : span.last + 1]),
            equity=self._equity[: last + 1, i].copy(),
            lots=int(self.lots[i % len(self._spans)]),
            held=float(self._held[i] / last),
            brokerage=int(core.slots[i]["brokerage_paid"]),
            trades=self._trades[i],
        )
