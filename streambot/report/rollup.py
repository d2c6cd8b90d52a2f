"""The portfolio of a run, rolled up from the marks on its `pnl` stream. No clock, no waiting.

Theory of operation. Marks of a partition come in their order, at least once; partitions have no
mutual order. A mark is known by instrument and number: repeats are dropped, gaps are counted and
told. What a mark changes is held until every partition that has slots of its currency is through
the mark's barrier; then that barrier is rolled up: one record of the portfolio, and an alert where
the drawdown went beyond the limit, or came back. A slot without bars lags behind with its own
barriers, so a mark counts at the furthest barrier that its partition had reached before it.

Records and alerts are therefore a function of what the partitions hold, whatever the interleaving,
the repeats and the restarts; they are numbered, so that a writer which reads everything again
writes nothing twice, and a reader can drop what is. The drawdown is that of `report.drawdown`,
barrier by barrier instead of at the end (a test holds them together).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from streambot.domain.errors import DecodeError
from streambot.domain.events import AlertKind
from streambot.domain.instruments import Instrument
from streambot.report.alerts import AlertBook, Breaches, DeadLetters, Numbers, RollupLine, Stall
from streambot.report.portfolio import Change, CurrencyBook, Slot

_NOTHING = -2
"""Barrier of a partition that has said nothing; marks before the first close carry -1."""


class RolledRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a roll-up must know of a run: a part of its manifest, under the same names.

    `msgspec.convert(manifest, RolledRun, from_attributes=True)` takes it from a `RunManifest`.
    """

    run: str
    instruments: tuple[Instrument, ...]
    partitions: int
    partition_of: tuple[int, ...]
    capital: tuple[int, ...]
    drawdown_limit_bp: int = 2_000


class RollupCounts(NamedTuple):
    """What a roll-up has seen.

    Attributes:
        marks: counted, repeats left out.
        repeats: marks and events dropped because they had been seen.
        missing: marks and events whose numbers were never seen.
        waiting: marks that wait for other partitions.
        rolled_ts: event time rolled up to, UTC ns; 0 before the first.
        newest_ts: newest event time seen.
        dead_letters: by reason.
    """

    marks: int
    repeats: int
    missing: int
    waiting: int
    rolled_ts: int
    newest_ts: int
    alerts: int
    dead_letters: dict[str, int]


class _Mark(msgspec.Struct, gc=False):
    instrument: str
    seq: int
    ts_event: int
    barrier: int
    cash: str
    equity: str
    lots: int
    realized_pnl: str
    brokerage_paid: str
    halted: bool


