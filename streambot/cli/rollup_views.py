"""What `tail portfolio` and `tail alerts` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streambot.cli.human import amount, moment, money
from streambot.cli.lines import Column, Traded, View
from streambot.domain.events import AlertRaised, PortfolioRolled

if TYPE_CHECKING:
    from streambot.cli.tail_files import Row

_HALF_A_YEAR = (1_700_000_000 * 10**9, 1_690_000_000 * 10**9)


def portfolio_view(traded: Traded, width: int | None) -> View:
    """Equity and drawdown of a currency at its barriers."""

    def cells(row: Row) -> list[str]:
        currency = row["currency"]
        halted = f"{row['halted']} halted" if row["halted"] else ""
        missing = f"{row['missing']:,} marks missing" if row["missing"] else ""
        return [
            moment(row["ts_event"], _zone(traded, currency)),
            f"{row['barrier']:,}",
            money(row["equity"], currency),
            amount(row["pnl_net"], signed=True),
            amount(row["brokerage"]),
            amount(row["pnl_realized"], signed=True),
            amount(row["pnl_unrealized"], signed=True),
            f"{row['drawdown_pct']:.2f} %",
            f"{row['max_drawdown_pct']:.2f} %",
            str(row["open_positions"]),
            ", ".join(filter(None, (halted, missing))),
        ]

    columns = (
        Column("time", _time_width(traded)), Column("barrier", 8, right=True, optional=2),
        Column("equity", 20, right=True), Column("net P&L", 13, right=True),
        Column("brokerage", 10, right=True), Column("realized", 13, right=True, optional=3),
        Column("unrealized", 12, right=True, optional=3), Column("drawdown", 9, right=True),
        Column("worst", 9, right=True, optional=4), Column("open", 4, right=True, optional=1),
        Column("", 0),
    )  # fmt: skip
    return View("portfolio", _fields(PortfolioRolled), columns, cells, width)


def alert_view(traded: Traded, width: int | None) -> View:
    """What a person should know, once."""

    def cells(row: Row) -> list[str]:
        zone = _zone(traded, row["where"])
        return [
            moment(row["ts_event"], zone),
            "over" if row["kind"] == "AlertCleared" else "raised",
            row["alert"].replace("_", " "),
            "" if row["since"] == row["ts_event"] else moment(row["since"], zone),
            row["message"],
        ]

    time = _time_width(traded)
    columns = (
        Column("time", time), Column("", 6), Column("alert", 11),
        Column("since", time, optional=1), Column("what", 40),
    )  # fmt: skip
    return View("alert", _fields(AlertRaised), columns, cells, width)


def _fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return ("kind", *(field.encode_name for field in msgspec.structs.fields(kind)))


def _zone(traded: Traded, where: str) -> str:
    """Zone of an instrument, or the one that all instruments (of a currency) share; else UTC."""
    if where in traded.instruments:
        return traded.zone_of(where)
    instruments = traded.instruments.values()
    of_currency = {i.timezone for i in instruments if i.currency == where}
    zones = of_currency or {i.timezone for i in instruments}
    return zones.pop() if len(zones) == 1 else "UTC"


def _time_width(traded: Traded) -> int:
    zones = {instrument.timezone for instrument in traded.instruments.values()} or {"UTC"}
    return max(len(moment(ts, zone)) for zone in zones for ts in _HALF_A_YEAR)
