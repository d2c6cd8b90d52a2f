"""Roll-ups and alerts of a run as a Faust app; the only home of Faust.

    async with alerts_running(RollupSettings(servers=…, run=…)) as alerts:
        …                                  # the run
        await alerts.finish()              # it is complete, and everything it wrote is stored

`faust -A streambot.adapters.faust_app worker` runs the roll-up of one run alone. Faust imports the
app from this module, so this is the one place that reads the environment: the variable
`STREAMBOT_RUN`, and nothing else.

Guarantee: at least once, idempotent by number. State is a function of the run's streams and is built
again from their beginning at every start; `portfolio` and `alerts` are numbered by series, and what
is written already is not written again. Whoever drops numbers it has seen reads exactly the lines of
a run that nobody disturbed. Of several workers of a run one is active, and the others stand by.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from streambot.adapters.faust_app.hosting import RunningRollup, alerts_running
from streambot.adapters.faust_app.rollup_app import RollupApp, make_app
from streambot.adapters.faust_app.settings import RUN_VARIABLE, RollupSettings, settings_of
from streambot.domain.errors import StreambotError

if TYPE_CHECKING:
    app: RollupApp

__all__ = ["RollupApp", "RollupSettings", "RunningRollup", "alerts_running", "make_app"]


def __getattr__(name: str) -> RollupApp:
    """The app that `faust -A` looks for, made when it is asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        made = make_app(settings_of(os.environ.get(RUN_VARIABLE)))
    except StreambotError as error:
        # Faust's command line shows these without a traceback.
        told = click.ClickException(str(error))
        told.exit_code = error.exit_code
        raise told from error
    globals()["app"] = made
    return made
