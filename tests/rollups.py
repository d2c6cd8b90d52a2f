"""A run of four slots in two currencies, and lines of its `pnl` stream, for tests of roll-ups."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from streambot.domain.instruments import Instrument
from streambot.domain.units import exact_decimal
from streambot.report.rollup import RolledRun

CAPITAL = 100_000


def stock(symbol: str, currency: str, tick: str) -> Instrument:
    return Instrument(
        symbol=symbol,
        type="STOCK",
        currency=currency,
        tick_size=Decimal(tick),
        timezone="UTC",
        lot_size=1,
    )


INSTRUMENTS = (
    stock("AAA", "USD", "0.01"),
    stock("BBB", "USD", "0.0001"),
    stock("CCC", "USD", "0.05"),
    stock("DDD", "INR", "0.05"),
)


def made(partition_of: tuple[int, ...], limit_bp: int = 2_000) -> RolledRun:
    return RolledRun(
        run="r", instruments=INSTRUMENTS, partitions=3, partition_of=partition_of,
        capital=tuple(CAPITAL * 10**i.money_decimals for i in INSTRUMENTS),
        drawdown_limit_bp=limit_bp,
    )  # fmt: skip


def mark(
    n: int, seq: int, barrier: int, equity: int, *, halted: bool = False, ts: int = 0
) -> bytes:
    """A line; `equity` in whole units of the currency."""
    decimals = INSTRUMENTS[n].money_decimals

    def money(amount: int) -> str:
        return exact_decimal(amount * 10**decimals, decimals)

    line = {
        "instrument": INSTRUMENTS[n].symbol, "seq": seq, "ts_event": ts or (barrier + 2) * 100 + seq,
        "barrier": barrier, "cause": "barrier", "price": "1.00", "cash": money(equity - 7),
        "equity": money(equity), "risk_equity": money(equity), "lots": equity % 3 - 1,
        "realized_pnl": money(equity // 9), "brokerage_paid": money(seq), "halted": halted,
    }  # fmt: skip
    return msgspec.json.encode(line) + b"\n"
