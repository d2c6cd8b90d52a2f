"""The outer loop over real environments: exact when it goes on, and refused where it cannot be right."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.adaptation import adapted, as_parameters  # noqa: E402
from streambot.agents.batch import Batch  # noqa: E402
from streambot.agents.maml import MetaConfig  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import PPOAgent  # noqa: E402
from streambot.domain.errors import DataError  # noqa: E402
from streambot.learning.meta import (  # noqa: E402
    MetaLearner,
    MetaTrainConfig,
    acting,
    adaptation_curve,
    adapted_all,
    first_rates,
    task_batch,
)
from streambot.learning.policy import agent_config  # noqa: E402
from streambot.learning.scaling import RewardScale  # noqa: E402
from streambot.learning.tasks import Arena, TaskPool  # noqa: E402
from tests.conftest import SEED  # noqa: E402
from tests.unit.learning.test_tasks import CPU, SETTINGS, TASKS, source  # noqa: E402

pytestmark = pytest.mark.train
CONFIG = MetaTrainConfig(updates=6, tasks=2, task=TASKS, meta=MetaConfig(steps=2), seed=SEED)


def market() -> TaskPool:
    return TaskPool([source("A"), source("B", seed=SEED + 1)], SETTINGS, TASKS)


def agent(kind: type[PPOAgent] = MoEAgent) -> PPOAgent:
    return kind(agent_config(market().config, hidden=(8,), gate_hidden=(8,), seed=3))


def learner(of: PPOAgent, config: MetaTrainConfig = CONFIG) -> MetaLearner:
    return MetaLearner(of, market(), config, RewardScale(0.99))


def everything(of: MetaLearner) -> dict[str, Any]:
    return {n: v.clone() for n, v in (of.agent.state() | of.state()).items()}


@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_a_training_goes_on_bit_for_bit(kind: type[PPOAgent]) -> None:
    """Four updates in one go are two, a state taken over by others, and two."""
    whole = learner(agent(kind))
    for number in range(2):
        whole.update(number)
    kept, moments = everything(whole), whole._scale.moments
    right = [whole.update(number)[0] for number in (2, 3)]
    other = learner(agent(kind))
    other.agent.load(kept)
    other.load(kept)
    other._scale.moments = moments
    assert [other.update(number)[0] for number in (2, 3)] == right
    ours, theirs = everything(other), everything(whole)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_an_update_moves_parameters_rates_and_critic() -> None:
    of = learner(agent())
    before = everything(of)
    stats, _ = of.update(0)
    after = everything(of)
    for part in ("network.", "critic.", "rate."):
        assert any(not torch.equal(after[n], before[n]) for n in before if n.startswith(part)), part
    assert stats.steps == 2 * 3 * (20 + 15)
    assert 0 < stats.gate_entropy < np.log(4) + 1e-6


def test_rates_stay_where_they_are_unless_they_are_learnt() -> None:
    config = msgspec.structs.replace(CONFIG, meta=MetaConfig(learn_rates=False))
    of = learner(agent(), config)
    of.update(0)
    rates = torch.cat([rate.detach().flatten() for rate in of.rates.values()])
    assert torch.equal(rates, torch.full_like(rates, of.agent.config.adapt.lr))


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_every_task_is_adapted_to_by_itself(kind: type[PPOAgent], steps: int) -> None:
    """All at once are one after the other, and each acts with its own parameters."""
    of, pool = agent(kind), market()
    arena, draws = Arena(pool, 2), np.random.default_rng(SEED)
    tasks = pool.draw(2, draws)
    played = arena.play(tasks, of.select_action, draws, query=False, device=CPU)
    support = task_batch(of, played, TASKS.accounts)
    rates = first_rates(of)
    together = adapted_all(of, support, steps, rates)
    assert not any(value.requires_grad for value in together.values())
    for k in range(2):
        alone = adapted(
            of.policy, as_parameters(of.network), Batch(*(part[k] for part in support)), steps,
            of.config.adapt, rates,
        )  # fmt: skip
        for name, value in alone.items():
            torch.testing.assert_close(together[name][k], value, rtol=0, atol=1e-6)
        obs, mask = support.obs[k, :, 0], support.mask[k, :, 0]
        both = acting(of, together)(
            support.obs[:, :, 0], support.mask[:, :, 0], torch.full((2, TASKS.accounts), 0.3)
        )
        log_probs = of.policy(alone, obs, mask).detach()
        torch.testing.assert_close(
            both[1][k], log_probs.gather(-1, both[0][k].unsqueeze(-1)).squeeze(-1),
            rtol=0, atol=1e-6,
        )  # fmt: skip


def test_advantages_are_compared_within_a_task_alone() -> None:
    of, pool = agent(), market()
    arena, draws = Arena(pool, 2), np.random.default_rng(SEED)
    played = arena.play(pool.draw(2, draws), of.select_action, draws, query=False, device=CPU)
    played.reward[:, : TASKS.accounts] *= 1_000
    support = task_batch(of, played, TASKS.accounts)
    assert support.obs.shape[:3] == (2, TASKS.accounts, TASKS.support)
    for advantage in support.advantage:
        assert float(advantage.mean()) == pytest.approx(0, abs=1e-5)
        assert float(advantage.pow(2).mean()) == pytest.approx(1, rel=1e-3)


def test_the_curve_is_the_same_whenever_it_is_looked_at() -> None:
    """No chance of the training's, none left behind; k = 0 is the policy as it is."""
    of, pool = agent(), market()
    rates = first_rates(of)
    first = adaptation_curve(of, pool, 2, rates, steps=2, seed=SEED)
    arena = Arena(pool, 2)
    second = adaptation_curve(of, pool, 2, rates, steps=2, seed=SEED, arena=arena)
    third = adaptation_curve(of, pool, 2, rates, steps=2, seed=SEED, arena=arena)
    assert first.shape == (3, 2)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    of = learner(agent())
    of.update(0)
    with torch.no_grad():
        next(iter(of.rates.values())).fill_(float("nan"))
    before = everything(of)
    with pytest.raises(DataError, match="numbers that are none"):
        of.update(1)
    after = everything(of)
    for name, value in before.items():
        if name.startswith("network."):
            assert torch.equal(after[name], value), name
