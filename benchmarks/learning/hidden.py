"""Tasks that differ in something hidden: one look does not tell them apart, experience does.

In task i the next return is r_{t+1} = phi_i r_t + e_t, with e_t of deviation 0.5 and phi_i between -0.9
and 0.9. An observation holds the last two returns of some moment, so phi cannot be read from it: who
does not know the task can do nothing better than nothing. A position costs as everywhere here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.learning.regimes import COST, POSITIONS

FEATURES = 2
_MOST, _NOISE = 0.9, 0.5


class Tasks(NamedTuple):
    """Decisions in K tasks, N of each; every one is an episode of one step.

    Attributes:
        obs: [K, N, 1, FEATURES].
        earned: what each position earns, [K, N, 1, positions].
        expected: the same in expectation over the next return, for who knows the task.
    """

    obs: Tensor
    earned: Tensor
    expected: Tensor

    def oracle(self) -> float:
        """Mean expected reward of who knows the task."""
        return float(self.expected.max(-1).values.mean())


class Drawn(NamedTuple):
    """Tasks, each with decisions to adapt to and later ones to be judged on."""

    support: Tasks
    query: Tasks


def draw(rng: np.random.Generator, tasks: int, decisions: int) -> Drawn:
    """Random tasks.

    Args:
        rng: where chance comes from.
        tasks: K.
        decisions: N, of the support and of the query each.
    """
    phi = rng.uniform(-_MOST, _MOST, (tasks, 1))
    positions = torch.from_numpy(POSITIONS)

    def some() -> Tasks:
        obs = rng.standard_normal((tasks, decisions, 1, FEATURES)).astype(np.float32)
        told = phi[:, :, None] * obs[..., -1]
        moved = told + _NOISE * rng.standard_normal(told.shape)

        def paid(move: np.ndarray) -> Tensor:
            moves = torch.from_numpy(move.astype(np.float32)).unsqueeze(-1)
            return moves * positions - COST * positions.abs()

        return Tasks(torch.from_numpy(obs), paid(moved), paid(told))

    return Drawn(some(), some())
