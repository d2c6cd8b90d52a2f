"""How numbers, money, times and tables look to a person.

Times are the exchange's, with the zone named; money carries its currency; counts have thousands
separators; nothing is rounded that is exact in the streams.
"""

from __future__ import annotations

import datetime as dt
import itertools
import textwrap
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from streambot.domain.units import NANOS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


def span(first_ns: int, last_ns: int, zone_name: str) -> str:
    """`2020-12-15 09:30 to 16:00 EST`: two times of the market to the minute, the day said once."""
    start, end = (
        dt.datetime.fromtimestamp(ts // NANOS_PER_SECOND, tz=zone(zone_name))
        for ts in (first_ns, last_ns)
    )
    last = f"{end:%H:%M}" if start.date() == end.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"{start:%Y-%m-%d %H:%M} to {last} {zone_label(end, zone_name)}"


def percent(share: float, decimals: int = 0) -> str:
    """`25 %`; nothing has no sign."""
    return f"{round(100 * share, decimals) + 0.0:,.{decimals}f} %"


def zone_label(at: dt.datetime, zone_name: str) -> str:
    """`EST`, `IST`; the IANA name where the zone has offsets only."""
    label = at.tzname() or zone_name
    return zone_name if label[:1] in "+-" else label


def utc_text(ts_ns: int) -> str:
    """ISO 8601 in UTC, nanoseconds kept where there are any."""
    seconds, nanos = divmod(ts_ns, NANOS_PER_SECOND)
    at = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}{f'.{nanos:09d}'.rstrip('0') if nanos else ''}Z"


def utc_minute(text: str) -> str:
    """`2026-11-24 20:31` of an ISO text; the text itself where it is none."""
    try:
        return f"{dt.datetime.fromisoformat(text).astimezone(dt.UTC):%Y-%m-%d %H:%M}"
    except ValueError:
        return text


def size(count_bytes: int) -> str:
    """`840 B`, `12.4 KiB`, `78.0 GiB`."""
    amount_left = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount_left < 1024 or unit == "GiB":
            return f"{amount_left:,.0f} B" if unit == "B" else f"{amount_left:,.1f} {unit}"
        amount_left /= 1024
    raise AssertionError("unreachable")


def plain(text: str) -> str:
    """The text without what a terminal would obey: it may come from a header or a log."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def place(path: Path | str) -> str:
    """A path as short as it is true: below the working folder without that folder."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def flow(parts: Sequence[str], width: int | None, *, label: str = "") -> list[str]:
    """`label` and then the parts, three spaces between them, broken between parts only.

    Args:
        parts: phrases that stay whole where a line has room; empty ones are left out.
        width: columns of the terminal; None: one line.
        label: before the first line; further lines are indented by as much.
    """
    lines: list[str] = []
    line, indent = label, " " * len(label)
    for part in _fitting(parts, None if width is None else width - len(label)):
        joint = "   " if line.strip() and line != label else ""
        if joint and width is not None and len(line) + len(joint) + len(part) > width:
            lines.append(line)
            line, joint = indent, ""
        line += joint + part
    return [*lines, line]


def _fitting(parts: Iterable[str], width: int | None) -> Iterator[str]:
    """The parts that are not empty; what is longer than a line is broken between its words."""
    for part in filter(None, parts):
        if width is None or len(part) <= width:
            yield part
        else:
            yield from textwrap.wrap(part, max(width, 20), break_long_words=False)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: str = "",
    indent: str = " ",
    width: int | None = None,
    optional: str = "",
) -> list[str]:
    """Lines of an aligned table: headings, a rule, the rows.

    Args:
        headings: one word or two a column.
        rows: cells as text, as many as headings; an empty row is a second rule.
        right: names of the headings whose column is aligned to the right, separated by `|`.
        indent: before every line.
        width: columns of the terminal; None: as wide as it gets.
        optional: headings whose columns may go, the first one first, where `width` is not enough.
    """
    cells = [list(row) for row in rows]
    kept = list(range(len(headings)))
    widths = [
        max([len(heading), *(len(row[column]) for row in cells if row)])
        for column, heading in enumerate(headings)
    ]

    def total() -> int:
        return sum(widths[column] for column in kept) + 2 * (len(kept) - 1)

    for heading in filter(None, optional.split("|")):
        if width is not None and total() + len(indent) > width:
            kept.remove(list(headings).index(heading))
    to_right = set(right.split("|"))

    def line(row: Sequence[str]) -> str:
        if not row:
            return indent + "─" * total()
        parts = [
            row[c].rjust(widths[c]) if headings[c] in to_right else row[c].ljust(widths[c])
            for c in kept
        ]
        return (indent + "  ".join(parts)).rstrip()

    return [line(headings), line(()), *(line(row) for row in cells)]
