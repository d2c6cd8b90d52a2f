"""`streambot instruments ls|show|check`: what can be traded, and whether a registry is sound."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streambot.cli.console import emit, say, show, terminal_width
from streambot.cli.groups import AsJson, several
from streambot.cli.human import count, place, table
from streambot.domain.errors import UnknownInstrumentError
from streambot.domain.instruments import Expiries, Instrument, TrailBp
from streambot.domain.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

Registry = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="FILE",
        help="Registry to read. Default: ./instruments.yaml, else the bundled one.",
    ),
]


def ls(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Symbols to list, such as 'NIFTY*'.")
    ] = "*",
    registry: Registry = None,
    as_json: AsJson = False,
) -> None:
    """List instruments: type, chart, lot and tick size, currency, exchange, brokerage."""
    source, instruments = _find(registry)
    chosen = [i for s, i in sorted(instruments.items()) if fnmatch.fnmatchcase(s, pattern)]
    if as_json:
        for instrument in chosen:
            emit("instrument", registry=source, **_fields(instrument))
        return
    say(f"registry: {source}", style="dim")
    if not chosen:
        raise _unknown(pattern, instruments, source)
    headings = ("symbol", "type", "chart", "lot", "tick", "currency", "exchange", "brokerage")
    for line in table(
        headings,
        (_row(i) for i in chosen),
        right="lot|tick|brokerage",
        width=terminal_width(),
        optional="exchange|chart|brokerage",
    ):
        show(line)


def show_one(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL")],
    registry: Registry = None,
    as_json: AsJson = False,
) -> None:
    """Show one instrument with every setting, defaults included."""
    source, instruments = _find(registry)
    instrument = instruments.get(symbol)
    if instrument is None:
        raise _unknown(symbol, instruments, source)
    if as_json:
        emit("instrument", registry=source, **_fields(instrument))
        return
    say(f"registry: {source}", style="dim")
    for line in _described(instrument):
        show(line)


def check(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Registry to check; default as for ls.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a registry: keys, types, duplicates, sizes. Exit code 3 names file, line and key."""
    source, instruments = _find(file)
    options = sum(instrument.is_option for instrument in instruments.values())
    if as_json:
        emit("registry", registry=source, instruments=len(instruments), options=options)
        return
    stocks = len(instruments) - options
    show(f"ok  {source}: {count(stocks, 'stock')}, {count(options, 'proxy option')}")


def _find(file: str | None) -> tuple[str, dict[str, Instrument]]:
    from streambot.domain.registry import find_registry

    source, instruments = find_registry(Path(file) if file is not None else None, Path.cwd())
    return place(source), instruments


def _unknown(symbol: str, known: Iterable[str], source: str) -> UnknownInstrumentError:
    return UnknownInstrumentError(
        f"no instrument `{symbol}`",
        symbols=(symbol,),
        where=source,
        hint=did_you_mean(symbol, sorted(known)),
    )


def _fields(instrument: Instrument) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(instrument)
    return fields


def _row(instrument: Instrument) -> tuple[str, ...]:
    fees = instrument.brokerage
    brokerage = str(fees.entry) if fees.entry == fees.exit else f"{fees.entry}/{fees.exit}"
    return (
        instrument.symbol,
        instrument.type.value,
        instrument.chart,
        str(instrument.lot_size) if isinstance(instrument.lot_size, int) else "by expiry",
        f"{instrument.tick_size:f}",
        instrument.currency,
        instrument.exchange or "24 h",
        brokerage,
    )


def _described(instrument: Instrument) -> list[str]:
    fees = instrument.brokerage
    trail = instrument.trail
    lines = {
        "symbol": instrument.symbol,
        "type": f"{instrument.type.value} on the chart of {instrument.chart}"
        if instrument.is_option
        else instrument.type.value,
        "currency": f"{instrument.currency}, money in steps of 1e-{instrument.money_decimals}",
        "tick size": f"{instrument.tick_size:f}",
        "exchange": f"{instrument.exchange or 'days of 24 h'}, times in {instrument.timezone}",
        "volume step": f"{instrument.volume_step:f}",
        "brokerage": f"entry {fees.entry}, exit {fees.exit}, settlement {fees.settlement}",
        "slippage": count(instrument.slippage_ticks, "tick"),
        "trailing stop": (
            f"{trail.bp} basis points" if isinstance(trail, TrailBp) else f"{trail.atr:g} x ATR(14)"
        )
        + (", closes the position" if instrument.enforce_trailing_stop else ", informs only"),
        "lots": f"at most {instrument.max_lots} an order",
    }
    if isinstance(instrument.lot_size, int):
        lines["lot size"] = str(instrument.lot_size)
    if instrument.is_option:
        premium = instrument.premium
        lines["premium"] = (
            f"proxy {type(premium).__name__.removesuffix('Premium').lower()}, k {premium.k:g}, "
            f"slippage {count(instrument.premium_slippage_ticks, 'tick')}"
        )
        lines["valuation"] = instrument.valuation.value
        lines["expiries"] = (
            f"{_expiries(instrument.expiries)}, {instrument.min_days} days away at least"
        )
    width = max(len(name) for name in lines)
    text = [f" {name:<{width}}  {value}" for name, value in lines.items()]
    if not isinstance(instrument.lot_size, int):
        text.append(" lot size by expiry of the contract:")
        rows = [
            (
                rule.series.value if rule.series else "every",
                str(rule.from_expiry or "…"),
                str(rule.to_expiry or "…"),
                str(rule.lot),
            )
            for rule in instrument.lot_size
        ]
        text += table(("series", "from", "to", "lot"), rows, right="lot", indent="   ")
    return text


def _expiries(expiries: Expiries | None) -> str:
    if expiries is None:
        return "none"
    if expiries.expires_after is not None:
        return f"{count(expiries.expires_after, 'session')} after the decision"
    if expiries.dates is not None:
        return f"a table of {count(len(expiries.dates), 'date')}"
    return ", ".join(
        f"{rule.series.value} {rule.weekday.value} {rule.from_date or '…'} to {rule.to_date or '…'}"
        for rule in expiries.rules or ()
    )


app = several("List, show and check instruments.", {"ls": ls, "show": show_one, "check": check})
