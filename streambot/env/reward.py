"""What a step is paid: a core reward and shaping terms, from the account at two closes.

With equity E_t at barrier t in money units and r_t = log(E_t / E_{t-1}), where an equity below one
unit counts as one:

    log_return             r_t
    pnl                    (E_t - E_{t-1}) / capital
    differential_sharpe    D_t = (B_{t-1} dA_t - A_{t-1} dB_t / 2) / (B_{t-1} - A_{t-1}^2)^{3/2}
                           dA_t = r_t - A_{t-1},  dB_t = r_t^2 - B_{t-1},  A and B move by eta
                           (Moody and Saffell 2001, eq. 14; Moody et al. 1998)
    differential_sortino   D_t = (r_t - A_{t-1} / 2) / DD_{t-1}                         r_t > 0
                           D_t = (DD_{t-1}^2 (r_t - A_{t-1} / 2) - A_{t-1} r_t^2 / 2) / DD_{t-1}^3
                           DD_t^2 = DD_{t-1}^2 + eta (min(r_t, 0)^2 - DD_{t-1}^2)
                           (Moody and Saffell 2001, eq. 19 and 20: downside deviation ratio)
    profit_factor          (G - L) / (G + L) of the gains and losses of the last `profit_window`
                           steps: the profit factor G / L, mapped to [-1, 1]

A differential ratio is 0 while its denominator is, and clipped. Everything is computed from the
slot before and after the step, so whoever runs the same engine pays the same reward.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streambot.env.config import CoreReward
from streambot.jit import inlined

Record = Any
TERMS = (
    "core",
    "idleness",
    "realized_profit",
    "overtrading",
    "trail",
    "early_close",
    "termination",
)
"""Names of the terms, in order; added up in it they are the reward."""
KINDS = {kind: number for number, kind in enumerate(CoreReward)}
_PNL, _SHARPE = KINDS[CoreReward.PNL], KINDS[CoreReward.DIFFERENTIAL_SHARPE]
_SORTINO, _FACTOR = KINDS[CoreReward.DIFFERENTIAL_SORTINO], KINDS[CoreReward.PROFIT_FACTOR]
_TINY = 1e-24

REWARD = np.dtype(
    [
        ("kind", "i8"),
        ("core_weight", "f8"),
        ("eta", "f8"),
        ("clip", "f8"),
        ("profit_window", "i8"),
        ("idleness", "f8"),
        ("realized_profit", "f8"),
        ("overtrading", "f8"),
        ("overtrading_bars", "i8"),
        ("trail", "f8"),
        ("early_close", "f8"),
        ("early_distance", "f8"),
        ("termination", "f8"),
    ],
    align=True,
)
"""`RewardConfig`, for compiled code."""

PAID = np.dtype(
    [
        ("mean", "f8"),
        ("square", "f8"),
        ("sortino_mean", "f8"),
        ("downside", "f8"),
        ("changes", "i8"),
        ("entry_bar", "i8"),
    ],
    align=True,
)
"""What the rewards of a slot remember: averages, changes so far, bar of the last entry (-1: none)."""


@inlined
def differential_sharpe(m: Record, r: float, eta: float) -> float:
    """D_t of `r`; `m`, a `PAID` record, moves on."""
    delta_a, delta_b = r - m.mean, r * r - m.square
    variance = m.square - m.mean * m.mean
    ratio = 0.0
    if variance > _TINY:
        ratio = (m.square * delta_a - 0.5 * m.mean * delta_b) / variance**1.5
    m.mean += eta * delta_a
    m.square += eta * delta_b
    return ratio


@inlined
def differential_sortino(m: Record, r: float, eta: float) -> float:
    """D_t of `r`; `m`, a `PAID` record, moves on."""
    mean, square = m.sortino_mean, m.downside
    ratio = 0.0
    if square > _TINY:
        deviation = np.sqrt(square)
        if r > 0.0:
            ratio = (r - 0.5 * mean) / deviation
        else:
            ratio = (square * (r - 0.5 * mean) - 0.5 * mean * r * r) / (square * deviation)
    loss = min(r, 0.0)
    m.sortino_mean += eta * (r - mean)
    m.downside += eta * (loss * loss - square)
    return ratio


@inlined
def profit_factor(m: Record, changes: Any, change: float) -> float:
    """(G - L) / (G + L) of the last `len(changes)` changes of equity, `change` among them."""
    changes[m.changes % len(changes)] = change
    m.changes += 1
    gains = 0.0
    losses = 0.0
    for k in range(min(m.changes, len(changes))):
        gains += max(0.0, changes[k])
        losses -= min(0.0, changes[k])
    return (gains - losses) / (gains + losses) if gains + losses > 0.0 else 0.0


@inlined
def core_reward(c: Record, m: Record, changes: Any, before: int, after: int, capital: int) -> float:
    """The core reward of a step that took equity from `before` to `after`, money units.

    Args:
        c: `REWARD` record.
        m: `PAID` record, moves on.
        changes: room of the profit factor, float64 [profit_window].
        capital: cash at the start, money units.
    """
    if c.kind == _PNL:
        return (after - before) / capital
    if c.kind == _FACTOR:
        return profit_factor(m, changes, (after - before) / capital)
    r = 0.0 if after == before else np.log(max(1, after) / max(1, before))
    if c.kind == _SHARPE:
        return min(c.clip, max(-c.clip, differential_sharpe(m, r, c.eta)))
    if c.kind == _SORTINO:
        return min(c.clip, max(-c.clip, differential_sortino(m, r, c.eta)))
    return r


@inlined
def pay(
    c: Record,
    m: Record,
    changes: Any,
    terms: Any,
    capital: int,
    bar: int,
    before: int,
    after: int,
    net_profit: int,
    flat: bool,
    entered: bool,
    trail_moved: float,
    closed_early: bool,
    terminated: bool,
) -> float:
    """The reward of a step; `terms`, float64 [TERMS], is written.

    Args:
        c, m, changes: as `core_reward`.
        capital: cash at the start, money units.
        bar: number of the bar that the step ends with.
        before, after: equity, money units.
        net_profit: realised in the step, less both brokerages of what was closed, money units.
        flat: no position at the end.
        entered: a position was opened.
        trail_moved: move of the trailing stop in its favour, in widths, of a position that was held
            all through the step and is profitable; else 0.
        closed_early: an order closed a profitable position far from its stop.
        terminated: the episode ended, and not for want of data.
    """
    core = c.core_weight * core_reward(c, m, changes, before, after, capital)
    idleness = -c.idleness if flat else 0.0
    realized = c.realized_profit * max(0, net_profit) / capital
    overtrading = 0.0
    if entered:
        if m.entry_bar >= 0:
            since = (bar - m.entry_bar) / c.overtrading_bars
            overtrading = -c.overtrading * max(0.0, 1.0 - since)
        m.entry_bar = bar
    trail = c.trail * (min(trail_moved, 1.0))
    early = -c.early_close if closed_early else 0.0
    termination = -c.termination if terminated else 0.0
    terms[0], terms[1], terms[2], terms[3] = core, idleness, realized, overtrading
    terms[4], terms[5], terms[6] = trail, early, termination
    return core + idleness + realized + overtrading + trail + early + termination
