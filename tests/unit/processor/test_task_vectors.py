"""The engine task reproduces every solved scenario, whatever the frames it comes in."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from streambot.domain.ticks import TickBlock
from streambot.processor.manifest import RunManifest
from streambot.processor.step_output import StepOutput
from streambot.processor.task import TaskCore
from streambot.streams.frame import Frame, FrameKind
from tests.scenarios import (
    Scenario,
    bars_of,
    instrument_of,
    limits_of,
    load_scenarios,
    orders_of,
    ticks_of,
)

SCENARIOS = load_scenarios()


def manifest_of(scenario: Scenario) -> RunManifest:
    limits = limits_of(scenario)
    return RunManifest(
        run="vector",
        instruments=(instrument_of(scenario),),
        partitions=1,
        partition_of=(0,),
        capital=(scenario["capital"],),
        decision_ns=60 * 10**9,
        stop_fill=scenario["stop_fill"],
        max_quantity=limits.max_quantity,
        max_gap_ns=limits.max_gap_ns,
        drawdown_limit_bp=limits.drawdown_limit_bp,
        on_breach=scenario["on_breach"],
    )


def frame_of(ticks: TickBlock, closes: object, lo: int, hi: int, seq: int) -> Frame:
    """Intervals lo to hi - 1 as one frame."""
    inside = (ticks.bar >= lo) & (ticks.bar < hi)
    columns = dict(zip(TickBlock._fields, (column[inside] for column in ticks), strict=True))
    columns["bar"] = columns["bar"] - lo
    return Frame(
        kind=FrameKind.DATA, run=b"\0" * 16, partition=0, frame_seq=seq, barrier_lo=lo,
        barrier_hi=hi - 1, t_lo=0, t_hi=0, closes=closes[lo:hi],  # type: ignore[index]
        ticks=TickBlock(**columns), digest=b"", chain=b"",
    )  # fmt: skip


def play(scenario: Scenario, span: int) -> list[StepOutput]:
    ticks, closes = ticks_of(bars_of(scenario))
    core = TaskCore(manifest_of(scenario), 0, {}, None)
    orders = orders_of(scenario)
    outputs = []
    for seq, lo in enumerate(range(0, len(closes), span)):
        hi = min(lo + span, len(closes))
        frame = frame_of(ticks, closes, lo, hi, seq)
        outputs.append(core.step(frame, [o for o in orders if lo <= o.barrier < hi]))
    outputs.append(core.finish())
    return outputs


def price(scenario: Scenario, text: str) -> int:
    return int(Decimal(text).scaleb(2)) // int(scenario["instrument"]["tick_minor"])


PRICES = {"price", "premium", "option_value", "trailing_stop_price"}
MONEY = {"cash", "equity", "risk_equity", "brokerage", "realized_pnl", "brokerage_paid"}


def as_integers(scenario: Scenario, line: dict[str, object]) -> dict[str, object]:
    """The integers that a line's exact decimals stand for."""
    out = dict(line)
    for name, value in line.items():
        if isinstance(value, str) and name in PRICES:
            out[name] = price(scenario, value)
        elif isinstance(value, str) and name in MONEY:
            out[name] = int(value.replace(".", ""))
    return out


@pytest.mark.parametrize("span", [1, 3, 1_000])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: str(s["name"]).replace(" ", "_"))
def test_scenario(scenario: Scenario, span: int) -> None:
    outputs = play(scenario, span)
    lines = {
        stream: [
            as_integers(scenario, msgspec.json.decode(line))
            for output in outputs
            for line in (getattr(output, stream) or b"").splitlines()
        ]
        for stream in ("fills", "pnl")
    }
    marks = [line for line in lines["pnl"] if line["cause"] == "barrier"]
    for ours, theirs in ((lines["fills"], scenario["events"]), (marks, scenario["marks"])):
        assert len(ours) == len(theirs)
        for own, expected in zip(ours, theirs, strict=True):
            for name, value in expected.items():
                if name == "distance_to_trail" and value is not None:
                    assert own[name] == pytest.approx(value, abs=5e-7)
                else:
                    assert own[name] == value, (name, own, expected)
