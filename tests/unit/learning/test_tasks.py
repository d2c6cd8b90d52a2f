"""Tasks lie where they say, their query behind their support, and are played as an environment plays."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.domain.bars import BarBlock  # noqa: E402
from streambot.domain.errors import ConfigError, DataError  # noqa: E402
from streambot.domain.instruments import Instrument, InstrumentType  # noqa: E402
from streambot.env.sources import ArraySource  # noqa: E402
from streambot.env.trading_env import TradingEnv  # noqa: E402
from streambot.learning.tasks import Arena, TaskConfig, TaskPool  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train
CPU = torch.device("cpu")
BARS = 400
TASKS = TaskConfig(support=20, query=15, horizon=5, accounts=3)
SETTINGS: dict[str, Any] = {
    "capital": 600, "max_quantity": 5, "warmup": 0, "window": 10, "drawdown_limit_bp": 40,
}  # fmt: skip
LENGTH = 20 + 15 + 15


def source(symbol: str = "S", bars: int = BARS, seed: int = SEED) -> ArraySource:
    rng = np.random.default_rng(seed)
    close = 10_000 + np.cumsum(rng.integers(-30, 31, bars))
    open_ = np.concatenate([[10_000], close[:-1]])
    data = BarBlock(
        np.arange(bars) * 60 * 10**9, np.full(bars, 60 * 10**9), open_,
        np.maximum(open_, close) + 5, np.minimum(open_, close) - 5, close, np.full(bars, 10),
        np.zeros(bars, np.uint8),
    )  # fmt: skip
    return ArraySource(
        Instrument(symbol=symbol, type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01")),
        data,
    )


def pool(sources: int = 1, tasks: TaskConfig = TASKS, **settings: Any) -> TaskPool:
    of = [source(f"S{k}", seed=SEED + k) for k in range(sources)]
    return TaskPool(of, SETTINGS | settings, tasks)


def test_every_task_lies_inside_the_data_with_its_query_behind_the_embargo() -> None:
    """All of them: none begins before the bars looked back on, none ends beyond the last bar."""
    of = pool()
    assert len(of) == BARS - 64 - LENGTH
    for number in range(len(of)):
        task = of.at(0, number)
        assert task.bar == 64 + number
        assert task.query_bar - task.bar == 20 + 15
        assert task.query_bar + TASKS.query < BARS


def test_tasks_inside_a_range_of_time_only() -> None:
    of = pool(start="1970-01-01T02:00", end="1970-01-01T05:00")
    bars = [of.at(0, n) for n in range(len(of))]
    assert bars[0].bar >= 119
    assert bars[-1].query_bar + TASKS.query < 300


def test_draws_are_shared_equally_by_timeframes_and_repeat() -> None:
    of = pool(3)
    tasks = of.draw(6, np.random.default_rng(SEED))
    assert [task.source for task in tasks] == [0, 0, 1, 1, 2, 2]
    assert tasks == of.draw(6, np.random.default_rng(SEED))
    with pytest.raises(ConfigError, match="cannot be shared equally"):
        of.draw(7, np.random.default_rng(SEED))


@pytest.mark.parametrize(
    ("tasks", "error", "said"),
    [
        (TaskConfig(embargo=14, horizon=5), ConfigError, "an embargo of 14 bars"),
        (TaskConfig(support=300, query=100), DataError, "too few bars for one task: S0 "),
    ],
)
def test_tasks_that_leak_or_do_not_fit_are_refused(
    tasks: TaskConfig, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        pool(tasks=tasks)


def test_instruments_must_be_there() -> None:
    with pytest.raises(ConfigError, match="no instrument `X`"):
        TaskPool([source()], SETTINGS, TASKS, instruments=["X"])


def uniform_legal(obs: Any, mask: Any, uniform: Any) -> tuple[Any, Any]:
    legal = mask.float()
    chance = legal / legal.sum(-1, keepdim=True)
    action = (uniform.unsqueeze(-1) > chance.cumsum(-1)).sum(-1).clamp(max=mask.shape[-1] - 1)
    return action, chance.gather(-1, action.unsqueeze(-1)).squeeze(-1).log()


@pytest.mark.parametrize("query", [False, True])
def test_a_task_is_played_as_an_environment_plays_it(query: bool) -> None:
    """Every account again by itself: observations, masks, rewards, ends; and where it begins anew."""
    of = pool(2)
    arena = Arena(of, 4, seed=SEED)
    draws = np.random.default_rng(SEED)
    tasks = of.draw(4, draws)
    arena.play(of.draw(4, draws), uniform_legal, draws, query=True, device=CPU)  # leaves nothing
    kept = arena.play(tasks, uniform_legal, draws, query=query, device=CPU)
    steps = TASKS.query if query else TASKS.support
    ends = 0
    for column in range(4 * TASKS.accounts):
        task = tasks[column // TASKS.accounts]
        begins = task.query_bar if query else task.bar
        env = TradingEnv(of.sources[task.source], **of.settings)
        obs, info = env.reset(seed=1, options={"bar": begins, "bars": steps})
        episode = kept.episode[0, column]
        for t in range(steps):
            np.testing.assert_array_equal(kept.obs[t, column], obs)
            np.testing.assert_array_equal(kept.mask[t, column], info["action_mask"])
            assert kept.episode[t, column] == episode
            obs, reward, terminated, truncated, info = env.step(int(kept.action[t, column]))
            np.testing.assert_array_equal(kept.reached[t, column], obs)
            assert kept.reward[t, column] == np.float32(reward)
            assert kept.terminated[t, column] == terminated
            assert kept.over[t, column] == (terminated or truncated)
            if terminated and t + 1 < steps:
                ends += 1
                episode += 4 * TASKS.accounts
                obs, info = env.reset(options={"bar": begins, "bars": steps - 1 - t})
        assert truncated or terminated
    assert ends > 0, "no account ended early: this test says nothing of it"
    assert len(np.unique(kept.episode)) == 4 * TASKS.accounts + ends
