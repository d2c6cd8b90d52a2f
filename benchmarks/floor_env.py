"""The least that an environment can cost: a bare Gymnasium environment, and a bare compiled batch.

`BareEnv` fills a fresh array and returns. `BareBatch` is one compiled loop over N accounts: a position, a fee per
trade, equity, a drawdown stop, a window of 64 floats copied
out into a fresh array, the next episode begun in the same step.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numba
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

FLOATS = 64
EPISODE = 256
ACTIONS = 3
"""0 flat, 1 long, 2 short."""
_FEATURES = 4
_BARS_SEEN = FLOATS // _FEATURES
_MULTIPLIER, _INCREMENT = 6_364_136_223_846_793_005, 1_442_695_040_888_963_407


class BareEnv(gymnasium.Env[npt.NDArray[np.float32], int]):
    """A fresh array of 64 floats, filled with a window of the data; no account.

    Args:
        features: float32, at least `FLOATS` + `EPISODE`.
    """

    def __init__(self, features: npt.NDArray[np.float32]) -> None:
        self._features = features
        self.observation_space = spaces.Box(0.0, 1e9, (FLOATS,), np.float32)
        self.action_space = spaces.Discrete(ACTIONS)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        del options
        self._steps = 0
        return self._features[:FLOATS].copy(), {}

    def step(
        self, action: int
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Fill and return."""
        self._steps += 1
        del action
        observation = np.empty(FLOATS, np.float32)
        observation[:] = self._features[self._steps : self._steps + FLOATS]
        return observation, 0.0, False, self._steps >= EPISODE, {}


@numba.njit(cache=False)
def _step(
    actions: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    until: npt.NDArray[np.int64],
    side: npt.NDArray[np.int64],
    cash: npt.NDArray[np.int64],
    peak: npt.NDArray[np.int64],
    draws: npt.NDArray[np.uint64],
    observations: npt.NDArray[np.float32],
    rewards: npt.NDArray[np.float64],
    ended: npt.NDArray[np.uint8],
    closes: npt.NDArray[np.int64],
    features: npt.NDArray[np.float32],
    capital: int,
    fee: int,
    limit_bp: int,
) -> None:
    for i in range(len(actions)):
        wanted = 1 if actions[i] == 1 else (-1 if actions[i] == 2 else 0)
        before = cash[i] + side[i] * closes[at[i]]
        if wanted != side[i]:
            cash[i] -= (wanted - side[i]) * closes[at[i]] + fee
            side[i] = wanted
        at[i] += 1
        equity = cash[i] + side[i] * closes[at[i]]
        rewards[i] = (equity - before) / capital
        peak[i] = max(peak[i], equity)
        stopped = (peak[i] - equity) * 10_000 > limit_bp * peak[i]
        ended[i] = 1 if stopped or at[i] >= until[i] else 0
        if ended[i] != 0:
            draws[i] = draws[i] * np.uint64(_MULTIPLIER) + np.uint64(_INCREMENT)
            room = len(closes) - EPISODE - _BARS_SEEN
            at[i] = _BARS_SEEN + np.int64(draws[i] >> np.uint64(33)) % room
            until[i] = at[i] + EPISODE
            side[i], cash[i], peak[i] = 0, capital, capital
        first = (at[i] - _BARS_SEEN + 1) * _FEATURES
        observations[i, :] = features[first : first + FLOATS]


class BareBatch:
    """N accounts over one series of closes.

    Args:
        closes: ticks, int64.
        n: how many.
        capital, fee: in ticks; the fee is for every change of the position.
        limit_bp: drawdown that ends an episode, basis points of the peak.

    Attributes:
        side, cash, peak: of each account.
        rewards, ended: of the last step.
    """

    def __init__(
        self,
        closes: npt.NDArray[np.int64],
        n: int,
        *,
        capital: int = 10**8,
        fee: int = 20,
        limit_bp: int = 2_000,
    ) -> None:
        changes = np.diff(np.log(closes), prepend=0.0)
        changes[0] = 0.0
        self._features = np.repeat(changes, _FEATURES).astype(np.float32)
        self._closes, self._terms = closes, (capital, fee, limit_bp)
        self.at = np.zeros(n, np.int64)
        self.until = np.zeros(n, np.int64)
        self.side, self.cash = np.zeros(n, np.int64), np.full(n, capital, np.int64)
        self.peak = np.full(n, capital, np.int64)
        self._draws = np.arange(1, n + 1, dtype=np.uint64)
        self.rewards, self.ended = np.zeros(n), np.zeros(n, np.uint8)
        # The first step ends what never began: every account starts where it draws.
        self.step(np.zeros(n, np.int64))

    def step(self, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """One step of every account; what they see, in an array that the next step leaves alone."""
        observations = np.empty((len(self.at), FLOATS), np.float32)
        _step(
            actions,
            self.at,
            self.until,
            self.side,
            self.cash,
            self.peak,
            self._draws,
            observations,
            self.rewards,
            self.ended,
            self._closes,
            self._features,
            *self._terms,
        )
        return observations
