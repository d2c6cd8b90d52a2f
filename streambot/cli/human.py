"""How numbers, money, times and tables look to a person.

Times are the exchange's, with the zone named; money carries its currency; counts have thousands
separators; nothing is rounded that is exact in the streams.
"""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from streambot.domain.units import NANOS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SPANS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Two units are enough: `9 h 40 min`, `3 min 52 s`, `12.4 s`, `80 ms`."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms" if seconds else "0 s"
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for (unit, span), (lower, lower_span) in itertools.pairwise(_SPANS):
        if whole >= span:
            count, rest = divmod(whole, span)
            part = rest // lower_span
            return f"{count:,} {unit} {part} {lower}" if part else f"{count:,} {unit}"
    return f"{whole} s"


def amount(value: str | Decimal | int, *, signed: bool = False) -> str:
    """An exact decimal with thousands separators: `-1234.50` gives `-1,234.50`."""
    return f"{Decimal(value):{'+' if signed else ''},f}"


def money(value: str | Decimal | int, currency: str, *, signed: bool = False) -> str:
    """An amount with its currency: `+1,234.50 USD`."""
    return f"{amount(value, signed=signed)} {currency}"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 bar`, `1,560 bars`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def speed(ratio: float | None) -> str:
    """`100x`, `0.5x`; `max` where there is none."""
    return "max" if ratio is None else f"{ratio:,.4g}x" if ratio < 1_000 else f"{ratio:,.0f}x"


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """Zone by its IANA name."""
    return ZoneInfo(name)


def moment(ts_ns: int, zone_name: str, *, millis: bool = False) -> str:
    """A time of the market in its zone, named: `2020-12-15 09:31:00 EST`."""
    seconds, nanos = divmod(ts_ns, NANOS_PER_SECOND)
    at = dt.datetime.fromtimestamp(seconds, tz=zone(zone_name))
    fraction = f".{nanos // 1_000_000:03d}" if millis else ""
    return f"{at:%Y-%m-%d %H:%M:%S}{fraction} {zone_label(at, zone_name)}"


def zone_label(at: dt.datetime, zone_name: str) -> str:
    """`EST`, `IST`; the IANA name where the zone has offsets only."""
    label = at.tzname() or zone_name
    return zone_name if label[:1] in "+-" else label


def utc_text(ts_ns: int) -> str:
    """ISO 8601 in UTC, nanoseconds kept where there are any."""
    seconds, nanos = divmod(ts_ns, NANOS_PER_SECOND)
    at = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}{f'.{nanos:09d}'.rstrip('0') if nanos else ''}Z"


def size(count_bytes: int) -> str:
    """`840 B`, `12.4 KiB`, `78.0 GiB`."""
    amount_left = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount_left < 1024 or unit == "GiB":
            return f"{amount_left:,.0f} B" if unit == "B" else f"{amount_left:,.1f} {unit}"
        amount_left /= 1024
    raise AssertionError("unreachable")


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "", indent: str = " "
) -> list[str]:
    """Lines of an aligned table: headings, a rule, the rows.

    Args:
        headings: one word or two a column.
        rows: cells as text, as many as headings.
        right: names of the headings whose column is aligned to the right, separated by `|`.
        indent: before every line.
    """
    cells = [list(row) for row in rows]
    widths = [
        max([len(heading), *(len(row[column]) for row in cells)])
        for column, heading in enumerate(headings)
    ]
    to_right = set(right.split("|"))

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if heading in to_right else cell.ljust(width)
            for cell, width, heading in zip(row, widths, headings, strict=True)
        ]
        return (indent + "  ".join(parts)).rstrip()

    rule = indent + "─" * (sum(widths) + 2 * (len(widths) - 1))
    return [line(headings), rule, *(line(row) for row in cells)]
