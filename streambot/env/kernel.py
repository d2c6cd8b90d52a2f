"""N environments, one bar each: order, bar, reward, end, observation. Compiled, no arrays in or out.

A step of one slot does, in this order: the answer to the last close becomes the waiting order, with
the premium, contract and width that were computed at that close; the engine runs over the ticks of
the instrument's next bar (`engine.walk.advance_bar`, as the stream task does); the step is paid;
the end of the episode is looked for; at the new close the next entry is priced, its mask drawn and
the observation written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]  # numba's own way to name it

from streambot.data.segments import BAR_ROW
from streambot.domain.ticks import TICK
from streambot.engine.ordering import Calendar, add_contract, begin_order, wait_with
from streambot.engine.slots import (
    ACT_BUY,
    ACT_CLOSE,
    ACT_HOLD,
    ACT_SELL,
    EFFECT_ENTRY,
    EV_FILLED,
    EV_REJECTED,
    EV_SETTLED,
    EVENT,
    LOG,
    ORDER,
    PARAMS,
    RING,
    ROOM,
    SLOT,
    WHY_ORDER,
)
from streambot.engine.trailing import distance_to_trail
from streambot.engine.valuation import equity_at, unrealized_at
from streambot.engine.walk import advance_bar
from streambot.env.episodes import begin, choose, warm
from streambot.env.observe import affordable, show
from streambot.env.reward import TERMS, pay
from streambot.env.world import (
    CAUSE_DATA,
    CAUSE_DRAWDOWN,
    CAUSE_GAP,
    CAUSE_LENGTH,
    CAUSE_NONE,
    CAUSE_RUIN,
    ENV,
    FOUND_END,
    FOUND_NO_ACTION,
    FOUND_REJECTION,
    RESET_AT_NEXT_STEP,
    WORLD,
    pointer,
    prefetch,
)
from streambot.jit import cfunc, inlined

Record = Any
_TERMS = len(TERMS)
_FLOATS_A_LINE, _TICKS_A_LINE = 16, 2  # in 64 bytes
_F4, _F8, _I8, _U1 = np.float32, np.float64, np.int64, np.uint8


@inlined
def _ended(s: Record, e: Record, long: int, short: int) -> int:
    """Why the episode terminates at this close; `CAUSE_NONE`: it does not."""
    if s.halted != 0 or s.alerted != 0:
        return CAUSE_DRAWDOWN
    if e.equity <= 1:
        return CAUSE_RUIN
    if s.side == 0 and s.order_action == ACT_HOLD and max(long, short) == 0:
        return CAUSE_RUIN
    return CAUSE_NONE


@inlined
def _order_of(s: Record, p: Record, quote: Record, action: int, quantity: int) -> None:
    """Let the answer to the last close wait, completed."""
    act, lots = ACT_HOLD, 0
    if action == 1:
        act = ACT_CLOSE
    elif action > 1 and action < 2 + quantity:
        act, lots = ACT_BUY, action - 1
    elif action >= 2 + quantity:
        act, lots = ACT_SELL, action - 1 - quantity
    if act == ACT_CLOSE:
        begin_order(p, s, quote, act, 0)
    if act != ACT_HOLD:
        quote.action, quote.quantity = act, lots
        wait_with(s, quote)


@inlined
def _settle_up(
    p: Record, s: Record, e: Record, log: Record, events: Any
) -> tuple[int, bool, float]:
    """Read the step's events: net profit, whether a position was opened, how far its stop moved."""
    net = 0
    entered = False
    e.events_n = min(log.n_events, ROOM)
    e.rejected = -1
    for k in range(log.n_events):
        event = log.events[k]
        if k < ROOM:
            events[k] = event
        if event.kind == EV_SETTLED:
            net += event.realized - event.brokerage - p.brokerage_entry
        elif event.kind == EV_REJECTED:
            e.rejected = event.detail
        elif event.kind == EV_FILLED:
            if event.effect == EFFECT_ENTRY:
                entered = True
                e.entry_bar = e.bar
            else:
                net += event.realized - event.brokerage - p.brokerage_entry
    moved = 0.0
    if e.side != 0 and e.side == s.side and not entered and e.unrealized > 0:
        moved = e.side * (s.stop - e.stop) / s.width
    return net, entered, moved


@inlined
def _closed_by_order(log: Record) -> bool:
    for k in range(log.n_events):
        event = log.events[k]
        if event.kind == EV_FILLED and event.effect != EFFECT_ENTRY and event.detail == WHY_ORDER:
            return True
    return False


