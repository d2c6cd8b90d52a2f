"""Which column of a file is what: names as people write them, mapped and said.

Nothing is guessed beyond spelling. A name that is not in the table below has to be given.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import ConfigError, DataError
from streambot.domain.suggest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PRICES = ("open", "high", "low", "close")
QUOTE_SIDES = ("bid", "ask")

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "time": (
        "ts",
        "timestamp",
        "datetime",
        "date_time",
        "date",
        "time",
        "open_time",
        "opentime",
        "ts_event",
        "unix",
        "index_level_0",
    ),
    "symbol": ("symbol", "ticker", "instrument", "tradingsymbol", "sym"),
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "v", "vol", "qty", "volume_traded"),
}
_DATE_NAMES = ("date", "day")
_TIME_OF_DAY_NAMES = ("time", "time_of_day")


class ColumnMap(NamedTuple):
    """Where a file keeps what, by the file's own names.

    Attributes:
        time: stamps of the bars' opens.
        time_of_day: second half of the stamp where date and time are two columns; else None.
        symbol: names of instruments; None in a file of one instrument.
        open, high, low, close: prices (of the chosen side, for quotes).
        volume: sizes; None where the file has none.
        other_close: close of the other side of a quote, to see crossed quotes; else None.
        unused: columns that are not read.
    """

    time: str
    time_of_day: str | None
    symbol: str | None
    open: str
    high: str
    low: str
    close: str
    volume: str | None
    other_close: str | None
    unused: tuple[str, ...]

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        named = (
            self.time,
            self.time_of_day,
            self.symbol,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.other_close,
        )
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def describe(self) -> str:
        """The mapping as one line, for people."""
        parts = [f"{part}={getattr(self, part)!r}" for part in ("time", *PRICES)]
        parts += [
            f"{part}={getattr(self, part)!r}"
            for part in ("time_of_day", "symbol", "volume")
            if getattr(self, part) is not None
        ]
        return ", ".join(parts)


def _plain(name: str) -> str:
    return re.sub(r"[\s.\-]+", "_", name.strip().lower()).strip("_<>")


def map_columns(
    names: Sequence[str],
    *,
    quote_side: str = "bid",
    given: Mapping[str, str] | None = None,
    where: str = "",
) -> ColumnMap:
    """Find the columns of a bar file by their names.

    Args:
        names: the file's column names.
        quote_side: `bid` or `ask`, for files that have both.
        given: names that the caller knows, by part (`time`, `open`, ...); they win.
        where: the file, for messages.

    Raises:
        DataError: a column that is needed is missing, or two have equal claims.
        ConfigError: `quote_side`, or a part in `given`, does not exist.
    """
    given = dict(given or {})
    _check_given(given, quote_side, names, where)
    by_plain: dict[str, list[str]] = {}
    for name in names:
        by_plain.setdefault(_plain(name), []).append(name)
    is_quote = all(f"{quote_side}_{price}" in by_plain for price in PRICES)

    def find(part: str, *, prefix: str = "") -> str | None:
        if part in given:
            return given[part]
        for candidate in _SYNONYMS[part]:
            found = by_plain.get(prefix + candidate)
            if found:
                if len(found) > 1:
                    raise DataError(
                        f"columns {found[0]!r} and {found[1]!r} both read as {part!r}",
                        where=where,
                        hint="rename one of them",
                    )
                return found[0]
        return None

    time, time_of_day = _find_time(find, by_plain, given)
    prefix = f"{quote_side}_" if is_quote and not set(given) & set(PRICES) else ""
    prices = {price: find(price, prefix=prefix) for price in PRICES}
    missing = [part for part, name in (("time", time), *prices.items()) if name is None]
    if missing or time is None:
        raise _missing(
            "no column for " + ", ".join(f"`{part}`" for part in missing), missing[0], names, where
        )
    other = QUOTE_SIDES[quote_side == "bid"]
    chosen: dict[str, str | None] = {
        **prices,
        "time": time,
        "time_of_day": time_of_day,
        "symbol": find("symbol"),
        # A size of a quote is what was offered, not what was traded: it is no volume.
        "volume": find("volume") if not prefix else given.get("volume"),
        "other_close": by_plain.get(f"{other}_close", [None])[0] if prefix else None,
    }
    used = set(chosen.values())
    return ColumnMap(**chosen, unused=tuple(name for name in names if name not in used))  # type: ignore[arg-type]


def _check_given(
    given: Mapping[str, str], quote_side: str, names: Sequence[str], where: str
) -> None:
    if quote_side not in QUOTE_SIDES:
        raise ConfigError(f"quote side {quote_side!r} is neither `bid` nor `ask`")
    unknown = [part for part in given if part not in _SYNONYMS and part != "time_of_day"]
    if unknown:
        raise ConfigError(f"unknown part {unknown[0]!r} of a bar; known: {', '.join(_SYNONYMS)}")
    absent = [name for name in given.values() if name not in names]
    if absent:
        raise _missing(f"column {absent[0]!r} is not in the file", absent[0], names, where)


def _find_time(
    find: Callable[[str], str | None], by_plain: Mapping[str, list[str]], given: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """The stamp, or its two halves: a `date` and a `time` column belong together."""
    if "time" in given:
        return given["time"], given.get("time_of_day")
    single = [name for name in _SYNONYMS["time"] if name not in (*_DATE_NAMES, *_TIME_OF_DAY_NAMES)]
    if not any(name in by_plain for name in single):
        halves = [
            next((by_plain[name][0] for name in group if name in by_plain), None)
            for group in (_DATE_NAMES, _TIME_OF_DAY_NAMES)
        ]
        if halves[0] is not None and halves[1] is not None:
            return halves[0], halves[1]
    return find("time"), None


def _missing(message: str, part: str, names: Sequence[str], where: str) -> DataError:
    found = ", ".join(f"`{name}`" for name in names) or "none"
    near = nearest(part, names)
    hint = (
        f"did you mean `{near}`?"
        if near
        else (
            "bars need a time and open, high, low, close (bid_open ... ask_close for quotes); "
            "rename the columns, or import the file with a mapping"
        )
    )
    return DataError(f"{message}; found: {found}", where=where, hint=hint)
