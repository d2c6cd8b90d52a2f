"""The summary of a run as a person reads it: one table, then what must never be silent.

Every count stands there, zeros included. P&L is after brokerage, with brokerage beside it; money
carries its currency, and totals are by currency.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from streambot.cli.human import amount, count, duration, flow, percent, place, span, speed, table
from streambot.domain.units import NANOS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streambot.report.summary import InstrumentSummary, Latency, Summary

_HEADINGS = (
    "instrument", "bars", "ticks", "fills", "rejected", "gross P&L", "brokerage", "net P&L",
    "max drawdown", "lots", "proxied",
)  # fmt: skip
_NUMBERS = "|".join(_HEADINGS[1:])
_MOST_WARNINGS = 8
_MAY_GO = "ticks|bars|proxied|rejected|lots"


def summary_lines(
    summary: Summary, *, zone_name: str = "UTC", width: int | None = None
) -> list[str]:
    """Lines of the summary.

    Args:
        summary: what to tell.
        zone_name: the exchange's zone, for the times.
        width: columns of the terminal; None: no limit.
    """
    totals = [_total(summary, currency) for currency in summary.pnl_net]
    return [
        *flow(_headline(summary, zone_name), width),
        "",
        *instrument_table(summary.by_instrument, totals, width=width),
        "",
        *(
            line
            for label, parts in _facts(summary)
            for line in flow(parts, width, label=f" {label:<9} ")
        ),
    ]


def instrument_table(
    by_instrument: Mapping[str, InstrumentSummary],
    totals: Sequence[tuple[str, ...]] = (),
    *,
    width: int | None,
) -> list[str]:
    """A row for each instrument, and below a line the totals; one instrument is its own total."""
    rows: list[tuple[str, ...]] = [
        _row(symbol, of, of.currency) for symbol, of in by_instrument.items()
    ]
    if len(rows) > 1 and totals:
        rows += [(), *totals]
    return table(_HEADINGS, rows, right=_NUMBERS, width=width, optional=_MAY_GO)


def _headline(summary: Summary, zone_name: str) -> list[str]:
    return [
        f"run {summary.run}",
        summary.state,
        f"{_market_time(summary, zone_name)} in {duration(summary.wall_s)}",
        f"{speed(summary.speed_effective)} (asked {summary.speed_asked})",
        f"{summary.ticks_per_s:,.0f} ticks/s",
    ]


def _market_time(summary: Summary, zone_name: str) -> str:
    if summary.event_from is None or summary.event_to is None:
        return "no market time"
    ends = (dt.datetime.fromisoformat(at) for at in (summary.event_from, summary.event_to))
    first, last = (int(at.timestamp()) * NANOS_PER_SECOND for at in ends)
    return span(first, last, zone_name)


def _row(name: str, of: InstrumentSummary, currency: str) -> tuple[str, ...]:
    marks = "".join(
        mark for mark, there in ((" halted", of.halted), (" insolvent", of.insolvent)) if there
    )
    return (
        name + marks,
        f"{of.bars:,}",
        f"{of.ticks:,}",
        f"{of.fills:,}",
        f"{of.rejected:,}",
        amount(of.pnl_gross, signed=True),
        amount(of.brokerage),
        f"{amount(of.pnl_net, signed=True)} {currency}",
        f"{amount(of.max_drawdown)} ({of.max_drawdown_pct:.2f} %)",
        f"{of.lots:+,}" if of.lots else "0",
        percent(of.proxied_share),
    )


def _total(summary: Summary, currency: str) -> tuple[str, ...]:
    members = [of for of in summary.by_instrument.values() if of.currency == currency]
    fills = sum(of.fills for of in members)
    proxied = sum(of.proxied_share * of.fills for of in members) / fills if fills else 0.0
    drawdown = summary.max_drawdown.get(currency, "0")
    return (
        f"total {currency}",
        f"{sum(of.bars for of in members):,}",
        f"{sum(of.ticks for of in members):,}",
        f"{fills:,}",
        f"{sum(of.rejected for of in members):,}",
        amount(summary.pnl_gross[currency], signed=True),
        amount(summary.brokerage[currency]),
        f"{amount(summary.pnl_net[currency], signed=True)} {currency}",
        f"{amount(drawdown)} ({summary.max_drawdown_pct.get(currency, 0.0):.2f} %)",
        "",
        percent(proxied),
    )


def _facts(summary: Summary) -> Iterator[tuple[str, list[str]]]:
    for currency in summary.pnl_net:
        yield (
            "P&L",
            [
                f"net {amount(summary.pnl_net[currency], signed=True)} {currency}",
                f"brokerage {amount(summary.brokerage[currency])}",
                f"realized {amount(summary.pnl_realized[currency], signed=True)}",
                f"unrealized {amount(summary.pnl_unrealized[currency], signed=True)}",
                f"equity {amount(summary.equity[currency])} {currency}",
            ],
        )
    yield (
        "orders",
        [
            count(summary.fills, "fill"),
            f"rejected {_reasons(summary.rejected)}",
            f"expired {_reasons(summary.expired)}",
            f"settled {summary.settled:,}",
            f"breached {summary.breached:,}",
            f"proxied {percent(summary.proxied_share)}",
        ],
    )
    yield (
        "data",
        [
            count(summary.bars, "bar"),
            count(summary.ticks, "tick"),
            f"rounded {summary.rounded:,}",
            f"flagged {summary.flagged:,}",
            f"rejected {count(summary.rejected_rows, 'row')}",
        ],
    )
    yield (
        "streams",
        [
            f"late {summary.late:,}",
            f"duplicate {summary.duplicates:,}",
            f"dead letters {summary.dead_letters:,}",
            count(summary.partitions, "partition"),
            f"resumed {count(summary.resumes, 'time')}",
        ],
    )
    yield "latency", [f"tick to fill {latency_text(summary.latency_ms)}"]
    if summary.lateness_ms.p99 is not None:
        yield "pacing", [f"behind schedule {latency_text(summary.lateness_ms)}"]
    yield "delivery", [*summary.delivery.split("; "), summary.broker]
    yield "policy", [summary.policy]
    yield "digest", [summary.digest]
    yield "files", [place(summary.folder)]
    for warning in summary.warnings[:_MOST_WARNINGS]:
        yield "warning", [warning]
    untold = len(summary.warnings) - _MOST_WARNINGS
    if untold > 0:
        yield "warning", [f"and {untold:,} more, all in {place(summary.folder)}/summary.json"]


def _reasons(by_reason: dict[str, int]) -> str:
    """`3 (flat 2, no_bar 1)`, `0`: the total always, reasons where there are any."""
    found = ", ".join(f"{reason} {n:,}" for reason, n in by_reason.items() if n)
    return f"{sum(by_reason.values()):,}" + (f" ({found})" if found else "")


def latency_text(latency: Latency) -> str:
    """Median and 99th percentile."""
    if latency.p50 is None or latency.p99 is None:
        return "not measured"
    return f"p50 {latency.p50:,.1f} ms   p99 {latency.p99:,.1f} ms"
