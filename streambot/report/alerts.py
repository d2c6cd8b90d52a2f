"""Alerts: what a person should know, each said once and numbered in its own series.

An alert's number and content depend on one ordered source alone (the marks of an instrument, the
rolled barriers of a currency, the dead letters of a partition), never on how sources interleave. So
whoever reads the sources again says the same alerts under the same numbers. The one exception is
the series `lag`: that something does not come can be known by a clock only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from streambot.domain.errors import DecodeError
from streambot.domain.events import Alert, AlertCleared, AlertKind, AlertRaised

if TYPE_CHECKING:
    from collections.abc import Callable

LAG_LIMIT_NS = 30_000_000_000
"""Marks may wait that long, by the clock, for a partition from which nothing comes."""


class RollupLine(NamedTuple):
    """One line of `portfolio` or `alerts`.

    Attributes:
        series: where `seq` counts: a currency, or the series of an alert.
        ts_event: event time of its record, UTC ns.
        data: a JSON object.
    """

    stream: Literal["portfolio", "alerts"]
    series: str
    seq: int
    ts_event: int
    data: bytes


class AlertBook:
    """Numbers alerts by series."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def raised(self, series: str, **said: object) -> RollupLine:
        """An `AlertRaised` with the next number of its series."""
        return self._write(AlertRaised, series, said)

    def cleared(self, series: str, **said: object) -> RollupLine:
        """An `AlertCleared` with the next number of its series."""
        return self._write(AlertCleared, series, said)

    def go_on(self, series: str, seq: int) -> None:
        """The next number of a series is `seq`, because the ones before it are in the log."""
        self._next[series] = max(seq, self._next.get(series, 0))

    @property
    def count(self) -> int:
        """Alerts said so far."""
        return sum(self._next.values())

    def _write(
        self, kind: Callable[..., Alert], series: str, said: dict[str, object]
    ) -> RollupLine:
        seq = self._next.get(series, 0)
        self._next[series] = seq + 1
        alert = kind(series=series, seq=seq, **said)
        return RollupLine("alerts", series, seq, alert.ts_event, msgspec.json.encode(alert))


class Numbers:
    """Drops repeats of what an instrument says, and counts what is missing.

    Args:
        what: `marks` or `events`, for people.
        series: `pnl` or `fills`.
    """

    def __init__(self, what: str, series: str, book: AlertBook) -> None:
        self._what = what
        self._series = series
        self._book = book
        self._last: dict[str, int] = {}
        self._last_ts: dict[str, int] = {}
        self.repeats = 0
        self.missing = 0

    def take(self, symbol: str, seq: int, ts: int, out: list[RollupLine]) -> int:
        """How many are missing before this one; -1: a repeat, to be dropped."""
        last = self._last.get(symbol, -1)
        if seq <= last:
            self.repeats += 1
            return -1
        gap = seq - last - 1
        if gap:
            self.missing += gap
            out.append(
                self._book.raised(
                    f"{self._series}/{symbol}", alert=AlertKind.GAP, where=symbol, ts_event=ts,
                    amount=str(gap), unit=self._what, since=self._last_ts.get(symbol, ts),
                    message=f"{symbol}: {gap} {self._what} are missing before number {seq}",
                )
            )  # fmt: skip
        self._last[symbol] = seq
        self._last_ts[symbol] = ts
        return gap


class _Fill(msgspec.Struct, gc=False):
    kind: str
    instrument: str
    seq: int
    ts_event: int
    reason: str = ""
    on_breach: str = ""


class Breaches:
    """Breaches of slots, from the lines of `fills`."""

    def __init__(self, book: AlertBook, limit_bp: int) -> None:
        self.numbers = Numbers("events", "fills", book)
        self._book = book
        self._limit = limit_bp / 100
        self._lines = msgspec.json.Decoder(_Fill)

    def take(self, value: bytes, where: str) -> list[RollupLine]:
        """Count a record of `fills`.

        Raises:
            DecodeError: a line is no event.
        """
        try:
            events = self._lines.decode_lines(value)
        except msgspec.MsgspecError as cause:
            raise DecodeError(
                f"a line is no event: {cause}", reason="schema", where=where
            ) from cause
        out: list[RollupLine] = []
        for event in events:
            symbol = event.instrument
            if self.numbers.take(symbol, event.seq, event.ts_event, out) < 0:
                continue
            if event.kind == "SlotBreached":
                then = "it is halted" if event.on_breach == "halt" else "it goes on"
                out.append(
                    self._book.raised(
                        f"fills/{symbol}", alert=AlertKind.BREACHED, where=symbol,
                        ts_event=event.ts_event, since=event.ts_event, amount="1", unit="slots",
                        limit_percent=self._limit,
                        message=f"{symbol}: {event.reason} beyond {self._limit:g} %; {then}",
                    )
                )  # fmt: skip
        return out


