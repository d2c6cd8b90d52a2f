"""Agents that are told of the slot that they will trade, before its first bar.

A person's own class is made without arguments and sees bars alone. An agent that follows a slot as
the environment does (`env.follower`) needs what the engine's rules know of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from streambot.domain.instruments import Instrument
from streambot.engine.ordering import SlotContext
from streambot.engine.slots import SlotLimits
from streambot.engine.strategy import Strategy


class SlotBrief(NamedTuple):
    """What is known of a slot before its first bar.

    Attributes:
        instrument: what it trades.
        context: what it knows besides its ticks.
        capital: initial cash, money units.
        limits: what every slot of the run obeys.
        decision_ns: the decision timeframe.
    """

    instrument: Instrument
    context: SlotContext
    capital: int
    limits: SlotLimits
    decision_ns: int


@runtime_checkable
class SlotAgents(Protocol):
    """An agent for every slot of a run.

    Attributes:
        weights, sees: what it is, as `processor.manifest.PolicySettings` keeps it.
    """

    weights: str
    sees: str

    def check(self, decision_ns: int) -> None:
        """Raise `ConfigError` where it cannot decide on bars of `decision_ns`."""
        ...

    def strategy_for(self, slot: SlotBrief) -> Strategy:
        """The agent of one slot.

        Raises:
            ConfigError: it cannot trade there.
        """
        ...


StrategyFactory = Callable[[], Strategy] | SlotAgents
"""Makes the strategy of each slot of a run."""


def strategy_of(agents: StrategyFactory, slot: SlotBrief) -> Strategy:
    """The strategy of a slot."""
    return agents.strategy_for(slot) if isinstance(agents, SlotAgents) else agents()
