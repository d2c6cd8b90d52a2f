"""Adaptation before an evaluation: on earlier bars alone, by the agent's own gradient steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.checkpoint import save_checkpoint  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.domain.errors import DataError  # noqa: E402
from streambot.env.passage import Stretch  # noqa: E402
from streambot.env.settings import make_config  # noqa: E402
from streambot.env.vector_env import VectorTradingEnv  # noqa: E402
from streambot.learning.adapting import Adaptation, adapt, rates_of, scale_of  # noqa: E402
from streambot.learning.experience import Experience  # noqa: E402
from streambot.learning.meta import task_batch  # noqa: E402
from streambot.learning.policy import LoadedPolicy, agent_config, load_policy  # noqa: E402
from tests.three_markets import SETTINGS, SYMBOLS, three_markets  # noqa: E402
from tests.trained import Given  # noqa: E402

pytestmark = pytest.mark.train
ENV = make_config(SETTINGS)
FIRST, GAP = 200, 3 + 32
SPANS = [Stretch(n, FIRST, FIRST + 100) for n in range(3)]
HOW = Adaptation(steps=2, bars=60, accounts=4, seed=9)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return three_markets(tmp_path_factory.mktemp("three"))


def policy(folder: Path, **kept: Any) -> LoadedPolicy:
    agent = MoEAgent(agent_config(ENV, hidden=(8,)))
    save_checkpoint(folder, agent, env=SETTINGS, **kept)
    return load_policy(folder)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a | b)


def test_it_is_the_agents_own_adaptation(market: Given, tmp_path: Path) -> None:
    """Of one instrument: its accounts stepped by hand, and `agent.adapt` on what came of it."""
    loaded = policy(tmp_path)
    agent, accounts, bars = loaded.agent, HOW.accounts, HOW.bars
    found = adapt(loaded, market, SETTINGS, market.segments, SPANS[1:2], HOW)
    env = VectorTradingEnv(
        market, accounts, autoreset_mode="Disabled", **SETTINGS | {"episode_bars": bars}
    )
    first = FIRST - GAP - bars
    obs, info = env.reset(seed=0, options={"instrument": SYMBOLS[1], "bar": first, "bars": bars})
    draws = np.random.default_rng([HOW.seed, 5])
    kept = Experience(bars, accounts, obs.shape[1], info["action_mask"].shape[1])
    for t in range(bars):
        kept.obs[t], kept.mask[t], kept.episode[t] = obs, info["action_mask"], np.arange(accounts)
        uniform = torch.from_numpy(draws.random((1, accounts), np.float32))[0]
        action, log = agent.select_action(
            torch.from_numpy(obs), torch.from_numpy(info["action_mask"]), uniform
        )
        kept.action[t], kept.log_prob[t] = action.numpy(), log.numpy()
        obs, kept.reward[t], terminated, truncated, info = env.step(kept.action[t])
        kept.terminated[t], kept.over[t], kept.reached[t] = terminated, terminated | truncated, obs
    assert kept.over[:-1].sum() == 0
    assert kept.over[-1].all()
    support = task_batch(agent, kept, accounts, scale_of(loaded))
    by_hand = agent.adapt(type(support)(*(part[0] for part in support)), HOW.steps)
    before = dict(agent.network.named_parameters())
    moved = 0.0
    for name, value in by_hand.items():
        torch.testing.assert_close(found[name][0], value.detach(), atol=1e-5, rtol=1e-4)
        moved = max(moved, float((value - before[name]).detach().abs().max()))
    assert moved > 1e-3


def test_nothing_of_the_range_or_the_embargo_is_looked_at(market: Given, tmp_path: Path) -> None:
    """Another future from the embargo on, and the parameters are the same bit for bit."""
    loaded = policy(tmp_path)
    now = adapt(loaded, market, SETTINGS, market.segments, SPANS, HOW)
    closes = [market.segments.bars_of(n)["close_ts"][FIRST - GAP] for n in range(3)]
    until = np.datetime64(int(min(closes)), "ns").astype("datetime64[m]")
    other = three_markets(tmp_path / "other", until=str(until))
    k = closes.index(min(closes))
    low, high = market.segments.bars_of(k)["close"], other.segments.bars_of(k)["close"]
    assert (low[: FIRST - GAP + 1] == high[: FIRST - GAP + 1]).all()
    assert (low[FIRST - GAP + 1 :] != high[FIRST - GAP + 1 :]).any()
    later = adapt(loaded, other, SETTINGS, other.segments, SPANS, HOW)
    for name, value in now.items():
        assert torch.equal(value[k], later[name][k])


def test_a_seed_gives_the_same_parameters(market: Given, tmp_path: Path) -> None:
    """Whatever else is judged, and whatever range the settings name."""
    loaded = policy(tmp_path)
    again = [adapt(loaded, market, SETTINGS, market.segments, SPANS, HOW) for _ in range(2)]
    assert same(*again)
    other = adapt(loaded, market, SETTINGS, market.segments, SPANS, HOW._replace(seed=10))
    assert not same(again[0], other)
    alone = adapt(loaded, market, SETTINGS, market.segments, SPANS[2:], HOW)
    assert all(torch.equal(alone[name][0], value[2]) for name, value in again[0].items())
    # A range that the settings name is no range of the support.
    narrow = SETTINGS | {"start": "2019-05-10", "end": "2019-05-12"}
    assert same(again[0], adapt(loaded, market, narrow, market.segments, SPANS, HOW))


def test_learnt_rates_are_used(market: Given, tmp_path: Path) -> None:
    plain = policy(tmp_path / "plain")
    names = dict(plain.agent.network.named_parameters())
    assert rates_of(plain) is None
    still = {f"rate.{name}": torch.zeros_like(value) for name, value in names.items()}
    moving = max(names, key=lambda name: names[name].numel())
    still[f"rate.{moving}"] += 0.5
    taught = policy(tmp_path / "taught", extra=still | {"outer.0.step": torch.ones(1)})
    found = adapt(taught, market, SETTINGS, market.segments, SPANS, HOW)
    for name, value in names.items():
        assert torch.equal(found[name][0], value.detach()) == (name != moving), name
    broken = policy(tmp_path / "broken", extra={"rate.nothing": torch.ones(1)})
    with pytest.raises(DataError, match="rates of other parameters"):
        rates_of(broken)


def test_too_few_bars_before_the_range_are_told_by_name(market: Given, tmp_path: Path) -> None:
    early = [Stretch(0, 100, 200), *SPANS[1:]]
    with pytest.raises(DataError, match=r"AAA has 80; 60 of support and 35 between") as refused:
        adapt(policy(tmp_path), market, SETTINGS, market.segments, early, HOW)
    assert "--support-bars" in refused.value.hint
    enough = [Stretch(0, 115, 200), *SPANS[1:]]
    adapt(policy(tmp_path), market, SETTINGS, market.segments, enough, HOW)


def test_steps_that_diverge_are_told(market: Given, tmp_path: Path) -> None:
    loaded = policy(tmp_path)
    names = dict(loaded.agent.network.named_parameters())
    wild = {f"rate.{name}": torch.full_like(value, float("inf")) for name, value in names.items()}
    taught = policy(tmp_path / "wild", extra=wild)
    with pytest.raises(DataError, match="adapting to AAA has diverged"):
        adapt(taught, market, SETTINGS, market.segments, SPANS, HOW)


def test_the_scale_of_the_rewards_is_that_of_the_training(tmp_path: Path) -> None:
    progress = {"returns_seen": 50.0, "returns_mean": 1.0, "returns_squares": 200.0}
    assert scale_of(policy(tmp_path, progress=progress)).factor == 0.5
    assert scale_of(policy(tmp_path)).factor == 1.0
