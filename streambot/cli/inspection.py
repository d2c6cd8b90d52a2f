"""What `data inspect` finds: a file of bars as `simulate` would read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streambot.cli.human import count, duration, flow, place, span, table
from streambot.cli.settings import read_settings
from streambot.domain.units import NANOS_PER_SECOND
from streambot.domain.words import few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streambot.data.columns import ColumnMap
    from streambot.data.feed import FeedReport
    from streambot.data.timeline import Plan
    from streambot.domain.instruments import Instrument

_SPEED = 100
_HEADINGS = (
    "instrument", "bars of", "bars", "sessions", "missing", "unknown", "outside", "rounded", "zero vol",
    "no vol", "rejected", "first to last",
)  # fmt: skip
_MAY_GO = "no vol|zero vol|rounded|outside"


class Mapped(NamedTuple):
    """How the columns of a file are read."""

    path: Path
    columns: ColumnMap
    stamps: str


class Inspection(NamedTuple):
    """What was found.

    Attributes:
        plan: what a replay of all of it would be.
        instruments: by symbol, inferred ones included.
        files: mapping of each file's columns.
        undeclared: the YAML block for symbols that no registry knows; empty without any.
        warnings: what was assumed.
    """

    plan: Plan
    instruments: Mapping[str, Instrument]
    files: tuple[Mapped, ...]
    undeclared: str
    warnings: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """All of it, for JSON."""
        plan = self.plan
        return {
            "files": [
                {"path": str(file.path), "columns": file.columns._asdict(), "stamps": file.stamps}
                for file in self.files
            ],
            "bars": plan.bars,
            "ticks": plan.ticks,
            "sessions": plan.sessions,
            "decision_ns": plan.decision_ns,
            "first_ns": plan.first_ns,
            "last_ns": plan.last_ns,
            "open_ns": plan.open_ns,
            "closed_ns": plan.closed_ns,
            "instruments": msgspec.to_builtins(plan.instruments),
            "undeclared": self.undeclared,
            "warnings": list(self.warnings),
        }

    def lines(self, width: int | None) -> Iterator[str]:
        """All of it, for people."""
        plan = self.plan
        yield from flow(
            [
                few([place(file.path) for file in self.files], 3),
                count(len(plan.symbols), "instrument"),
                f"{_length(plan.decision_ns)} bars",
                count(plan.bars, "bar"),
                count(plan.sessions, "session"),
            ],
            width,
        )
        yield ""
        rows = [self._row(report) for report in plan.instruments]
        numbers = "|".join(_HEADINGS[1:-1])
        yield from table(_HEADINGS, rows, right=numbers, width=width, optional=_MAY_GO)
        yield ""
        for file in self.files:
            yield from flow(
                list(_mapping(file, many=len(self.files) > 1)), width, label=" columns  "
            )
        for note in _notes(plan.instruments):
            yield from flow(note, width, label=" note     ")
        yield from flow(_durations(plan), width, label=" replay   ")
        if self.undeclared:
            yield from flow(
                [
                    "symbols that no registry knows: paste this into instruments.yaml and correct it",
                    "(steps as seen in the data; currency and time zone are assumed)",
                ],
                width,
                label=" declare  ",
            )
            yield ""
            yield self.undeclared.rstrip("\n")

    def _row(self, report: FeedReport) -> tuple[str, ...]:
        zone_name = self.instruments[report.symbol].timezone
        rejected = sum(report.rejected.values())
        first_to_last = span(report.first_ns, report.last_ns, zone_name) if report.bars else "-"
        return (
            report.symbol,
            _length(report.timeframe_ns) + ("?" if report.timeframe_inferred else ""),
            f"{report.bars:,}",
            f"{report.sessions:,}",
            f"{report.missing_sessions:,}",
            f"{report.unknown_dates:,}",
            f"{report.outside_session:,}",
            f"{report.rounded:,}",
            f"{report.zero_volume:,}",
            f"{report.no_volume:,}",
            f"{rejected:,}",
            first_to_last,
        )


def inspect_files(flags: Mapping[str, object]) -> Inspection:
    """Look at the files that the flags name, every row of them.

    Raises:
        StreambotError: what `simulate` would say.
    """
    from streambot.data.files import open_bars
    from streambot.data.timeline import Timeline
    from streambot.domain.registry import find_registry, suggest_yaml
    from streambot.wiring.feeds import find_feeds

    config = read_settings(flags).config
    cwd = Path.cwd()
    found = find_feeds(config, cwd)
    timeline = Timeline(
        found.feeds, decision_ns=config.timeframe_ns, round_prices=config.round_prices
    )
    where, registry = find_registry(Path(config.registry) if config.registry else None, cwd)
    instruments = {feed.instrument.symbol: feed.instrument for feed in found.feeds}
    unknown = [instrument for symbol, instrument in instruments.items() if symbol not in registry]
    known = [instrument for symbol, instrument in instruments.items() if symbol in registry]
    opened = [
        open_bars(path, quote_side=config.quote_side)
        for path in sorted({feed.path for feed in found.feeds})
    ]
    return Inspection(
        plan=timeline.plan(),
        instruments=instruments,
        files=tuple(Mapped(file.path, file.columns, file.stamps.value) for file in opened),
        undeclared=suggest_yaml(unknown, known, where) if unknown else "",
        warnings=found.warnings,
    )


def _length(nanos: int) -> str:
    from streambot.domain.config import format_duration

    return format_duration(nanos)


def _mapping(file: Mapped, *, many: bool) -> Iterator[str]:
    columns = file.columns
    if many:
        yield f"{place(file.path)}:"
    time_of_day = f" + {columns.time_of_day}" if columns.time_of_day else ""
    known = {
        "instant": "moments, opens of the bars",
        "naive": "no zone: read in the exchange's",
        "date": "dates",
    }
    yield f"time {columns.time}{time_of_day} ({known.get(file.stamps, file.stamps)})"
    yield f"prices {columns.open}, {columns.high}, {columns.low}, {columns.close}"
    yield f"volume {columns.volume or 'none'}"
    if columns.symbol:
        yield f"symbol {columns.symbol}"
    if columns.unused:
        yield f"not read: {', '.join(columns.unused)}"


_DOUBTS = (
    ("unknown_dates", "trading dates that the calendar calls closed; kept, data win"),
    ("missing_sessions", "sessions of the calendar without a bar; nothing is invented"),
    ("outside_session", "bars outside the session; kept"),
    ("overlapping", "bars that began before the one before ended, which is cut there"),
    ("crossed", "quotes with bid above ask; kept"),
    ("jumps", "prices more than 15 % from the one before; kept"),
    ("rounded", "bars with a price off the tick grid; rounded"),
    ("volume_rounded", "bars with a volume between two steps; rounded"),
)


def _notes(reports: Sequence[FeedReport]) -> Iterator[list[str]]:
    """What a person should know, doubt by doubt: what it is, and which symbols have how many."""
    if any(report.timeframe_inferred for report in reports):
        yield ["the length of a bar is the most common step of the data (1m?)"]
    backwards = [report.symbol for report in reports if report.newest_first]
    if backwards:
        yield [f"the newest bar comes first, read from the end: {few(backwards)}"]
    for field, what in _DOUBTS:
        yield from _counted(what, [(r.symbol, getattr(r, field)) for r in reports])
    for reason in sorted({reason for report in reports for reason in report.rejected}):
        counts = [(report.symbol, report.rejected.get(reason, 0)) for report in reports]
        yield from _counted(f"rows rejected ({reason})", counts)


def _counted(what: str, counts: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    found = [f"{symbol} {number:,}" for symbol, number in counts if number]
    if found:
        yield [what + ":", few(found)]


def _durations(plan: Plan) -> list[str]:
    skipped = plan.open_ns / NANOS_PER_SECOND / _SPEED
    kept = (plan.open_ns + plan.closed_ns) / NANOS_PER_SECOND / _SPEED
    return [
        count(plan.ticks, "tick"),
        f"at {_SPEED}x {duration(skipped)} with closed hours skipped, {duration(kept)} with them kept",
        "at max as fast as this machine goes",
    ]
