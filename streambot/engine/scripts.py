"""Scripted agents, compiled into the engine's loop: flat, random, sma-cross, buy-hold.

Each sees only what a bar's close makes known: its own instrument's bars, its own account. They
never ask for what the rules would certainly reject, so their rejections mean something.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from typing import Any

import numpy as np

from streambot.engine.slots import (
    ACT_BUY,
    ACT_CLOSE,
    ACT_HOLD,
    ACT_SELL,
    REJ_PREMIUM,
)
from streambot.jit import njit

Record = Any

RANDOM_ACT_BITS = 4
"""The random agent acts at one bar in 2^4, on average."""


class Script(IntEnum):
    """Which scripted agent decides in a slot; NONE: orders come from outside."""

    NONE = 0
    FLAT = 1
    RANDOM = 2
    SMA_CROSS = 3
    BUY_HOLD = 4


def symbol_key(symbol: str) -> int:
    """64 bits that stand for a symbol in keyed randomness, whatever its number in the run."""
    return int.from_bytes(blake2b(symbol.encode(), digest_size=8).digest(), "little")


_NONE, _RANDOM, _SMA, _BUY_HOLD = (
    int(Script.NONE),
    int(Script.RANDOM),
    int(Script.SMA_CROSS),
    int(Script.BUY_HOLD),
)
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0 = np.uint64(0xD2E7470EE14C6C93)
_M1 = np.uint64(0xCA5A826395121157)
_W0 = np.uint64(0x9E3779B97F4A7C15)
_W1 = np.uint64(0xBB67AE8584CAA73B)
_ROUNDS = 10


@njit
def _mulhi(a: Any, b: Any) -> Any:
    """High 64 bits of a x b."""
    a_lo, a_hi = a & _MASK, a >> _SHIFT
    b_lo, b_hi = b & _MASK, b >> _SHIFT
    low = a_lo * b_lo
    mid = a_hi * b_lo + (low >> _SHIFT)
    carry = a_lo * b_hi + (mid & _MASK)
    return a_hi * b_hi + (mid >> _SHIFT) + (carry >> _SHIFT)


@njit
def philox(key0: Any, key1: Any, counter: Any) -> Any:
    """First word of Philox4x64-10 (Salmon et al. 2011) at (counter, 0, 0, 0), as numpy computes it.

    A draw is a function of its key and counter alone, so nothing that happens elsewhere, and no
    restart, can change it.
    """
    c0 = np.uint64(counter)
    c1 = c2 = c3 = np.uint64(0)
    k0, k1 = np.uint64(key0), np.uint64(key1)
    for _ in range(_ROUNDS):
        hi0, lo0 = _mulhi(_M0, c0), _M0 * c0
        hi1, lo1 = _mulhi(_M1, c2), _M1 * c2
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0 += _W0
        k1 += _W1
    return c0


@njit
def observe_close(p: Record, s: Record, ring: Any, close: int) -> bool:
    """Feed a close to the moving averages; True where the fast one is above the slow one.

    Sums are integers and the comparison is cross-multiplied: exact, whatever the history.
    """
    slow, fast = p.script_slow, p.script_fast
    at = s.ring_at
    leaving_fast = at - fast
    if leaving_fast < 0:
        leaving_fast += slow
    s.fast_sum += close - ring.closes[leaving_fast]
    s.slow_sum += close - ring.closes[at]
    ring.closes[at] = close
    at += 1
    s.ring_at = 0 if at == slow else at
    return bool(s.fast_sum * slow > s.slow_sum * fast)


@njit
def decide(p: Record, s: Record, ring: Any) -> tuple[int, int]:
    """Action code and lots of the slot's script, at the close that `s` describes."""
    if p.script == _SMA:
        was = s.above
        above = 1 if observe_close(p, s, ring, s.last_price) else 0
        s.above = above
        if s.bars <= p.script_slow or above == was or s.halted != 0:
            return ACT_HOLD, 0
        if above == 1 and s.side == 0:
            return ACT_BUY, p.script_lots
        if above == 0 and s.side != 0:
            return ACT_CLOSE, 0
        return ACT_HOLD, 0
    if s.halted != 0:
        return ACT_HOLD, 0
    if p.script == _BUY_HOLD:
        # A refusal for money will not mend itself; a premium that is not known yet will.
        if s.side == 0 and (s.last_reject < 0 or s.last_reject == REJ_PREMIUM):
            return ACT_BUY, p.script_lots
        return ACT_HOLD, 0
    if p.script == _RANDOM:
        draw = philox(p.seed, p.instrument_key, s.barrier)
        if draw >> np.uint64(64 - RANDOM_ACT_BITS) != np.uint64(0):
            return ACT_HOLD, 0
        if s.side != 0:
            return ACT_CLOSE, 0
        lots = 1 + int((draw >> np.uint64(1)) % np.uint64(p.script_lots))
        return (ACT_BUY if draw & np.uint64(1) == np.uint64(0) else ACT_SELL), lots
    return ACT_HOLD, 0
