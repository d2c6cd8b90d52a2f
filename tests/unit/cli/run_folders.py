"""Folders of runs as `simulate` leaves them, made by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from streambot.domain.instruments import Instrument, InstrumentType
from streambot.processor.run_state import RunRecord, RunState
from streambot.report.summary import encode_summary
from tests.unit.cli.told import OPEN, a_summary

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60_000_000_000
SPY = Instrument(
    symbol="SPY", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"),
    timezone="America/New_York",
)  # fmt: skip


def a_fill(n: int, **changes: Any) -> dict[str, Any]:
    """Fill number n, one a minute: entries are even, exits odd."""
    row = {
        "kind": "OrderFilled", "instrument": "SPY", "seq": n, "ts_event": OPEN + n * MINUTE,
        "barrier": n, "effect": "exit" if n % 2 else "entry", "reason": "order", "side": 1,
        "quantity": 1, "lot_size": 1, "price": f"{370 + n}.00", "option_value": None,
        "premium": None, "premium_model": None, "brokerage": "1.00",
        "realized_pnl": f"{n}.00" if n % 2 else None, "cash": "1000000.00", "gap_fill": False,
    }  # fmt: skip
    return row | changes


def an_orders_line(n: int, *actions: str) -> dict[str, Any]:
    """An `orders` record through barrier n."""
    return {
        "agent": "sma-cross", "partition": 0, "through_barrier": n, "policy": None,
        "orders": [
            {"instrument": "SPY", "barrier": n, "action": action, "quantity": 1, "premium_ticks": None,
             "expiry_ts": None, "trail_width_ticks": 12, "lot_size": None}
            for action in actions
        ],
    }  # fmt: skip


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def write_run(
    runs: Path,
    name: str = "spy-7f3a",
    *,
    state: RunState = RunState.COMPLETE,
    started: str = "2026-11-24T20:00:00Z",
    summary: bool = True,
    **changes: Any,
) -> Path:
    """A run of one instrument; returns its folder."""
    folder = runs / name
    (folder / "state").mkdir(parents=True)
    manifest = {"run": name, "instruments": [SPY], "capital": [100_000_000], "partitions": 1}
    fields: dict[str, Any] = {
        "run": name, "state": state, "pid": 1, "broker": "127.0.0.1:1", "embedded": True,
        "topics": {s: f"streambot.{name}.{s}" for s in ("ticks", "orders", "fills", "pnl")},
        "started_at": started, "manifest": msgspec.Raw(msgspec.json.encode(manifest)),
    }  # fmt: skip
    (folder / "run.json").write_bytes(msgspec.json.encode(RunRecord(**(fields | changes))))
    if summary:
        (folder / "summary.json").write_bytes(
            encode_summary(a_summary(run=name, folder=str(folder)))
        )
    return folder
