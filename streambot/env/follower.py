"""The environment's half of a slot whose engine runs elsewhere: in the stream, in a mirror.

An agent there is shown every close by the engine itself (`engine.strategy`). From that alone come
the market features, the observation, the mask, the reward and the end of the episode, by the code
that computes them where the engine is in process: so all of them are the same, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from streambot.data.segment_build import check_timeframes, trading_dates
from streambot.data.segments import BAR_ROW, BY_INSTRUMENT, FORMAT, SegmentHead, Segments
from streambot.domain.errors import ConfigError
from streambot.domain.ticks import TICK
from streambot.engine.slots import EVENT
from streambot.env.core import Core
from streambot.market.features import Features

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.domain.instruments import Instrument
    from streambot.engine.ordering import SlotContext
    from streambot.env.config import EnvConfig

Records = npt.NDArray[np.void]
_NO_EVENTS = np.zeros(0, EVENT)


class Follower:
    """Follows one slot, close by close.

    Args:
        instrument: what the slot trades.
        context: what it knows besides its ticks.
        config: settings; capital and limits are those of the engine.
        decision_ns: the run's decision timeframe.

    Raises:
        ConfigError: a coarser timeframe is not made of whole decision bars.

    Attributes:
        core: the environment; `core.observations[0]` and the rest are of the last close.
        bars: how many closes were seen.
    """

    def __init__(
        self,
        instrument: Instrument,
        context: SlotContext,
        config: EnvConfig,
        *,
        decision_ns: int,
    ) -> None:
        features = config.features
        check_timeframes(features, decision_ns)
        self._features = Features(features, [trading_dates(instrument, features)])
        self._room = 2 * config.window
        self._window = np.zeros((self._room, len(features.window_fields)), np.float32)
        self._slow = np.zeros((self._room, len(features.slow_fields)), np.float32)
        segments = self._segments(instrument, context, config, decision_ns)
        self.core = Core(segments, config, outside=True)
        self._first_row = self.core.row_starts["bar_starts"]
        self._events: list[Records] = []
        self._begun = False
        self.bars = 0

    def _segments(
        self, instrument: Instrument, context: SlotContext, config: EnvConfig, decision_ns: int
    ) -> Segments:
        calendar = context.calendar
        sessions, contracts = len(calendar.opens), len(calendar.expiries)
        rows = {
            "session_opens": sessions, "session_closes": sessions,
            "expiries": contracts, "lots": contracts,
        }  # fmt: skip
        head = SegmentHead(
            format=FORMAT,
            source=f"a slot of {instrument.symbol}, followed",
            complete=False,
            instruments=(instrument,),
            features=config.features,
            decision_ns=decision_ns,
            stop_at_tick=False,
            starts={name: (0, rows.get(name, 0)) for name in BY_INSTRUMENT},
            barriers=0,
        )
        return Segments(
            head, np.zeros(1, TICK), np.zeros(1, BAR_ROW), self._window, self._slow,
            np.zeros(1, np.int64), *calendar, folder=None,
        )  # fmt: skip

    def note(self, events: Records) -> None:
        """Events of the slot since the last close, `EVENT` [n]."""
        self._events.append(events.copy())

    def forget(self) -> None:
        """Leave out what was noted since the last close."""
        self._events.clear()

    def see(self, view: Mapping[str, int], slot: Records) -> None:
        """The next close: the observation, and the reward of the step that ends with it.

        Args:
            view: the close, by `engine.slots.VIEW_FIELDS`.
            slot: the engine's record of it, `SLOT` [1].
        """
        row = self._row()
        self._window[row], self._slow[row] = self._features.push(
            0,
            open_ts=view["open_ts"],
            close_ts=view["close_ts"],
            prices=(view["open"], view["high"], view["low"], view["close"]),
            volume=view["volume"],
            session_close=view["session_close"] != 0,
        )
        events = np.concatenate(self._events) if self._events else _NO_EVENTS
        self._events.clear()
        self.core.load(slot, events)
        self.bars += 1
        if self._begun:
            self.core.step()

    def begin(self, bars: int | None) -> None:
        """Begin the episode, at the last close that was seen.

        Args:
            bars: its length; None: as long as the run goes on.

        Raises:
            ConfigError: the slot holds a position already: what it brings is not the episode's.
        """
        core = self.core
        if core.slots[0]["side"] != 0:
            raise ConfigError(
                f"{core.instrument_of(0).symbol} has an open position where the episode begins",
                hint="another agent of the run trades it, or `lookback` is shorter than before",
            )
        core.envs["bar"] = self.bars - 1
        core.envs["last_bar"] = np.iinfo(np.int64).max if bars is None else self.bars - 1 + bars
        core.reset()
        self._begun = True

    def _row(self) -> int:
        """Room for another bar: those that an observation still needs move to the front."""
        first = int(self._first_row[0])
        row = first + self.bars
        if row < self._room:
            return row
        keep = self._room // 2
        for column in (self._window, self._slow):
            column[:keep] = column[self._room - keep :].copy()
        self._first_row[0] = keep - self.bars
        return keep
