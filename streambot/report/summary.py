"""The summary of a run: what happened, what it cost, and what was not silent.

Every count is there, zeros included. Money is an exact decimal string in the instrument's currency;
totals are by currency, because sums across currencies mean nothing. P&L is measured against the
initial capital: gross before brokerage, net after it, and split into realized and unrealized.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.events import RejectReason
from streambot.domain.units import exact_decimal

if TYPE_CHECKING:
    from streambot.domain.instruments import Instrument

SUMMARY_SCHEMA = "streambot.summary/1"
EXPIRY_REASONS = ("gap", "end_of_data")


class SlotTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot ended with. Money units of its instrument; counts of events.

    Attributes:
        realized_pnl: before brokerage, since the start.
        max_drawdown: largest fall of equity from its peak, measured at barriers.
        max_drawdown_peak: the peak it fell from.
        fills: entries, exits and settlements.
        proxied_fills: fills whose premium came from a proxy model.
    """

    bars: int
    ticks: int
    capital: int
    equity: int
    cash: int
    lots: int
    realized_pnl: int
    brokerage: int
    max_drawdown: int
    max_drawdown_peak: int
    fills: int
    proxied_fills: int
    rejected: Mapping[str, int]
    expired: Mapping[str, int]
    settled: int
    breached: int
    halted: bool


class InstrumentSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument of a run."""

    currency: str
    bars: int
    ticks: int
    fills: int
    rejected: int
    expired: int
    settled: int
    breached: int
    proxied_share: float
    pnl_gross: str
    pnl_net: str
    pnl_realized: str
    pnl_unrealized: str
    brokerage: str
    equity: str
    cash: str
    lots: int
    max_drawdown: str
    max_drawdown_pct: float
    halted: bool
    insolvent: bool


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of a wall time in milliseconds; None where nothing was measured."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as `--json` prints it and `summary.json` keeps it.

    Attributes:
        state: `complete` or `interrupted`.
        stopped_by: what ended it before its data: the name of a signal, `request`, or `seek` (which
            leaves it complete, up to there); None otherwise.
        bars: decision bars closed.
        speed_asked: at the end of the run.
        speed_effective: market seconds per second of wall time, closed hours as asked, pauses left
            out.
        max_drawdown: largest fall of the portfolio's equity, by currency, measured at its marks.
        latency_ms: publish of a frame to the acknowledgement of the fills it caused.
        lateness_ms: emission minus schedule of a paced run.
        rounded: rows whose price was moved to the tick grid; `flagged`, `rejected_rows`: rows that
            the loader kept with a doubt, or refused.
        resumes: how often the run was resumed.
        digest: the event digest: equal for any speed, framing, broker, partition count, placement.
    """

    schema: str = SUMMARY_SCHEMA
    run: str
    state: str
    stopped_by: str | None = None
    instruments: list[str]
    policy: str
    bars: int
    ticks: int
    barriers: int
    event_from: str | None
    event_to: str | None
    speed_asked: str
    speed_effective: float
    wall_s: float
    ticks_per_s: float
    fills: int
    rejected: dict[str, int]
    expired: dict[str, int]
    settled: int
    breached: int
    pnl_gross: dict[str, str]
    pnl_net: dict[str, str]
    pnl_realized: dict[str, str]
    pnl_unrealized: dict[str, str]
    brokerage: dict[str, str]
    equity: dict[str, str]
    max_drawdown: dict[str, str]
    max_drawdown_pct: dict[str, float]
    by_instrument: dict[str, InstrumentSummary]
    proxied_share: float
    late: int
    duplicates: int
    dead_letters: int
    rounded: int
    flagged: int
    rejected_rows: int
    latency_ms: Latency
    lateness_ms: Latency
    delivery: str
    broker: str
    partitions: int
    resumes: int
    digest: str
    folder: str
    warnings: list[str]