class DeadLetters:
    """Dead letters by reason: of each in a partition the first is told, then the 10th, the 100th, ….

    Attributes:
        reasons: how many, by reason.
    """

    def __init__(self, book: AlertBook) -> None:
        self._book = book
        self._last: dict[tuple[int, str, int], int] = {}
        self._counts: dict[tuple[int, str], int] = {}
        self._since: dict[tuple[int, str], int] = {}
        self.reasons: dict[str, int] = {}

    def take(
        self, partition: int, source: tuple[str, int, int], reason: str, ts: int
    ) -> list[RollupLine]:
        """Count one.

        Args:
            partition: of the `dead-letter` stream.
            source: stream, partition and offset that it was found at: its identity.
            reason: word of a closed set (`DecodeError`).
            ts: time of its record, UTC ns.
        """
        stream, at, offset = source
        found = (partition, stream, at)
        if offset <= self._last.get(found, -1):
            return []
        self._last[found] = offset
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        key = (partition, reason)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        since = self._since.setdefault(key, ts)
        if str(count).strip("0") != "1":
            return []
        many = "a record" if count == 1 else f"{count:,} records"
        place = f"{stream}/{at}"
        return [
            self._book.raised(
                f"dead-letter/{partition}", alert=AlertKind.DEAD_LETTER, where=place, ts_event=ts,
                amount=str(count), unit="records", since=since,
                message=f"{place}: {many} could not be read ({reason}), last at offset {offset}",
            )
        ]  # fmt: skip


class Stall:
    """Says when marks have waited too long for a partition from which nothing comes, and when not.

    Args:
        limit_ns: of the clock.
    """

    def __init__(self, book: AlertBook, limit_ns: int = LAG_LIMIT_NS) -> None:
        self._book = book
        self._limit_ns = limit_ns
        self._moved_at: int | None = None
        self._progress = -1
        self._raised: int | None = None

    def go_on(self, seq: int, since: int | None) -> None:
        """The log says that alerts before `seq` were told, the last one of something since `since`."""
        self._book.go_on("lag", seq)
        self._raised = since

    def look(
        self, now: int, *, progress: int, waiting: int, rolled_ts: int, newest_ts: int, where: str
    ) -> list[RollupLine]:
        """Look at the roll-up.

        Args:
            now: of a monotonic clock, ns.
            progress: marks rolled up.
            waiting: marks that wait.
            rolled_ts, newest_ts: event times rolled up and seen, UTC ns.
            where: which partitions are waited for.
        """
        first = self._moved_at is None
        if self._moved_at is None or progress != self._progress or not waiting:
            self._moved_at, self._progress = now, progress
            if self._raised is None or first:
                return []
            since, self._raised = self._raised, None
            return [self._say(self._book.cleared, newest_ts, rolled_ts, since, where, "it goes on")]
        if self._raised is not None or now - self._moved_at < self._limit_ns:
            return []
        self._raised = rolled_ts
        return [
            self._say(
                self._book.raised, newest_ts, rolled_ts, rolled_ts, where,
                f"{waiting:,} marks wait for {where}",
            )
        ]  # fmt: skip

    def _say(
        self, write: Callable[..., RollupLine], newest_ts: int, rolled_ts: int, since: int,
        where: str, message: str,
    ) -> RollupLine:  # fmt: skip
        behind = max(0, newest_ts - rolled_ts) // 1_000_000_000
        return write(
            "lag", alert=AlertKind.LAG, where=where, ts_event=max(newest_ts, since),
            amount=str(behind), unit="s of market time", since=since, message=message,
        )  # fmt: skip
