"""What one piece of a run did, as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.cli.human import amount, count, duration, flow, speed
from streambot.cli.summary_view import instrument_table, latency_text
from streambot.domain.words import few

if TYPE_CHECKING:
    from streambot.report.piece import ActorSummary, ReplaySummary, WorkerSummary


def replay_lines(summary: ReplaySummary, *, width: int | None = None) -> list[str]:
    """Lines of a replay's summary."""
    head = [
        f"run {summary.run}",
        f"replay {summary.state}",
        *([f"by {summary.stopped_by}"] if summary.stopped_by else []),
        f"{count(summary.ticks, 'tick')} of {summary.ticks_total:,} in {count(summary.frames, 'frame')}",
        f"{duration(summary.wall_s)}",
        f"{speed(summary.speed_effective)} (asked {summary.speed_asked})",
        f"{summary.ticks_per_s:,.0f} ticks/s",
    ]
    facts = [
        ("data", [few(tuple(summary.instruments)), count(summary.partitions, "partition")]),
        ("agents", [", ".join(summary.agents) or "inside the workers"]),
        ("pacing", [f"behind schedule {latency_text(summary.lateness_ms)}"]),
        (
            "delivery",
            [summary.delivery, summary.broker, f"broker lost {count(summary.reopened, 'time')}"],
        ),
        ("files", [f"runs/{summary.run}", "the ticks are on the broker"]),
        *(("warning", [text]) for text in summary.warnings),
    ]
    return [*flow(head, width), *_labelled(facts, width)]


def worker_lines(summary: WorkerSummary, *, width: int | None = None) -> list[str]:
    """Lines of a worker's summary."""
    partitions = ", ".join(map(str, summary.partitions))
    head = [
        f"run {summary.run}",
        f"worker {summary.worker} of {summary.workers} {summary.state}",
        *([f"by {summary.stopped_by}"] if summary.stopped_by else []),
        f"partitions {partitions} (of {summary.of})",
        duration(summary.wall_s),
        f"{summary.ticks_per_s:,.0f} ticks/s",
    ]
    facts = [
        *(
            (
                "P&L",
                [
                    f"net {amount(net, signed=True)} {code}",
                    f"brokerage {amount(summary.brokerage[code])}",
                ],
            )
            for code, net in summary.pnl_net.items()
        ),
        (
            "orders",
            [
                count(summary.fills, "fill"),
                f"rejected {sum(summary.rejected.values()):,}",
                f"expired {sum(summary.expired.values()):,}",
                f"settled {summary.settled:,}",
                f"breached {summary.breached:,}",
            ],
        ),
        (
            "streams",
            [
                f"duplicate {summary.duplicates:,}",
                f"dead letters {summary.dead_letters:,}",
                f"opened again {count(summary.reopened, 'time')}",
            ],
        ),
        ("delivery", [summary.delivery, summary.broker]),
    ]
    return [
        *flow(head, width),
        "",
        *instrument_table(summary.by_instrument, width=width),
        "",
        *_labelled(facts, width),
    ]


def actor_lines(summary: ActorSummary, *, width: int | None = None) -> list[str]:
    """Lines of an actor's summary."""
    head = [
        f"run {summary.run}",
        f"agent {summary.agent} {summary.state}",
        *([f"by {summary.stopped_by}"] if summary.stopped_by else []),
        f"policy {summary.policy}, {summary.merge}",
        duration(summary.wall_s),
        f"{summary.ticks_per_s:,.0f} ticks/s",
    ]
    money = "   ".join(
        f"net {amount} {code}, brokerage {summary.brokerage[code]}"
        for code, amount in summary.pnl_net.items()
    )
    facts = [
        ("P&L", [money or "none"]),
        *([("weights", [_weights(summary.weights)])] if summary.weights else []),
        (
            "orders",
            [
                f"sent {summary.orders:,} in {count(summary.answers, 'answer')}",
                *(
                    f"{reason.replace('_', ' ')} {number:,}"
                    for reason, number in summary.unsent.items()
                ),
                count(summary.fills, "fill"),
                f"rejected {sum(summary.rejected.values()):,}",
                f"expired {sum(summary.expired.values()):,}",
            ],
        ),
        (
            "engine",
            [
                f"{count(summary.compared, 'event')} as in the mirror",
                f"{summary.unconfirmed:,} not confirmed",
            ],
        ),
        ("delivery", [summary.broker, f"broker lost {summary.reopened} times"]),
    ]
    return [
        *flow(head, width),
        "",
        *instrument_table(summary.by_instrument, width=width),
        "",
        *_labelled(facts, width),
    ]


def _weights(used: list[int]) -> str:
    if len(used) == 1:
        return f"{used[0]:,} decided"
    return f"{used[0]:,} to {used[-1]:,} decided, {count(len(used), 'sequence')} in all"


def _labelled(facts: list[tuple[str, list[str]]], width: int | None) -> list[str]:
    return [line for label, parts in facts for line in flow(parts, width, label=f" {label:<9} ")]
