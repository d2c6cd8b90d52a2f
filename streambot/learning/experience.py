"""Steps of many environments as they come in, and the batch to learn from that they make.

The end of an episode is two things: a termination has no future, a truncation has one that was not
seen, so its last observation is valued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from streambot.agents.advantages import gae
from streambot.agents.batch import Batch, LearnConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from streambot.learning.scaling import RewardScale

    Acts = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Experience:
    """Columns of T steps of N environments.

    Args:
        steps: T.
        count: N.
        features: numbers of an observation.
        actions: joint actions.

    Attributes:
        obs: observations that were answered, float32 [T, N, F].
        reached: observations that the answers led to, before any reset, float32 [T, N, F].
        mask: legal actions, uint8 [T, N, A].
        action: joint indices, int64 [T, N]; log_prob: of them, float32 [T, N].
        reward: float32 [T, N].
        terminated: bool [T, N]; over: the episode ended, for any reason, bool [T, N].
        episode: number of the episode, int64 [T, N].
    """

    def __init__(self, steps: int, count: int, features: int, actions: int) -> None:
        shape = (steps, count)
        self.obs = np.empty((*shape, features), np.float32)
        self.reached = np.empty_like(self.obs)
        self.mask = np.empty((*shape, actions), np.uint8)
        self.action, self.log_prob = np.empty(shape, np.int64), np.empty(shape, np.float32)
        self.reward = np.empty(shape, np.float32)
        self.terminated, self.over = np.empty(shape, np.bool_), np.empty(shape, np.bool_)
        self.episode = np.empty(shape, np.int64)

    def batch(
        self,
        values: Callable[[Tensor], Tensor],
        config: LearnConfig,
        device: torch.device,
        scale: RewardScale | None = None,
    ) -> Batch:
        """What there is to learn from, [N, T].

        Args:
            values: the critic, of observations [..., F].
            config: discount and λ.
            device: where the batch is needed.
            scale: of the rewards; it has seen them afterwards. None: as they are.
        """

        def tensor(array: npt.NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).to(device)

        reward = self.reward
        if scale is not None:
            scale.see(reward, self.over)
            reward = scale(reward)
        obs = tensor(self.obs)
        value = values(obs)
        # Where an episode goes on, what was reached is answered next, and has its value.
        ends = self.over.copy()
        ends[-1] = True
        value_reached = value.roll(-1, 0)
        value_reached[tensor(ends)] = values(tensor(self.reached[ends]))
        discount = tensor(np.where(self.terminated, 0.0, config.gamma).astype(np.float32))
        cut = tensor(self.over.astype(np.float32))
        advantage = gae(tensor(reward), value, value_reached, discount, cut, config.lam)
        parts = (
            obs, tensor(self.mask), tensor(self.action), tensor(self.log_prob), advantage,
            advantage + value, tensor(self.episode),
        )  # fmt: skip
        # Learning wants environments first: [N, T, ...].
        return Batch(*(part.transpose(0, 1).contiguous() for part in parts))
