"""A look at how a policy does on the bars that its training leaves alone, while it is trained.

Not the evaluation that decides whether a policy is any good (`learning.evaluation` has controls and
intervals for that): one number, quick, so that a training that learns nothing is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streambot.domain.errors import DataError
from streambot.env.passage import Stretch, stretches
from streambot.learning.playing import play, trained

if TYPE_CHECKING:
    from streambot.agents.ppo import PPOAgent
    from streambot.env.config import EnvConfig
    from streambot.env.sources import Source

MOST_DECISIONS = 20_000
_NAME = "policy"


class Look(NamedTuple):
    """What was seen.

    Attributes:
        gain: of the capital, mean over the instruments, a share (0.01: one percent), costs paid.
        decisions: in all. instruments: that were traded.
    """

    gain: float
    decisions: int
    instruments: int


class HeldOut:
    """The first bars of what is held out, of every instrument.

    Args:
        source: the data.
        config: of the environment; its range is what is held out.
        symbols: that are looked at.
        most: decisions, of all instruments together.

    Raises:
        DataError: no instrument has bars there (yet).
    """

    def __init__(
        self,
        source: Source,
        config: EnvConfig,
        symbols: tuple[str, ...],
        *,
        most: int = MOST_DECISIONS,
    ) -> None:
        self._config = config
        self._segments = source.open(config.features)
        found, _ = stretches(self._segments, config, config.start, config.end)
        instruments = self._segments.head.instruments
        chosen = [span for span in found if instruments[span.instrument].symbol in symbols][:most]
        if not chosen:
            raise DataError("no bars to look at are held out")
        each = max(1, most // len(chosen))
        self._spans = [
            Stretch(span.instrument, span.first, min(span.last, span.first + each))
            for span in chosen
        ]

    def __call__(self, agent: PPOAgent) -> Look:
        """Trade them with the likeliest actions of a policy.

        Raises:
            StrategyError: the policy has no legal answer.
        """
        (played,) = play(self._segments, self._config, self._spans, {_NAME: trained(agent)})
        gains = [account.equity[-1] / account.capital - 1 for account in played.accounts]
        decisions = sum(span.last - span.first for span in self._spans)
        return Look(float(np.mean(gains)), decisions, len(gains))
