"""Total rewards of episodes, from their fragments."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streambot.streams.fragment import Fragment

MOST_OPEN = 1 << 16
"""Episodes that are followed at a time: those of actors that died never end."""


class _Open(NamedTuple):
    episode: int
    next_step: int
    total: float


class Returns:
    """Adds up the rewards of episodes that were learnt from whole, by actor and environment."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, int], _Open] = {}

    def see(self, fragments: Iterable[Fragment]) -> tuple[float, ...]:
        """Total rewards of the episodes that end in these; none of one that was not seen whole."""
        ended = []
        for fragment in fragments:
            head = fragment.head
            key = (head.actor, head.incarnation, head.env)
            known = self._open.pop(key, None)
            total = 0.0
            if head.t_started:
                if known is None or known[:2] != (head.episode, head.t_started):
                    continue  # its beginning was dropped, or learnt from before a restart
                total = known.total
            total += float(fragment.reward.sum(dtype=float))
            if head.terminated or head.truncated:
                ended.append(total)
            else:
                self._open[key] = _Open(head.episode, head.t_started + head.steps, total)
        while len(self._open) > MOST_OPEN:
            del self._open[next(iter(self._open))]
        return tuple(ended)
