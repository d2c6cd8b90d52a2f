"""What a run declares of itself on its log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streambot.processor.declaration import Declaration, ReplayOutline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.domain.config import SimulationConfig
    from streambot.processor.manifest import RunManifest
    from streambot.wiring.preparation import Prepared


def declaration_of(
    config: SimulationConfig, prepared: Prepared, manifest: RunManifest, topics: Mapping[str, str]
) -> Declaration:
    """The declaration of a run."""
    plan = prepared.plan
    return Declaration(
        namespace=config.namespace,
        manifest=manifest,
        topics=dict(topics),
        outline=ReplayOutline(
            bars=plan.bars,
            ticks=plan.ticks,
            sessions=plan.sessions,
            first_ns=plan.first_ns,
            last_ns=plan.last_ns,
            open_ns=plan.open_ns,
            closed_ns=plan.closed_ns,
        ),
    )


def wall_ms() -> int:
    """Wall time for streams that carry it, UTC."""
    return time.time_ns() // 1_000_000  # noqa: TID251  # of `runs` and `status` only
