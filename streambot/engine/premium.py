"""The proxy premium: what an option costs when no option price is known.

Rule (`docs/market-rules.md`, Proxy premium). Two models, both from completed daily bars only:

    atr        premium = k ATR
    bachelier  premium = m N(m/s) + s phi(m/s),  s = k ATR sqrt(T)     (Bachelier 1900)

m is the moneyness (call S - S0, put S0 - S; 0 at the decision), ATR Wilder's ATR(14) of daily bars
and T the trading days to expiry, fractional. Everything in ticks; rounded up to a tick.
"""

from __future__ import annotations

from math import ceil, erf, exp, pi, sqrt
from typing import Any

import numpy as np

from streambot.engine.slots import MODEL_ATR
from streambot.jit import njit
from streambot.market.atr import ATR_PERIOD

Record = Any
_SQRT_2 = sqrt(2.0)
_SQRT_2PI = sqrt(2.0 * pi)


@njit
def bachelier(moneyness: float, deviation: float) -> float:
    """`m N(m/s) + s phi(m/s)`; the intrinsic value where nothing is left to move."""
    if deviation <= 0.0:
        return max(0.0, moneyness)
    d = moneyness / deviation
    cumulative = 0.5 * (1.0 + erf(d / _SQRT_2))
    density = exp(-0.5 * d * d) / _SQRT_2PI
    return moneyness * cumulative + deviation * density


@njit
def round_up(premium: float) -> int:
    """To a whole tick, upwards (float noise below 1e-6 forgiven), at least one."""
    return max(1, int(ceil(premium - 1e-6)))


@njit
def model_price(model: int, k: float, atr: float, days: float, moneyness: float) -> float:
    """Price of the proxy in ticks, not rounded."""
    if model == MODEL_ATR:
        return max(0.0, moneyness) + k * atr
    return bachelier(moneyness, k * atr * sqrt(max(0.0, days)))


@njit
def current_atr(p: Record, s: Record) -> float:
    """Daily ATR in ticks: the given one, else the data's once 14 true ranges exist, else NaN."""
    if not np.isnan(p.given_atr):
        return p.given_atr
    return s.daily_atr if s.daily_count >= ATR_PERIOD else np.nan


@njit
def session_of(closes: Any, ts: int) -> int:
    """Index of the session that contains `ts` or ends at it; the next one between sessions."""
    return int(np.searchsorted(closes, ts, side="left"))


@njit
def trading_days(opens: Any, closes: Any, ts: int, expiry: int) -> float:
    """Trading days from `ts` to `expiry`: the rest of this session plus whole sessions.

    A session counts where it opens before the expiry: the expiry's own counts whole, one that only
    opens behind it not at all.

    Args:
        opens: session opens, UTC ns, int64 [n].
        closes: session closes, UTC ns, int64 [n].
        ts: now, UTC ns.
        expiry: UTC ns.
    """
    now = int(np.searchsorted(closes, ts, side="right"))
    last = int(np.searchsorted(opens, expiry, side="left")) - 1
    if now >= len(closes) or last < now:
        return 0.0
    rest = 1.0
    if ts > opens[now]:
        rest = (closes[now] - ts) / (closes[now] - opens[now])
    return rest + last - now


@njit
def pick_expiry(p: Record, opens: Any, closes: Any, expiries: Any, ts: int) -> int:
    """Index of the first contract at least `min_days` trading days away; -1: none eligible.

    With `expires_after`, the index is that of the session at whose close the option ends.
    """
    today = session_of(closes, ts)
    if today >= len(closes):
        return -1
    if p.expires_after > 0:
        last = today + p.expires_after
        return last if last < len(closes) else -1
    k = int(np.searchsorted(expiries, ts, side="right"))
    while k < len(expiries):
        if session_of(closes, expiries[k]) - today >= p.min_days:
            return k
        k += 1
    return -1