@inlined
def _run(w: Record, stepping: bool) -> int:
    """Step every slot, or begin the episodes of those that are to; what was met, as `FOUND_…`."""
    n, quantity = w.slots_n, w.quantity
    ticks = carray(pointer(w.ticks), w.ticks_n, TICK)
    bars = carray(pointer(w.bars), w.bars_n, BAR_ROW)
    windows = carray(pointer(w.window), w.bars_n * w.window_n, _F4)
    slow = carray(pointer(w.slow), w.bars_n * w.slow_n, _F4)
    closes = carray(pointer(w.closes), w.closes_n, _I8)
    session_opens = carray(pointer(w.session_opens), w.sessions_n, _I8)
    session_closes = carray(pointer(w.session_closes), w.sessions_n, _I8)
    expiries = carray(pointer(w.expiries), w.contracts_n, _I8)
    lots = carray(pointer(w.lots), w.contracts_n, _I8)
    tick_starts = carray(pointer(w.tick_starts), w.instruments_n + 1, _I8)
    bar_starts = carray(pointer(w.bar_starts), w.instruments_n + 1, _I8)
    session_starts = carray(pointer(w.session_starts), w.instruments_n + 1, _I8)
    contract_starts = carray(pointer(w.contract_starts), w.instruments_n + 1, _I8)
    first_start = carray(pointer(w.first_start), w.instruments_n, _I8)
    last_bar = carray(pointer(w.last_bar), w.instruments_n, _I8)
    starts_before = carray(pointer(w.starts_before), w.instruments_n, _I8)
    params = carray(pointer(w.params), w.instruments_n, PARAMS)
    blank = carray(pointer(w.blank), w.instruments_n, SLOT)
    slots = carray(pointer(w.slots), n, SLOT)
    envs = carray(pointer(w.envs), n, ENV)
    quotes = carray(pointer(w.quotes), n, ORDER)
    rings = carray(pointer(w.rings), n, RING)
    log = carray(pointer(w.log), 1, LOG)[0]
    events = carray(pointer(w.events), (n, ROOM), EVENT)
    changes = carray(pointer(w.changes), (n, w.reward.profit_window), _F8)
    actions = carray(pointer(w.actions), n, _I8)
    observations = carray(pointer(w.observations), (n, w.observation_n), _F4)
    rewards = carray(pointer(w.rewards), n, _F8)
    terms = carray(pointer(w.terms), (n, _TERMS), _F8)
    masks = carray(pointer(w.masks), (n, 2 * quantity + 2), _U1)
    terminated = carray(pointer(w.terminated), n, _U1)
    truncated = carray(pointer(w.truncated), n, _U1)
    equity = carray(pointer(w.equity), n, _F8)
    reasons = carray(pointer(w.reasons), n, _U1)
    rejections = carray(pointer(w.rejections), n, _U1)
    money = carray(pointer(w.money), w.instruments_n, _F8)
    if stepping:
        for i in range(n):
            if actions[i] < 0 or actions[i] >= 2 * quantity + 2:
                return FOUND_NO_ACTION
    found = 0
    # A slot that holds stocks never looks at a calendar: any will do.
    no_chain = Calendar(session_opens, session_closes, expiries, lots)
    for i in range(n):
        e, s, quote = envs[i], slots[i], quotes[i]
        fresh = not stepping and e.to_reset != 0
        if not stepping and not fresh:
            continue
        if stepping and e.ended != 0:
            if w.autoreset != RESET_AT_NEXT_STEP:
                continue
            fresh = True
        if w.outside == 0 and i + 3 < n:
            _ask_ahead(
                w, envs[i + 2], envs[i + 3], bar_starts, tick_starts, bars, ticks, windows, slow
            )
        if fresh:
            e.to_reset = 0
            if w.outside == 0:
                choose(w, e, first_start, last_bar, starts_before, bar_starts, bars)
                slots[i] = blank[e.instrument]
                warm(s, e, bars[bar_starts[e.instrument] + e.bar])
            begin(e, s)
            rewards[i] = 0.0
            terms[i, :] = 0.0
            terminated[i] = truncated[i] = 0
        p = params[e.instrument]
        chain = no_chain
        if p.is_option != 0:
            k = e.instrument
            chain = Calendar(
                session_opens[session_starts[k] : session_starts[k + 1]],
                session_closes[session_starts[k] : session_starts[k + 1]],
                expiries[contract_starts[k] : contract_starts[k + 1]],
                lots[contract_starts[k] : contract_starts[k + 1]],
            )
        net, entered, moved, early, before = 0, False, 0.0, False, 0
        if not fresh:
            before = e.equity
            early = e.side != 0 and e.unrealized > 0 and e.distance >= w.reward.early_distance
            if w.outside == 0:
                _order_of(s, p, quote, actions[i], quantity)
                log.n_events, log.n_marks = 0, 0
                own = ticks[tick_starts[e.instrument] : tick_starts[e.instrument + 1]]
                bar = bar_starts[e.instrument] + e.bar + 1
                advance_bar(p, s, rings[i], log, chain, own, bars[bar].tick, closes)
            e.bar += 1
            e.steps += 1
            e.equity = equity_at(p, s, s.last_price)
            e.unrealized = unrealized_at(p, s, s.last_price)
            e.distance = 0.0
            if s.side != 0:
                e.distance = distance_to_trail(s.side, s.last_price, s.stop, s.width)
            net, entered, moved = _settle_up(p, s, e, log, events[i])
            early = early and _closed_by_order(log)
            e.side, e.stop = s.side, s.stop
        begin_order(p, s, quote, ACT_BUY, 1)
        if p.is_option != 0:
            add_contract(p, s, chain, quote)
        long, short = affordable(p, s, quote, min(w.quantity, p.max_quantity))
        if not fresh:
            cause = _ended(s, e, long, short)
            ends = cause != CAUSE_NONE
            terminated[i] = 1 if ends else 0
            if not ends:
                cause = _runs_out(w, e, bars, bar_starts[e.instrument], last_bar[e.instrument])
            truncated[i] = 1 if cause != CAUSE_NONE and not ends else 0
            e.cause, e.ended = cause, 1 if cause != CAUSE_NONE else 0
            rewards[i] = pay(
                w.reward, e.paid, changes[i], terms[i], p.capital, e.bar, before, e.equity, net,
                s.side == 0, entered, moved, early, ends,
            )  # fmt: skip
        show(
            w, p, s, e, long, short, bar_starts[e.instrument] + e.bar, windows, slow,
            observations[i], masks[i],
        )  # fmt: skip
        equity[i] = e.equity * money[e.instrument]
        reasons[i] = e.rejected + 1
        rejections[i] = 1 if e.rejected >= 0 else 0
        found |= (FOUND_END if e.ended != 0 else 0) | (FOUND_REJECTION if e.rejected >= 0 else 0)
    return found


