"""Which episode comes next, and what an environment is when it begins.

An episode is (instrument, first bar, length), a function of seed, actor, environment and number
alone (Philox): two environments of one seed never draw the same sequence, and a sequence can be
drawn again. e is one `ENV` record, s one `SLOT` record.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streambot.data.philox import philox
from streambot.env.world import CAUSE_NONE
from streambot.jit import inlined

Record = Any
_MASK = 0xFFFFFFFF


@inlined
def draw_episode(key: int, actor: int, slot: int, episode: int) -> int:
    """A random number of 63 bits: of this seed, actor, environment and episode alone."""
    low, high = episode & _MASK, (episode >> 32) & _MASK
    w0, w1, _, _ = philox(low, high, actor & _MASK, slot & _MASK, key & _MASK, key >> 32)
    return (w0 << 31) | (w1 >> 1)


@inlined
def choose(
    w: Record,
    e: Record,
    first_start: Any,
    last_bar: Any,
    starts_before: Any,
    bar_starts: Any,
    bars: Any,
) -> None:
    """The next episode: the one that was asked for, else the next of this environment's draws.

    One that is drawn does not begin right before a gap that would cut it off: it begins behind it.
    """
    if e.asked_instrument >= 0:
        e.instrument, e.bar = e.asked_instrument, e.asked_bar
    else:
        at = draw_episode(e.key, e.actor, e.slot, e.episode) % w.starts_n
        n = int(np.searchsorted(starts_before, at, side="right")) - 1
        e.instrument, e.bar = n, first_start[n] + at - starts_before[n]
        row = bar_starts[n] + e.bar
        while e.bar + 1 < last_bar[n] and bars[row + 1].open_ts - bars[row].close_ts > w.max_gap:
            e.bar += 1
            row += 1
    length = w.episode_bars if e.asked_bars < 0 else e.asked_bars
    e.first_bar = e.bar
    e.last_bar = last_bar[e.instrument]
    if length > 0:
        e.last_bar = min(e.last_bar, e.bar + length)
    e.episode += 1
    e.asked_instrument = e.asked_bar = e.asked_bars = -1


@inlined
def begin(e: Record, s: Record) -> None:
    """Nothing has happened yet in the episode."""
    e.equity = s.cash
    e.side, e.stop = 0, 0
    e.steps, e.ended, e.cause, e.events_n, e.rejected = 0, 0, CAUSE_NONE, 0, -1
    e.distance, e.unrealized, e.entry_bar = 0.0, 0, -1
    m = e.paid
    m.mean = m.square = m.sortino_mean = m.downside = 0.0
    m.changes, m.entry_bar = 0, -1


@inlined
def warm(s: Record, e: Record, b: Record) -> None:
    """Give a new slot what the recording up to its first bar, a `BAR_ROW`, has left behind."""
    s.close_ts, s.barrier, s.bars = b.close_ts, b.barrier, e.bar + 1
    s.last_price = b.close
    s.bar_open_ts, s.bar_open, s.bar_high, s.bar_low = b.open_ts, b.open, b.high, b.low
    s.bar_volume = b.volume
    s.atr, s.atr_count, s.prev_close = b.atr, b.atr_count, b.prev_close
    s.day_open, s.day_high, s.day_low = b.day_open, b.day_high, b.day_low
    s.day_prev_close, s.daily_atr, s.daily_count = b.day_prev_close, b.daily_atr, b.daily_count
