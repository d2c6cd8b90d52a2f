"""Lines of fills and P&L as they stand somewhere, and as they come out again: where they part.

Of every line eight bytes are kept, so a long run needs little memory and still the very line that
differs can be named. What decides is not them but the event digest, sha256 over all lines.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.processor.journal import STREAMS, EventDigest, event_digest

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Numbered(msgspec.Struct):
    instrument: str
    seq: int


_decode = msgspec.json.Decoder(_Numbered).decode


class Broken(NamedTuple):
    """A line that no instrument of the run can have written."""

    stream: str
    line: str
    where: str


class Parting(NamedTuple):
    """Where two sets of lines part first: which line, and what it is in the second."""

    instrument: str
    stream: str
    line: int
    expected: str | None


class Ledger:
    """Lines of a run, in the order of each instrument.

    Args:
        symbols: instruments of the run.

    Attributes:
        lines: by stream.
        gaps: numbers left out.
        repeats: numbers that had been there.
        broken: the first line of nobody's.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        names = list(symbols)
        self.hashes = {(s, stream): array("q") for s in names for stream in STREAMS}
        self.lines = dict.fromkeys(STREAMS, 0)
        self.gaps = self.repeats = 0
        self.broken: Broken | None = None
        self._next = dict.fromkeys(self.hashes, 0)
        self._digest = EventDigest(names)

    @property
    def digest(self) -> str:
        """Event digest of all lines."""
        return event_digest(self._digest.parts())

    def add(self, stream: str, lines: bytes, where: str = "") -> None:
        """Whole lines, each with its newline."""
        for line in lines.splitlines(keepends=True):
            try:
                whose = _decode(line)
                hashes = self.hashes[whose.instrument, stream]
            except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
                self.broken = self.broken or Broken(
                    stream, line.decode("utf-8", "replace").rstrip("\n"), where
                )
                continue
            self.lines[stream] += 1
            hashes.append(hash(line))
            self._digest.update(whose.instrument, stream, line)
            due = self._next[whose.instrument, stream]
            self.gaps += max(0, whose.seq - due)
            self.repeats += whose.seq < due
            self._next[whose.instrument, stream] = max(due, whose.seq + 1)


class Comparison:
    """Compares the lines that come out again with those of a ledger.

    Args:
        ledger: what stands there.
        exact: everything must be there; False: what stands there may end earlier.

    Attributes:
        parting: the first line that differs; None: none so far.
    """

    def __init__(self, ledger: Ledger, *, exact: bool) -> None:
        self._ledger = ledger
        self._exact = exact
        self._count = dict.fromkeys(ledger.hashes, 0)
        self._digest = EventDigest({symbol for symbol, _ in ledger.hashes})
        self.parting: Parting | None = None

    @property
    def digest(self) -> str:
        """Event digest of what came out, as far as it was compared."""
        return event_digest(self._digest.parts())

    def add(self, stream: str, lines: bytes) -> None:
        """The next lines that came out."""
        for line in lines.splitlines(keepends=True):
            symbol = _decode(line).instrument
            known = self._ledger.hashes[symbol, stream]
            at = self._count[symbol, stream]
            if at >= len(known) and not self._exact:
                continue
            self._count[symbol, stream] = at + 1
            self._digest.update(symbol, stream, line)
            if self.parting is None and (at >= len(known) or known[at] != hash(line)):
                text = line.decode().rstrip("\n")
                self.parting = Parting(symbol, stream, at + 1, text)

    def finish(self) -> None:
        """Nothing more comes out: are there lines too many?"""
        if self.parting is not None:
            return
        for (symbol, stream), known in sorted(self._ledger.hashes.items()):
            if self._count[symbol, stream] < len(known):
                self.parting = Parting(symbol, stream, self._count[symbol, stream] + 1, None)
                return
