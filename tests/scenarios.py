"""Solved scenarios of the market rules, and the pieces to play them with.

`tests/vectors/` holds them (`README.md` there says what the fields mean); `$STREAMBOT_VECTORS`
puts another folder in their place.
"""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from streambot.domain.bars import BarBlock
from streambot.domain.events import ActionKind, EngineEvent, Mark, SubmitOrder
from streambot.domain.instruments import (
    Brokerage,
    Expiries,
    Instrument,
    InstrumentType,
    TrailAtr,
    TrailBp,
)
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.engine.slots import SlotLimits
from streambot.market.path import low_first, path_offset

SYMBOL = "TEST"
Scenario = dict[str, Any]


def vectors_folder() -> Path:
    named = os.environ.get("STREAMBOT_VECTORS")
    return Path(named) if named else Path(__file__).parent / "vectors"


def load_scenarios() -> list[Scenario]:
    files = sorted(vectors_folder().glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def instrument_of(scenario: Scenario) -> Instrument:
    """A tick size of `tick_minor` cents makes one tick of one unit worth `tick_minor` money units."""
    given = scenario["instrument"]

    def money(name: str) -> Decimal:
        return Decimal(given[name]).scaleb(-2)

    bp = given["trail_bp"]
    return Instrument(
        symbol=given["symbol"],
        type=InstrumentType(given["type"]),
        lot_size=given["lot_size"],
        tick_size=Decimal(given["tick_minor"]).scaleb(-2),
        brokerage=Brokerage(
            entry=money("brokerage_entry"),
            exit=money("brokerage_exit"),
            settlement=money("brokerage_settlement"),
        ),
        slippage_ticks=given["slippage_ticks"],
        premium_slippage_ticks=given["premium_slippage_ticks"],
        max_lots=given["max_lots"],
        enforce_trailing_stop=given["enforce_trailing_stop"],
        trail=TrailAtr() if bp is None else TrailBp(bp=bp),
        expiries=Expiries(expires_after=5) if given["type"] == "OPTION" else None,
    )


def limits_of(scenario: Scenario) -> SlotLimits:
    return SlotLimits(
        max_quantity=scenario["max_quantity"],
        max_gap_ns=scenario["max_gap_ns"],
        drawdown_limit_bp=scenario["drawdown_limit_bp"],
        halt_on_breach=scenario["on_breach"] == "halt",
        stop_at_tick=scenario["stop_fill"] == "tick",
    )


def orders_of(scenario: Scenario, symbol: str = SYMBOL) -> list[SubmitOrder]:
    return [
        SubmitOrder(
            instrument=symbol,
            barrier=int(barrier),
            action=ActionKind(order["action"]),
            quantity=order.get("quantity", 0),
            premium_ticks=order.get("premium_ticks"),
            expiry_ts=order.get("expiry_ts"),
            trail_width_ticks=order.get("trail_width_ticks"),
        )
        for barrier, order in scenario["orders"].items()
    ]


def bars_of(scenario: Scenario) -> BarBlock:
    columns = np.array(scenario["bars"], np.int64).reshape(-1, 7).T.copy()
    return BarBlock(*columns, np.zeros(columns.shape[1], np.uint8))


def ticks_of(bars: BarBlock, instrument: int = 0) -> tuple[TickBlock, np.ndarray]:
    """The `ohlc` path of bars of which each closes a barrier, and the close times."""
    rows: list[tuple[int, int, int, int, int, int]] = []
    for k in range(len(bars)):
        o, h, lo, c = (int(x[k]) for x in (bars.open, bars.high, bars.low, bars.close))
        t, d, v = int(bars.ts[k]), int(bars.duration[k]), int(bars.volume[k])
        path = (o, lo, h, c) if low_first(o, h, lo, c) else (o, h, lo, c)
        for at, price in enumerate(path):
            flag = {0: TickFlag.BAR_OPEN, 3: TickFlag.BAR_CLOSE}.get(at, TickFlag(0))
            if at == 3 and bars.session_close[k]:
                flag |= TickFlag.SESSION_CLOSE
            size = -1 if v < 0 else v // 4 + (v % 4 if at == 3 else 0)
            rows.append((instrument, k, int(flag), t + path_offset(at, d), price, size))
    columns = zip(*rows, strict=True) if rows else [()] * 6
    types = (np.uint16, np.uint16, np.uint8, np.int64, np.int64, np.int64)
    block = TickBlock(*(np.array(c, t) for c, t in zip(columns, types, strict=True)))
    return block, np.asarray(bars.ts + bars.duration)


def difference(scenario: Scenario, events: list[EngineEvent], marks: list[Mark]) -> str:
    """The first difference from what the scenario expects; empty where there is none."""
    shown = [mark for mark in marks if mark.cause == "barrier"]
    for kind, ours, theirs in (
        ("event", events, scenario["events"]),
        ("mark", shown, scenario["marks"]),
    ):
        for at, (own, expected) in enumerate(zip(ours, theirs, strict=False)):
            if "kind" in expected and type(own).__name__ != expected["kind"]:
                return f"{kind} {at} is {own}, expected {expected}"
            for name, value in expected.items():
                if name != "kind" and getattr(own, name) != value:
                    return f"{kind} {at}: {name} is {getattr(own, name)}, expected {value}: {own}"
        if len(ours) != len(theirs):
            return f"{len(ours)} {kind}s, expected {len(theirs)}"
    return ""
