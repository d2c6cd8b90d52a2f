"""Records of a run as lines for people and as JSON: what `tail` prints, stream by stream.

Human lines have fixed columns, the exchange's time with its zone, money with its currency. JSON
lines are the records as they are (exact decimals, UTC nanoseconds) with `schema` and `time` first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from streambot.cli.human import amount, moment, utc_text
from streambot.cli.lines import Column, Traded, View
from streambot.cli.rollup_views import alert_view, portfolio_view
from streambot.cli.status_view import status_view
from streambot.domain.events import (
    Mark,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PositionSettled,
    SlotBreached,
    SubmitOrder,
)
from streambot.domain.units import exact_decimal
from streambot.streams.orders import said_of

if TYPE_CHECKING:
    from streambot.cli.tail_files import Row
    from streambot.domain.instruments import Instrument

_EVENTS = (OrderFilled, OrderRejected, OrderExpired, PositionSettled, SlotBreached)
TICK_FIELDS = (
    "instrument",
    "ts_event",
    "price",
    "size",
    "open",
    "close",
    "session_close",
    "barrier",
)
ORDER_FIELDS = ("agent", "partition", "through_barrier")
_VERSION = "weights"
"""Under this name a policy says which of its weights it has; the others are its experts."""
_GATE = len("gate mean-reversion 0.00")
"""Columns that the likeliest expert needs."""
DEAD_FIELDS = ("stream", "partition", "offset", "reason", "message", "sha256", "value")


def timed(row: Row) -> Row:
    """The record with its time in words, UTC, in front."""
    ts = row.get("ts_event")
    return {"time": utc_text(ts), **row} if isinstance(ts, int) else row


def fields_of(*types: type[msgspec.Struct]) -> tuple[str, ...]:
    """Names of all fields of some records, each once, in their order."""
    names = dict.fromkeys(
        field.encode_name for kind in types for field in msgspec.structs.fields(kind)
    )
    return tuple(names)


def make_view(
    stream: str, traded: Traded, width: int | None = None, *, training: bool = False
) -> View:
    """The view of a stream of a run; of one of that name of a training, where that is another."""
    return (_OF_TRAINING if training else {}).get(stream, _VIEWS[stream])(traded, width)


def _common(traded: Traded) -> tuple[Column, Column]:
    longest = max((len(symbol) for symbol in traded.instruments), default=0)
    zones = {instrument.timezone for instrument in traded.instruments.values()} or {"UTC"}
    # A day of winter and one of summer, because zones may have a longer name in one of them.
    samples = (
        moment(ts, z) for z in zones for ts in (1_700_000_000 * 10**9, 1_690_000_000 * 10**9)
    )
    return Column("time", max(map(len, samples))), Column("symbol", max(longest, 6))


def _ticks(traded: Traded, width: int | None) -> View:
    time, symbol = _common(traded)

    def cells(row: Row) -> list[str]:
        marks = ("open", "close", "session_close")
        return [
            moment(row["ts_event"], traded.zone_of(row["instrument"]), millis=True),
            row["instrument"],
            amount(row["price"]),
            "-" if row["size"] is None else amount(row["size"]),
            f"{row['barrier']:,}",
            " ".join(mark.replace("_", " ") for mark in marks if row[mark]),
        ]

    columns = (
        time._replace(width=time.width + 4), symbol, Column("price", 12, right=True),
        Column("size", 14, right=True), Column("barrier", 8, right=True, optional=1),
        Column("of its bar", 10),
    )  # fmt: skip
    return View("tick", TICK_FIELDS, columns, cells, width)


def tick_row(
    instrument: Instrument, ts: int, price: int, size: int, flags: int, barrier: int
) -> Row:
    """A tick of a frame as a record. `flags`: 1 opens a bar, 2 closes one, 4 closes a session."""
    step = int(instrument.tick_size.scaleb(instrument.price_decimals))
    return {
        "time": utc_text(ts),
        "instrument": instrument.symbol,
        "ts_event": ts,
        "price": exact_decimal(price * step, instrument.price_decimals),
        "size": None if size < 0 else f"{size * instrument.volume_step:f}",
        "open": bool(flags & 1),
        "close": bool(flags & 2),
        "session_close": bool(flags & 4),
        "barrier": barrier,
    }


def _orders(traded: Traded, width: int | None) -> View:
    _, symbol = _common(traded)
    agent = Column("agent", 9)

    def cells(row: Row) -> list[str]:
        instrument = traded.instruments.get(row["instrument"])
        room = view.room
        if room is not None:
            room -= max(0, len(row["agent"]) - agent.width)

        def price(ticks: int | None) -> str:
            if ticks is None:
                return "-"
            return amount(ticks * instrument.tick_size) if instrument else f"{ticks} ticks"

        expiry = row.get("expiry_ts")
        return [
            f"{row['barrier']:,}",
            row["instrument"],
            row["action"],
            str(row["quantity"] or ""),
            price(row.get("premium_ticks")),
            "-" if expiry is None else moment(expiry, traded.zone_of(row["instrument"])),
            price(row.get("trail_width_ticks")),
            row["agent"],
            gate_text(row.get("policy"), room),
        ]

    columns = (
        Column("barrier", 8, right=True), symbol, Column("action", 10), Column("lots", 4, right=True),
        Column("premium", 10, right=True), Column("expiry", 23, optional=2),
        Column("trail", 9, right=True, optional=1), agent, Column("", _GATE if traded.trained else 0),
    )  # fmt: skip
    fields = (*ORDER_FIELDS, *fields_of(SubmitOrder), "policy")
    view = View("order", fields, columns, cells, width)
    return view


def order_rows(line: Row) -> list[Row]:
    """The orders of a line, each with what its agent says of itself where it gave it."""
    common = {name: line.get(name) for name in ORDER_FIELDS}
    rows = [{**common, **order} for order in line["orders"]]
    said = line.get("policy")
    if isinstance(said, dict):
        for row in rows:
            row["policy"] = said_of(said, row["instrument"], row["barrier"])
    return rows


def gate_text(said: object, room: int | None) -> str:
    """`gate trend 0.41 · mean-reversion 0.22`: the experts of the most weight, as many as there is room.

    Args:
        said: weights by expert, as `order_rows` gives them.
        room: in columns; None: no limit.
    """
    if not isinstance(said, dict):
        return ""
    weights = [
        (name, value)
        for name, value in said.items()
        if name != _VERSION and isinstance(value, (int, float))
    ]
    text, link = "", "gate "
    for name, value in sorted(weights, key=lambda one: -one[1]):
        more = f"{text}{link}{name} {value:.2f}"
        if room is not None and len(more) > room:
            break
        text, link = more, " · "
    return text


def _fills(traded: Traded, width: int | None) -> View:
    time, symbol = _common(traded)

    def cells(row: Row) -> list[str]:
        units = row["quantity"] * row["lot_size"] if "lot_size" in row else None
        return [
            moment(row["ts_event"], traded.zone_of(row["instrument"])),
            row["instrument"],
            _what(row),
            "" if units is None else f"{units:,}",
            _maybe(row, "price"),
            _maybe(row, "premium", "option_value"),
            _maybe(row, "realized_pnl", signed=True),
            _maybe(row, "brokerage"),
            _with_currency(row, "cash", traded),
            _note(row, traded),
        ]

    columns = (
        time, symbol, Column("event", 13),
        Column("units", 7, right=True, optional=1), Column("price", 10, right=True),
        Column("premium", 10, right=True, optional=3), Column("gross P&L", 12, right=True),
        Column("brokerage", 9, right=True), Column("cash", 20, right=True, optional=2),
        Column("note", 4),
    )  # fmt: skip
    return View("fill", ("kind", *fields_of(*_EVENTS)), columns, cells, width)


def _what(row: Row) -> str:
    """What happened, with its lots: `BUY_LONG 2`, `CLOSE 2`, `rejected`."""
    kind = row["kind"]
    lots = row.get("quantity", 0)
    if kind == "OrderFilled":
        if row["effect"] == "exit":
            return f"CLOSE {lots}"
        return f"{'BUY_LONG' if row['side'] > 0 else 'SELL_SHORT'} {lots}"
    if kind == "PositionSettled":
        return f"settled {lots}"
    words = {
        "OrderRejected": "rejected", "OrderExpired": "expired", "PositionSettled": "settled",
        "SlotBreached": "breached",
    }  # fmt: skip
    return words.get(kind, str(kind))


def _note(row: Row, traded: Traded) -> str:
    kind = row["kind"]
    if kind in {"OrderRejected", "OrderExpired"}:
        lots = f" {row['quantity']}" if row["quantity"] else ""
        return f"{row['action']}{lots}: {row['reason']}"
    if kind == "SlotBreached":
        return f"{row['reason']}: {row['on_breach']}"
    instrument = traded.instruments.get(row["instrument"])
    notes = []
    if instrument is not None and instrument.is_option:
        notes.append("call" if row["side"] > 0 else "put")
    if row.get("reason", "order") != "order":
        notes.append(row["reason"])
    if row.get("premium") is not None:
        notes.append("proxy")
    if row.get("gap_fill"):
        notes.append("gap")
    return ", ".join(notes)


def _pnl(traded: Traded, width: int | None) -> View:
    time, symbol = _common(traded)

    def cells(row: Row) -> list[str]:
        stop = row.get("trailing_stop_price")
        return [
            moment(row["ts_event"], traded.zone_of(row["instrument"])),
            row["instrument"],
            row["cause"],
            _maybe(row, "price"),
            f"{row['lots']:+,}" if row["lots"] else "flat",
            _net(row, traded),
            _maybe(row, "brokerage_paid"),
            _maybe(row, "realized_pnl", signed=True),
            _with_currency(row, "equity", traded),
            "-" if stop is None else amount(stop),
            "halted" if row.get("halted") else "",
        ]

    columns = (
        time, symbol, Column("cause", 10, optional=3), Column("price", 11, right=True),
        Column("lots", 5, right=True), Column("net P&L", 12, right=True),
        Column("brokerage", 9, right=True), Column("realized", 12, right=True, optional=2),
        Column("equity", 20, right=True, optional=4), Column("trail stop", 11, right=True, optional=1),
        Column("", 0),
    )  # fmt: skip
    return View("mark", fields_of(Mark), columns, cells, width)


def _net(row: Row, traded: Traded) -> str:
    """P&L after brokerage, the open position included: equity less the initial cash."""
    instrument = traded.instruments.get(row["instrument"])
    if instrument is None:
        return "-"
    capital = exact_decimal(traded.capital[instrument.symbol], instrument.money_decimals)
    return amount(Decimal(row["equity"]) - Decimal(capital), signed=True)


def _dead(traded: Traded, width: int | None) -> View:
    del traded

    def cells(row: Row) -> list[str]:
        return [
            f"{row.get('stream', '')}/{row.get('partition', '')}",
            str(row.get("offset", "")),
            row.get("reason", ""),
            row.get("message", ""),
        ]

    columns = (
        Column("stream", 36, optional=1), Column("offset", 8, right=True), Column("reason", 8),
        Column("message", 7),
    )  # fmt: skip
    return View("dead-letter", DEAD_FIELDS, columns, cells, width)


def _experience(traded: Traded, width: int | None) -> View:
    from streambot.cli.tail_experience import fragment_view  # with Arrow: the others need none

    return fragment_view(traded, width)


def _policy(traded: Traded, width: int | None) -> View:
    from streambot.cli.tail_experience import weights_view

    return weights_view(traded, width)


def _updates(traded: Traded, width: int | None) -> View:
    from streambot.cli.tail_updates import updates_view

    return updates_view(traded, width)


def _maybe(row: Row, *names: str, signed: bool = False) -> str:
    """The first of the fields that has a value, as an amount."""
    for name in names:
        value: Any = row.get(name)
        if value is not None:
            return amount(value, signed=signed)
    return ""


def _with_currency(row: Row, name: str, traded: Traded) -> str:
    text = _maybe(row, name)
    return f"{text} {traded.currency_of(row['instrument'])}".strip() if text else ""


_VIEWS: Mapping[str, Callable[[Traded, int | None], View]] = {
    "ticks": _ticks,
    "orders": _orders,
    "fills": _fills,
    "pnl": _pnl,
    "late": _dead,
    "dead-letter": _dead,
    "portfolio": portfolio_view,
    "alerts": alert_view,
    "status": status_view,
    "experience": _experience,
    "policy": _policy,
}
_OF_TRAINING: Mapping[str, Callable[[Traded, int | None], View]] = {"status": _updates}
STREAMS = tuple(_VIEWS)
"""What can be tailed."""
