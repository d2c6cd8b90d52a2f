"""Claim 4: a few gradient steps on a new task do more for a policy that was meta-trained.

All arms are the same mixture, see the same tasks in the same order, and take as many decisions in
training; the entropy bonus is tuned for each, and the inner rate for each number of steps. What is
compared is what held-out tasks pay after k steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.learning.claim import Claim, Line, of, table
from benchmarks.learning.hidden import draw
from benchmarks.learning.intervals import interval
from benchmarks.learning.meta import (
    STEPS,
    TEST,
    VALIDATION,
    AdaptsConfig,
    Recipe,
    sign_of,
    trained,
    with_rates,
)

ARMS = {
    "random parameters": Recipe(trains=False, learn_rates=False),
    "all tasks together (ERM)": Recipe(steps=0, learn_rates=False),
    "FOMAML": Recipe(first_order=True),
    "MAML, fixed rate": Recipe(learn_rates=False),
    "MAML, learnt rates": Recipe(),
}
SUBJECT = "MAML, learnt rates"
MUTANTS = {
    "inner loop detached": Recipe(mutant="detached"),
    "support and query swapped": Recipe(mutant="swapped"),
    "advantage of the wrong sign": Recipe(mutant="contrary"),
    "gate that weighs all alike": Recipe(mutant="even gate"),
}


def tune(config: AdaptsConfig) -> dict[str, Any]:
    """The entropy bonus of each arm that is best on validation tasks, over 1 to 5 steps."""
    chosen: dict[str, Any] = {}
    for name, recipe in ARMS.items():
        tried = dict.fromkeys(config.entropies if recipe.trains else config.entropies[:1], 0.0)
        for entropy in tried if len(tried) > 1 else ():
            for seed in config.tuning_seeds:
                who, rates = trained(recipe, config, entropy, seed)
                found = with_rates(who, rates, config, seed, VALIDATION)
                tried[entropy] += sum(max(found[k].values()) for k in STEPS if k)
        chosen[name] = max(tried, key=tried.__getitem__)
    return chosen


def run(config: AdaptsConfig, seed: int, tuned: dict[str, Any]) -> Iterator[Line]:
    """All arms and mutants; a mutant is trained as `SUBJECT` is, but for what is broken."""
    oracle = draw(np.random.default_rng([seed, TEST]), config.held_out, config.decisions)
    yield {"arm": "oracle", "seed": seed, "k=0": oracle.query.oracle()}
    for name, recipe in (ARMS | MUTANTS).items():
        entropy = tuned[name if name in ARMS else SUBJECT]
        who, rates = trained(recipe, config, entropy, seed)
        sign = sign_of(recipe)
        tried = with_rates(who, rates, config, seed, VALIDATION, sign)
        best = {k: max(by_rate, key=by_rate.__getitem__) for k, by_rate in tried.items()}
        found = with_rates(who, rates, config, seed, TEST, sign)
        yield {
            "arm": name, "seed": seed, "entropy": entropy,
            "rates": {f"k={k}": times for k, times in best.items()},
        } | {f"k={k}": found[k][best[k]] for k in STEPS}  # fmt: skip


def summary(lines: Sequence[Line]) -> str:
    """Rewards by arm and number of steps, and the meta-trained one less each other arm."""
    names = [f"k={k}" for k in STEPS]
    rows, against = [], []
    for arm in (*ARMS, *MUTANTS):
        rows.append([arm, *(interval(of(lines, name, arm=arm)) for name in names)])
        if arm != SUBJECT:
            less = [
                interval(np.subtract(of(lines, name, arm=SUBJECT), of(lines, name, arm=arm)))
                for name in names
            ]
            against.append([arm, *less])
    oracle = interval(of(lines, "k=0", arm="oracle"))
    return "\n\n".join([
        f"Reward per decision of held-out tasks after k steps; who knows the task earns {oracle}:",
        table(["arm", *names], rows),
        f"{SUBJECT}, less each other arm, seed by seed on the same tasks:",
        table(["less", *names], against),
    ])  # fmt: skip


CLAIM = Claim(
    says="a meta-trained mixture adapts faster",
    config=AdaptsConfig(),
    quick=AdaptsConfig(updates=30, held_out=64, validation=32, entropies=(0.03,)),
    run=run,
    summary=summary,
    tune=tune,
)
