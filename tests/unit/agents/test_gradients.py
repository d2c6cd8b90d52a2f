"""Gradients are right: against finite differences, loops, and independent implementations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from streambot.agents import losses, maml  # noqa: E402
from streambot.agents.adaptation import Parameters, adapted, as_parameters, support_loss  # noqa: E402
from streambot.agents.advantages import gae  # noqa: E402
from streambot.agents.batch import AdaptConfig, Batch  # noqa: E402
from streambot.agents.losses import dice_loss, ppo_loss, reach_of  # noqa: E402
from streambot.agents.maml import MetaConfig, meta_gradient, stacked, task_loss  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train

FEATURES, ACTIONS, REGIMES = 6, 5, (4, 5)
N, T = 3, 8


def agent(seed: int = 1, *, experts: int = 3, lam: float = 0.5, lr: float = 0.7) -> MoEAgent:
    """A small mixture in double precision, with a gate and experts that have opinions."""
    config = AgentConfig(
        features=FEATURES, actions=ACTIONS, regimes=REGIMES, experts=experts, hidden=(7,),
        gate_hidden=(5,), adapt=AdaptConfig(lr=lr, lam=lam), seed=seed,
    )  # fmt: skip
    made = MoEAgent(config)
    made.network.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise)
    return made


def batch(made: MoEAgent, seed: int, parameters: Parameters | None = None) -> Batch:
    """Steps as the policy (or one of other parameters) would have taken them, with advantages."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    obs = draw(N, T, FEATURES)
    mask = (torch.rand(N, T, ACTIONS, generator=generator) > 0.3).to(torch.uint8)
    mask[..., 0] = 1
    with torch.no_grad():
        log_probs = made.log_probs(obs, mask, parameters)
    action = torch.multinomial(log_probs.exp().flatten(0, 1), 1, generator=generator).reshape(N, T)
    episode = torch.arange(N).unsqueeze(-1) * 10 + (torch.arange(T) >= T // 2).long()
    return Batch(
        obs, mask, action, log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1), draw(N, T),
        draw(N, T), episode,
    )  # fmt: skip


def log_prob_of(made: MoEAgent, parameters: Parameters, some: Batch) -> Tensor:
    said = made.log_probs(some.obs, some.mask, parameters)
    return said.gather(-1, some.action.unsqueeze(-1)).squeeze(-1)


