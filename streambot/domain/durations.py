"""Durations and timeframes as people write them (`15m`, `1h30m`, `500ms`), in nanoseconds."""

from __future__ import annotations

import re

from streambot.domain.errors import UsageError
from streambot.domain.units import NANOS_PER_DAY, NANOS_PER_SECOND

_UNITS = {
    "ms": NANOS_PER_SECOND // 1000,
    "s": NANOS_PER_SECOND,
    "m": 60 * NANOS_PER_SECOND,
    "h": 3600 * NANOS_PER_SECOND,
    "d": NANOS_PER_DAY,
}
_PART = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:[0-9]{1,12}(?:ms|s|m|h|d)){1,5}\Z")
_TIMEFRAME = re.compile(r"([0-9]{1,5})(s|m|h|d)\Z")
MAX_DURATION = 100 * 366 * NANOS_PER_DAY
"""A hundred years: what fits int64 nanoseconds with room."""


def parse_duration(text: str) -> int:
    """Nanoseconds of `30s`, `15m`, `1h30m`, `7d`, `500ms`.

    Raises:
        UsageError: anything else, or more than a hundred years.
    """
    if not _WHOLE.match(text):
        raise UsageError(
            f"`{text[:60]}` is no duration", hint="a number and a unit: 500ms, 30s, 15m, 1h, 7d"
        )
    total = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    if total > MAX_DURATION:
        raise UsageError(f"`{text}` is longer than a hundred years")
    return total


def parse_timeframe(text: str) -> int:
    """Nanoseconds of a bar's timeframe: `30s`, `1m`, `5m`, `15m`, `1h`, `1d`.

    A timeframe below a day divides a day; days do not add up (`1d` is the exchange's date).

    Raises:
        UsageError: anything else.
    """
    hint = "use 1m, 5m, 15m, 1h or 1d"
    found = _TIMEFRAME.match(text)
    if not found:
        raise UsageError(f"`{text[:60]}` is no timeframe", hint=hint)
    length = int(found[1]) * _UNITS[found[2]]
    if length == 0 or length > NANOS_PER_DAY or NANOS_PER_DAY % length:
        raise UsageError(f"`{text}` is a timeframe that does not divide a day", hint=hint)
    return length


def format_duration(nanos: int) -> str:
    """The shortest text that `parse_duration` reads as `nanos` (whole milliseconds): `1h30m`."""
    text = ""
    rest = nanos
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            text += f"{count}{unit}"
    return text or "0s"
