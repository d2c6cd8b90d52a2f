"""A rollout is what the environments said, step by step, and its advantages end where episodes do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig  # noqa: E402
from streambot.domain.bars import BarBlock  # noqa: E402
from streambot.domain.errors import DataError, UsageError  # noqa: E402
from streambot.domain.instruments import Instrument, InstrumentType  # noqa: E402
from streambot.env.sources import ArraySource  # noqa: E402
from streambot.env.vector_env import VectorTradingEnv  # noqa: E402
from streambot.learning.rollouts import Rollouts  # noqa: E402
from streambot.learning.scaling import RewardScale  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train
N, T = 5, 40


def envs(mode: str = "SameStep", **settings: Any) -> VectorTradingEnv:
    rng = np.random.default_rng(SEED)
    close = 10_000 + np.cumsum(rng.integers(-30, 31, 400))
    open_ = np.concatenate([[10_000], close[:-1]])
    data = BarBlock(
        np.arange(400) * 60 * 10**9, np.full(400, 60 * 10**9), open_, np.maximum(open_, close) + 5,
        np.minimum(open_, close) - 5, close, np.full(400, 10), np.zeros(400, np.uint8),
    )  # fmt: skip
    stock = Instrument(symbol="S", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"))
    return VectorTradingEnv(
        ArraySource(stock, data), N, autoreset_mode=mode, capital=600, max_quantity=5, warmup=0,
        episode_bars=17, drawdown_limit_bp=40, **settings,
    )  # fmt: skip


def agent_for(env: VectorTradingEnv) -> MoEAgent:
    fields = env.observation_fields
    return MoEAgent(
        AgentConfig(
            features=len(fields), actions=12, hidden=(16,), seed=2,
            regimes=tuple(f.position for f in fields if f.group == "regime"),
        )
    )  # fmt: skip


def test_a_rollout_is_what_the_environments_said() -> None:
    """Played again by hand with its actions: observations, masks, rewards, ends, advantages."""
    env = envs()
    agent = agent_for(env)
    rollouts = Rollouts(env, T, seed=SEED)
    twice = [rollouts.collect(agent).batch for _ in range(2)]
    batch = type(twice[0])(*(torch.cat(parts, 1) for parts in zip(*twice, strict=True)))
    twin = envs()
    obs, infos = twin.reset(seed=SEED)
    rewards, over, terminated = (np.zeros((N, 2 * T)) for _ in range(3))
    reached = np.zeros((N, 2 * T, obs.shape[1]), np.float32)
    for t in range(2 * T):
        assert (batch.obs[:, t].numpy() == obs).all()
        assert (batch.mask[:, t].numpy() == infos["action_mask"]).all()
        action = batch.action[:, t].numpy()
        assert infos["action_mask"][np.arange(N), action].all()
        obs, rewards[:, t], ends, cuts, infos = twin.step(action)
        terminated[:, t], over[:, t] = ends, ends | cuts
        reached[:, t] = obs
        for i in np.flatnonzero(ends | cuts):
            reached[i, t] = infos["final_obs"][i]
    assert terminated.sum() >= 2
    assert (over - terminated).sum() >= 2
    again = (
        agent.log_probs(batch.obs, batch.mask).gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    )
    torch.testing.assert_close(again.detach(), batch.log_prob, atol=1e-5, rtol=1e-4)
    value, after = agent.values(batch.obs).numpy(), agent.values(torch.from_numpy(reached)).numpy()
    c = agent.config.learn
    for part in (slice(0, T), slice(T, 2 * T)):
        for i in range(N):
            carried = 0.0
            for t in range(part.stop - 1, part.start - 1, -1):
                discount = c.gamma * (1 - terminated[i, t])
                delta = rewards[i, t] + discount * after[i, t] - value[i, t]
                carried = delta + discount * c.lam * (1 - over[i, t]) * carried
                assert float(batch.advantage[i, t]) == pytest.approx(carried, abs=1e-4)
    changes = np.diff(batch.episode.numpy(), axis=1) != 0
    assert (changes == over[:, :-1].astype(bool)).all()
    assert len(np.unique(batch.episode.numpy())) == N + int(over[:, :-1].sum())


def test_a_seed_gives_the_same_rollouts() -> None:
    first, second = (Rollouts(envs(), T, seed=4).collect(agent_for(envs())) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.batch, second.batch, strict=True))
    assert first.returns == second.returns
    other = Rollouts(envs(), T, seed=5).collect(agent_for(envs()))
    assert not torch.equal(first.batch.obs, other.batch.obs)


def test_environments_that_begin_again_later_are_refused() -> None:
    with pytest.raises(UsageError, match="SameStep"):
        Rollouts(envs("NextStep"), T, seed=1)


def test_rollouts_go_on_from_their_state_bit_for_bit() -> None:
    """Into other environments of the same data: what comes next is the same."""
    scales = RewardScale(0.99), RewardScale(0.99)
    first = Rollouts(envs(), T, seed=SEED, scale=scales[0])
    agent = agent_for(envs())
    first.collect(agent)
    state = {name: value.clone() for name, value in first.state().items()}
    scales[1].moments = scales[0].moments
    right = [first.collect(agent) for _ in range(2)]
    second = Rollouts(envs(), T, seed=SEED, scale=scales[1])
    second.restore(state)
    for expected in right:
        found = second.collect(agent)
        assert found.returns == expected.returns
        for ours, theirs in zip(found.batch, expected.batch, strict=True):
            assert torch.equal(ours, theirs)


def test_a_state_of_other_environments_is_refused() -> None:
    state = Rollouts(envs(), T, seed=SEED).state()
    with pytest.raises(DataError, match="environments of the training were others"):
        Rollouts(envs(window=3), T, seed=SEED).restore(state)


def test_rewards_are_scaled_by_the_spread_of_their_returns() -> None:
    """Against numpy over everything seen; equal rewards of nothing are left alone."""
    rng = np.random.default_rng(SEED)
    scale, seen = RewardScale(0.9), []
    assert scale.factor == 1.0
    for size in (1e-4, 3e-4, 2e-4):
        reward = (rng.normal(size=(30, 4)) * size).astype(np.float32)
        over = rng.random((30, 4)) < 0.1
        scale.see(reward, over)
        for n in range(4):
            carried = 0.0
            for t in range(30):
                carried = reward[t, n] + 0.9 * carried
                seen.append(carried)
                carried = 0.0 if over[t, n] else carried
        assert scale.factor == pytest.approx(1 / np.std(seen), rel=1e-6)
    assert scale(np.float32([-1.0, 1.0])).tolist() == [-10.0, 10.0]
    flat = RewardScale(0.9)
    flat.see(np.zeros((5, 2), np.float32), np.zeros((5, 2), np.bool_))
    assert flat.factor == 1.0
