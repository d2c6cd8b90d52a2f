"""Agents that learn in the product's own environment, on synthetic bars, and what they then earn.

Trained by `Trainer.train`, as `streambot train` does; judged on bars that they never saw, in whole
episodes, by the equity that the engine accounts for, brokerage paid.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.learning.bars import CAPITAL, Market
from streambot.agents.batch import LearnConfig
from streambot.agents.ppo import PPOAgent
from streambot.env.fields import CLOSE_INDEX, FIRST_BUY, HOLD_INDEX
from streambot.env.sources import Source
from streambot.env.vector_env import VectorTradingEnv
from streambot.learning.policy import agent_config
from streambot.learning.trainer import Kept, Progress, TrainConfig, Trainer

EPISODE = 256
SETTINGS: dict[str, Any] = {
    "capital": CAPITAL, "max_quantity": 2, "episode_bars": EPISODE, "regime_windows": (16, 64),
    "reward": {
        "core": "pnl", "idleness": 0, "realized_profit": 0, "overtrading": 0, "trail": 0,
        "early_close": 0, "termination": 0,
    },
}  # fmt: skip
"""Up to two shares at about 10,000, a fifth of the capital; paid for the change of the equity alone."""


class TradingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment in the environment.

    Attributes:
        bars: of the training data, and of the held-out data.
        envs, rollout, updates: of a training.
        episodes: held-out episodes that are judged.
        lr: learning rate.
    """

    bars: int = 20_000
    envs: int = 64
    rollout: int = 64
    updates: int = 50
    episodes: int = 128
    lr: float = 1e-3


Policy = Callable[[npt.NDArray[np.float32], npt.NDArray[np.uint8], VectorTradingEnv], Any]
"""Joint actions [N], of observations, masks and environments."""


class Played(NamedTuple):
    """What episodes brought.

    Attributes:
        net: change of the equity of each, in the currency.
        orders: that were sent, of each.
        paid: brokerage of each.
    """

    net: npt.NDArray[np.float64]
    orders: npt.NDArray[np.int64]
    paid: npt.NDArray[np.int64]


def environment(source: Source, count: int) -> VectorTradingEnv:
    """Environments side by side."""
    return VectorTradingEnv(source, count, autoreset_mode="SameStep", **SETTINGS)


def learner(
    kind: type[PPOAgent], seed: int, config: TradingConfig, env: VectorTradingEnv
) -> PPOAgent:
    """An agent for the environment."""
    learn = LearnConfig(lr=config.lr, gamma=0.97, lam=0.9, target_kl=0.1)
    return kind(agent_config(env.config, hidden=(32, 32), seed=seed, learn=learn))


def train(
    who: PPOAgent,
    env: VectorTradingEnv,
    config: TradingConfig,
    seed: int,
    tell: Callable[[Progress], None] = lambda _: None,
) -> PPOAgent:
    """Train an agent as the product does in one process."""
    settings = TrainConfig(
        updates=config.updates, rollout=config.rollout, checkpoint_every=config.updates, seed=seed
    )
    with tempfile.TemporaryDirectory() as folder:
        Trainer(who, env.config, Kept(Path(folder), SETTINGS, {}), tell=tell).train(env, settings)
    return who


def play(source: Source, policy: Policy, episodes: int, seed: int, brokerage: int) -> Played:
    """Play an episode in each of `episodes` environments.

    Args:
        source: the data.
        policy: who plays; it sends legal actions only.
        episodes: how many.
        seed: of where they begin.
        brokerage: of an order.
    """
    env = environment(source, episodes)
    obs, infos = env.reset(seed=seed)
    net, orders = np.zeros(episodes), np.zeros(episodes, np.int64)
    going = np.ones(episodes, np.bool_)
    while going.any():
        mask = infos["action_mask"]
        action = policy(obs, mask, env)
        assert mask[np.arange(episodes), action].all()
        orders += going & (action != HOLD_INDEX)
        obs, reward, terminated, truncated, infos = env.step(action)
        net += np.where(going, reward, 0.0) * CAPITAL
        going &= ~(terminated | truncated)
    return Played(net, orders, orders * brokerage)


def greedy(who: PPOAgent) -> Policy:
    """The likeliest action."""

    def policy(obs: Any, mask: Any, env: VectorTradingEnv) -> Any:  # noqa: ANN401
        del env
        return who.select_action(torch.from_numpy(obs), torch.from_numpy(mask))[0].numpy()

    return policy


def sampled(who: PPOAgent, rng: np.random.Generator) -> Policy:
    """Actions as they are drawn in training."""

    def policy(obs: Any, mask: Any, env: VectorTradingEnv) -> Any:  # noqa: ANN401
        del env
        uniform = torch.from_numpy(rng.random(len(obs), np.float32))
        return who.select_action(torch.from_numpy(obs), torch.from_numpy(mask), uniform)[0].numpy()

    return policy


def at_random(rng: np.random.Generator) -> Policy:
    """Any legal action, all alike."""

    def policy(obs: Any, mask: Any, env: VectorTradingEnv) -> Any:  # noqa: ANN401
        del obs, env
        return (rng.random(mask.shape) * mask).argmax(1)

    return policy


def told(of: Market) -> Policy:
    """Who is told which way the next bar drifts: all in, on its side; out, when it turns."""

    def policy(obs: Any, mask: Any, env: VectorTradingEnv) -> Any:  # noqa: ANN401
        del obs
        most = env.config.max_quantity
        want = of.side[env.core.envs["bar"] + 1]
        held = env.core.slots["side"]
        enter = np.where(want > 0, FIRST_BUY + most - 1, FIRST_BUY + 2 * most - 1)
        action = np.where(held == 0, enter, np.where(held == want, HOLD_INDEX, CLOSE_INDEX))
        return np.where(mask[np.arange(len(action)), action] != 0, action, HOLD_INDEX)

    return policy
