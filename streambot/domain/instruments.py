"""What can be traded, and the constants of its market (`docs/market-rules.md`, Instrument).

An `Instrument` is what one slot trades: a `STOCK`, or an `OPTION`, which here is a *proxy option*
on the chart of its `underlying`. Registries of them are read by `domain.registry`.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from streambot.domain.units import MAX_MONEY_DECIMALS, currency_decimals, decimals_of

# The bounds keep what the kernel multiplies (price x lot x quantity) far inside 64 bits.
PositiveInt = Annotated[int, Meta(ge=1, le=10_000_000)]
NonNegativeInt = Annotated[int, Meta(ge=0, le=10_000_000)]
PositiveFloat = Annotated[float, Meta(gt=0, le=1_000)]
Symbol = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._&^-]*\Z")
]
_MAX_DECIMAL = Decimal(10) ** 12


class InstrumentType(StrEnum):
    """`STOCK` trades its own chart; `OPTION` is a proxy option on the chart of its underlying."""

    STOCK = "STOCK"
    OPTION = "OPTION"


class Series(StrEnum):
    """Which contracts of an option chain: every week's, or the last of every month."""

    WEEKLY = "weekly"
    MONTHLY = "monthly"


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


def _check_decimal(name: str, value: Decimal, *, zero: bool = False) -> None:
    if not value.is_finite() or value < 0 or (value == 0 and not zero):
        wanted = "must not be negative" if zero else "must be a positive decimal"
        raise ValueError(f"`{name}` {wanted}, not {value}")
    if value > _MAX_DECIMAL or len(value.as_tuple().digits) > 24:
        raise ValueError(f"`{name}` has more digits than any market")


class LotRule(_Settings, frozen=True, kw_only=True):
    """Lot size of the contracts of a series whose expiry lies in [from_expiry, to_expiry].

    `series: None` stands for both; a missing bound is open.
    """

    lot: PositiveInt
    series: Series | None = None
    from_expiry: dt.date | None = None
    to_expiry: dt.date | None = None

    def __post_init__(self) -> None:
        if self.from_expiry and self.to_expiry and self.from_expiry > self.to_expiry:
            raise ValueError(f"`to_expiry` {self.to_expiry} is before `from_expiry`")


class Brokerage(_Settings, frozen=True, kw_only=True):
    """Fixed brokerage per order, in the instrument's currency."""

    entry: Decimal = Decimal(0)
    exit: Decimal = Decimal(0)
    settlement: Decimal = Decimal(0)


class AtrPremium(_Settings, frozen=True, kw_only=True, tag="atr", tag_field="model"):
    """`premium = k x ATR` (the simple proxy)."""

    k: PositiveFloat = 0.5
    daily_atr: Decimal | None = None
    atr_data: str | None = None

    def __post_init__(self) -> None:
        if self.daily_atr is not None:
            _check_decimal("daily_atr", self.daily_atr)


class BachelierPremium(_Settings, frozen=True, kw_only=True, tag="bachelier", tag_field="model"):
    """`m N(m/s) + s phi(m/s)` with `s = k ATR sqrt(T)`; at the money `s / sqrt(2 pi)`.

    `daily_atr`, in price units, is for people without a history; `atr_data` names a bar file whose
    bars before the run warm Wilder's ATR(14) of daily bars.
    """

    k: PositiveFloat = 0.75
    daily_atr: Decimal | None = None
    atr_data: str | None = None

    def __post_init__(self) -> None:
        if self.daily_atr is not None:
            _check_decimal("daily_atr", self.daily_atr)


class Valuation(StrEnum):
    """Value of an open option: `intrinsic`, or `marked` (with the proxy's time value)."""

    INTRINSIC = "intrinsic"
    MARKED = "marked"


class Weekday(StrEnum):
    """Weekday of an expiry rule."""

    MON = "MON"
    TUE = "TUE"
    WED = "WED"
    THU = "THU"
    FRI = "FRI"


class ExpiryRule(_Settings, frozen=True, kw_only=True):
    """Expiries on a weekday, `from_date` to `to_date` (inclusive; a missing bound is open).

    An expiry that falls on a day without a session moves to the session before it.
    """

    series: Series
    weekday: Weekday
    from_date: dt.date | None = None
    to_date: dt.date | None = None

    def __post_init__(self) -> None:
        if self.from_date and self.to_date and self.from_date > self.to_date:
            raise ValueError(f"`to_date` {self.to_date} is before `from_date`")


class Expiries(_Settings, frozen=True, kw_only=True):
    """Where the contracts of an option end: rules, a table of dates, or a count of sessions.

    Exactly one of the three is given. At the session close of the date; `expires_after: N` means
    the close of the N-th session after the one of the decision.
    """

    rules: tuple[ExpiryRule, ...] | None = None
    dates: tuple[dt.date, ...] | None = None
    expires_after: PositiveInt | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.rules, self.dates, self.expires_after) if x is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of `rules`, `dates`, `expires_after`")


