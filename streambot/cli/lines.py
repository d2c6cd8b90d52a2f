"""A record of a run as one line: fixed columns for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.cli.human import plain

if TYPE_CHECKING:
    from streambot.cli.tail_files import Row
    from streambot.domain.instruments import Instrument

_GAP, _NARROW_GAP = "  ", " "


class Traded(NamedTuple):
    """What the lines of a run need to know of it.

    Attributes:
        instruments: by symbol.
        capital: initial cash of each slot, money units.
        trained: a trained policy gives the orders.
    """

    instruments: Mapping[str, Instrument]
    capital: Mapping[str, int]
    trained: bool = False

    def zone_of(self, symbol: str) -> str:
        """Zone of the instrument's exchange."""
        instrument = self.instruments.get(symbol)
        return instrument.timezone if instrument is not None else "UTC"

    def currency_of(self, symbol: str) -> str:
        """Currency of the instrument."""
        instrument = self.instruments.get(symbol)
        return instrument.currency if instrument is not None else ""


class Column(NamedTuple):
    """A column of human lines. `optional`: goes where the terminal is narrow, the lowest first."""

    heading: str
    width: int
    right: bool = False
    optional: int = 0


class View:
    """One stream's records as lines.

    Args:
        schema: name of the JSON schema.
        fields: what records may have, for `--where`.
        columns: of the human lines.
        cells: a record's text for each column.
        width: columns of the terminal; None: no limit.
    """

    def __init__(
        self,
        schema: str,
        fields: Sequence[str],
        columns: Sequence[Column],
        cells: Callable[[Row], Sequence[str]],
        width: int | None = None,
    ) -> None:
        self.schema = schema
        self.fields = ("time", *fields) if "ts_event" in fields else tuple(fields)
        self._cells = cells
        self._width = width
        self._kept = list(range(len(columns)))
        self._gap = _GAP
        self._columns = columns
        for column in sorted((c for c in columns if c.optional), key=lambda c: c.optional):
            if width is not None and self._total() > width:
                self._kept.remove(list(columns).index(column))
        if width is not None and self._total() > width:
            self._gap = _NARROW_GAP

    def _total(self) -> int:
        return sum(self._columns[k].width + len(self._gap) for k in self._kept) - len(self._gap)

    @property
    def room(self) -> int | None:
        """What the terminal has left for the last column; None: no limit."""
        if self._width is None:
            return None
        return max(0, self._width - self._total() + self._columns[self._kept[-1]].width)

    def heading(self) -> str:
        """The line above the others."""
        return self._line([column.heading for column in self._columns])

    def human(self, row: Row) -> str:
        """A record for people: nothing in it that a terminal would obey."""
        line = self._line(self._cells(row))
        return line if line.isprintable() else plain(line)

    def machine(self, row: Row) -> bytes:
        """A record as one JSON object."""
        return msgspec.json.encode({"schema": f"streambot.{self.schema}/1", **row})

    def _line(self, cells: Sequence[str]) -> str:
        parts = []
        for k in self._kept:
            column = self._columns[k]
            pad = cells[k].rjust if column.right else cells[k].ljust
            parts.append(pad(column.width))
        return self._gap.join(parts).rstrip()
