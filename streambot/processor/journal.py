"""The canonical lines of `fills` and `pnl`, and the digest of what happened in a run.

A line is one JSON object with the fields of its event or mark (`domain.events`): prices and money
as exact decimal strings, times as UTC nanoseconds, sizes in lots. It depends on the instrument's
own events alone, so the *event digest*, sha256 over each instrument's lines, instruments sorted,
is equal for any speed, framing, broker, partition count and placement.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.processor.lines import (
    MOST_LINE_BYTES,
    MOST_ORDER_BYTES,
    event_lines,
    mark_lines,
    order_items,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streambot.domain.instruments import Instrument

STREAMS = ("fills", "pnl")


class LineWriter:
    """Writes the lines of one slot.

    Args:
        instrument: of the slot.
        halts: True where a breach halts it.
    """

    def __init__(self, instrument: Instrument, *, halts: bool) -> None:
        self._symbol = np.frombuffer(instrument.symbol.encode(), np.uint8)
        self._price = instrument.price_decimals
        self._money = instrument.money_decimals
        self._step = int(instrument.tick_size.scaleb(self._price))
        self._halts = int(halts)

    def events(self, records: npt.NDArray[np.void]) -> Lines:
        """A line each, with its newline; records are `EVENT` [n]."""
        out, ends = _room(len(records), MOST_LINE_BYTES)
        size = event_lines(
            out, ends, records, self._symbol, self._step, self._price, self._money, self._halts
        )
        return Lines(out[:size], ends)

    def marks(self, records: npt.NDArray[np.void]) -> Lines:
        """A line each, with its newline; records are `MARK` [n]."""
        out, ends = _room(len(records), MOST_LINE_BYTES)
        size = mark_lines(out, ends, records, self._symbol, self._step, self._price, self._money)
        return Lines(out[:size], ends)

    def orders(self, records: npt.NDArray[np.void]) -> Lines:
        """An item of an array each, with a comma behind it; records are `ORDER` [n]."""
        out, ends = _room(len(records), MOST_ORDER_BYTES)
        size = order_items(out, ends, records, self._symbol)
        return Lines(out[:size], ends)


class Lines(NamedTuple):
    """Lines as bytes: line k ends at `ends[k]` of `data`."""

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]


def _room(lines: int, most: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    return np.empty(lines * most, np.uint8), np.empty(lines, np.int64)


class EventDigest:
    """sha256 of each instrument's fills and marks, and of the run.

    Args:
        symbols: instruments of the run (or of a partition).
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self._hashes = {s: {stream: sha256() for stream in STREAMS} for s in symbols}

    def update(self, symbol: str, stream: str, lines: bytes | memoryview) -> None:
        """Add whole lines of one instrument, in their order."""
        self._hashes[symbol][stream].update(lines)

    def parts(self) -> dict[str, str]:
        """Digest of each instrument: hexadecimal."""
        return {
            symbol: sha256(b"".join(by_stream[s].digest() for s in STREAMS)).hexdigest()
            for symbol, by_stream in self._hashes.items()
        }

    def read(self, stream: str, lines: Iterable[bytes]) -> None:
        """Add lines of any instruments, as a file or a topic holds them."""
        decode = msgspec.json.Decoder(_Whose).decode
        for line in lines:
            self.update(decode(line).instrument, stream, line)


class _Whose(msgspec.Struct):
    instrument: str


def event_digest(parts: Mapping[str, str]) -> str:
    """The event digest of a run from the digests of its instruments."""
    whole = sha256()
    for symbol in sorted(parts):
        whole.update(f"{symbol} {parts[symbol]}\n".encode())
    return whole.hexdigest()
