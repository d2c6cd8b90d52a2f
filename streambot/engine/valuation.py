"""What an open position is worth (`docs/market-rules.md`, Cost and P&L).

Value per unit, S the price and S0 the underlying's fill price at entry: stock long S, short
2 S0 - S; option: intrinsic value (call max(0, S - S0), put max(0, S0 - S)), plus the time value
that the last barrier set where the instrument is `marked`. All in ticks; money is ticks x units x
`tick_money`.
"""

from __future__ import annotations

from typing import Any

from streambot.jit import njit

_MOST_DRAWDOWN = 4.0e22
"""Basis points x money units beyond which no 64 bits hold the drawdown, nor any slot its loss."""

# mypy cannot type records inside compiled code: p is one PARAMS record, s one SLOT record.
Record = Any


@njit
def intrinsic(side: int, entry_price: int, price: int) -> int:
    """Intrinsic value per unit of an option struck at its entry price."""
    return max(0, side * (price - entry_price))


@njit
def value_per_unit(p: Record, s: Record, price: int) -> int:
    """Value of one unit of the open position at `price`; 0 when flat."""
    if s.side == 0:
        return 0
    if p.is_option != 0:
        return intrinsic(s.side, s.entry_price, price) + s.time_value
    return price if s.side > 0 else 2 * s.entry_price - price


@njit
def equity_at(p: Record, s: Record, price: int) -> int:
    """Cash plus the value of the open position, money units."""
    return s.cash + value_per_unit(p, s, price) * s.units * p.tick_money


@njit
def risk_equity_at(p: Record, s: Record, price: int) -> int:
    """Equity, but an open option under intrinsic valuation counts at least the premium paid."""
    if s.side != 0 and p.is_option != 0 and p.marked == 0:
        return s.cash + max(value_per_unit(p, s, price), s.premium) * s.units * p.tick_money
    return equity_at(p, s, price)


@njit
def unrealized_at(p: Record, s: Record, price: int) -> int:
    """P&L of the open position before brokerage; 0 when flat."""
    if s.side == 0:
        return 0
    if p.is_option != 0:
        return (value_per_unit(p, s, price) - s.premium) * s.units * p.tick_money
    return s.side * (price - s.entry_price) * s.units * p.tick_money


@njit
def breach_threshold(peak: int, limit_bp: int) -> int:
    """Risk equity strictly below this is beyond `limit_bp` of the peak.

    peak x limit / 10,000 is taken apart so that no product leaves 64 bits; rounding down is exact,
    because a drawdown is whole money units.
    """
    if float(peak) * float(limit_bp) > _MOST_DRAWDOWN:
        return -(2**62)
    whole = peak // 10_000
    return peak - (whole * limit_bp + (peak - whole * 10_000) * limit_bp // 10_000)
