"""The engine's scripted agents as policies of environments: flat, buy-hold, sma-cross, random.

The rules are the engine's own (`engine.scripts`), asked at the closes of an environment: what they
answer here they answer in a run with the same bars, capital and lots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streambot.domain.errors import ConfigError
from streambot.domain.suggest import did_you_mean
from streambot.engine.scripts import Script, decide, observe_close, symbol_key
from streambot.engine.slots import ACT_BUY, ACT_CLOSE, ACT_SELL, MAX_AVERAGE, RING
from streambot.env.fields import CLOSE_INDEX, FIRST_BUY, HOLD_INDEX
from streambot.env.observe import affordable
from streambot.jit import njit

if TYPE_CHECKING:
    from streambot.env.core import Core

Records = Any  # arrays inside compiled code
SCRIPTS = {
    script.name.lower().replace("_", "-"): script for script in Script if script is not Script.NONE
}
"""By the name that `--policy` gives them."""
_CLOSE, _FIRST_BUY, _HOLD = CLOSE_INDEX, FIRST_BUY, HOLD_INDEX
_SPARE = 20
"""One part in so many of the capital stays aside: the fill is at the next bar's open, not known yet."""


@njit
def _answer(
    params: Records, slots: Records, rings: Records, first: int, quantity: int, actions: Records
) -> None:
    """Write the joint index that every slot's script chooses at its close."""
    for k in range(len(params)):
        act, lots = decide(params[k], slots[first + k], rings[k])
        chosen = _HOLD
        if act == ACT_CLOSE:
            chosen = _CLOSE
        elif act == ACT_BUY:
            chosen = _FIRST_BUY + lots - 1
        elif act == ACT_SELL:
            chosen = _FIRST_BUY + quantity + lots - 1
        actions[first + k] = chosen


@njit
def _look_back(
    params: Records, slots: Records, rings: Records, at: int, k: int, closes: Records
) -> None:
    """Show a script the closes before its first one, as if it had been there."""
    for close in closes:
        slots[at].above = 1 if observe_close(params[k], slots[at], rings[k], close) else 0


class Scripted:
    """One script on consecutive environments of a core.

    Args:
        core: whose episodes have begun.
        script: which one.
        first, count: the environments.
        lots: size of its orders, by environment.
        seed: of the random script; the same seed draws as a run with it does.
        fast, slow: bars of the averages of `sma-cross`.

    Raises:
        ConfigError: lots or averages that no script can have.
    """

    def __init__(
        self,
        core: Core,
        script: Script,
        *,
        first: int,
        count: int,
        lots: npt.NDArray[np.int64],
        seed: int = 0,
        fast: int = 10,
        slow: int = 30,
    ) -> None:
        most = core.config.max_quantity
        if not 1 <= fast < slow <= MAX_AVERAGE:
            raise ConfigError(
                f"averages of {fast} and {slow} bars: need 1 <= fast < slow <= {MAX_AVERAGE}"
            )
        if lots.min() < 1 or lots.max() > most:
            raise ConfigError(
                f"orders of {lots.max()} lots, where {most} is the most",
                where="lots",
                hint=f"1 to {most}: `max_quantity` of the environment",
            )
        self._core, self._first = core, first
        own = core.envs[first : first + count]
        self._params = core.params[own["instrument"]].copy()
        self._rings = np.zeros(count, RING)
        p = self._params
        p["script"], p["script_lots"] = script, lots
        p["script_fast"], p["script_slow"], p["seed"] = fast, slow, seed
        p["instrument_key"] = [
            symbol_key(core.instrument_of(first + k).symbol) for k in range(count)
        ]
        for k in range(count):
            bars = core.segments.bars_of(int(own[k]["instrument"]))
            bar = int(own[k]["bar"])
            seen = np.ascontiguousarray(bars["close"][max(0, bar - slow) : bar])
            _look_back(p, core.slots, self._rings, first + k, k, seen)

    def answer(self) -> None:
        """Write what it answers into the core's actions: once at every close, never twice at one."""
        core = self._core
        _answer(
            self._params, core.slots, self._rings, self._first, core.config.max_quantity,
            core.actions,
        )  # fmt: skip


def script_named(name: str) -> Script:
    """The script of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in SCRIPTS:
        raise ConfigError(f"there is no script `{name}`", hint=did_you_mean(name, list(SCRIPTS)))
    return SCRIPTS[name]


def most_lots(core: Core, i: int) -> int:
    """Lots of an order, at most Q, that the capital of environment `i` pays for with some to spare.

    At least one. Where nobody knows what an order would cost: Q.
    """
    p = core.params[int(core.envs[i]["instrument"])]
    slot = core.slots[i : i + 1].copy()[0]
    slot["cash"] -= slot["cash"] // _SPARE
    most = min(core.config.max_quantity, int(p["max_quantity"]))
    long, short = affordable(p, slot, core.quotes[i], most)
    found = max(long, short)
    return most if found < 0 else max(1, found)
