"""Trained policies and scripted controls on the same bars: every instrument, first close to last.

All of them go through the bars side by side, each with its own capital on each instrument. The
controls are the engine's scripted agents, so a table of this module and runs of `simulate` agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from streambot.agents.ppo import chosen
from streambot.domain.errors import StrategyError
from streambot.env.passage import Account, Passage, Stretch
from streambot.env.scripts import Scripted, script_named

if TYPE_CHECKING:
    from streambot.agents.adaptation import Parameters
    from streambot.agents.ppo import PPOAgent
    from streambot.data.segments import Segments
    from streambot.env.config import EnvConfig

FLAT, BUY_HOLD = "flat", "buy-hold"
CONTROLS = (FLAT, BUY_HOLD, "sma-cross", "random")
"""Scripts that a policy is compared with."""

Answer = Callable[[], None]
"""Writes the actions of its environments into the core, once at every close."""
Contender = Callable[[Passage, int, int], Answer]
"""Sits down at `count` environments of a passage, from `first` on: one of each stretch."""


class Played(NamedTuple):
    """How a contender did: an account of every stretch, in their order."""

    name: str
    accounts: tuple[Account, ...]


def scripted(name: str, *, lots: int | None = None, seed: int = 0) -> Contender:
    """A control.

    Args:
        name: of the script.
        lots: size of its orders; None: the most, up to Q, that an instrument's capital buys at its
            first close with some to spare.
        seed: of the script `random`.

    Raises:
        ConfigError: no such script.
    """
    script = script_named(name)

    def sit(passage: Passage, first: int, count: int) -> Answer:
        each = passage.lots if lots is None else np.full(count, lots)
        return Scripted(passage.core, script, first=first, count=count, lots=each, seed=seed).answer

    return sit


def trained(
    agent: PPOAgent,
    *,
    seed: int | None = None,
    parameters: Parameters | None = None,
) -> Contender:
    """A trained policy.

    Args:
        agent: it.
        seed: of sampled actions; None: the likeliest.
        parameters: adapted to every stretch, in their order, [stretches, ...] each; None: its own.
    """

    def sit(passage: Passage, first: int, count: int) -> Answer:
        return _Seated(passage, agent, first, count, seed, parameters).answer

    return sit


class _Seated:
    """A trained policy at its environments."""

    def __init__(
        self,
        passage: Passage,
        agent: PPOAgent,
        first: int,
        count: int,
        seed: int | None,
        parameters: Parameters | None,
    ) -> None:
        self._passage, self._agent = passage, agent
        self._own = slice(first, first + count)
        self._draws = None if seed is None else np.random.default_rng([seed, 4])
        self._whole = parameters
        self._rows = np.arange(count)
        self._some = self._whole

    def answer(self) -> None:
        passage, core = self._passage, self._passage.core
        live = passage.live[self._own]
        if np.count_nonzero(live) != len(self._rows):  # those that are through never come back
            self._rows = np.flatnonzero(live)
            if self._whole is not None:
                kept = torch.from_numpy(self._rows)
                self._some = {name: v[kept.to(v.device)] for name, v in self._whole.items()}
        rows = self._rows
        if not len(rows):
            return
        uniform = None
        if self._draws is not None:
            drawn = self._draws.random(len(live), np.float32)[rows]
            uniform = torch.from_numpy(drawn).to(self._agent.device)
        obs = torch.from_numpy(core.observations[self._own][rows]).to(self._agent.device)
        mask = torch.from_numpy(core.masks[self._own][rows]).to(self._agent.device)
        with torch.no_grad():
            action = chosen(self._agent.log_probs(obs, mask, self._some), uniform).cpu().numpy()
        # Weights beyond all bounds: what they say is no number, or drowns the mask.
        legal = core.masks[self._own][rows, action]
        if not legal.all():
            symbol = core.instrument_of(self._own.start + int(rows[np.argmin(legal)])).symbol
            raise StrategyError(f"the policy gives no legal answer on {symbol}")
        core.actions[self._own][rows] = action


def play(
    segments: Segments,
    config: EnvConfig,
    spans: Sequence[Stretch],
    contenders: Mapping[str, Contender],
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[Played, ...]:
    """Let all contenders go through the same bars.

    Args:
        segments: the data.
        config: of the environment that a trained policy knows.
        spans: what is gone through.
        contenders: by name.
        on_step: told now and then how many steps are done, and of how many.

    Raises:
        ConfigError: the capital does not buy one lot, or a script cannot have its lots.
        DataError: there is nothing to go through.
        StrategyError: a trained policy has no answer.
    """
    passage = Passage(segments, config, spans, len(contenders))
    count = len(spans)
    answers = [sit(passage, c * count, count) for c, sit in enumerate(contenders.values())]
    for step in range(passage.steps):
        if on_step is not None and step % _TELL_EVERY == 0:
            on_step(step, passage.steps)
        for answer in answers:
            answer()
        passage.step()
    if on_step is not None:
        on_step(passage.steps, passage.steps)
    return tuple(
        Played(name, tuple(passage.account(c * count + k) for k in range(count)))
        for c, name in enumerate(contenders)
    )


_TELL_EVERY = 128