@inlined
def _ask_ahead(
    w: Record,
    next_but_one: Record,
    later: Record,
    bar_starts: Any,
    tick_starts: Any,
    bars: Any,
    ticks: Any,
    windows: Any,
    slow: Any,
) -> None:
    """Ask for the rows of the environments whose turn comes: each has its own place in the data."""
    prefetch(bars, bar_starts[later.instrument] + later.bar + 1)
    row = bar_starts[next_but_one.instrument] + next_but_one.bar + 1
    if row < w.bars_n:
        tick = tick_starts[next_but_one.instrument] + bars[row].tick
        prefetch(ticks, tick)
        prefetch(ticks, tick + _TICKS_A_LINE)
    newest = row * w.window_n
    for back in range(0, w.look * w.window_n, _FLOATS_A_LINE):
        prefetch(windows, newest - back)
    prefetch(slow, row * w.slow_n)


@inlined
def _runs_out(w: Record, e: Record, bars: Any, first: int, last_bar: int) -> int:
    """Why the episode is cut off at this close; `CAUSE_NONE`: it is not."""
    if w.outside != 0:
        return CAUSE_LENGTH if e.bar >= e.last_bar else CAUSE_NONE
    if e.bar >= e.last_bar:
        return CAUSE_LENGTH if e.last_bar < last_bar else CAUSE_DATA
    if bars[first + e.bar + 1].open_ts - bars[first + e.bar].close_ts > w.max_gap:
        return CAUSE_GAP
    return CAUSE_NONE


@cfunc("int64(voidptr)")
def step_world(address: Any) -> int:
    """One step of every environment of the world at `address`; what was met, as `FOUND_…`."""
    return _run(carray(address, 1, WORLD)[0], True)


@cfunc("void(voidptr)")
def reset_world(address: Any) -> None:
    """Begin the episodes of those environments of the world at `address` that are `to_reset`."""
    _run(carray(address, 1, WORLD)[0], False)
