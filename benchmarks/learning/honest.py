"""Claim 5: where nothing can be known, nothing is earned; and a leak put in on purpose is found.

The market is a random walk whose close is a martingale. Whatever a policy does there, it earns less
than nothing by what it pays in brokerage, and exactly nothing in expectation where it pays none. The
control shows the policy the features of the bar that is still to come: if learning did not find
that, the rest would say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning import trading
from benchmarks.learning.bars import BROKERAGE, LeakingSource, market
from benchmarks.learning.claim import Claim, Line, of, table
from benchmarks.learning.decisions import PLAY, TEST, TRAIN
from benchmarks.learning.intervals import interval
from benchmarks.learning.trading import TradingConfig
from streambot.agents.moe import MoEAgent


class Arm(NamedTuple):
    """An arm: what an order costs, and whether the next bar can be seen."""

    brokerage: int
    leaks: bool


ARMS = {
    "brokerage": Arm(BROKERAGE, leaks=False),
    "no brokerage": Arm(0, leaks=False),
    "brokerage, the next bar is seen": Arm(BROKERAGE, leaks=True),
    "no brokerage, the next bar is seen": Arm(0, leaks=True),
}


def run(config: TradingConfig, seed: int, tuned: dict[str, Any]) -> Iterator[Line]:
    """A mixture in each arm, trained on one walk and judged on another."""
    del tuned
    seen, fresh = (
        market(np.random.default_rng([seed, s]), config.bars, mu=0.0) for s in (TRAIN, TEST)
    )
    for name in ARMS:
        yield from earned(name, seen, fresh, config, seed)


def earned(name: str, seen: Any, fresh: Any, config: TradingConfig, seed: int) -> Iterator[Line]:  # noqa: ANN401
    """What an arm earns, with the likeliest action and with drawn ones."""
    arm = ARMS[name]
    sources = [market_.source(arm.brokerage) for market_ in (seen, fresh)]
    train, test = [LeakingSource(s) if arm.leaks else s for s in sources]
    env = trading.environment(train, config.envs)
    who = trading.train(trading.learner(MoEAgent, seed, config, env), env, config, seed)
    ways = {
        "likeliest": trading.greedy(who),
        "drawn": trading.sampled(who, np.random.default_rng([seed, PLAY])),
    }
    for way, policy in ways.items():
        played = trading.play(test, policy, config.episodes, seed, arm.brokerage)
        yield {
            "arm": name, "actions": way, "seed": seed, "net": float(played.net.mean()),
            "gross": float((played.net + played.paid).mean()),
            "orders": float(played.orders.mean()),
        }  # fmt: skip


def summary(lines: Sequence[Line]) -> str:
    """Net and gross by arm."""
    rows = [
        [
            name, way,
            *(interval(of(lines, m, arm=name, actions=way), _mean) for m in ("net", "gross", "orders")),
        ]
        for name in ARMS
        for way in ("likeliest", "drawn")
    ]  # fmt: skip
    header = ["random walk", "actions", "net P&L of an episode", "before brokerage", "orders"]
    return "Means over seeds:\n\n" + table(header, rows)


def _mean(values: Any) -> Any:  # noqa: ANN401
    return values.mean(-1)


CLAIM = Claim(
    says="nothing is earned where nothing can be known",
    config=TradingConfig(),
    quick=TradingConfig(bars=4_000, updates=10, episodes=32),
    run=run,
    summary=summary,
)