def instrument_summary(instrument: Instrument, slot: SlotTotals) -> InstrumentSummary:
    """One instrument's totals as people read them."""

    def money(amount: int) -> str:
        return exact_decimal(amount, instrument.money_decimals)

    net = slot.equity - slot.capital
    gross = net + slot.brokerage
    return InstrumentSummary(
        currency=instrument.currency,
        bars=slot.bars,
        ticks=slot.ticks,
        fills=slot.fills,
        rejected=sum(slot.rejected.values()),
        expired=sum(slot.expired.values()),
        settled=slot.settled,
        breached=slot.breached,
        proxied_share=_share(slot.proxied_fills, slot.fills),
        pnl_gross=money(gross),
        pnl_net=money(net),
        pnl_realized=money(slot.realized_pnl),
        pnl_unrealized=money(gross - slot.realized_pnl),
        brokerage=money(slot.brokerage),
        equity=money(slot.equity),
        cash=money(slot.cash),
        lots=slot.lots,
        max_drawdown=money(slot.max_drawdown),
        max_drawdown_pct=percent(slot.max_drawdown, slot.max_drawdown_peak),
        halted=slot.halted,
        insolvent=slot.cash < 0,
    )


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the slots of a run, the part of a summary that slots alone decide."""

    bars: int
    ticks: int
    fills: int
    rejected: dict[str, int]
    expired: dict[str, int]
    settled: int
    breached: int
    pnl_gross: dict[str, str]
    pnl_net: dict[str, str]
    pnl_realized: dict[str, str]
    pnl_unrealized: dict[str, str]
    brokerage: dict[str, str]
    equity: dict[str, str]
    by_instrument: dict[str, InstrumentSummary]
    proxied_share: float


def sum_slots(slots: Iterable[tuple[Instrument, SlotTotals]]) -> Totals:
    """Sums over slots: counts as they are, money by currency, every reason with its zero."""
    pairs = sorted(slots, key=lambda pair: pair[0].symbol)
    columns: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for instrument, slot in pairs:
        net = slot.equity - slot.capital
        amounts = {
            "pnl_gross": net + slot.brokerage,
            "pnl_net": net,
            "pnl_realized": slot.realized_pnl,
            "pnl_unrealized": net + slot.brokerage - slot.realized_pnl,
            "brokerage": slot.brokerage,
            "equity": slot.equity,
        }
        for name, amount in amounts.items():
            rows = columns.setdefault(name, {}).setdefault(instrument.currency, [])
            rows.append((amount, instrument.money_decimals))

    def by_currency(name: str) -> dict[str, str]:
        return {currency: add_money(rows) for currency, rows in columns.get(name, {}).items()}

    fills = sum(slot.fills for _, slot in pairs)
    return Totals(
        bars=sum(slot.bars for _, slot in pairs),
        ticks=sum(slot.ticks for _, slot in pairs),
        fills=fills,
        rejected=_add_counts([r.value for r in RejectReason], (s.rejected for _, s in pairs)),
        expired=_add_counts(EXPIRY_REASONS, (s.expired for _, s in pairs)),
        settled=sum(slot.settled for _, slot in pairs),
        breached=sum(slot.breached for _, slot in pairs),
        pnl_gross=by_currency("pnl_gross"),
        pnl_net=by_currency("pnl_net"),
        pnl_realized=by_currency("pnl_realized"),
        pnl_unrealized=by_currency("pnl_unrealized"),
        brokerage=by_currency("brokerage"),
        equity=by_currency("equity"),
        by_instrument={i.symbol: instrument_summary(i, slot) for i, slot in pairs},
        proxied_share=_share(sum(slot.proxied_fills for _, slot in pairs), fills),
    )


def add_money(amounts: Iterable[tuple[int, int]]) -> str:
    """Exact sum of `(count, decimals)` amounts of one currency, whatever their money units are."""
    rows = list(amounts)
    finest = max((decimals for _, decimals in rows), default=0)
    return exact_decimal(sum(n * 10 ** (finest - decimals) for n, decimals in rows), finest)


def percent(part: int, whole: int) -> float:
    """`part` of `whole` in percent, to four decimals; 0 where there is no positive whole."""
    return round(100 * part / whole, 4) if whole > 0 else 0.0


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _add_counts(names: Iterable[str], counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = dict.fromkeys(names, 0)
    for by_reason in counts:
        for reason, n in by_reason.items():
            total[reason] = total.get(reason, 0) + n
    return total


def encode_summary(summary: Summary) -> bytes:
    """The summary as pretty-printed JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