class TrailAtr(_Settings, frozen=True, kw_only=True, tag="atr", tag_field="kind"):
    """Trailing stop `atr` x ATR(14) of the decision timeframe wide, frozen at the decision."""

    atr: PositiveFloat = 3.0


class TrailBp(_Settings, frozen=True, kw_only=True, tag="bp", tag_field="kind"):
    """Trailing stop `bp` basis points of the best price wide, recomputed with it."""

    bp: Annotated[int, Meta(ge=1, le=10_000)]


class Instrument(_Settings, frozen=True, kw_only=True):
    """One tradable instrument: the constants that the engine, the data and the reports need.

    Attributes:
        symbol: name in the run; unique in a registry.
        type: `STOCK` or `OPTION`.
        underlying: symbol whose bars are traded; None: the symbol itself.
        lot_size: units in a lot, or rules by contract expiry (`LotRule`).
        tick_size: smallest price step, in the currency.
        currency: ISO code; decides the money unit together with `tick_size`.
        exchange: calendar code of `exchange_calendars` (`XNYS`, `XBOM`), None: days of 24 hours.
        timezone: IANA zone of trading dates and of what people see.
        volume_step: smallest step of volume.
        slippage_ticks: against the trader, at every fill but settlement.
        premium_slippage_ticks: added to a premium at entry, taken off the value at exit.
        min_days: trading days between decision and expiry, at least.
        enforce_trailing_stop: False: the trailing stop informs; True: it closes the position.
        max_lots: most lots of one order.
    """

    symbol: Symbol
    type: InstrumentType
    lot_size: PositiveInt | tuple[LotRule, ...]
    tick_size: Decimal
    underlying: Symbol | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3,5}\Z")] = "USD"
    exchange: Annotated[str, Meta(pattern=r"^[A-Za-z0-9/_-]{1,16}\Z")] | None = None
    timezone: Annotated[str, Meta(pattern=r"^[A-Za-z0-9/_+-]{1,64}\Z")] = "UTC"
    volume_step: Decimal = Decimal(1)
    brokerage: Brokerage = Brokerage()
    slippage_ticks: NonNegativeInt = 0
    premium_slippage_ticks: NonNegativeInt = 0
    premium: AtrPremium | BachelierPremium = BachelierPremium()
    valuation: Valuation = Valuation.INTRINSIC
    expiries: Expiries | None = None
    min_days: NonNegativeInt = 1
    trail: TrailAtr | TrailBp = TrailAtr()
    enforce_trailing_stop: bool = False
    max_lots: PositiveInt = 100

    def __post_init__(self) -> None:
        for name in ("tick_size", "volume_step"):
            _check_decimal(name, getattr(self, name))
        if decimals_of(self.tick_size) > MAX_MONEY_DECIMALS:
            raise ValueError(f"`tick_size` has more than {MAX_MONEY_DECIMALS} decimals")
        for part in ("entry", "exit", "settlement"):
            amount: Decimal = getattr(self.brokerage, part)
            _check_decimal(f"brokerage.{part}", amount, zero=True)
            if decimals_of(amount) > self.money_decimals:
                raise ValueError(
                    f"`brokerage.{part}` {amount} is finer than the money unit of {self.currency}"
                )
        if isinstance(self.lot_size, tuple):
            if not self.lot_size:
                raise ValueError("`lot_size` has no rows")
            if self.type == InstrumentType.STOCK:
                raise ValueError("`lot_size` by expiry needs `type: OPTION`: a stock has no expiry")
        if self.is_option and self.expiries is None:
            raise ValueError("an OPTION needs `expiries` (rules, dates, or expires_after: N)")

    @property
    def chart(self) -> str:
        """Symbol whose bars this instrument trades."""
        return self.underlying or self.symbol

    @property
    def is_option(self) -> bool:
        """True for a proxy option."""
        return self.type == InstrumentType.OPTION

    @property
    def price_decimals(self) -> int:
        """Decimals of a price."""
        return decimals_of(self.tick_size)

    @property
    def money_decimals(self) -> int:
        """Decimals of the money unit: enough for the currency and for one tick of one unit."""
        return max(currency_decimals(self.currency), self.price_decimals)

    @property
    def tick_money(self) -> int:
        """Money units of one tick of one unit."""
        return int(self.tick_size.scaleb(self.money_decimals))

    def money(self, amount: Decimal) -> int:
        """`amount` of the currency in money units.

        Raises:
            ValueError: `amount` is finer than the money unit.
        """
        scaled = amount.scaleb(self.money_decimals)
        if scaled != scaled.to_integral_value():
            raise ValueError(f"{amount} {self.currency} is finer than 1e-{self.money_decimals}")
        return int(scaled)
