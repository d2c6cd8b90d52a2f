"""RLlib's PPO on fragments: it learns what it is given, and its tensors are those of the agent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.agents.batch import LearnConfig  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from streambot.streams.fragment import Fragment, FragmentHead  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    # RLlib registers an environment of its own once for every algorithm.
    pytest.mark.filterwarnings(
        "ignore:.*Overriding environment rllib-single-agent-env:UserWarning"
    ),
]

N, T = 32, 16
CONFIG = AgentConfig(
    features=4, actions=3, regimes=(2, 3), experts=2, hidden=(32,), seed=1,
    learn=LearnConfig(lr=3e-3, minibatch=256, schedule="constant"),
)  # fmt: skip


class Market:
    """Follow the last move in one regime, fade it in the other; the best policy earns 1, action 0 is illegal."""

    def __init__(self, agent: PPOAgent, weights: Any, *, sign: float = 1.0) -> None:
        self._agent, self._weights, self._sign = agent, weights, sign
        self._generator = torch.Generator().manual_seed(SEED)
        self._sequence = 0
        self.earned: list[float] = []

    def take(self, steps: int) -> tuple[list[Fragment], list[Any]]:
        assert steps == N * T
        obs = torch.randn(N, T + 1, 4, generator=self._generator)
        obs[..., 2] = (torch.rand(N, 1, generator=self._generator) < 0.5).float() * 2 - 1
        obs[..., 3] = -obs[..., 2]
        mask = torch.tensor([0.0, 1.0, 1.0]).expand(N, T + 1, 3)
        move = (obs[..., 0].sign() * obs[..., 2])[:, :T]
        with torch.no_grad():
            log_probs = self._agent.log_probs(obs[:, :T], mask[:, :T])
        uniform = torch.rand(N, T, generator=self._generator)
        action, log_prob = self._agent.select_action(obs[:, :T], mask[:, :T], uniform)
        assert (action > 0).all()
        reward = torch.where(action == 1, move, -move)
        self.earned.append(float(reward.mean()))
        out = []
        for i in range(N):
            head = FragmentHead(
                training="t", actor="a", incarnation=0, sequence=self._sequence, layout="x", env=i,
                episode=self._sequence // N, t_started=0, steps=T, features=4, actions=3,
                weights=self._weights(), truncated=True,
            )  # fmt: skip
            self._sequence += 1
            out.append(
                Fragment(
                    head, obs[i].numpy(), mask[i].numpy().astype(np.uint8),
                    action[i].numpy().astype(np.int32), log_prob[i].numpy(), log_probs[i].numpy(),
                    np.zeros((T, 0), np.float32), reward[i].numpy(),
                )
            )  # fmt: skip
        return out, [self._sign * f.reward for f in out]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    import ray

    ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


def trained(kind: type[PPOAgent], updates: int, *, sign: float = 1.0) -> list[float]:
    from streambot.learning.learner.algorithm import stream_ppo

    agent = kind(CONFIG)
    algorithm = stream_ppo(agent, batch=N * T)
    market = Market(agent, lambda: algorithm.updates, sign=sign)
    algorithm.feed = market
    for _ in range(updates):
        algorithm.train()
        algorithm.fetch(agent)
    algorithm.stop()
    return market.earned


@pytest.mark.usefixtures("ray_here")
def test_it_learns_what_it_is_paid_for() -> None:
    """0.75 to 0.9 of the best policy's over six seeds; by chance nothing, and less with the wrong sign."""
    assert np.mean(trained(MoEAgent, 50)[-5:]) > 0.6
    assert np.mean(trained(MoEAgent, 25, sign=-1.0)[-5:]) < -0.1


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_weights_and_memory_go_over_and_come_back(kind: type[PPOAgent]) -> None:
    """The next update of a learner with both is that of the one they are from."""
    from streambot.learning.learner.algorithm import stream_ppo

    first = kind(CONFIG)
    algorithm = stream_ppo(first, batch=N * T)
    fetched = kind(msgspec.structs.replace(CONFIG, seed=9))
    algorithm.fetch(fetched)
    for name, value in first.network.state_dict().items():
        assert torch.equal(fetched.network.state_dict()[name], value), name
    market = Market(first, lambda: 0)
    measured = algorithm.update(*market.take(N * T))
    algorithm.fetch(fetched)
    assert algorithm.updates == 1
    gate = {"gate_entropy"} if kind is MoEAgent else set()
    assert measured.keys() == gate | {
        "policy_loss", "value_loss", "entropy", "kl", "clipped", "gradient_norm",
    }  # fmt: skip
    assert 0 < measured["entropy"] <= np.log(2) + 1e-6, "two of three actions are legal"
    assert 0 <= measured["clipped"] <= 1
    assert measured["kl"] > 0, "the policy has moved"
    assert min(measured["gradient_norm"], measured["value_loss"]) > 0
    assert 0 < measured.get("gate_entropy", 0.1) <= np.log(CONFIG.experts) + 1e-6
    assert any(
        not torch.equal(fetched.network.state_dict()[n], v)
        for n, v in first.network.state_dict().items()
    )
    other = stream_ppo(fetched, batch=N * T)
    other.remember(algorithm.memory())
    ours, theirs = algorithm.memory(), other.memory()
    assert ours.keys() == theirs.keys()
    assert len(ours) > 0
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    algorithm.stop()
    other.stop()
