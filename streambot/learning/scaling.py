"""Rewards in units of what they usually add up to: a log return of 1e-4 and money teach alike.

The scale is the running standard deviation of discounted returns (as Stable-Baselines3's
`VecNormalize` and OpenAI's baselines before it have it). It changes what gradients are large, never
which policy is better: rewards are divided, not shifted. What is reported is never scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

_COUNTERS = ("returns_seen", "returns_mean", "returns_squares")
MOST = 10.0
"""A scaled reward is cut off here: a penalty far beyond everything else teaches its sign, not its size."""


class RewardScale:
    """Scales rewards by what was seen so far.

    Args:
        gamma: discount of the returns.
        moments: count, mean and sum of squared deviations of the returns seen, of another one.
    """

    def __init__(self, gamma: float, moments: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        self._gamma = gamma
        self.moments = moments

    @classmethod
    def of_progress(cls, gamma: float, progress: Mapping[str, float]) -> Self:
        """The scale that a training has reached, from the counters in its checkpoint.

        Raises:
            DataError: no training could have counted that.
        """
        count, mean, squares = (progress.get(name, 0.0) for name in _COUNTERS)
        if not (count >= 0 and squares >= 0 and np.isfinite([count, mean, squares]).all()):
            raise DataError(
                "the checkpoint says of its rewards what no training could have counted",
                hint=f"was it edited? {', '.join(_COUNTERS)} are {count}, {mean}, {squares}",
            )
        return cls(gamma, (count, mean, squares))

    @property
    def progress(self) -> dict[str, float]:
        """Counters for a checkpoint."""
        return dict(zip(_COUNTERS, self.moments, strict=True))

    def copy(self) -> Self:
        """Another one that has seen the same."""
        return type(self)(self._gamma, self.moments)

    @property
    def factor(self) -> float:
        """What rewards are multiplied by; 1 where nothing was seen, or all returns were equal."""
        count, _, squares = self.moments
        deviation = (squares / count) ** 0.5 if count else 0.0
        return 1.0 / deviation if deviation > 0 else 1.0

    def see(self, reward: npt.NDArray[np.float32], over: npt.NDArray[np.bool_]) -> None:
        """Count the discounted returns of some steps in; they begin at 0 with the first.

        Args:
            reward: [T, N].
            over: where an episode ended, [T, N].
        """
        returns = np.empty(reward.shape)
        carried = np.zeros(reward.shape[1])
        for t, paid in enumerate(reward):
            carried = paid + self._gamma * carried
            returns[t] = carried
            carried = np.where(over[t], 0.0, carried)
        # Chan et al. 1983: moments of two sets from the moments of each.
        count, mean, squares = self.moments
        more, delta = returns.size, float(returns.mean()) - mean
        whole = count + more
        self.moments = (
            whole,
            mean + delta * more / whole,
            squares + float(returns.var()) * more + delta**2 * count * more / whole,
        )

    def __call__(self, reward: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The rewards, scaled and cut off."""
        scaled: npt.NDArray[np.float32] = np.clip(reward * np.float32(self.factor), -MOST, MOST)
        return scaled
