"""What the single and the vector environment have in common besides the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction

from streambot.domain.errors import UsageError
from streambot.engine.decode import decode_events
from streambot.env.config import ActionLayout
from streambot.env.fields import joint_size, observation_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.domain.events import EngineEvent
    from streambot.env.config import EnvConfig
    from streambot.env.core import Core


def observation_space(config: EnvConfig) -> spaces.Box:
    """Float32 vector of `observation_fields`."""
    fields = observation_fields(config.window, config.features)
    low, high = (np.array([field[k] for field in fields], np.float32) for k in (-2, -1))
    return spaces.Box(low, high, dtype=np.float32)


def action_space(config: EnvConfig) -> spaces.Discrete[Any] | spaces.MultiDiscrete:
    """`Discrete(2 Q + 2)`: HOLD, CLOSE, BUY 1..Q, SELL 1..Q; or `MultiDiscrete([4, Q])`."""
    if config.actions is ActionLayout.MULTI:
        return spaces.MultiDiscrete([4, config.max_quantity])
    return spaces.Discrete(joint_size(config.max_quantity))


def refuse_action(action: object, config: EnvConfig) -> InvalidAction:
    """The error for what is no action."""
    size = joint_size(config.max_quantity)
    asked = (
        f"[kind 0..3, lots - 1 below {config.max_quantity}]"
        if config.actions is ActionLayout.MULTI
        else f"a whole number from 0 to {size - 1}"
    )
    return InvalidAction(f"an action is {asked}, not {action!r}")


def events_of(core: Core, i: int) -> list[EngineEvent]:
    """Fills, rejections, expiries, settlements and breaches of the last step of environment `i`."""
    e = core.envs[i]
    records = core.events[i, : int(e["events_n"])]
    return decode_events(records, core.instrument_of(i).symbol, halts=True)


_OPTIONS = ("instrument", "bar", "start", "bars")


def ask(core: Core, i: int, options: Mapping[str, Any] | None) -> None:
    """Name the next episode of environment `i`, as a reset's options do.

    Args:
        options: `instrument`, its symbol; `bar`, number of the bar at whose close it begins, or
            `start`, a time (`2020-12-15T10:30`, in the instrument's zone); `bars`, its length.

    Raises:
        UsageError: another option.
        StreambotError: there is no such episode.
    """
    if not options:
        return
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise UsageError(
            f"a reset has no option `{unknown[0]}`", hint=f"there are {', '.join(_OPTIONS)}"
        )
    bar, instrument = options.get("bar"), options.get("instrument")
    if "start" in options:
        if bar is not None:
            raise UsageError("`bar` and `start` both say where the episode begins: give one")
        bar = core.starts.bar_at(instrument, options["start"])
    core.ask(i, instrument=instrument, bar=bar, bars=options.get("bars"))
