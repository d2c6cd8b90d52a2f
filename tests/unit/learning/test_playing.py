"""A trained policy in a passage is the same policy in environments of its own, one bar at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from streambot.agents.adaptation import as_parameters  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import PPOAgent  # noqa: E402
from streambot.domain.errors import StrategyError  # noqa: E402
from streambot.env.passage import Stretch, stretches  # noqa: E402
from streambot.env.settings import make_config  # noqa: E402
from streambot.env.trading_env import TradingEnv  # noqa: E402
from streambot.learning.playing import Played, play, scripted, trained  # noqa: E402
from streambot.learning.policy import agent_config, load_policy  # noqa: E402
from tests.three_markets import SETTINGS, three_markets  # noqa: E402
from tests.trained import Given, save_loud  # noqa: E402

pytestmark = pytest.mark.train
ENV = make_config(SETTINGS)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return three_markets(tmp_path_factory.mktemp("three"))


def loud(folder: Path, kind: str = "moe", seed: int = 1) -> PPOAgent:
    """An agent that was not trained, with answers far from uniform: it does trade."""
    return load_policy(save_loud(folder / f"{kind}-{seed}", kind, seed=seed, env=SETTINGS)).agent


def spans_of(market: Given) -> list[Stretch]:
    return stretches(market.segments, ENV, None, None)[0]


def alone(market: Given, agent: PPOAgent, span: Stretch) -> tuple[list[float], bool]:
    """Equity at every close of one episode of `TradingEnv`, and whether it terminated."""
    symbol = market.segments.head.instruments[span.instrument].symbol
    env = TradingEnv(market, **SETTINGS | {"episode_bars": None, "max_gap": "300d"})
    obs, info = env.reset(options={"instrument": symbol, "bar": span.first, "bars": 0})
    equity, over = [info["equity"]], False
    terminated = False
    while not over:
        action, _ = agent.select_action(
            torch.from_numpy(obs), torch.from_numpy(info["action_mask"])
        )
        obs, _, terminated, truncated, info = env.step(int(action))
        equity.append(info["equity"])
        over = terminated or truncated
    return equity, terminated


@pytest.mark.parametrize("kind", ["moe", "ppo"])
def test_a_passage_is_an_episode_of_every_instrument(
    kind: str, market: Given, tmp_path: Path
) -> None:
    spans, agent = spans_of(market), loud(tmp_path, kind)
    (mine,) = play(market.segments, ENV, spans, {"policy": trained(agent)})
    for account, span in zip(mine.accounts, spans, strict=True):
        equity, terminated = alone(market, agent, span)
        found = account.equity[: len(equity)] * 10.0**-account.instrument.money_decimals
        assert found.tolist() == equity
        assert terminated == (account.trades.breached is not None)
        assert terminated or len(equity) == len(account.equity)
        assert account.trades.fills >= 2
        assert account.brokerage > 0


def ends(played: Played) -> list[int]:
    return [int(account.equity[-1]) for account in played.accounts]


def test_nobody_changes_what_others_get(market: Given, tmp_path: Path) -> None:
    """Alone, or beside others: instruments and contenders do not know of each other."""
    spans, agent = spans_of(market), loud(tmp_path)
    contenders = {
        "policy": trained(agent), "random": scripted("random", seed=3), "drawn": trained(agent, seed=5),
    }  # fmt: skip
    together = {p.name: ends(p) for p in play(market.segments, ENV, spans, contenders)}
    for name, contender in contenders.items():
        (apart,) = play(market.segments, ENV, spans, {name: contender})
        assert ends(apart) == together[name]
    for k, span in enumerate(spans):
        (one,) = play(market.segments, ENV, [span], {"policy": contenders["policy"]})
        assert ends(one) == [together["policy"][k]]
    assert together["drawn"] != together["policy"]


def test_sampled_actions_are_those_of_their_seed(market: Given) -> None:
    spans, agent = spans_of(market), MoEAgent(agent_config(ENV, hidden=(16,)))
    drawn = {f"{k}": trained(agent, seed=seed) for k, seed in enumerate((1, 1, 2))}
    first, again, other = play(market.segments, ENV, spans, drawn)
    assert ends(first) == ends(again) != ends(other)


def test_every_instrument_has_parameters_of_its_own(market: Given, tmp_path: Path) -> None:
    """Each account of adapted parameters does what an agent with those parameters does there."""
    spans = spans_of(market)[::-1]  # the first one is the first to end
    assert spans[0].last - spans[0].first < spans[1].last - spans[1].first
    agents = [loud(tmp_path, seed=seed) for seed in (1, 2, 3)]
    own = [as_parameters(agent.network) for agent in agents]
    stacked = {name: torch.stack([p[name] for p in own]).detach() for name in own[0]}
    (adapted,) = play(market.segments, ENV, spans, {"a": trained(agents[0], parameters=stacked)})
    results = []
    for k, agent in enumerate(agents):
        (whole,) = play(market.segments, ENV, spans, {"a": trained(agent)})
        results.append(ends(whole))
        assert ends(adapted)[k] == ends(whole)[k]
    assert results[0] != results[1] != results[2]


def test_an_answer_that_is_not_legal_stops_it(market: Given, tmp_path: Path) -> None:
    """Weights beyond all bounds drown the mask: nothing of it is traded."""
    agent = loud(tmp_path, "ppo")
    with torch.no_grad():
        last = dict(agent.network.named_parameters())
        last["layers.2.weight"].zero_()
        last["layers.2.bias"].fill_(-1e30)
    with pytest.raises(StrategyError, match="no legal answer on AAA"):
        play(market.segments, ENV, spans_of(market), {"policy": trained(agent)})


def test_progress_is_told_to_the_end(market: Given) -> None:
    told: list[tuple[int, int]] = []
    spans = spans_of(market)
    play(
        market.segments, ENV, spans, {"flat": scripted("flat")},
        on_step=lambda *at: told.append(at),
    )  # fmt: skip
    steps = max(span.last - span.first for span in spans)
    assert told[0] == (0, steps)
    assert told[-1] == (steps, steps)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_lots_of_the_controls(market: Given) -> None:
    """As many as were said; else as many as the capital buys, on every instrument."""
    spans = spans_of(market)
    said = {"two": scripted("buy-hold", lots=2), "most": scripted("buy-hold")}
    two, most = play(market.segments, ENV, spans, said)
    for each, all_of_it in zip(two.accounts, most.accounts, strict=True):
        assert all_of_it.lots == 3
        assert all_of_it.trades.rejected == {}
        assert all_of_it.held == each.held == 1.0
        # One entry each, at the same price.
        assert all_of_it.trades.traded * 2 == each.trades.traded * 3 > 0