def sums_back(log_prob: Tensor, episode: Tensor, lam: float) -> Tensor:
    """w_t, step by step."""
    rows = []
    for n in range(len(log_prob)):
        carried = torch.zeros((), dtype=log_prob.dtype)
        row = []
        for t in range(log_prob.shape[1]):
            if t and episode[n, t] != episode[n, t - 1]:
                carried = torch.zeros_like(carried)
            carried = lam * carried + log_prob[n, t]
            row.append(carried)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def finite_difference(
    made: MoEAgent, support: Batch, query: Batch, steps: int, direction: Parameters, eps: float
) -> float:
    """Derivative of the loss of a task along `direction`, by plain autograd inside and differences outside.

    What DiCE holds fixed is held fixed here at its values at the parameters themselves, which makes an
    ordinary function of it.
    """
    config = made.config.adapt
    base = {name: value.detach().clone() for name, value in as_parameters(made.network).items()}
    constants: list[tuple[Tensor, Tensor, Tensor]] = []

    def loss(parameters: Parameters, *, fix: bool) -> float:
        now = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        for step in range(steps):
            log_prob = log_prob_of(made, now, support)
            w = sums_back(log_prob, support.episode, config.lam)
            if fix:
                weight = (log_prob - support.log_prob).exp().clamp(max=2.0)
                constants.append((w.detach(), (w - log_prob).detach(), weight.detach()))
            w_0, v_0, weight = constants[step]
            deps = (w - w_0).exp() - (w - log_prob - v_0).exp()
            inner = -(deps * support.advantage * weight).mean()
            slopes = torch.autograd.grad(inner, list(now.values()), allow_unused=True)
            now = {
                name: (value - config.lr * (0.0 if slope is None else slope))
                .detach()
                .requires_grad_()
                for (name, value), slope in zip(now.items(), slopes, strict=True)
            }
        outer = ppo_loss(log_prob_of(made, now, query), query.log_prob, query.advantage, 1e9)
        return float(outer.detach())

    loss(base, fix=True)
    up = {name: value + eps * direction[name] for name, value in base.items()}
    down = {name: value - eps * direction[name] for name, value in base.items()}
    return (loss(up, fix=False) - loss(down, fix=False)) / (2 * eps)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_the_meta_gradient_is_that_of_finite_differences(steps: int, lam: float) -> None:
    """To 1e-6 in double precision; the first-order gradient is off by far more, so it would fail."""
    made = agent(lam=lam)
    support = batch(made, SEED)
    moved = {
        k: v.detach()
        for k, v in adapted(
            made.policy, as_parameters(made.network), support, steps, made.config.adapt
        ).items()
    }
    query = batch(made, SEED + 1, moved)
    parameters = {k: v.detach() for k, v in as_parameters(made.network).items()}
    rates = {k: torch.tensor(made.config.adapt.lr, dtype=torch.float64) for k in parameters}
    config = MetaConfig(steps=steps, clip=1e9, kl=0.0)
    first = AdaptConfig(lr=made.config.adapt.lr, lam=lam, first_order=True)
    generator = torch.Generator().manual_seed(SEED)
    direction = {
        k: torch.randn(v.shape, generator=generator, dtype=torch.float64)
        for k, v in parameters.items()
    }

    def along(adapt: AdaptConfig) -> float:
        found = meta_gradient(
            made.policy, parameters, rates, stacked([support]), stacked([query]), config, adapt
        )
        return float(sum((found.parameters[k] * direction[k]).sum() for k in parameters))

    true = finite_difference(made, support, query, steps, direction, 1e-5)
    assert along(made.config.adapt) == pytest.approx(true, rel=1e-6)
    assert abs(along(first) - true) > 1e-3 * abs(true), "the test could not tell the two apart"


