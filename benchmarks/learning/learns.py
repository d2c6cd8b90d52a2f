"""Claim 1: agents learn, in decisions whose best answer is known and in the product's environment.

The measure is the share of what an oracle earns that is told the regime (of decisions) or the drift
of the next bar (of the environment). Controls: random actions, and advantages of the wrong sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from benchmarks.learning import decisions, trading
from benchmarks.learning.bars import BROKERAGE, market
from benchmarks.learning.claim import Claim, Line, of, table
from benchmarks.learning.decisions import RANDOM, TEST, TRAIN, DecisionConfig
from benchmarks.learning.intervals import interval
from benchmarks.learning.mutants import ContraryAgent
from benchmarks.learning.trading import TradingConfig
from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import PPOAgent

AGENTS: dict[str, type[PPOAgent]] = {
    "mixture": MoEAgent,
    "one network": PPOAgent,
    "advantage of the wrong sign": ContraryAgent,
}


class LearnsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The experiment.

    Attributes:
        decide: in decisions.
        trade: in the environment.
    """

    decide: DecisionConfig = DecisionConfig()
    trade: TradingConfig = TradingConfig()


def run(config: LearnsConfig, seed: int, tuned: dict[str, Any]) -> Iterator[Line]:
    """All arms in both markets."""
    del tuned
    yield from deciding(config.decide, seed)
    yield from in_environment(config.trade, seed)


def deciding(config: DecisionConfig, seed: int) -> Iterator[Line]:
    """Shares of the oracle's reward in decisions."""
    given = decisions.data(config, seed)
    for name, kind in AGENTS.items():
        who = decisions.agent(kind, seed, config.lr)
        decisions.train(who, given.train, config, seed)
        share = decisions.share(who, given.test)
        yield {"market": "decisions", "arm": name, "seed": seed, "share": share}
    oracle = given.test.oracle()
    anything = float(given.test.expected().mean())
    yield {"market": "decisions", "arm": "random", "seed": seed, "share": anything / oracle}
    yield {"market": "decisions", "arm": "oracle", "seed": seed, "share": 1.0, "earned": oracle}


def in_environment(config: TradingConfig, seed: int) -> Iterator[Line]:
    """Net P&L of held-out episodes, and its share of the oracle's."""
    seen, fresh = (market(np.random.default_rng([seed, s]), config.bars) for s in (TRAIN, TEST))
    policies = {
        "oracle": trading.told(fresh),
        "random": trading.at_random(np.random.default_rng([seed, RANDOM])),
    }
    for name, kind in AGENTS.items():
        env = trading.environment(seen.source(), config.envs)
        who = trading.train(trading.learner(kind, seed, config, env), env, config, seed)
        policies[name] = trading.greedy(who)
    most = None
    for name, policy in policies.items():
        played = trading.play(fresh.source(), policy, config.episodes, seed, BROKERAGE)
        net = float(played.net.mean())
        most = net if most is None else most
        yield {
            "market": "environment", "arm": name, "seed": seed, "share": net / most, "earned": net,
            "orders": float(played.orders.mean()), "brokerage": float(played.paid.mean()),
        }  # fmt: skip


def summary(lines: Sequence[Line]) -> str:
    """Shares by arm in both markets."""
    parts = []
    for where in ("decisions", "environment"):
        rows = []
        for arm in ("oracle", *AGENTS, "random"):
            found = {"market": where, "arm": arm}
            row: list[object] = [arm, interval(of(lines, "share", **found))]
            if where == "environment":
                row += [
                    interval(of(lines, name, **found)) for name in ("earned", "orders", "brokerage")
                ]
            rows.append(row)
        header = ["arm", "share of the oracle's reward"]
        if where == "environment":
            header += ["net P&L of an episode", "orders of an episode", "brokerage of an episode"]
        parts += [f"In {where}:", table(header, rows)]
    return "\n\n".join(parts)


CLAIM = Claim(
    says="agents learn",
    config=LearnsConfig(),
    quick=LearnsConfig(
        decide=DecisionConfig(paths=40, held_out=20, updates=20),
        trade=TradingConfig(bars=4_000, updates=10, episodes=32),
    ),
    run=run,
    summary=summary,
)
