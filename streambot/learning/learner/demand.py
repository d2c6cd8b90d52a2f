"""How much experience is asked of every actor, so that the learner never waits, and nothing gets old.

Weights say how many steps are wanted, and nobody trades more than that. Where it was not enough,
because an actor has died or is slow, they are asked again: the learner alone knows what it has.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ASK_S = 5.0
"""So long the experience that was asked for is waited for at first, before actors are asked again."""
RECENT = 8
"""An actor that was not heard of for more updates counts as gone."""
AHEAD = 2
"""Batches that should be there when weights are published: one to learn from at once, one meanwhile."""


class Demand:
    """Who was heard of, and what is asked of them.

    Args:
        batch: steps of an update.
        actors: that will come, before any was heard of.
    """

    def __init__(self, batch: int, actors: int) -> None:
        self._batch, self._expected = batch, actors
        self._heard: dict[str, int] = {}
        self._again = 0

    def served(self, actors: Iterable[str], update: int) -> None:
        """An update was made, of experience of those."""
        self._heard |= dict.fromkeys(actors, update)
        self._again = 0

    def actors(self, update: int) -> int:
        """That were heard of in the last updates."""
        return sum(update - heard <= RECENT for heard in self._heard.values())

    @property
    def patience_s(self) -> float:
        """What was asked for is waited for so long."""
        return ASK_S * 2.0**self._again

    def ask_again(self) -> None:
        """It was not enough: half of them may be gone, and so on."""
        self._again += 1

    def wanted(self, waiting: int, update: int) -> int:
        """Steps that each actor is asked for.

        Args:
            waiting: steps that are there and not learnt from.
            update: the last one.
        """
        missing = AHEAD * self._batch - waiting
        actors = (self.actors(update) or self._expected) >> self._again
        return ceil(max(0, missing) / max(1, actors))
