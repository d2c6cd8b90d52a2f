"""The environment's half of a slot whose engine runs elsewhere: in the stream, in a mirror.

An agent there is shown every close by the engine itself (`engine.strategy`). From that alone come
the market features, the observation, the mask, the reward and the end of the episode, by the code
that computes them where the engine is in process: so all of them are the same, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.data.segment_build import check_timeframes, trading_dates
from streambot.data.segments import BAR_ROW, BY_INSTRUMENT, FORMAT, SegmentHead, Segments
from streambot.domain.errors import ConfigError, DecodeError
from streambot.domain.ticks import TICK
from streambot.engine.slots import EVENT
from streambot.env.core import Core
from streambot.market.features import Features
from streambot.market.packed import pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.domain.instruments import Instrument
    from streambot.engine.ordering import SlotContext
    from streambot.env.config import EnvConfig

Records = npt.NDArray[np.void]
_NO_EVENTS = np.zeros(0, EVENT)
_ENDLESS = np.iinfo(np.int64).max


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A follower between two closes; arrays as bytes."""

    bars: int
    begun: bool
    columns: bytes
    events: bytes
    features: bytes
    core: bytes


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
        self._place(_ENDLESS if bars is None else self.bars - 1 + bars)
        core.reset()
        self._begun = True

    def go_on(self) -> bool:
        """Be in an episode that lasts as long as the run, from the first close at which the slot is flat.

        What ends an episode does not end a run. Where one has ended, another begins as soon as the
        slot is flat: with the cash that is left, and HOLD alone is legal where that buys nothing, or
        where the slot was halted.

        Returns:
            True: observation and mask are of the last close. False: somebody else's position is
            open, or one that the end of the episode before has left.
        """
        core = self.core
        if self._begun and not core.envs[0]["ended"]:
            return True
        if core.slots[0]["side"] != 0:
            return False
        self._place(_ENDLESS)
        core.reset(may_be_poor=True)
        self._begun = True
        return True

    def _place(self, last_bar: int) -> None:
        """Where the episode that begins now lies."""
        self.core.envs["bar"], self.core.envs["last_bar"] = self.bars - 1, last_bar

    def snapshot(self) -> bytes:
        """The state between two closes, as bytes."""
        return msgspec.msgpack.encode(
            _Kept(
                bars=self.bars,
                begun=self._begun,
                columns=pack_arrays(self._last_rows()),
                events=b"".join(events.tobytes() for events in self._events),
                features=self._features.snapshot(),
                core=self.core.snapshot(),
            )
        )

    def restore(self, snapshot: bytes) -> None:
        """Go on from a `snapshot` of a follower of the same slot with the same settings.

        Raises:
            DecodeError: of another one, or damaged.
        """
        try:
            kept = msgspec.msgpack.decode(snapshot, type=_Kept)
            events = np.frombuffer(kept.events, EVENT)
        except (msgspec.MsgspecError, ValueError) as cause:
            raise DecodeError(f"no state of a follower: {cause}", reason="schema") from cause
        columns = self._last_rows()
        unpack_arrays(kept.columns, columns)
        self._features.restore(kept.features)
        self.core.restore(kept.core)
        count = min(kept.bars, self._room // 2)
        for column, rows in zip((self._window, self._slow), columns, strict=True):
            column[:count] = rows[len(rows) - count :]
        self._first_row[0] = count - kept.bars
        self._events = [events] if len(events) else []
        self.bars, self._begun = kept.bars, kept.begun

    def _last_rows(self) -> list[npt.NDArray[np.float32]]:
        """Copies of the rows that a later observation may need, the newest last; 0 before the first."""
        end = int(self._first_row[0]) + self.bars
        count = min(self.bars, self._room // 2)
        copies = []
        for column in (self._window, self._slow):
            rows = np.zeros((self._room // 2, column.shape[1]), np.float32)
            rows[len(rows) - count :] = column[end - count : end]
            copies.append(rows)
        return copies

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
