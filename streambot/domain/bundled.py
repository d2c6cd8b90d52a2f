"""Where the files that travel with streambot are: in the installed package, else in the checkout.

One copy of each lives at the root of the repository (`instruments.yaml`, `topics.yaml`, `replay/`);
a wheel carries them as `streambot/bundled/`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from streambot.domain.errors import ConfigError


def bundled_path(name: str) -> Path:
    """The path of a bundled file or folder.

    Raises:
        ConfigError: the installation lacks it.
    """
    package = Path(str(resources.files("streambot")))
    for candidate in (package / "bundled" / name, package.parent / name):
        if candidate.exists():
            return candidate
    raise ConfigError(
        f"this installation of streambot lacks its `{name}`",
        where=str(package),
        hint="install streambot again",
    )
