"""The fills of the engine beside those that an agent's mirror computed, line by line.

The two come independently: whichever is ahead waits here for the other. A record of `fills` holds
all events of one frame, so frames are compared one after the other; within a frame the events of an
instrument have an order, and the instruments none.
"""

from __future__ import annotations

from collections import deque
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import DivergenceError

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_OWN = 4_096
"""Frames with events that the mirror may be ahead of the engine."""
MOST_THEIRS = 256
"""Records that the engine may be ahead of the mirror."""


class _Of(msgspec.Struct, frozen=True):
    """What identifies an event."""

    instrument: str = "?"
    seq: int = -1


_decoder = msgspec.json.Decoder(_Of)


def _of(line: bytes) -> _Of:
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError:
        return _Of()


class _Events(NamedTuple):
    frame_seq: int
    lines: bytes


class Comparison:
    """Compares the events of one partition.

    Args:
        where: stream and partition, for messages.

    Attributes:
        compared: events that agreed.
        through: last frame that the mirror has run.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._own: deque[_Events] = deque()
        self._theirs: deque[_Events] = deque()
        self._last_theirs = -1
        self.compared = 0
        self.through = -1

    @property
    def waiting(self) -> int:
        """Events of the mirror that the engine has not confirmed."""
        return sum(events.lines.count(b"\n") for events in self._own)

    @property
    def agrees(self) -> bool:
        """True where the engine has confirmed all that the mirror said."""
        return not self._own

    @property
    def own_room(self) -> bool:
        """False where the mirror should not run further ahead."""
        return len(self._own) < MOST_OWN

    @property
    def their_room(self) -> bool:
        """False where no more of the engine's records should be read."""
        return len(self._theirs) < MOST_THEIRS

    def own(self, frame_seq: int, lines: bytes | None) -> None:
        """The mirror has run a frame.

        Raises:
            DivergenceError: the engine says something else.
        """
        self.through = frame_seq
        if lines:
            self._own.append(_Events(frame_seq, lines))
        self._match()

    def theirs(self, frame_seq: int, lines: bytes) -> None:
        """A record of the engine came. One that was seen before says nothing new.

        Raises:
            DivergenceError: the mirror says something else.
        """
        if frame_seq <= self._last_theirs:
            return
        self._last_theirs = frame_seq
        self._theirs.append(_Events(frame_seq, lines))
        self._match()

    def passed(self, frame_seq: int) -> None:
        """The engine is through the frames before that one, and all it said of them was told.

        Raises:
            DivergenceError: it said nothing where the mirror says something.
        """
        while self._own and self._own[0].frame_seq < frame_seq:
            self._compare(self._own.popleft().lines, b"")

    def settle(self, lines: Iterable[bytes]) -> None:
        """All events of the engine from its start, of any instruments: what waits is among them.

        Raises:
            DivergenceError: it is not.
        """
        left = {_of(line): line for events in self._own for line in _split(events.lines)}
        for line in lines:
            mine = left.pop(_of(line), None)
            if mine is not None:
                self._compare(mine, line)
        for mine in left.values():
            self._compare(mine, b"")
        self._own.clear()

    def _match(self) -> None:
        while self._theirs and self._theirs[0].frame_seq <= self.through:
            frame_seq, lines = self._theirs.popleft()
            self.passed(frame_seq)
            mine = b""
            if self._own and self._own[0].frame_seq == frame_seq:
                mine = self._own.popleft().lines
            self._compare(mine, lines)

    def _compare(self, mine: bytes, theirs: bytes) -> None:
        if mine != theirs:
            first, second = _by_instrument(mine), _by_instrument(theirs)
            for symbol in sorted(first.keys() | second.keys()):
                for a, b in zip_longest(first.get(symbol, ()), second.get(symbol, ())):
                    if a != b:
                        raise self._differs(a, b)
        self.compared += theirs.count(b"\n")

    def _differs(self, mine: bytes | None, theirs: bytes | None) -> DivergenceError:
        of = _of(mine or theirs or b"")
        return DivergenceError(
            f"{of.instrument}, event {of.seq}: the engine's is not the one of the agent's mirror\n"
            f"  engine: {_shown(theirs)}\n  mirror: {_shown(mine)}",
            where=self._where,
            hint="workers and actors must run one version of streambot, by one declaration of the run",
        )


def _split(lines: bytes) -> list[bytes]:
    return lines.splitlines(keepends=True)


def _by_instrument(lines: bytes) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for line in _split(lines):
        found.setdefault(_of(line).instrument, []).append(line)
    return found


def _shown(line: bytes | None) -> str:
    return "nothing" if line is None else line.decode("utf-8", "replace").strip()
