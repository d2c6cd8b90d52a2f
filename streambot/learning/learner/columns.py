"""Fragments as columns: what an update is made from, without an object for every step.

A fragment of T steps has T + 1 observations: what its last step led to is valued where the episode
goes on, or was cut. Learners that share an update get as many steps each, give or take one; a
fragment at the border is cut in two, whose first piece is one that goes on.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streambot.streams.fragment import Fragment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Steps(NamedTuple):
    """Steps of fragments, one behind the other.

    Attributes:
        obs: float32 [S + B, F], of every fragment one more than its steps. mask: uint8 [S + B, A].
        action: int64 [S]. log_prob: of it when it was taken, float32 [S].
        reward: to learn from, float32 [S].
        lengths: steps of every fragment, int64 [B]; their sum is S.
        terminated: whether the episode did with the last step of it, bool [B].
    """

    obs: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    action: npt.NDArray[np.int64]
    log_prob: npt.NDArray[np.float32]
    reward: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]


class _Piece(NamedTuple):
    """Steps `begin` to `end` of a fragment, and what they earned as it is learnt from."""

    fragment: Fragment
    reward: Any
    begin: int
    end: int

    @property
    def terminated(self) -> bool:
        head = self.fragment.head
        return head.terminated and self.end == head.steps


def shares(fragments: Sequence[Fragment], rewards: Sequence[Any], parts: int) -> list[Steps]:
    """The steps of fragments in equal parts, in their order.

    Args:
        fragments: whose steps.
        rewards: what is learnt from, [T] each.
        parts: how many; not more than there are steps.
    """
    steps = sum(fragment.head.steps for fragment in fragments)
    borders = [steps * part // parts for part in range(parts + 1)]
    return [
        _columns(list(_pieces(fragments, rewards, begin, end))) for begin, end in pairwise(borders)
    ]


def _pieces(
    fragments: Sequence[Fragment], rewards: Sequence[Any], begin: int, end: int
) -> Iterator[_Piece]:
    """What lies between two steps of all."""
    before = 0
    for fragment, reward in zip(fragments, rewards, strict=True):
        first, last = max(begin - before, 0), min(end - before, fragment.head.steps)
        if first < last:
            yield _Piece(fragment, reward, first, last)
        before += fragment.head.steps


def _columns(pieces: list[_Piece]) -> Steps:
    of = [(p.fragment, slice(p.begin, p.end), slice(p.begin, p.end + 1)) for p in pieces]
    return Steps(
        np.concatenate([f.obs[seen] for f, _, seen in of]),
        np.concatenate([f.mask[seen] for f, _, seen in of]),
        np.concatenate([f.action[done] for f, done, _ in of]).astype(np.int64),
        np.concatenate([f.log_prob[done] for f, done, _ in of]),
        np.concatenate([p.reward[p.begin : p.end] for p in pieces]).astype(np.float32),
        np.array([p.end - p.begin for p in pieces], np.int64),
        np.array([p.terminated for p in pieces], np.bool_),
    )


class Tensors(NamedTuple):
    """`Steps` as tensors of a device."""

    obs: Tensor
    mask: Tensor
    action: Tensor
    log_prob: Tensor
    reward: Tensor
    lengths: Tensor
    terminated: Tensor

    @classmethod
    def of(cls, steps: Steps, device: torch.device) -> Tensors:
        """On a device; what came from another process is copied, because it may not be written to."""
        return cls(
            *(
                torch.from_numpy(c if c.flags.writeable else c.copy()).to(device)
                for c in steps
            )
        )  # fmt: skip


class Grid(NamedTuple):
    """Where what lies one behind the other stands in a grid, [T, B], of the longest fragment's T.

    Attributes:
        seen: rows of the observations, int64 [T + 1, B]; behind its end a fragment's last one.
        done: rows of the steps, int64 [T, B]; behind its end a fragment's last one.
        valid: whether there is a step, bool [T, B].
        last: whether it is the fragment's last one, bool [T, B].
    """

    seen: Tensor
    done: Tensor
    valid: Tensor
    last: Tensor

    @classmethod
    def of(cls, lengths: Tensor) -> Grid:
        """Of fragments of so many steps, [B]."""
        at = torch.arange(int(lengths.max()) + 1, device=lengths.device).unsqueeze(-1)
        ends = lengths.cumsum(0)
        first = ends - lengths
        number = torch.arange(len(lengths), device=lengths.device)
        return cls(
            first + number + at.minimum(lengths), first + at[:-1].minimum(lengths - 1),
            at[:-1] < lengths, at[:-1] == lengths - 1,
        )  # fmt: skip

    def flat(self, grid: Tensor) -> Tensor:
        """What stands in a grid [T, B] where there are steps, one behind the other, [S]."""
        return grid.mT[self.valid.mT]
