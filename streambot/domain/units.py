"""Integers for money: prices in ticks, sizes in lots or volume steps, cash in money units.

Rule (`docs/market-rules.md`, Instrument): the money unit of an instrument is
10^-max(decimals of the currency, decimals of the tick size), so that one tick of one unit is a
whole number of money units. Decimals exist at the edges only: files, messages, reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from decimal import Decimal

Ticks = NewType("Ticks", int)
"""A price, as a count of the instrument's `tick_size`."""
Lots = NewType("Lots", int)
"""A size, as a count of lots."""
Money = NewType("Money", int)
"""An amount, as a count of the instrument's money unit."""
Nanos = NewType("Nanos", int)
"""A UTC time or a duration in nanoseconds."""

NANOS_PER_SECOND = 1_000_000_000
NANOS_PER_DAY = 86_400 * NANOS_PER_SECOND

# ISO 4217 minor units that are not 2, for the currencies that a bar file is likely to carry.
_CURRENCY_DECIMALS = {
    "JPY": 0,
    "KRW": 0,
    "CLP": 0,
    "VND": 0,
    "KWD": 3,
    "BHD": 3,
    "BTC": 8,
    "ETH": 8,
}
MAX_MONEY_DECIMALS = 8


def currency_decimals(currency: str) -> int:
    """Decimals of a currency's smallest unit (ISO 4217); 2 where the code is not listed."""
    return _CURRENCY_DECIMALS.get(currency, 2)


def decimals_of(value: Decimal) -> int:
    """Count of decimals that `value` needs: `0.05` has 2, `5` has 0, `1E-8` has 8."""
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def exact_decimal(count: int, decimals: int) -> str:
    """`count` units of 10^-decimals as an exact decimal string: (-12345, 2) gives `-123.45`."""
    if decimals == 0:
        return str(count)
    sign = "-" if count < 0 else ""
    whole, part = divmod(abs(count), 10**decimals)
    return f"{sign}{whole}.{part:0{decimals}d}"
