"""What a person is told before a run and after it, from what the run knows."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING

from streambot.domain.units import exact_decimal
from streambot.processor.journal import event_digest
from streambot.replay.pacing import Ratio, durations
from streambot.report.progress import RunPlan
from streambot.report.summary import SlotTotals, Summary, percent, sum_slots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streambot.data.timeline import Plan
    from streambot.domain.config import Resolved, SimulationConfig
    from streambot.domain.replay_settings import Speed
    from streambot.processor.folder import RunFolder
    from streambot.processor.manifest import RunManifest
    from streambot.processor.runner import TaskRunner
    from streambot.processor.tally import SlotStatus
    from streambot.replay.resumption import ResumePoint
    from streambot.report.drawdown import Fall
    from streambot.wiring.places import Place
    from streambot.wiring.starts import PartitionStart
    from streambot.wiring.watching import Watch

_MINUTE_NS = 60 * 10**9
_LONG_NS = 10 * _MINUTE_NS


def run_plan(
    settings: Resolved,
    manifest: RunManifest,
    plan: Plan,
    place: Place,
    folder: Path,
    starts: Sequence[PartitionStart],
) -> RunPlan:
    """The banner of a run: what it is, and how long it will take."""
    done = sum(slot.ticks for start in starts for slot in start.core.status())
    resumed = [start.reader.barrier for start in starts if not start.ended]
    return _plan(settings, manifest, plan, place, folder, done, resumed)


def publishing_plan(
    settings: Resolved,
    manifest: RunManifest,
    plan: Plan,
    place: Place,
    folder: Path,
    points: Sequence[ResumePoint],
) -> RunPlan:
    """The banner of a replay by itself."""
    done = sum(point.writer.rows for point in points)
    resumed = [point.position.barrier for point in points if not point.ended]
    return _plan(settings, manifest, plan, place, folder, done, resumed)


def _plan(
    settings: Resolved,
    manifest: RunManifest,
    plan: Plan,
    place: Place,
    folder: Path,
    done: int,
    resumed: Sequence[int],
) -> RunPlan:
    config = settings.config
    left = 1 - done / plan.ticks if plan.ticks else 0.0
    wall, skip, keep = _wall_times(config, plan, left)
    return RunPlan(
        run=manifest.run,
        folder=str(folder),
        instruments=plan.symbols,
        timezone=manifest.instruments[0].timezone,
        sessions=plan.sessions,
        bars=plan.bars,
        ticks=plan.ticks,
        first_ts=plan.first_ns,
        last_ts=plan.last_ns,
        partitions=manifest.partitions,
        policy=decider(manifest),
        speed_asked=str(config.speed),
        gaps=str(config.gaps),
        wall_ns=wall,
        wall_ns_skip=skip,
        wall_ns_keep=keep,
        speed_for_one_minute=_one_minute(config, plan, wall, left),
        broker=place.shown,
        delivery=place.delivery,
        resumed_at_barrier=min(resumed, default=None) if done else None,
    )


def _wall_times(
    config: SimulationConfig, plan: Plan, left: float
) -> tuple[int | None, int | None, int | None]:
    if config.speed.is_max:
        return None, None, None
    speed = Ratio(config.speed.numerator, config.speed.denominator)
    both = durations(int(plan.open_ns * left), int(plan.closed_ns * left), speed)
    gaps = config.gaps.wall_ns
    if gaps is None:
        return both.keep, both.skip, both.keep
    # Between two trading dates there is one closed span, as good as always.
    waits = min(both.keep - both.skip, max(0, plan.sessions - 1) * gaps)
    return both.skip + waits, both.skip, both.keep


def _one_minute(config: SimulationConfig, plan: Plan, wall: int | None, left: float) -> str | None:
    """The speed, to two digits, at which what is left takes about a minute."""
    if wall is None or wall <= _LONG_NS:
        return None
    market = plan.open_ns + (plan.closed_ns if config.gaps.wall_ns is None else 0)
    needed = market * left / _MINUTE_NS
    digit = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return f"{math.ceil(needed / digit) * digit}x"


def summarize(
    settings: Resolved,
    manifest: RunManifest,
    plan: Plan,
    place: Place,
    folder: RunFolder,
    runners: Sequence[TaskRunner],
    watch: Watch,
    *,
    complete: bool,
    stopped_by: str | None,
    warnings: Sequence[str],
    speed: Speed,
    sought: bool = False,
) -> Summary:
    """The summary of a run whose tasks have ended; `speed` as asked at its end."""
    instruments = {instrument.symbol: instrument for instrument in manifest.instruments}
    slots = [slot for runner in runners for slot in runner.status]
    totals = sum_slots((instruments[slot.symbol], slot_totals(slot)) for slot in slots)
    falls = watch.drawdown.finish()
    seen = [w for runner in runners if (w := runner.watermark) is not None]
    whole = complete and not sought
    return Summary(
        run=manifest.run,
        state="complete" if complete else "interrupted",
        stopped_by=("seek" if sought else None) if complete else stopped_by,
        instruments=list(plan.symbols),
        policy=decider(manifest),
        bars=totals.bars,
        ticks=totals.ticks,
        barriers=max((runner.barriers for runner in runners), default=0),
        event_from=_utc(plan.first_ns) if totals.ticks else None,
        event_to=_utc(plan.last_ns if whole else min(seen)) if seen or whole else None,
        speed_asked=str(speed),
        speed_effective=round(watch.speed(totals.ticks), 3),
        wall_s=round(watch.wall_s, 3),
        ticks_per_s=round(watch.ticks_per_s(totals.ticks), 1),
        fills=totals.fills,
        rejected=totals.rejected,
        expired=totals.expired,
        settled=totals.settled,
        breached=totals.breached,
        pnl_gross=totals.pnl_gross,
        pnl_net=totals.pnl_net,
        pnl_realized=totals.pnl_realized,
        pnl_unrealized=totals.pnl_unrealized,
        brokerage=totals.brokerage,
        equity=totals.equity,
        max_drawdown={c: exact_decimal(fall.amount, fall.decimals) for c, fall in falls.items()},
        max_drawdown_pct={c: _fall_percent(fall) for c, fall in falls.items()},
        by_instrument=totals.by_instrument,
        proxied_share=totals.proxied_share,
        late=0,
        duplicates=sum(runner.duplicates for runner in runners),
        dead_letters=sum(runner.dead_letters for runner in runners),
        rounded=sum(report.rounded for report in plan.instruments),
        flagged=sum(report.outside_session + report.jumps for report in plan.instruments),
        rejected_rows=sum(sum(report.rejected.values()) for report in plan.instruments),
        latency_ms=watch.latency.latency(),
        lateness_ms=watch.lateness.latency(),
        delivery=place.delivery,
        broker=place.shown,
        partitions=manifest.partitions,
        resumes=folder.record.resumes,
        digest=event_digest({k: v for r in runners for k, v in r.core.digest.parts().items()}),
        folder=str(folder.path),
        warnings=list(warnings),
    )


def decider(manifest: RunManifest) -> str:
    """Who gives the orders of a run."""
    if not manifest.agents:
        return manifest.policy.spec
    how = "free run" if manifest.free_run else "lockstep"
    return f"{', '.join(manifest.agents)} outside, {how}"


def slot_totals(slot: SlotStatus) -> SlotTotals:
    """How a slot stands, as summaries count it."""
    return SlotTotals(
        bars=slot.bars,
        ticks=slot.ticks,
        capital=slot.capital,
        equity=slot.equity,
        cash=slot.cash,
        lots=slot.lots,
        realized_pnl=slot.realized_pnl,
        brokerage=slot.brokerage,
        max_drawdown=slot.max_drawdown,
        max_drawdown_peak=slot.max_drawdown_peak,
        fills=slot.fills,
        proxied_fills=slot.proxied_fills,
        rejected=slot.rejected,
        expired=slot.expired,
        settled=slot.settled,
        breached=slot.breached,
        halted=slot.halted,
    )


def _fall_percent(fall: Fall) -> float:
    return percent(fall.amount, fall.peak)


def _utc(ts: int) -> str:
    seconds, rest = divmod(ts, 10**9)
    at = dt.datetime.fromtimestamp(seconds, dt.UTC) + dt.timedelta(microseconds=rest // 1_000)
    return at.isoformat().replace("+00:00", "Z")