@pytest.mark.parametrize("at_once", [1, 3 * N * T, 4_096])
def test_many_tasks_at_once_are_the_mean_of_one_after_the_other(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks as an axis give what a loop gives, for parameters and for rates, in groups of any size."""
    made = agent()
    parameters = {k: v.detach() for k, v in as_parameters(made.network).items()}
    rates = {k: torch.full_like(v, 0.3) for k, v in parameters.items()}
    supports = [batch(made, SEED + k) for k in range(4)]
    queries = [batch(made, SEED + 10 + k) for k in range(4)]
    config = MetaConfig(steps=2)
    monkeypatch.setattr(maml, "_STEPS_AT_ONCE", at_once)
    whole = meta_gradient(
        made.policy,
        parameters,
        rates,
        stacked(supports),
        stacked(queries),
        config,
        made.config.adapt,
    )
    monkeypatch.undo()
    each = [
        meta_gradient(
            made.policy, parameters, rates, stacked([s]), stacked([q]), config, made.config.adapt
        )
        for s, q in zip(supports, queries, strict=True)
    ]
    torch.testing.assert_close(whole.loss, torch.stack([one.loss for one in each]).mean())
    for part in ("parameters", "rates"):
        for name in parameters:
            mean = torch.stack([getattr(one, part)[name] for one in each]).mean(0)
            torch.testing.assert_close(getattr(whole, part)[name], mean, rtol=1e-10, atol=1e-14)
    assert any(float(slope.abs().sum()) > 0 for slope in whole.rates.values())


def test_an_expert_that_nobody_asks_has_a_gradient_of_zero() -> None:
    """A gate that is shut gives zeros, not nothing, in the inner and in the outer loop."""
    made = agent(experts=3)
    with torch.no_grad():
        made.network.gate.layers[-1].weight.zero_()
        made.network.gate.layers[-1].bias.copy_(torch.tensor([0.0, 0.0, -1e9], dtype=torch.float64))
    parameters = {k: v.detach() for k, v in as_parameters(made.network).items()}
    rates = {k: torch.full_like(v, 0.3) for k, v in parameters.items()}
    support, query = batch(made, 1), batch(made, 2)
    found = meta_gradient(
        made.policy, parameters, rates, stacked([support]), stacked([query]), MetaConfig(steps=1),
        made.config.adapt,
    )  # fmt: skip
    slopes = [slope for name, slope in found.parameters.items() if name.startswith("experts.")]
    assert slopes
    assert all(float(slope[2].abs().max()) == 0.0 for slope in slopes)
    assert any(float(slope[0].abs().max()) > 0.0 for slope in slopes)
    # Single precision, as agents learn: `learn` must neither fail nor move it.
    small = MoEAgent(made.config)
    small.network.load_state_dict({k: v.float() for k, v in made.network.state_dict().items()})
    before = {k: v.detach().clone() for k, v in as_parameters(small.network).items()}
    some = batch(made, 3)
    small.learn(Batch(*(p.float() if p.dtype == torch.float64 else p for p in some)))
    after = as_parameters(small.network)
    of_experts = [name for name in before if name.startswith("experts.")]
    assert all(torch.equal(before[k][2], after[k][2]) for k in of_experts)
    assert not all(torch.equal(before[k][0], after[k][0]) for k in of_experts)


def test_adapting_leaves_the_original_alone_and_can_be_differentiated_through() -> None:
    made = agent()
    before = {k: v.detach().clone() for k, v in as_parameters(made.network).items()}
    support = batch(made, 4)
    after = made.adapt(support, 2)
    assert all(torch.equal(before[k], v) for k, v in as_parameters(made.network).items())
    assert not all(torch.equal(before[k], v) for k, v in after.items())
    slopes = torch.autograd.grad(
        sum(v.sum() for v in after.values()), list(made.network.parameters()), allow_unused=True
    )
    assert all(slope is not None and bool(torch.isfinite(slope).all()) for slope in slopes)
    assert made.adapt(support, 0).keys() == after.keys()


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_the_inner_loss_has_the_slope_of_the_policy_gradient(lam: float) -> None:
    """Whatever λ, the first derivative is that of sum log pi x advantage."""
    made = agent(lam=lam)
    support = batch(made, 5)
    parameters = as_parameters(made.network)
    ours = torch.autograd.grad(
        support_loss(made.policy, parameters, support, lam), list(parameters.values())
    )
    plain = -(log_prob_of(made, parameters, support) * support.advantage).mean()
    theirs = torch.autograd.grad(plain, list(parameters.values()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_dice_sums_what_was_done_before_within_an_episode() -> None:
    """Its second derivative is that of the sums w_t, taken step by step."""
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.randn(N, T, generator=generator, dtype=torch.float64)
    advantage = torch.randn(N, T, generator=generator, dtype=torch.float64)
    episode = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2]] * N)

    def second(loss: Callable[[Tensor], Tensor]) -> float:
        x = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(x), x, create_graph=True)
        return float(torch.autograd.grad(slope, x)[0])

    for lam in (0.0, 0.5, 1.0):
        reach = reach_of(episode, lam, torch.float64)
        ours = second(lambda x, reach=reach: dice_loss((x * weight).sin(), advantage, reach))

        def slow(x: Tensor, lam: float = lam) -> Tensor:
            log_prob = (x * weight).sin()
            w = sums_back(log_prob, episode, lam)
            v = w - log_prob
            deps = (w - w.detach()).exp() - (v - v.detach()).exp()
            return -(deps * advantage).mean()

        assert ours == pytest.approx(second(slow), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 40])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_what_reaches_a_step_is_what_was_done_before_it_in_its_episode(
    steps: int, lam: float
) -> None:
    """The slope of every w_t in every log-probability: λ^(t - s) within an episode, else nothing."""
    episode = torch.from_numpy(np.random.default_rng(SEED).integers(0, 2, (4, steps)).cumsum(1))
    log_prob = torch.zeros(4, steps, dtype=torch.float64)
    ours = torch.autograd.functional.jacobian(
        lambda x: losses._sums(x, reach_of(episode, lam, torch.float64)), log_prob
    )
    theirs = torch.autograd.functional.jacobian(lambda x: sums_back(x, episode, lam), log_prob)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_without_learnt_rates_the_one_of_the_settings_holds() -> None:
    """No rates are the same as all of them at the rate of the settings, and have no slopes."""
    made = agent()
    parameters = as_parameters(made.network)
    rates = {k: torch.tensor(made.config.adapt.lr, dtype=torch.float64) for k in parameters}
    sets = stacked([batch(made, 11), batch(made, 12)]), stacked([batch(made, 13), batch(made, 14)])
    config = MetaConfig(steps=2)
    without, with_rates = (
        meta_gradient(made.policy, parameters, some, *sets, config, made.config.adapt)
        for some in ({}, rates)
    )
    assert without.rates == {}
    assert with_rates.rates.keys() == rates.keys()
    for name, slope in without.parameters.items():
        torch.testing.assert_close(slope, with_rates.parameters[name], rtol=1e-12, atol=1e-14)


def test_generalised_advantages_are_those_of_the_sum_over_the_future() -> None:
    """Term by term, with a termination and a truncation in the middle."""
    rng = np.random.default_rng(SEED)
    steps, lam, gamma = 30, 0.9, 0.97
    r, v, v_next = rng.normal(size=(3, steps))
    terminated, truncated = rng.random(steps) < 0.1, rng.random(steps) < 0.1
    terminated[7], truncated[15] = True, True
    cut = terminated | truncated
    discount = np.where(terminated, 0.0, gamma)
    expected = np.zeros(steps)
    for t in range(steps):
        factor = 1.0
        for k in range(t, steps):
            expected[t] += factor * (r[k] + discount[k] * v_next[k] - v[k])
            if cut[k]:
                break
            factor *= discount[k] * lam
    ours = gae(*(torch.from_numpy(x) for x in (r, v, v_next, discount, cut.astype(float))), lam)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)


def test_the_penalty_pulls_the_parameters_back_to_the_policy_that_acted() -> None:
    """On the support, by its weight, before adaptation; nothing where the parameters are still there."""
    made = agent()
    parameters = as_parameters(made.network)
    support, query = batch(made, 21), batch(made, 22)
    elsewhere = {name: value.detach() + 0.1 for name, value in parameters.items()}

    def slopes(of: Parameters, kl: float, steps: int = 1) -> Parameters:
        found = meta_gradient(
            made.policy, of, {}, stacked([support]), stacked([query]),
            MetaConfig(steps=steps, kl=kl), made.config.adapt,
        )  # fmt: skip
        return found.parameters

    leaves = {name: value.clone().requires_grad_() for name, value in elsewhere.items()}
    penalty = losses.divergence(log_prob_of(made, leaves, support), support.log_prob).mean()
    pulls = dict(zip(leaves, torch.autograd.grad(penalty, list(leaves.values())), strict=True))
    for steps in (0, 1):
        with_it, without = slopes(elsewhere, 3.0, steps), slopes(elsewhere, 0.0, steps)
        for name, pull in pulls.items():
            torch.testing.assert_close(
                with_it[name] - without[name], 3.0 * pull, rtol=1e-8, atol=1e-12
            )
    assert any(float(pull.abs().max()) > 1e-3 for pull in pulls.values())
    at_home, home = slopes(parameters, 3.0), slopes(parameters, 0.0)
    for name, slope in home.items():
        torch.testing.assert_close(at_home[name], slope, rtol=1e-10, atol=1e-12)


def test_one_task_is_its_own_loss() -> None:
    """`task_loss` with no steps is the surrogate at the parameters themselves."""
    made = agent()
    support, query = batch(made, 6), batch(made, 7)
    parameters = as_parameters(made.network)
    rates = {k: torch.ones_like(v) for k, v in parameters.items()}
    config = MetaConfig(steps=0, kl=0.0, clip=0.3)
    loss = task_loss(made.policy, parameters, rates, support, query, config, made.config.adapt)
    plain = ppo_loss(log_prob_of(made, parameters, query), query.log_prob, query.advantage, 0.3)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-12)
