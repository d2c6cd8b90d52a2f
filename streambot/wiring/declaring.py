"""What a run declares of itself on its log."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from streambot.domain.errors import TopicError
from streambot.processor.declaration import (
    Declaration,
    Declared,
    ReplayOutline,
    read_declaration,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.domain.config import SimulationConfig
    from streambot.processor.manifest import RunManifest
    from streambot.streams.ports import Log
    from streambot.wiring.preparation import Prepared
    from streambot.wiring.stopping import StopRequest

_LOOK_S = 0.25


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


async def wait_for_declaration(
    log: Log, topic: str, run: str, *, servers: str, wait_s: float, stop: StopRequest
) -> Declared:
    """What a run declares, once it does.

    Args:
        log: where its topics are.
        topic: its `runs` stream.
        run: its name.
        servers: where the log is, for messages.
        wait_s: how long a run that is not there is waited for.
        stop: ends the wait.

    Raises:
        TopicError: it is not there.
    """
    until = time.monotonic() + wait_s
    while (declared := await read_declaration(log, topic)) is None:
        if time.monotonic() >= until or stop.reason is not None:
            raise TopicError(
                f"no run {run} is declared on {servers}",
                where=topic,
                hint=f"`streambot replay --run {run}` starts one, `streambot train --run {run}` a training; "
                "--wait 60s waits for it",
            )
        await asyncio.sleep(_LOOK_S)
    return declared


def wall_ms() -> int:
    """Wall time for streams that carry it, UTC."""
    return time.time_ns() // 1_000_000  # noqa: TID251  # of `runs` and `status` only
