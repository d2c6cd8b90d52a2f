"""The roll-up of a run beside its engine, for `simulate --alerts`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from streambot.adapters.faust_app import RunningRollup
    from streambot.wiring.opening import OpenRun
    from streambot.wiring.places import Place

CATCH_UP_S = 5.0
"""How long the roll-up of an interrupted run may take to see what was written."""


@asynccontextmanager
async def rolled_up(
    run: OpenRun, place: Place, topics: Mapping[str, str]
) -> AsyncIterator[RunningRollup | None]:
    """While this lasts, the run's marks are rolled up and alerts are told, where that was asked for.

    Raises:
        StreambotError: the roll-up failed; the run is cancelled with it.
    """
    config = run.settings.config
    if not config.alerts:
        yield None
        return
    if not place.readable:
        run.observer.warned(
            "no roll-ups and alerts: the streams of this run stay in its own process"
        )
        yield None
        return
    # Faust takes half a second to import.
    from streambot.adapters.faust_app import RollupSettings, alerts_running
    from streambot.report.rollup import RolledRun

    def told(stream: str, line: bytes) -> None:
        run.observer.recorded(stream, 0, line)

    settings = RollupSettings(
        servers=place.address,
        run=msgspec.convert(run.manifest, RolledRun, from_attributes=True),
        namespace=config.namespace,
        topics=topics,
        security=None if place.embedded else config.kafka,
        folder=run.folder.path,
        told=told,
    )
    async with alerts_running(settings) as rollup:
        yield rollup


async def end_rollup(rollup: RunningRollup | None, run: OpenRun, *, complete: bool) -> None:
    """Let the roll-up see the end of the run."""
    if rollup is None:
        return
    seen = await (rollup.finish() if complete else rollup.catch_up(CATCH_UP_S))
    if not seen:
        run.observer.warned(
            "the roll-up did not see the end of the run: "
            f"`STREAMBOT_RUN={run.folder.path} faust -A streambot.adapters.faust_app worker` goes on"
        )
