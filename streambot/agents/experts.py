"""The four experts. What each is good at is not told to it: it comes of training, and is measured.

A mixture's experts begin apart (orthogonal, each with a seed of its own) and are trained together;
their names are given afterwards, by the regimes that they turn out to serve
(`streambot.agents.naming`). By itself each of these classes is a whole policy that learns and adapts.
"""

from __future__ import annotations

from streambot.agents.ppo import PPOAgent


class TrendAgent(PPOAgent):
    """The expert that serves markets which drift."""

    kind = "trend"


class MeanReversionAgent(PPOAgent):
    """The expert that serves markets whose moves come back."""

    kind = "mean-reversion"


class VolatilityAgent(PPOAgent):
    """The expert that serves markets which move a lot, either way."""

    kind = "volatility"


class ConsolidationAgent(PPOAgent):
    """The expert that serves markets which stay where they are."""

    kind = "consolidation"


EXPERTS = (TrendAgent, MeanReversionAgent, VolatilityAgent, ConsolidationAgent)
"""In the order in which regimes are listed wherever experts are named."""
