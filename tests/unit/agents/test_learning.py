"""Policies learn: on a market whose best answer is known, and not where learning is broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from streambot.agents.adaptation import adapted, as_parameters  # noqa: E402
from streambot.agents.batch import AdaptConfig, Batch, LearnConfig  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train

N, T, ACTIONS = 32, 16, 3
CONFIG = AgentConfig(
    features=4, actions=ACTIONS, regimes=(2, 3), experts=2, hidden=(32,), seed=1,
    learn=LearnConfig(lr=3e-3, minibatch=256, schedule="constant", target_kl=1.0),
)  # fmt: skip


def market(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Observations, and what each action earns there: follow the last move in one regime, fade it in the other."""
    obs = torch.randn(N, T, 4, generator=generator)
    trending = torch.rand(N, 1, generator=generator) < 0.5
    obs[..., 2] = trending.float() * 2 - 1
    obs[..., 3] = -obs[..., 2]
    move = obs[..., 0].sign() * obs[..., 2]
    earned = torch.stack([torch.zeros_like(move), move, -move], -1)
    return obs, earned


def played(agent: PPOAgent, generator: torch.Generator) -> tuple[Batch, float]:
    """A batch of single decisions, and the mean reward; the best policy earns 1."""
    obs, earned = market(generator)
    mask = torch.ones(N, T, ACTIONS)
    action, log_prob = agent.select_action(obs, mask, torch.rand(N, T, generator=generator))
    reward = earned.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    value = agent.values(obs)
    episode = torch.arange(N * T).reshape(N, T)
    batch = Batch(obs, mask, action, log_prob, reward - value, reward, episode)
    return batch, float(reward.mean())


def learnt(
    kind: type[PPOAgent],
    seed: int,
    *,
    updates: int = 60,
    broken: Callable[[Batch], Batch] = lambda batch: batch,
) -> float:
    """Mean reward after some updates."""
    generator = torch.Generator().manual_seed(seed)
    agent = kind(CONFIG)
    for update in range(updates):
        batch, _ = played(agent, generator)
        agent.learn(broken(batch), progress=update / updates)
    return sum(played(agent, generator)[1] for _ in range(10)) / 10


def test_a_mixture_learns_what_each_regime_pays() -> None:
    """Most of what the best policy earns (0.95 or more over eight seeds); by chance nothing."""
    assert learnt(MoEAgent, SEED) > 0.75


def test_a_single_network_learns_too() -> None:
    """Less: it has to learn a product (0.46 to 0.72 over six seeds); by chance nothing."""
    assert learnt(PPOAgent, SEED, updates=160) > 0.25


def test_an_advantage_of_the_wrong_sign_learns_nothing() -> None:
    """The measure can fail."""
    wrong = learnt(MoEAgent, SEED, broken=lambda batch: batch._replace(advantage=-batch.advantage))
    assert wrong < 0.1


def test_steps_on_a_support_set_raise_what_it_pays() -> None:
    """Adaptation goes uphill, more with more steps."""
    generator = torch.Generator().manual_seed(SEED)
    agent = MoEAgent(CONFIG)
    batch, _ = played(agent, generator)
    obs, earned = market(generator)
    mask = torch.ones(N, T, ACTIONS)
    config = AdaptConfig(lr=2.0, lam=0.0)
    paid = []
    for steps in (0, 1, 3):
        after = adapted(agent.policy, as_parameters(agent.network), batch, steps, config)
        with torch.no_grad():
            paid.append(float((agent.log_probs(obs, mask, after).exp() * earned).sum(-1).mean()))
    assert paid[0] < paid[1] < paid[2]