class Rollup:
    """Rolls up one run."""

    def __init__(self, run: RolledRun) -> None:
        self.run = run
        self._alerts = AlertBook()
        self._numbers = Numbers("marks", "pnl", self._alerts)
        self._breaches = Breaches(self._alerts, run.drawdown_limit_bp)
        self._dead = DeadLetters(self._alerts)
        self._stall = Stall(self._alerts)
        self._reached = [_NOTHING] * run.partitions
        self._newest = 0
        self._lines = msgspec.json.Decoder(_Mark)
        self.finished = False
        decimals: dict[str, int] = {}
        for one in run.instruments:
            decimals[one.currency] = max(decimals.get(one.currency, 0), one.money_decimals)
        self._books = {
            currency: CurrencyBook(currency, places, run.drawdown_limit_bp, self._alerts)
            for currency, places in sorted(decimals.items())
        }
        self._slots: dict[str, Slot] = {}
        for number, one in enumerate(run.instruments):
            book = self._books[one.currency]
            scale = 10 ** (book.decimals - one.money_decimals)
            capital = run.capital[number] * scale
            book.begin(run.partition_of[number], capital)
            self._slots[one.symbol] = Slot(
                number, one.money_decimals, scale, book, equity=capital, cash=capital
            )

    def marks(self, partition: int, value: bytes, where: str = "pnl") -> list[RollupLine]:
        """Count a record of `pnl`: whole lines, in the order of their partition, at least once.

        Raises:
            DecodeError: a line is no mark of this run. Nothing was counted.
        """
        marks = self._read(partition, value, where)
        out: list[RollupLine] = []
        reached = self._reached[partition]
        for mark, slot, amounts in marks:
            missed = self._numbers.take(mark.instrument, mark.seq, mark.ts_event, out)
            if missed < 0:
                continue
            reached = max(reached, mark.barrier)
            self._newest = max(self._newest, mark.ts_event)
            slot.book.hold(
                reached,
                Change(slot, mark.ts_event, *amounts, mark.lots, mark.halted, missed),
            )
            if mark.halted and not slot.told_halted:
                slot.told_halted = True
                out.append(self._tell_halted(mark))
        if reached != self._reached[partition]:
            self._reached[partition] = reached
            for book in self._books.values():
                if partition in book.partitions:
                    # Marks of the last barrier may still come, in the next record.
                    book.settle(min(self._reached[p] for p in book.partitions), out)
        return out

    def fills(self, value: bytes, where: str = "fills") -> list[RollupLine]:
        """Count a record of `fills`.

        Raises:
            DecodeError: a line is no event.
        """
        return self._breaches.take(value, where)

    def dead_letter(
        self, partition: int, source: tuple[str, int, int], reason: str, ts: int
    ) -> list[RollupLine]:
        """Count a dead letter; arguments as `DeadLetters.take`."""
        return self._dead.take(partition, source, reason, ts)

    def look(self, now: int) -> list[RollupLine]:
        """Whether marks have waited too long; `now` is of a monotonic clock, ns."""
        counts = self.counts
        return self._stall.look(
            now, progress=counts.marks - counts.waiting, waiting=counts.waiting,
            rolled_ts=counts.rolled_ts, newest_ts=counts.newest_ts, where=self._waited_for(),
        )  # fmt: skip

    def go_on(self, seq: int, since: int | None) -> None:
        """Take up the series `lag`, which no source decides, from what the log has of it.

        Args:
            seq: number of its next alert.
            since: of the last alert, where nothing has cleared it yet.
        """
        self._stall.go_on(seq, since)

    def finish(self) -> list[RollupLine]:
        """Every partition is complete: roll up what waits. A second call does nothing."""
        out: list[RollupLine] = []
        for book in self._books.values():
            book.settle(None, out)
        self.finished = True
        return out

    @property
    def counts(self) -> RollupCounts:
        """What was seen so far."""
        books = self._books.values()
        waiting = sum(book.waiting for book in books)
        return RollupCounts(
            marks=sum(book.marks for book in books) + waiting,
            repeats=self._numbers.repeats + self._breaches.numbers.repeats,
            missing=self._numbers.missing + self._breaches.numbers.missing,
            waiting=waiting,
            rolled_ts=max((book.ts for book in books), default=0),
            newest_ts=self._newest,
            alerts=self._alerts.count,
            dead_letters=dict(self._dead.reasons),
        )

    def _read(
        self, partition: int, value: bytes, where: str
    ) -> list[tuple[_Mark, Slot, tuple[int, int, int, int]]]:
        try:
            found = []
            for mark in self._lines.decode_lines(value):
                slot = self._slots.get(mark.instrument)
                if slot is None or self.run.partition_of[slot.number] != partition:
                    raise DecodeError(
                        f"{mark.instrument[:64]!r} has no marks in partition {partition}",
                        reason="foreign", where=where,
                    )  # fmt: skip
                found.append((mark, slot, _amounts(mark, slot)))
        except (msgspec.MsgspecError, ValueError) as cause:
            raise DecodeError(
                f"a line is no mark: {cause}", reason="schema", where=where
            ) from cause
        return found

    def _tell_halted(self, mark: _Mark) -> RollupLine:
        return self._alerts.raised(
            f"pnl/{mark.instrument}", alert=AlertKind.HALTED, where=mark.instrument,
            ts_event=mark.ts_event, since=mark.ts_event, amount="1", unit="slots",
            message=f"{mark.instrument} is halted: it takes no entries any more",
        )  # fmt: skip

    def _waited_for(self) -> str:
        behind: set[int] = set()
        for book in self._books.values():
            if book.waiting:
                least = min(self._reached[p] for p in book.partitions)
                behind |= {p for p in book.partitions if self._reached[p] == least}
        return "pnl/" + ",".join(map(str, sorted(behind)))


def _amounts(mark: _Mark, slot: Slot) -> tuple[int, int, int, int]:
    """Equity, cash, realised P&L and brokerage in the currency's finest money unit."""
    decimals, scale = slot.decimals, slot.scale
    return (
        _units(mark.equity, decimals) * scale,
        _units(mark.cash, decimals) * scale,
        _units(mark.realized_pnl, decimals) * scale,
        _units(mark.brokerage_paid, decimals) * scale,
    )


def _units(text: str, decimals: int) -> int:
    whole, _, part = text.partition(".")
    if len(part) != decimals:
        raise ValueError(f"{text[:40]!r} has not {decimals} decimals")
    return int(whole + part)
