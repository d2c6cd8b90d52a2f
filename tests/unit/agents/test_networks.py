"""Networks that lie side by side say what each says by itself, at parameters of one task or of many."""

from __future__ import annotations

from functools import partial

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from streambot.agents.adaptation import (  # noqa: E402
    Parameters,
    adapted,
    as_parameters,
    for_each,
)
from streambot.agents.batch import Batch  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.networks import ILLEGAL, PolicyNetwork, Tanh  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train

CONFIG = AgentConfig(features=6, actions=5, regimes=(4, 1), experts=3, hidden=(7, 4), seed=2)
K, N, T = 4, 3, 5
KINDS = pytest.mark.parametrize("kind", [PPOAgent, MoEAgent])


def moved(agent: PPOAgent, seed: int) -> Parameters:
    """Its parameters in double precision, moved somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.detach().double()
        + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in as_parameters(agent.network).items()
    }


def batch(seed: int, *shape: int) -> Batch:
    """Steps of chance."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, *shape, generator=generator, dtype=torch.float64)
    mask = (torch.rand(*shape, 5, generator=generator) > 0.4).to(torch.uint8)
    mask[..., 0] = 1
    obs = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
    action = torch.zeros(shape, dtype=torch.int64)
    episode = torch.randint(2, shape, generator=generator).cumsum(-1)
    return Batch(obs, mask, action, draw() * 0.1 - 1.5, draw(), draw(), episode)


def by_hand(network: PolicyNetwork, parameters: Parameters, some: Batch, k: int | None) -> Tensor:
    """Log-probabilities, layer by layer, with the functions that everybody uses."""
    x = some.obs
    count = len(network.layers)
    for at in range(0, count, 2):
        weight, bias = parameters[f"layers.{at}.weight"], parameters[f"layers.{at}.bias"]
        weight, bias = (weight, bias) if k is None else (weight[k], bias[k])
        x = functional.linear(x, weight, bias)
        x = x.tanh() if at < count - 1 else x
    return x.masked_fill(some.mask == 0, ILLEGAL).log_softmax(-1)


def test_networks_side_by_side_are_those_that_they_would_be_alone() -> None:
    """The same seeds give the same parameters, and those the same answers."""
    several = PolicyNetwork(6, 5, hidden=(7, 4), seeds=(3, 8)).double()
    some = batch(SEED, N, T)
    said = several(some.obs, some.mask)
    assert said.shape == (N, T, 2, 5)
    for k, seed in enumerate((3, 8)):
        alone = PolicyNetwork(6, 5, hidden=(7, 4), seeds=seed).double()
        for name, value in as_parameters(alone).items():
            assert torch.equal(as_parameters(several)[name][k], value)
        for theirs in (
            alone(some.obs, some.mask),
            by_hand(several, as_parameters(several), some, k),
            by_hand(alone, as_parameters(alone), some, None),
        ):
            torch.testing.assert_close(said[..., k, :], theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        several(some.obs[0, 0], some.mask[0, 0]), said[0, 0], rtol=1e-12, atol=1e-12
    )
    assert several(some.obs[:0], some.mask[:0]).shape == (0, T, 2, 5)


@KINDS
def test_many_tasks_are_each_answered_with_their_own_parameters(kind: type[PPOAgent]) -> None:
    """An axis in front of parameters and batch: what `vmap` says, what each says alone."""
    agent = kind(CONFIG)
    each = [moved(agent, SEED + k) for k in range(K)]
    together = {name: torch.stack([one[name] for one in each]) for name in each[0]}
    some = batch(SEED, K, N, T)
    said = agent.policy(together, some.obs, some.mask)
    mapped = torch.func.vmap(agent.policy)(together, some.obs, some.mask)
    loss = partial(agent.outer_loss, clip=0.2, balance=0.3)
    losses = []
    for k in range(K):
        own = Batch(*(part[k] for part in some))
        alone = agent.policy(each[k], own.obs, own.mask)
        torch.testing.assert_close(said[k], alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mapped[k], alone, rtol=1e-12, atol=1e-12)
        losses.append(loss(each[k], own))
    torch.testing.assert_close(
        loss(together, some), torch.stack(losses).mean(), rtol=1e-12, atol=1e-12
    )


@KINDS
def test_many_tasks_adapt_each_to_its_own_support(kind: type[PPOAgent]) -> None:
    agent = kind(CONFIG)
    parameters = moved(agent, SEED)
    some = batch(SEED, K, N, T)
    together = adapted(agent.policy, for_each(parameters, K), some, 2, CONFIG.adapt)
    for k in range(K):
        own = Batch(*(part[k] for part in some))
        alone = adapted(agent.policy, parameters, own, 2, CONFIG.adapt)
        for name, value in alone.items():
            torch.testing.assert_close(together[name][k], value, rtol=1e-11, atol=1e-13)
            assert not torch.equal(value, parameters[name])


def test_tanh_is_tanh_and_so_are_its_slopes() -> None:
    """Of first and second order, by finite differences; the value to the last digits, also at the ends."""
    ends = torch.cat([torch.linspace(-40, 40, 4001), torch.tensor([0.0, -1e30, 1e30])])
    for x, digits in ((ends, 3e-7), (ends.double(), 1e-15)):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(Tanh()(x.clone()), x.tanh(), rtol=0, atol=digits)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Tanh(), x)
    assert torch.autograd.gradgradcheck(Tanh(), x)


def test_values_of_many_observations_are_those_of_each() -> None:
    """Whatever the shape, also where they are more than are valued at once."""
    agent = PPOAgent(CONFIG)
    obs = torch.randn(3, 7_001, 6, generator=torch.Generator().manual_seed(SEED))
    values = agent.values(obs)
    torch.testing.assert_close(values, agent.critic(obs).detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(agent.values(obs[2, 5]), values[2, 5], rtol=1e-5, atol=1e-6)
    assert agent.values(obs[:0]).shape == (0, 7_001)
