"""`streambot version`: which streambot, which Python."""

from __future__ import annotations

import platform

from streambot import __version__
from streambot.cli.console import emit, show
from streambot.cli.groups import AsJson, single


def version(as_json: AsJson = False) -> None:
    """Print the version of streambot and of Python."""
    if as_json:
        emit("version", version=__version__, python=platform.python_version())
    else:
        show(f"streambot {__version__} (Python {platform.python_version()})")


app = single(version)
