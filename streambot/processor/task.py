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
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.domain.errors import DataError
from streambot.domain.events import ActionKind, OrdersThrough, SubmitOrder
from streambot.engine.barrier import end_of_data
from streambot.engine.decode import encode_orders
from streambot.engine.drive import NO_VIEWS, advance_ticks, make_log
from streambot.engine.kernel import settle_expired
from streambot.engine.ordering import Calendar, empty_calendar, take_given
from streambot.engine.scripts import Script
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
from streambot.processor.journal import EventDigest, LineWriter
from streambot.processor.page import Page
from streambot.processor.rows import rows_by_slot
from streambot.processor.step_output import StepOutput
from streambot.processor.tally import SlotStatus, SlotTally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streambot.processor.agents import StrategyFactory
    from streambot.processor.manifest import RunManifest
    from streambot.streams.frame import Frame

SNAPSHOT_VERSION = 1


class SlotContext(NamedTuple):
    """What a slot knows besides its ticks.

    Attributes:
        calendar: sessions and contracts.
        daily_atr: Wilder's ATR of the daily bars before the run, ticks; NaN without.
        daily_count: true ranges in it.
        daily_close: close of the last daily bar, ticks; `slots.NONE` without.
    """

    calendar: Calendar
    daily_atr: float = np.nan
    daily_count: int = 0
    daily_close: int = NONE


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot: positions in the ticks are the runner's business."""

    version: int
    symbols: list[str]
    slots: bytes
    rings: bytes
    counts: bytes
    strategies: list[Any]


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
        for slot, symbol in enumerate(symbols):
            known = context.get(symbol, SlotContext(empty_calendar()))
            self._calendars.append(known.calendar)
            if known.daily_count > 0:
                self._slots[slot]["daily_atr"] = known.daily_atr
                self._slots[slot]["daily_count"] = known.daily_count
                self._slots[slot]["day_prev_close"] = known.daily_close
        halts = limits.halt_on_breach
        self._writers = [LineWriter(i, halts=halts) for i in self.instruments]
        self._players = self._make_players(agent, halts=halts)
        self._given: list[list[SubmitOrder]] = [[] for _ in members]
        self._log = make_log()
        slots = len(members)
        self._members = members
        self._equity: list[npt.NDArray[np.int64]] = []
        self._fills, self._marks, self._orders = Page(slots), Page(slots), Page(slots)
        self._last_close = NONE
        self.digest = EventDigest(symbols)

    def _set_agent(self, agent: Script | StrategyFactory | None, symbols: list[str]) -> None:
        policy = self.manifest.policy
        self.co_located = agent is not None
        for slot, symbol in enumerate(symbols):
            p = self._params[slot]
            p["script"] = agent if isinstance(agent, Script) else Script.NONE
            p["script_lots"] = policy.lots
            p["script_fast"], p["script_slow"] = policy.fast, policy.slow
            p["instrument_key"] = symbol_key(symbol)

    def _make_players(
        self, agent: Script | StrategyFactory | None, *, halts: bool
    ) -> list[StrategyPlayer | None]:
        if agent is None or isinstance(agent, Script):
            return [None] * len(self.instruments)
        return [StrategyPlayer(agent(), i, halts=halts) for i in self.instruments]

    def step(self, frame: Frame, orders: Sequence[SubmitOrder] = ()) -> StepOutput:
        """Run over a frame.

        Args:
            frame: the next DATA frame of the partition.
            orders: complete orders of an agent outside that answer barriers of this frame; for
                other instruments' partitions they are not meant and raise.

        Raises:
            StrategyError: a co-located strategy raised, or answered something that is no action.
            DataError: a row or an order of an instrument that is not of this partition.
        """
        ticks = frame.ticks
        for order in orders:
            if order.action == ActionKind.HOLD:
                continue
            self._given[self._slot_named(order.instrument)].append(order)
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
            for slot in range(slots):
                self._after(slot, frame)
        return self._output(
            frame.barrier_lo + len(frame.closes) - 1, answered=len(frame.closes) > 0
        )

    def _run(self, slot: int, frame: Frame, own: npt.NDArray[np.int64]) -> None:
        given = self._encode_given(slot, frame)
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
        if self._given[slot]:
            given = self._encode_given(slot, frame)
            self._log["n_given"] = 0
            through = frame.barrier_lo + len(frame.closes)
            while True:
                take_given(p, s, given, log, through, row)
                self._drain(slot)
                used = int(self._log["n_given"][0])
                if used == len(given) or given[used]["barrier"] >= through:
                    break
            del self._given[slot][:used]
        settle_expired(p, s, log, self._last_close, row)
        self._tell_and_drain(slot)

    def _tell_and_drain(self, slot: int) -> None:
        """Empty the log of what happened outside the strategy's own run, which is told first."""
        player = self._players[slot]
        if player is not None:
            player.tell_rest(self._slots[slot : slot + 1], self._log)
        self._drain(slot)

    def _encode_given(self, slot: int, frame: Frame) -> npt.NDArray[np.void]:
        if not self._given[slot]:
            return _NO_ORDERS
        orders = sorted(self._given[slot], key=lambda order: order.barrier)
        self._given[slot] = orders
        times = []
        for order in orders:
            at = order.barrier - frame.barrier_lo
            known = 0 <= at < len(frame.closes)
            times.append(int(frame.closes[at]) if known else self._last_close)
        return encode_orders(orders, times)

    def _slot_named(self, symbol: str) -> int:
        for slot, instrument in enumerate(self.instruments):
            if instrument.symbol == symbol:
                return slot
        raise DataError(
            f"an order for {symbol}, which is not of this partition",
            where=f"orders/{self.partition}",
        )

    def _drain(self, slot: int) -> None:
        """Make lines of what the log holds, and empty it."""
        log = self._log[0]
        symbol = self.instruments[slot].symbol
        if log["n_events"]:
            records = log["events"][: log["n_events"]]
            self._tally.count(slot, records)
            lines = self._writers[slot].events(records)
            self.digest.update(symbol, "fills", lines.data.data)
            self._fills.add(slot, records["row"], *lines)
        if log["n_marks"]:
            records = log["marks"][: log["n_marks"]]
            lines = self._writers[slot].marks(records)
            self.digest.update(symbol, "pnl", lines.data.data)
            self._marks.add(slot, records["row"], *lines)
            equity = np.empty((3, len(records)), np.int64)
            equity[0], equity[1], equity[2] = (
                records["barrier"],
                self._members[slot],
                records["equity"],
            )
            self._equity.append(equity)
        if log["n_orders"]:
            records = log["orders"][: log["n_orders"]]
            self._orders.add(slot, records["barrier"], *self._writers[slot].orders(records))
        log["n_events"] = log["n_marks"] = log["n_orders"] = 0

    def _output(self, through: int, *, answered: bool) -> StepOutput:
        orders = None
        if self.co_located and answered:
            line = OrdersThrough(
                agent=self.manifest.policy.spec,
                partition=self.partition,
                through_barrier=through,
            )
            orders = msgspec.json.encode(line) + b"\n"
            items = self._orders.take()
            if items is not None:
                orders = orders.replace(_NO_ITEMS, b'"orders":[' + items[:-1] + b"]", 1)
        events, marks = self._fills.lines, self._marks.lines
        equity = np.concatenate(self._equity, axis=1) if self._equity else None
        self._equity = []
        return StepOutput(orders, self._fills.take(), self._marks.take(), events, marks, equity)

    def finish(self) -> StepOutput:
        """The data ended: orders that met no next bar expire. Call it once, at END."""
        for slot in range(len(self.instruments)):
            end_of_data(self._slots[slot], self._log[0], 0)
            self._tell_and_drain(slot)
        return self._output(-1, answered=False)

    @property
    def resumable(self) -> bool:
        """False where a strategy cannot tell its state: such a run is resumed from its start."""
        return all(player is None or player.resumable for player in self._players)

    def snapshot(self) -> bytes:
        """State at a closed barrier; no frame may be half done.

        Raises:
            StrategyError: a strategy's `state()` failed.
        """
        state = _State(
            version=SNAPSHOT_VERSION,
            symbols=[instrument.symbol for instrument in self.instruments],
            slots=self._slots.tobytes(),
            rings=self._rings.tobytes(),
            counts=self._tally.counts.tobytes(),
            strategies=[None if p is None else p.state() for p in self._players],
        )
        return msgspec.msgpack.encode(state)

    @classmethod
    def restore(
        cls,
        manifest: RunManifest,
        partition: int,
        context: Mapping[str, SlotContext],
        agent: Script | StrategyFactory | None,
        data: bytes,
    ) -> Self:
        """The core that `snapshot` gave; its digest starts empty: feed it the lines written before.

        Raises:
            DataError: the bytes are no snapshot of this partition and version.
        """
        core = cls(manifest, partition, context, agent)
        try:
            state = msgspec.msgpack.decode(data, type=_State)
        except msgspec.MsgspecError as cause:
            raise DataError(f"is no snapshot of an engine task: {cause}") from cause
        symbols = [instrument.symbol for instrument in core.instruments]
        sizes = [len(state.slots), len(state.rings), len(state.counts), len(state.strategies)]
        own = [core._slots.nbytes, core._rings.nbytes, core._tally.counts.nbytes, len(symbols)]
        if (state.version, state.symbols, sizes) != (SNAPSHOT_VERSION, symbols, own):
            raise DataError(
                "the snapshot was written by another version, or for other instruments",
                hint="start the run again",
            )
        for mine, theirs in (
            (core._slots, state.slots), (core._rings, state.rings), (core._tally.counts, state.counts)
        ):  # fmt: skip
            if mine.size:
                mine[:] = np.frombuffer(theirs, mine.dtype).reshape(mine.shape)
        for player, own_state in zip(core._players, state.strategies, strict=True):
            if player is not None:
                player.restore(own_state)
        return core

    def status(self) -> list[SlotStatus]:
        """How the slots of this partition stand."""
        return [
            self._tally.status(slot, instrument.symbol, self._params[slot], self._slots[slot])
            for slot, instrument in enumerate(self.instruments)
        ]


_NO_ORDERS = np.zeros(0, ORDER)
_NO_ITEMS = b'"orders":[]'
_NO_PARAMS, _NO_SLOTS = np.zeros(0, PARAMS), np.zeros(0, SLOT)


def symbol_key(symbol: str) -> int:
    """64 bits that stand for a symbol in keyed randomness, whatever its number in the run."""
    return int.from_bytes(blake2b(symbol.encode(), digest_size=8).digest(), "little")
