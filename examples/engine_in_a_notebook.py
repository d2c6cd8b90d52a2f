"""`BacktestingEngine` without any stream: bars in, fills and marks out, as in a notebook cell.

    .venv/bin/python examples/engine_in_a_notebook.py

The rules are those of `streambot simulate`, and so are the numbers.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from streambot.data.loader import DataLoader
from streambot.domain.bars import BarBlock
from streambot.domain.bundled import bundled_path
from streambot.domain.events import OrderFilled
from streambot.domain.registry import bundled_registry
from streambot.engine.backtesting import BacktestingEngine
from streambot.engine.scripts import Script


def spy_minutes() -> BarBlock:
    """All bundled SPY minutes, in ticks; the last bar of a date closes its session."""
    path = bundled_path("replay") / "bars" / "spy_1m_2020.parquet"
    loader = DataLoader(path, instruments=bundled_registry())
    (bars,) = loader.bars("SPY")
    days = bars.ts // 86_400_000_000_000  # a session of New York lies within one UTC date
    last_of_day = np.append(days[1:] != days[:-1], True).astype(np.uint8)
    minute = np.full(len(bars), loader.timeframe("SPY"), np.int64)
    return BarBlock(
        bars.ts, minute, bars.open, bars.high, bars.low, bars.close, bars.volume, last_of_day
    )


def main() -> None:
    """Trade the moving-average cross, and print every fill."""
    engine = BacktestingEngine(bundled_registry()["SPY"], capital=Decimal(10_000))
    engine.use_script(Script.SMA_CROSS, lots=10)
    result = engine.run(spy_minutes())
    for event in result.events:
        if isinstance(event, OrderFilled):
            price = event.price * engine.instrument.tick_size
            print(f"{event.effect:5}  {event.quantity} lots at {price}")
    print(f"{len(result.marks)} marks; position {engine.position} lots, equity {engine.equity}")
    print(f"realized P&L {engine.realized_pnl}, brokerage {engine.brokerage_paid}")


if __name__ == "__main__":
    main()
