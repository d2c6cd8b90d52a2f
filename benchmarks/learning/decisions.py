"""Agents that learn to decide in the market with regimes, and what they then earn on fresh paths.

Learning is the product's own (`PPOAgent.learn`); a decision is an episode of one step. A position
moves no market, so what each would have earned is known, and serves as the baseline of an advantage.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import torch

from benchmarks.learning.regimes import (
    FEATURES,
    POSITIONS,
    SLOW,
    STANDARD,
    Decisions,
    Floats,
    Shape,
    decisions,
    paths,
)
from streambot.agents.adaptation import taken
from streambot.agents.batch import Batch, LearnConfig
from streambot.agents.networks import PolicyNetwork
from streambot.agents.ppo import AgentConfig, PPOAgent, chosen

ACTIONS = len(POSITIONS)
TRAIN, VALIDATION, TEST, PLAY, RANDOM = range(5)
"""Streams of chance of a seed."""


class DecisionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment of decisions.

    Attributes:
        paths, bars: of the training data.
        held_out: paths that are judged on.
        updates: of a training. decisions: of each.
        lr: learning rate; `tuned` tries several.
    """

    paths: int = 150
    bars: int = 465
    held_out: int = 60
    updates: int = 100
    decisions: int = 1024
    lr: float = 3e-3


class Data(NamedTuple):
    """What a seed learns from, is tuned on, and is judged on: no two share a path."""

    train: Decisions
    validation: Decisions
    test: Decisions


def data(config: DecisionConfig, seed: int, shape: Shape = STANDARD) -> Data:
    """Fresh paths of a seed, the same for every arm."""

    def some(stream: int, count: int) -> Decisions:
        rng = np.random.default_rng([seed, stream])
        return decisions(paths(rng, count, config.bars, shape), shape)

    return Data(
        some(TRAIN, config.paths), some(VALIDATION, config.held_out), some(TEST, config.held_out)
    )


def learning(lr: float) -> LearnConfig:
    """Settings of learning, the same for every arm but for the rate that was tuned for it."""
    return LearnConfig(lr=lr, minibatch=512, epochs=4, target_kl=1.0, entropy=0.01)


def agent(
    kind: type[PPOAgent],
    seed: int,
    lr: float,
    *,
    regimes: tuple[int, ...] = SLOW,
    hidden: tuple[int, ...] = (64, 64),
) -> PPOAgent:
    """An agent for these decisions."""
    return kind(
        AgentConfig(
            features=FEATURES, actions=ACTIONS, regimes=regimes, hidden=hidden, seed=seed,
            learn=learning(lr),
        )
    )  # fmt: skip


def parameters_of(of: PPOAgent) -> int:
    """Numbers of the policy; the critic has no part in what it does."""
    return sum(p.numel() for p in of.network.parameters())


def multiplications_of(of: PPOAgent) -> int:
    """Multiply-adds of one decision: a soft mixture uses every weight, as a single network does."""
    return sum(p.numel() for name, p in of.network.named_parameters() if name.endswith("weight"))


def widths_of_equal_size(size: int, layers: int) -> tuple[int, ...]:
    """Widths of a single network that has at least `size` parameters, and hardly more."""
    width = 1
    while True:
        network = PolicyNetwork(FEATURES, ACTIONS, hidden=(width,) * layers)
        if sum(p.numel() for p in network.parameters()) >= size:
            return (width,) * layers
        width += 1


def train(who: PPOAgent, on: Decisions, config: DecisionConfig, seed: int) -> PPOAgent:
    """Train an agent.

    Args:
        who: the agent; it is changed, and given back.
        on: decisions to learn from, drawn with replacement, the same ones for every agent.
        config: how long.
        seed: of what is drawn.
    """
    rng = np.random.default_rng([seed, PLAY])
    obs, earned = torch.from_numpy(on.obs), torch.from_numpy(on.earned())
    mask = torch.ones(config.decisions, 1, ACTIONS)
    episode = torch.arange(config.decisions).unsqueeze(-1)
    for update in range(config.updates):
        rows = torch.from_numpy(rng.integers(len(obs), size=config.decisions))
        seen, pays = obs[rows].unsqueeze(1), earned[rows].unsqueeze(1)
        uniform = torch.from_numpy(rng.random((config.decisions, 1), np.float32))
        with torch.no_grad():
            log_probs = who.log_probs(seen, mask)
        action = chosen(log_probs, uniform)
        reward, expected = taken(pays, action), (log_probs.exp() * pays).sum(-1)
        batch = Batch(
            seen, mask, action, taken(log_probs, action), reward - expected, expected, episode
        )
        who.learn(batch, progress=update / config.updates)
    return who


def pays(probabilities: Floats, on: Decisions) -> Floats:
    """Expected reward of each decision, [n]: exact, over the action and over the next return.

    Args:
        probabilities: of the positions, [n, positions].
        on: the decisions.
    """
    rewards: Floats = (probabilities * on.expected()).sum(1)
    return rewards


def answers(of: PPOAgent, to: Decisions) -> Floats:
    """Probabilities of the positions, [n, positions]."""
    found: Floats = of.probabilities(
        torch.from_numpy(to.obs), torch.ones(len(to.obs), ACTIONS)
    ).numpy()
    return found


def share(of: PPOAgent, on: Decisions) -> float:
    """Mean expected reward as a share of the oracle's."""
    return float(pays(answers(of, on), on).mean()) / on.oracle()
