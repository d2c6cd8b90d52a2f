"""What an episode looked like so far, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.events import OrderFilled, PositionSettled
from streambot.engine.slots import NONE
from streambot.env.shell import events_of

if TYPE_CHECKING:
    from streambot.domain.instruments import Instrument
    from streambot.env.core import Core


class Moment(NamedTuple):
    """The account at one close.

    Attributes:
        ts: of the close, UTC ns.
        price: of the close.
        equity: in the instrument's currency.
        position: signed lots.
        stop: the trailing stop; None when flat.
    """

    ts: int
    price: float
    equity: float
    position: int
    stop: float | None


class Trade(NamedTuple):
    """A fill, or a settlement.

    Attributes:
        at: index of the moment at whose close it is known.
        price: of the fill.
        effect: `entry` or `exit`.
        side: 1 or -1, of the position.
    """

    at: int
    price: float
    effect: str
    side: int


class History:
    """Moments and trades of one episode."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.moments: list[Moment] = []
        self.trades: list[Trade] = []

    @property
    def instrument(self) -> Instrument:
        """What the episode trades."""
        return self._core.instrument_of(0)

    def begin(self) -> None:
        """A new episode."""
        self.moments, self.trades = [], []
        self._add()

    def note(self) -> None:
        """A step has been done."""
        self._add()
        tick = float(self.instrument.tick_size)
        for event in events_of(self._core, 0):
            if isinstance(event, (OrderFilled, PositionSettled)):
                entry = isinstance(event, OrderFilled) and event.effect == "entry"
                effect, side = "entry" if entry else "exit", 1 if event.side > 0 else -1
                self.trades.append(Trade(len(self.moments) - 1, event.price * tick, effect, side))

    def _add(self) -> None:
        instrument, core = self.instrument, self._core
        s, e = core.slots[0], core.envs[0]
        tick = float(instrument.tick_size)
        side = int(s["side"])
        stop = int(s["stop"])
        self.moments.append(
            Moment(
                int(s["close_ts"]),
                int(s["last_price"]) * tick,
                int(e["equity"]) * 10.0**-instrument.money_decimals,
                side * int(s["quantity"]),
                None if side == 0 or stop == NONE else stop * tick,
            )
        )
