"""Where a run is to be looked at: in its folder here, else on the broker that it was declared on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from streambot.cli.seen_run import SeenRun, see_elsewhere, see_run
from streambot.cli.which_broker import find_broker, open_broker
from streambot.domain.errors import UsageError

if TYPE_CHECKING:
    from streambot.cli.which_broker import BrokerPlace
    from streambot.domain.config import Resolved


def find_seen(settings: Resolved) -> SeenRun:
    """The run that the settings name, else the newest: of this folder, or of the broker they name.

    A broker that is given by flag is asked; else a run that was started here needs nobody.

    Raises:
        UsageError: there is no such run here, and no broker is known.
        TopicError: it is not declared on the broker.
        StreambotError: the broker cannot be reached.
    """
    from streambot.processor.folder import check_run_name, list_runs

    runs_dir, run = Path(settings.config.runs_dir), settings.config.run
    if run is not None:
        check_run_name(run)
    if not settings.origins["bootstrap_servers"].startswith("--"):
        if run is not None and (runs_dir / run / "run.json").is_file():
            return see_run(runs_dir, run)
        if run is None and list_runs(runs_dir):
            return see_run(runs_dir, None)
    return asyncio.run(_look_elsewhere(settings, runs_dir, run))


async def _look_elsewhere(settings: Resolved, runs_dir: Path, run: str | None) -> SeenRun:
    from streambot.cli.declared import find_declared

    broker = await _broker(settings, runs_dir, run)
    namespace = settings.config.namespace
    async with open_broker(broker, settings.config.kafka) as log:
        name, found = await find_declared(log, broker.servers, namespace, run)
    return see_elsewhere(runs_dir, broker.servers, namespace, name, found)


async def _broker(settings: Resolved, runs_dir: Path, run: str | None) -> BrokerPlace:
    try:
        return await find_broker(settings, None)
    except UsageError:
        see_run(runs_dir, run)  # says what is not here, and what is
        raise
