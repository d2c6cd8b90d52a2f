"""Agents that sit inside the engine task: scripts by name, a person's own class by its place.

`flat`, `random`, `buy-hold` and `sma-cross` are compiled into the engine's loop
(`engine.scripts`). `path.py:Class` and `pkg.mod:Class` name a person's own strategy
(`engine.strategy`): one instance per instrument.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

from streambot.domain.errors import ConfigError
from streambot.domain.suggest import did_you_mean
from streambot.engine.scripts import Script
from streambot.engine.slot_agents import StrategyFactory
from streambot.engine.strategy import users_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from streambot.engine.strategy import Strategy

__all__ = ["SCRIPTS", "StrategyFactory", "load_agent"]

SCRIPTS = {
    "flat": Script.FLAT,
    "random": Script.RANDOM,
    "buy-hold": Script.BUY_HOLD,
    "sma-cross": Script.SMA_CROSS,
}


def load_agent(spec: str, *, folder: Path) -> Script | Callable[[], Strategy]:
    """The script or class that `spec` names.

    Args:
        spec: a script's name, `path.py:Class` or `pkg.mod:Class`.
        folder: what a relative path starts from.

    Raises:
        ConfigError: no such script, file, module or class; a class without `on_bar`; a file that
            does not run.
    """
    if spec in SCRIPTS:
        return SCRIPTS[spec]
    module, separator, name = spec.rpartition(":")
    if not separator or not module or not name.isidentifier():
        raise ConfigError(
            f"there is no policy `{spec}`",
            where="--policy",
            hint=did_you_mean(
                spec, [*SCRIPTS, "path.py:Class", "the folder of a checkpoint", "TRAINING@newest"]
            ),
        )
    loaded = _from_file(module, folder) if module.endswith(".py") else _from_package(module)
    found = getattr(loaded, name, None)
    if not isinstance(found, type):
        classes = [
            n for n, v in vars(loaded).items() if isinstance(v, type) and hasattr(v, "on_bar")
        ]
        raise ConfigError(
            f"has no class `{name}`",
            where=module,
            hint=did_you_mean(name, classes)
            or f"classes with `on_bar`: {', '.join(classes) or 'none'}",
        )
    if not callable(getattr(found, "on_bar", None)):
        raise ConfigError(
            f"class `{name}` has no method `on_bar(self, bar, account)`",
            where=module,
            hint="examples/sma_cross.py shows a strategy in ten lines",
        )

    def make() -> Strategy:
        try:
            made: Strategy = found()
        except Exception as error:
            # Where the call itself does not fit, no frame of the person's file is in the traceback.
            inside = users_line(error)
            raise ConfigError(
                f"{name}() failed: {type(error).__name__}: {error}",
                where=module if inside.startswith(__file__) else inside,
                hint="a strategy is made without arguments, once per instrument",
            ) from error
        return made

    return make


def _from_file(text: str, folder: Path) -> ModuleType:
    path = (folder / text).resolve()
    if not path.is_file():
        raise ConfigError("there is no such file", where=str(path), hint="--policy path.py:Class")
    # A script finds the modules beside it, and so does a strategy.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"streambot_strategy_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError("is no Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(
            f"does not compile: {error.msg}", where=f"{error.filename}:{error.lineno}"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"fails while it is loaded: {type(error).__name__}: {error}", where=users_line(error)
        ) from error
    return module


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"cannot import `{name}`: {error}",
            where="--policy",
            hint="give a file as path.py:Class, or install the package",
        ) from error
    except Exception as error:
        raise ConfigError(
            f"`{name}` fails while it is imported: {type(error).__name__}: {error}",
            where=users_line(error),
        ) from error
