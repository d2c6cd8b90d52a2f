"""The engine task of one partition: frames in, orders, fills and marks out. No clock, no waiting.

Theory of operation. Every slot is a function of its own ticks, its own closes and its own orders;
so a frame is taken apart by instrument, each slot runs over its rows in one compiled call
(`engine.drive`), and the lines that come out are put back into the order of the rows. Framing,
partitioning and the order of instruments therefore cannot change what a slot does.

The agent is co-located (a script in the compiled loop, or a Python strategy per instrument) or
outside: then its orders come with the frames that answer them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from streambot.domain.errors import DataError
from streambot.domain.events import ActionKind, SubmitOrder
from streambot.engine.barrier import end_of_data
from streambot.engine.decode import encode_orders
from streambot.engine.drive import NO_VIEWS, advance_ticks, make_log
from streambot.engine.kernel import settle_expired
from streambot.engine.ordering import SlotContext, empty_calendar, take_given
from streambot.engine.scripts import Script, symbol_key
from streambot.engine.slot_agents import SlotBrief, strategy_of
from streambot.engine.slots import (
    ACT_HOLD,
    NONE,
    ORDER,
    PARAMS,
    RING,
    SLOT,
    make_params,
    new_slot,
)
from streambot.engine.strategy import StrategyPlayer
from streambot.processor.close_rows import CloseRows
from streambot.processor.core_state import (
    STATE_VERSION,
    CoreState,
    GivenOrder,
    RecentCloses,
    SlotState,
    decode_core,
    encode_state,
    pack_rows,
    recent_closes,
    unpack_rows,
)
from streambot.processor.step_lines import StepLines
from streambot.processor.tally import SlotStatus, SlotTally
from streambot.streams.rows import rows_by_slot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streambot.processor.agents import StrategyFactory
    from streambot.processor.journal import EventDigest
    from streambot.processor.manifest import RunManifest
    from streambot.processor.step_output import StepOutput
    from streambot.streams.frame import Frame


class TaskCore:
    """State machine of one partition.

    Args:
        manifest: the run.
        partition: which of its partitions.
        context: by symbol, for the instruments of this partition.
        agent: a script, a factory of strategies, or None: orders come from outside.
    """

    def __init__(
        self,
        manifest: RunManifest,
        partition: int,
        context: Mapping[str, SlotContext],
        agent: Script | StrategyFactory | None,
    ) -> None:
        self.manifest = manifest
        self.partition = partition
        members = manifest.members(partition)
        self.instruments = [manifest.instruments[n] for n in members]
        symbols = [instrument.symbol for instrument in self.instruments]
        self._slot_of = np.full(max(1, len(manifest.instruments)), -1, np.int64)
        self._slot_of[members] = np.arange(len(members))
        limits = manifest.limits
        params = [
            make_params(manifest.instruments[n], manifest.capital[n], limits) for n in members
        ]
        self._params = np.concatenate([_NO_PARAMS, *params])
        self._set_agent(agent, symbols)
        self._slots = np.concatenate([_NO_SLOTS, *(new_slot(p) for p in params)])
        self._rings = np.zeros(len(members), RING)
        self._tally = SlotTally(len(members))
        self._calendars = []
        self._players: list[StrategyPlayer | None] = []
        for slot, (n, instrument) in enumerate(zip(members, self.instruments, strict=True)):
            known = context.get(instrument.symbol, SlotContext(empty_calendar()))
            self._calendars.append(known.calendar)
            known.warm(self._slots[slot])
            player = None
            if agent is not None and not isinstance(agent, Script):
                capital = manifest.capital[n]
                brief = SlotBrief(instrument, known, capital, limits, manifest.decision_ns)
                strategy = strategy_of(agent, brief)
                player = StrategyPlayer(strategy, instrument, halts=limits.halt_on_breach)
            self._players.append(player)
        self._given: list[list[GivenOrder]] = [[] for _ in members]
        self._closes = CloseRows()
        self._log = make_log()
        self._lines = StepLines(manifest, partition, self._tally)
        self._last_close = NONE
        self._recent = RecentCloses()

    @property
    def digest(self) -> EventDigest:
        """Of the fills and marks so far; a restored core may be given the one of before."""
        return self._lines.digest

    @digest.setter
    def digest(self, digest: EventDigest) -> None:
        self._lines.digest = digest

    def _set_agent(self, agent: Script | StrategyFactory | None, symbols: list[str]) -> None:
        policy = self.manifest.policy
        self.co_located = agent is not None
        for slot, symbol in enumerate(symbols):
            p = self._params[slot]
            p["script"] = agent if isinstance(agent, Script) else Script.NONE
            p["script_lots"] = policy.lots
            p["script_fast"], p["script_slow"] = policy.fast, policy.slow
            p["instrument_key"] = symbol_key(symbol)

    def step(self, frame: Frame, orders: Sequence[SubmitOrder] = ()) -> StepOutput:
        """Run over a frame.

        Args:
            frame: the next DATA frame of the partition.
            orders: complete orders of agents outside, for instruments of this partition.

        Raises:
            StrategyError: a co-located strategy raised, or answered something that is no action.
            DataError: a row or an order of an instrument that is not of this partition.
        """
        frame = self._closes.settle(frame)
        ticks = frame.ticks
        self._give(orders, frame)
        slots = len(self.instruments)
        rows, starts = rows_by_slot(ticks.instrument, self._slot_of, slots)
        if starts[-1] != len(ticks):
            raise DataError(
                f"frame {frame.frame_seq} has rows of instruments that are not of this partition",
                where=f"ticks/{self.partition}",
            )
        for slot in range(slots):
            own = rows[starts[slot] : starts[slot + 1]]
            if len(own):
                self._run(slot, frame, own)
        if len(frame.closes):
            self._last_close = int(frame.closes[-1])
            if not self.co_located and not self.manifest.free_run:
                self._recent = recent_closes(frame)
            for slot in range(slots):
                self._after(slot, frame)
        closed = len(frame.closes) > 0 and self.co_located
        return self._lines.take(frame.barrier_lo + len(frame.closes) - 1 if closed else None)

    def _run(self, slot: int, frame: Frame, own: npt.NDArray[np.int64]) -> None:
        given = self._encode_given(slot)
        player = self._players[slot]
        self._log["n_given"] = 0
        common = (
            self._params, self._slots, self._rings, slot, self._calendars[slot], self._log,
            NO_VIEWS if player is None else player.ahead,
            given, frame.ticks, frame.closes, frame.barrier_lo, own,
        )  # fmt: skip
        drain = partial(self._drain, slot)
        if player is not None:
            player.play(
                partial(advance_ticks, *common),
                len(own),
                self._slots[slot : slot + 1],
                self._log,
                drain,
            )
            self._lines.said(player.policy_said())
        else:
            at = 0
            while at < len(own):
                at = advance_ticks(*common, at, -1, ACT_HOLD, 0, 0)
                drain()
        used = int(self._log["n_given"][0])
        if used:
            del self._given[slot][:used]
        self._tally.add_ticks(slot, len(own))

    def _after(self, slot: int, frame: Frame) -> None:
        """Barriers of the frame behind the slot's last row: settlement, and orders without a bar."""
        row = len(frame.ticks)
        p, s, log = self._params[slot], self._slots[slot], self._log[0]
        self._take(slot, frame.barrier_lo + len(frame.closes), row)
        settle_expired(p, s, log, self._last_close, row)
        self._tell_and_drain(slot)

    def _tell_and_drain(self, slot: int) -> None:
        """Empty the log of what happened outside the strategy's own run, which is told first."""
        if (player := self._players[slot]) is not None:
            player.tell_rest(self._slots[slot : slot + 1], self._log)
        self._drain(slot)

    def _give(self, orders: Sequence[SubmitOrder], frame: Frame | None) -> None:
        """Take in orders, each with the close time of its barrier as soon as that is known."""
        lo = 0 if frame is None else frame.barrier_lo
        closes = () if frame is None else frame.closes

        def close_of(slot: int, barrier: int) -> int | None:
            if barrier == self._slots[slot]["barrier"]:
                return int(self._slots[slot]["close_ts"])
            if frame is None or barrier < lo:
                return self._recent.of(barrier, self._last_close)
            return int(closes[barrier - lo]) if barrier - lo < len(closes) else None

        for slot, given in enumerate(self._given):
            for at, (order, ts) in enumerate((g.order, g.ts) for g in given):
                if ts is None:
                    given[at] = GivenOrder(order, close_of(slot, order.barrier))
        for order in orders:
            if order.action != ActionKind.HOLD:
                slot = self._slot_named(order.instrument)
                given = self._given[slot]
                given.append(GivenOrder(order, close_of(slot, order.barrier)))
                given.sort(key=lambda g: g.order.barrier)

    def _take(self, slot: int, through: int, row: int) -> None:
        """Hand the slot its orders for barriers before `through`, outside its rows."""
        if not self._given[slot]:
            return
        given = self._encode_given(slot)
        p, s, log = self._params[slot], self._slots[slot], self._log[0]
        self._log["n_given"] = 0
        while True:
            take_given(p, s, given, log, through, row)
            self._drain(slot)
            used = int(self._log["n_given"][0])
            if used == len(given) or given[used]["barrier"] >= through:
                break
        del self._given[slot][:used]

    def _encode_given(self, slot: int) -> npt.NDArray[np.void]:
        given = self._given[slot]
        times = [self._last_close if g.ts is None else g.ts for g in given]
        return encode_orders([g.order for g in given], times) if given else _NO_ORDERS

    def last_closed(self, symbol: str) -> int | None:
        """The barrier of the instrument's last bar; None while one is open, or none was closed."""
        s = self._slots[self._slot_named(symbol)]
        return None if s["in_bar"] or s["barrier"] < 0 else int(s["barrier"])

    def withdraw(self, symbol: str) -> None:
        """Forget the order that waits in a slot: its agent was asked, and is not obeyed there."""
        self._slots[self._slot_named(symbol)]["order_action"] = ACT_HOLD

    def _slot_named(self, symbol: str) -> int:
        for slot, instrument in enumerate(self.instruments):
            if instrument.symbol == symbol:
                return slot
        raise DataError(
            f"an order for {symbol}, which is not of this partition",
            where=f"orders/{self.partition}",
        )

    def _drain(self, slot: int) -> None:
        self._lines.drain(slot, self._log[0])

    def finish(self, orders: Sequence[SubmitOrder] = ()) -> StepOutput:
        """The data ended: orders that met no next bar expire. Call it once, at END.

        Args:
            orders: of an agent outside, for the barriers that no step was given orders for yet.
        """
        self._give(orders, None)
        for slot in range(len(self.instruments)):
            self._take(slot, _ALL_BARRIERS, 0)
            end_of_data(self._slots[slot], self._log[0], 0)
            self._tell_and_drain(slot)
        return self._lines.take(None)

    @property
    def started(self) -> bool:
        """True behind the first closed barrier."""
        return self._last_close != NONE

    @property
    def resumable(self) -> bool:
        """False where a strategy cannot tell its state: such a run is resumed from its start."""
        return all(player is None or player.resumable for player in self._players)

    def state(self) -> CoreState:
        """State between two frames.

        Raises:
            StrategyError: a strategy's `state()` failed.
        """
        slots = [
            SlotState(
                symbol=instrument.symbol,
                slot=self._slots[slot].tobytes(),
                ring=self._rings[slot].tobytes(),
                counts=self._tally.counts[slot].tobytes(),
                strategy=None if player is None else player.state(),
                given=tuple(self._given[slot]),
            )
            for slot, (instrument, player) in enumerate(
                zip(self.instruments, self._players, strict=True)
            )
        ]
        return CoreState(
            version=STATE_VERSION,
            last_close=self._last_close,
            held=pack_rows(self._closes.held),
            recent=self._recent,
            slots=tuple(slots),
        )

    def snapshot(self) -> bytes:
        """`state` as bytes.

        Raises:
            StrategyError: a strategy's `state()` failed.
        """
        return encode_state(self.state())

    @classmethod
    def restore(
        cls,
        manifest: RunManifest,
        partition: int,
        context: Mapping[str, SlotContext],
        agent: Script | StrategyFactory | None,
        data: bytes | CoreState,
    ) -> Self:
        """The core that `snapshot` gave; its digest starts empty: feed it the lines written before.

        Raises:
            DataError: the bytes are no snapshot of this partition and version.
        """
        core = cls(manifest, partition, context, agent)
        state = decode_core(data) if isinstance(data, bytes) else data
        arrays = (core._slots, core._rings, core._tally.counts)
        sizes = [array[:1].nbytes for array in arrays]
        symbols = [instrument.symbol for instrument in core.instruments]
        if [s.symbol for s in state.slots] != symbols or any(
            [len(s.slot), len(s.ring), len(s.counts)] != sizes for s in state.slots
        ):
            raise DataError(
                "the snapshot was written by another version, or for other instruments",
                hint="start the run again",
            )
        for slot, own in enumerate(state.slots):
            for mine, theirs in zip(arrays, (own.slot, own.ring, own.counts), strict=True):
                mine[slot : slot + 1] = np.frombuffer(theirs, mine.dtype).reshape(mine[:1].shape)
            if (player := core._players[slot]) is not None:
                player.restore(own.strategy)
            core._given[slot] = list(own.given)
        core._last_close = state.last_close
        core._recent = state.recent
        core._closes.hold(unpack_rows(state.held))
        return core

    def status(self) -> list[SlotStatus]:
        """How the slots of this partition stand."""
        return [
            self._tally.status(slot, instrument.symbol, self._params[slot], self._slots[slot])
            for slot, instrument in enumerate(self.instruments)
        ]


_NO_ORDERS = np.zeros(0, ORDER)
_ALL_BARRIERS = 1 << 62
_NO_PARAMS, _NO_SLOTS = np.zeros(0, PARAMS), np.zeros(0, SLOT)
