"""A PPO of Stable-Baselines3 on the environment, and how it does on bars that it never saw.

    pip install stable-baselines3
    python examples/train_sb3.py [SECONDS]

It learns on three sessions of SPY minutes and is tested on the fourth, beside doing nothing and
buying and holding. Four sessions teach nobody a market: the example shows the way.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import gymnasium
import numpy as np

import streambot.env

MARKET = {"scenario": "spy-four-sessions", "instruments": "SPY", "capital": 100_000}
LEARN: dict[str, Any] = {**MARKET, "end": "2020-12-16", "episode_bars": 200}
TEST: dict[str, Any] = {**MARKET, "start": "2020-12-17", "episode_bars": None}


def make(settings: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """An environment, as any learner makes it."""
    return gymnasium.make(streambot.env.ENV_ID, **settings)


def train(seconds: float, seed: int = 1) -> Any:  # noqa: ANN401  # SB3 comes only with the call
    """A policy that has learnt for so long."""
    from stable_baselines3 import PPO  # noqa: PLC0415
    from stable_baselines3.common.callbacks import BaseCallback  # noqa: PLC0415
    from stable_baselines3.common.env_util import make_vec_env  # noqa: PLC0415

    class Until(BaseCallback):
        def _on_training_start(self) -> None:
            self.began = time.monotonic()

        def _on_step(self) -> bool:
            return time.monotonic() - self.began < seconds

    envs = make_vec_env(lambda: make(LEARN), n_envs=8, seed=seed)
    # Rewards are log returns of a bar, about 1e-4: far below what PPO's defaults are made for.
    model = PPO(
        "MlpPolicy", envs, n_steps=256, batch_size=512, gamma=0.999, seed=seed, device="cpu"
    )
    return model.learn(10**9, callback=Until())


def earns(answer: Any) -> float:  # noqa: ANN401  # observation -> action
    """Return of the test session, after brokerage, in percent."""
    env = make(TEST)
    observation, info = env.reset(seed=0)
    before, over = info["equity"], False
    while not over:
        observation, _, terminated, truncated, info = env.step(answer(observation))
        over = terminated or truncated
    return float(100 * (info["equity"] / before - 1))


def main() -> None:
    """Train, test, and print the controls beside it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    model = train(seconds)
    learnt = earns(lambda seen: int(model.predict(np.asarray(seen), deterministic=True)[0]))
    print(f"steps learnt   {model.num_timesteps:,} in {seconds:g} s")
    print(f"learnt         {learnt:+.3f} % on a session that it never saw")
    print(f"doing nothing  {earns(lambda _: 0):+.3f} %")
    print(f"buy and hold   {earns(lambda _: 2):+.3f} %")


if __name__ == "__main__":
    main()
