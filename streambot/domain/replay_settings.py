"""How bars are replayed, as people write it: speed, closed hours, the path inside a bar, times.

Each type reads back from its own text: `parse_speed(str(speed)) == speed`.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from decimal import Decimal
from fractions import Fraction

import msgspec

from streambot.domain.durations import format_duration, parse_duration
from streambot.domain.errors import UsageError
from streambot.domain.suggest import did_you_mean
from streambot.domain.units import NANOS_PER_DAY

_SPEED = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})\s*[xX]?\Z")
_BRIDGE = re.compile(r"bridge:([0-9]{1,6})\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MAX_SPEED = 10**9
MIN_BRIDGE_TICKS = 4
MAX_BRIDGE_TICKS = 4096
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Speed(msgspec.Struct, frozen=True):
    """Market seconds per second of wall time, as an exact fraction; 1 / 0 is as fast as it goes."""

    numerator: int
    denominator: int = 1

    @property
    def is_max(self) -> bool:
        """True for `max`: nothing is paced."""
        return self.denominator == 0

    @property
    def ratio(self) -> float:
        """The speed as a float; infinite for `max`."""
        return float("inf") if self.is_max else self.numerator / self.denominator

    def __str__(self) -> str:
        if self.is_max:
            return "max"
        exact = Decimal(self.numerator) / Decimal(self.denominator)
        return f"{exact:f}x"


MAX_SPEED = Speed(1, 0)


def parse_speed(text: str) -> Speed:
    """The speed that `max`, `100x`, `0.5x` or `2` asks for.

    Raises:
        UsageError: not a positive number, or above a thousand million.
    """
    hint = "use max, or a positive number: 100x, 1x, 0.5x"
    word = text.strip()
    if word.lower() == "max":
        return MAX_SPEED
    found = _SPEED.match(word)
    if not found:
        if word.startswith("-"):
            raise UsageError(f"a replay cannot run backwards: `{word[:60]}`", hint=hint)
        raise UsageError(f"`{word[:60]}` is no speed", hint=hint)
    ratio = Fraction(found[1])
    if ratio == 0:
        raise UsageError(f"at speed `{word}` nothing would ever happen", hint=hint)
    if ratio > _MAX_SPEED:
        raise UsageError(f"`{word}` is faster than any machine", hint="use max")
    return Speed(ratio.numerator, ratio.denominator)


class Gaps(msgspec.Struct, frozen=True):
    """What becomes of closed hours in a paced replay.

    Attributes:
        wall_ns: wall time that a closed stretch may take at most: 0 skips it, None keeps all of it.
    """

    wall_ns: int | None

    def __str__(self) -> str:
        if self.wall_ns is None:
            return "keep"
        return f"max:{format_duration(self.wall_ns)}" if self.wall_ns else "skip"


def parse_gaps(text: str) -> Gaps:
    """`skip`, `keep`, or `max:30s`.

    Raises:
        UsageError: anything else.
    """
    if text == "skip":
        return Gaps(0)
    if text == "keep":
        return Gaps(None)
    if text.startswith("max:"):
        wall_ns = parse_duration(text.removeprefix("max:"))
        if wall_ns:
            return Gaps(wall_ns)
    raise UsageError(
        f"`{text[:60]}` is no way to treat closed hours",
        hint=did_you_mean(text, ["skip", "keep", "max:30s"]),
    )


class OhlcPath(msgspec.Struct, frozen=True, tag="ohlc", tag_field="path"):
    """Four ticks a bar: open, first extreme, other extreme, close."""

    def __str__(self) -> str:
        return "ohlc"


class BridgePath(msgspec.Struct, frozen=True, tag="bridge", tag_field="path"):
    """A seeded path of `ticks` ticks through open, extremes and close."""

    ticks: int

    def __str__(self) -> str:
        return f"bridge:{self.ticks}"


BarPath = OhlcPath | BridgePath


def parse_bar_path(text: str) -> BarPath:
    """`ohlc` or `bridge:N`, N from 4.

    Raises:
        UsageError: anything else.
    """
    if text == "ohlc":
        return OhlcPath()
    found = _BRIDGE.match(text)
    if not found:
        raise UsageError(
            f"`{text[:60]}` is no path of a bar", hint="use ohlc, or bridge:N (N ticks a bar)"
        )
    ticks = int(found[1])
    if not MIN_BRIDGE_TICKS <= ticks <= MAX_BRIDGE_TICKS:
        raise UsageError(
            f"a bridge of {ticks} ticks",
            hint=f"use {MIN_BRIDGE_TICKS} to {MAX_BRIDGE_TICKS} ticks a bar",
        )
    return BridgePath(ticks)


class Moment(msgspec.Struct, frozen=True):
    """A date or a time, with its own zone or in the zone of whoever reads it (the exchange's).

    Attributes:
        text: ISO 8601: `2020-12-07`, `2020-12-07T09:30`, `2020-12-07T14:30Z`.
    """

    text: str

    @property
    def is_date(self) -> bool:
        """True where only a date was given."""
        return bool(_DATE.match(self.text))

    @property
    def naive(self) -> bool:
        """True where the text names no zone."""
        return dt.datetime.fromisoformat(self.text).tzinfo is None

    def start_ns(self, zone: str) -> int:
        """UTC nanoseconds: the time itself; of a date its first moment in `zone`."""
        return self._nanos(zone, 0)

    def end_ns(self, zone: str) -> int:
        """UTC nanoseconds, exclusive: the time itself; of a date the first moment of the next one."""
        return self._nanos(zone, 1 if self.is_date else 0)

    def _nanos(self, zone: str, days: int) -> int:
        value = dt.datetime.fromisoformat(self.text) + dt.timedelta(days=days)
        if value.tzinfo is None:
            value = value.replace(tzinfo=zoneinfo.ZoneInfo(zone))
        since = value - _EPOCH
        return (since.days * NANOS_PER_DAY) + since.seconds * 10**9 + since.microseconds * 1000

    def __str__(self) -> str:
        return self.text


def parse_moment(text: str) -> Moment:
    """A date or a time in ISO 8601, years 1900 to 2200.

    Raises:
        UsageError: anything else.
    """
    hint = "use 2020-12-07, 2020-12-07T09:30 (zone of the exchange) or 2020-12-07T14:30Z"
    try:
        value = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"`{text[:60]}` is no date or time", hint=hint) from None
    if not 1900 <= value.year <= 2200:
        raise UsageError(f"the year of `{text[:60]}` is out of reach", hint=hint)
    # One spelling of a date: fromisoformat also reads 20201207 and 2020-W50-1.
    date_only = re.fullmatch(r"\d{8}|\d{4}-?W\d{2}(-?\d)?", text) is not None
    return Moment(value.date().isoformat() if date_only else text)
