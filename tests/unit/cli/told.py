"""A plan, a progress and a summary to print: what `wiring` hands to the command line."""

from __future__ import annotations

from typing import Any

from streambot.domain.events import RejectReason
from streambot.report.progress import Progress, RunPlan
from streambot.report.summary import InstrumentSummary, Latency, Summary

OPEN = 1_608_042_600_000_000_000  # 2020-12-15 09:30 in New York
CLOSE = OPEN + 23_400_000_000_000


def a_plan(**changes: Any) -> RunPlan:
    fields: dict[str, Any] = {
        "run": "spy-7f3a", "folder": "runs/spy-7f3a", "instruments": ("SPY", "SPY-OPT"),
        "timezone": "America/New_York", "sessions": 1, "bars": 780, "ticks": 3_120,
        "first_ts": OPEN, "last_ts": CLOSE, "partitions": 2, "policy": "sma-cross",
        "speed_asked": "100x", "gaps": "skip", "wall_ns": 234_000_000_000,
        "wall_ns_skip": 234_000_000_000, "wall_ns_keep": 234_000_000_000,
        "speed_for_one_minute": None, "broker": "embedded broker 127.0.0.1:41234",
        "delivery": "exactly once while the process lives",
    }  # fmt: skip
    return RunPlan(**(fields | changes))


def a_progress(**changes: Any) -> Progress:
    fields: dict[str, Any] = {
        "event_time": OPEN + 7_920_000_000_000, "bars_done": 264, "bars_total": 780,
        "ticks": 1_056, "done": 0.34, "wall_s": 79.2, "speed_effective": 99.98, "ticks_per_s": 13.3,
        "late_ms": 1.5, "frames_behind": 0, "fills": 6, "rejected": 0, "open_positions": 1,
        "equity": {"USD": "2000912.4000"},
    }  # fmt: skip
    return Progress(**(fields | changes))


def an_instrument(**changes: Any) -> InstrumentSummary:
    fields: dict[str, Any] = {
        "currency": "USD", "bars": 390, "ticks": 1_560, "fills": 12, "rejected": 0, "expired": 0,
        "settled": 0, "breached": 0, "proxied_share": 0.0, "pnl_gross": "120.5000",
        "pnl_net": "108.5000", "pnl_realized": "100.0000", "pnl_unrealized": "20.5000",
        "brokerage": "12.0000", "equity": "1000108.5000", "cash": "1000108.5000", "lots": 1,
        "max_drawdown": "340.1000", "max_drawdown_pct": 0.034, "halted": False, "insolvent": False,
    }  # fmt: skip
    return InstrumentSummary(**(fields | changes))


def a_summary(**changes: Any) -> Summary:
    fields: dict[str, Any] = {
        "run": "spy-7f3a", "state": "complete", "instruments": ["SPY", "SPY-OPT"],
        "policy": "sma-cross", "bars": 780, "ticks": 3_120, "barriers": 390,
        "event_from": "2020-12-15T14:30:00Z", "event_to": "2020-12-15T21:00:00Z",
        "speed_asked": "1200x", "speed_effective": 1_199.4, "wall_s": 19.52, "ticks_per_s": 159.8,
        "fills": 24, "rejected": dict.fromkeys(RejectReason, 0) | {"insufficient_cash": 2},
        "expired": {"gap": 0, "end_of_data": 1}, "settled": 0, "breached": 0,
        "pnl_gross": {"USD": "241.0000"}, "pnl_net": {"USD": "217.0000"},
        "pnl_realized": {"USD": "200.0000"}, "pnl_unrealized": {"USD": "41.0000"},
        "brokerage": {"USD": "24.0000"}, "equity": {"USD": "2000217.0000"},
        "max_drawdown": {"USD": "500.2000"}, "max_drawdown_pct": {"USD": 0.025},
        "by_instrument": {
            "SPY": an_instrument(),
            "SPY-OPT": an_instrument(proxied_share=0.5, lots=-2, rejected=2, pnl_net="-108.5000"),
        },
        "proxied_share": 0.25, "late": 0, "duplicates": 0, "dead_letters": 0, "rounded": 3,
        "flagged": 0, "rejected_rows": 0, "latency_ms": Latency(p50=1.2, p99=4.3, max=9.9),
        "lateness_ms": Latency(p50=0.1, p99=0.9, max=2.0),
        "delivery": "exactly once while the process lives",
        "broker": "embedded broker 127.0.0.1:41234", "partitions": 2, "resumes": 0,
        "digest": "b2:" + "5f" * 16, "folder": "runs/spy-7f3a", "warnings": [],
    }  # fmt: skip
    return Summary(**(fields | changes))
