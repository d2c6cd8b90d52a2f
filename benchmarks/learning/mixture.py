"""Claim 3: a mixture earns more than one network of its size, where there are several regimes.

All arms see the same numbers, learn from the same decisions, as long, each with the learning rate that
was best for it on validation paths, and are judged on the same fresh paths. In a market with one
regime there is nothing to share out, and the mixture should not win.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from benchmarks.learning.claim import TUNING_SEEDS, Claim, Line, differences, of, table
from benchmarks.learning.decisions import (
    DecisionConfig,
    agent,
    data,
    multiplications_of,
    parameters_of,
    share,
    train,
    widths_of_equal_size,
)
from benchmarks.learning.intervals import interval
from benchmarks.learning.mutants import AveragedAgent
from benchmarks.learning.regimes import FEATURES, REVERTING, STANDARD, Shape
from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import PPOAgent

MARKETS = {
    "standard": STANDARD,
    "weaker": Shape(drift=0.3, reversion=0.45),
    "shorter": Shape(shortest=20, longer=30),
}
CONTROL = {"mean reversion only": Shape(only=REVERTING)}


class Arm(NamedTuple):
    """An arm.

    Attributes:
        says: what it is.
        kind, more: how it is made, see `agent`.
        everywhere: on all markets; else on the first one.
    """

    says: str
    kind: type[PPOAgent]
    more: dict[str, Any]
    everywhere: bool = True


class MixtureConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The experiment.

    Attributes:
        learn: of each run.
        rates: learning rates that are tried for every arm.
        tuning_seeds: seeds that they are tried with.
    """

    learn: DecisionConfig = DecisionConfig()
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    tuning_seeds: tuple[int, ...] = TUNING_SEEDS


def arms() -> dict[str, Arm]:
    """All arms; `mixture` is the subject."""
    size = parameters_of(agent(MoEAgent, 0, 1e-3))
    wide, deep = (widths_of_equal_size(size, layers) for layers in (2, 3))
    return {
        "mixture": Arm("four experts, gate on the slow features", MoEAgent, {}),
        "one network": Arm(f"layers {wide}: as large", PPOAgent, {"hidden": wide}),
        "one deep network": Arm(f"layers {deep}: as large", PPOAgent, {"hidden": deep}),
        "averaged": Arm("the same four experts, weighed alike", AveragedAgent, {}),
        "one expert": Arm("layers (64, 64)", PPOAgent, {}, everywhere=False),
        "gate sees all": Arm(
            "four experts, gate on everything", MoEAgent, {"regimes": tuple(range(FEATURES))},
            everywhere=False,
        ),
    }  # fmt: skip


def _earns(arm: Arm, market: Shape, config: DecisionConfig, lr: float, seed: int) -> Line:
    """Train an arm; its shares of the oracle on fresh paths, and on validation paths."""
    given = data(config, seed, market)
    who = train(agent(arm.kind, seed, lr, **arm.more), given.train, config, seed)
    return {"share": share(who, given.test), "validation": share(who, given.validation)}


def tune(config: MixtureConfig) -> dict[str, Any]:
    """The learning rate of each arm that is best on validation paths of the first market."""
    chosen = {}
    for name, arm in arms().items():
        tried = {
            lr: sum(
                _earns(arm, MARKETS["standard"], config.learn, lr, seed)["validation"]
                for seed in config.tuning_seeds
            )
            for lr in config.rates
        }
        chosen[name] = max(tried, key=tried.__getitem__)
    return chosen


def run(config: MixtureConfig, seed: int, tuned: dict[str, Any]) -> Iterator[Line]:
    """All arms on all markets."""
    for name, arm in arms().items():
        size = agent(arm.kind, 0, 1e-3, **arm.more)
        about = {
            "arm": name, "seed": seed, "lr": tuned[name], "parameters": parameters_of(size),
            "multiplications": multiplications_of(size),
        }  # fmt: skip
        for market, shape in MARKETS.items():
            if arm.everywhere or market == "standard":
                earned = _earns(arm, shape, config.learn, tuned[name], seed)
                yield about | {"market": market} | earned
    for name in ("mixture", "one network"):
        for market, shape in CONTROL.items():
            earned = _earns(arms()[name], shape, config.learn, tuned[name], seed)
            yield {"arm": name, "seed": seed, "lr": tuned[name], "market": market} | earned


def summary(lines: Sequence[Line]) -> str:
    """Two tables: what each arm earns, and the mixture less each other arm."""
    earns = partial(of, lines, "share")
    sizes: dict[str, Line] = {str(line["arm"]): line for line in reversed(lines)}
    rows, against = [], []
    for name, arm in arms().items():
        markets = [m for m in (*MARKETS, *CONTROL) if earns(arm=name, market=m)]
        if not markets:
            continue
        cells = [
            interval(earns(arm=name, market=m)) if m in markets else ""
            for m in (*MARKETS, *CONTROL)
        ]
        line = sizes[name]
        rows.append([
            f"{name}: {arm.says}", f"{line['parameters']:,}", f"{line['multiplications']:,}",
            f"{line['lr']:g}", *cells,
        ])  # fmt: skip
        if name != "mixture":
            inside = [m for m in MARKETS if m in markets]
            pooled = differences(lines, "share", "mixture", name, inside)
            parts = [
                differences(lines, "share", "mixture", name, [m]) if m in markets else ""
                for m in (*MARKETS, *CONTROL)
            ]
            against.append([name, pooled, *parts])
    names = [*MARKETS, *CONTROL]
    return "\n\n".join([
        "Share of the oracle's reward on fresh paths:",
        table(["arm", "parameters", "multiply-adds", "rate", *names], rows),
        "The mixture less each arm, seed by seed on the same paths:",
        table(["mixture less", "all markets with several regimes", *names], against),
    ])  # fmt: skip


CLAIM = Claim(
    says="a mixture of experts earns more than one network of its size",
    config=MixtureConfig(),
    quick=MixtureConfig(
        learn=DecisionConfig(paths=40, held_out=20, updates=20),
        rates=(3e-3,),
        tuning_seeds=(1_001,),
    ),
    run=run,
    summary=summary,
    tune=tune,
)
