"""Claim 2: nobody tells the experts what to be, and still they share the regimes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.learning.claim import Claim, Line, of, table
from benchmarks.learning.decisions import (
    ACTIONS,
    RANDOM,
    DecisionConfig,
    agent,
    answers,
    data,
    pays,
    train,
)
from benchmarks.learning.intervals import interval, number
from benchmarks.learning.mutants import AveragedAgent
from benchmarks.learning.regimes import FEATURES, LAGS, SLOW, Decisions
from benchmarks.learning.specialisation import (
    Views,
    diagonal_advantage,
    gates,
    matrices,
    nmi,
    shift_null,
)
from streambot.agents.moe import MoEAgent
from streambot.agents.naming import REGIMES

SLOW_GATE = "slow features"
INPUTS = {SLOW_GATE: SLOW, "last returns": LAGS, "both": tuple(range(FEATURES))}
"""What the gate sees; the experts see everything."""


def views(of_: MoEAgent, on: Decisions) -> Views:
    """What a mixture says of decisions."""
    said = of_.mixed(torch.from_numpy(on.obs), torch.ones(len(on.obs), ACTIONS))
    return Views(
        said.log_gate.exp().numpy().astype(np.float64),
        said.log_experts.exp().numpy().astype(np.float64),
    )


def run(config: DecisionConfig, seed: int, tuned: dict[str, Any]) -> Iterator[Line]:
    """A mixture for each input of the gate, taken apart; and one whose gate was never trained."""
    del tuned
    given = data(config, seed)
    rng = np.random.default_rng([seed, RANDOM])
    oracle = given.test.oracle()
    for name, regimes in INPUTS.items():
        who = agent(MoEAgent, seed, config.lr, regimes=regimes)
        assert isinstance(who, MoEAgent)
        seen = views(train(who, given.train, config, seed), given.test)  # type: ignore[arg-type]
        null = shift_null(seen.gate, given.test.regime, rng)
        usage = seen.gate.mean(0)
        line: Line = {
            "arm": name, "seed": seed, "nmi": nmi(seen.gate, given.test.regime),
            "null": float(np.quantile(null, 0.99)),
            "usage entropy": float(-(usage * np.log(usage)).sum()),
            "entropy": float(-(seen.gate * np.log(seen.gate + 1e-12)).sum(1).mean()),
        }  # fmt: skip
        for gate, weights in gates(seen, rng).items():
            line[f"gate {gate}"] = (
                float(pays(seen.under(weights).astype(np.float32), given.test).mean()) / oracle
            )
        found = matrices(seen, given.test)
        for kind in ("usage", "alone", "loss"):
            matrix = getattr(found, kind)
            line[kind], line[f"{kind} diagonal"] = matrix.tolist(), diagonal_advantage(matrix)
        yield line
    never = train(agent(AveragedAgent, seed, config.lr), given.train, config, seed)
    earned = float(pays(answers(never, given.test), given.test).mean()) / oracle
    yield {"arm": "gate never trained", "seed": seed, "gate trained": earned, "nmi": 0.0}


_GATES = ("trained", "uniform", "shuffled in time", "argmax")


def summary(lines: Sequence[Line]) -> str:
    """Measures by input of the gate; ablations of the gate; and the matrices."""
    rows, ablations = [], []
    for name in INPUTS:
        values, null = of(lines, "nmi", arm=name), of(lines, "null", arm=name)
        above = sum(v > n for v, n in zip(values, null, strict=True))
        rows.append([
            name, interval(values), number(max(null)), f"{above} of {len(values)}",
            interval(of(lines, "usage entropy", arm=name)), interval(of(lines, "entropy", arm=name)),
            interval(of(lines, "alone diagonal", arm=name)),
            interval(of(lines, "loss diagonal", arm=name)),
        ])  # fmt: skip
        ablations.append(
            [name, *(interval(of(lines, f"gate {gate}", arm=name)) for gate in _GATES)]
        )
    ablations.append(
        ["gate never trained", interval(of(lines, "gate trained", arm="gate never trained"))]
        + [""] * 3
    )
    parts = [
        table(
            ["gate sees", "NMI(gate, regime)", "null, 99 %, largest", "seeds above their null",
             f"usage entropy (at most {np.log(4):.3f})", "entropy at a decision",
             "alone: matched less unmatched", "loss: matched less unmatched"],
            rows,
        ),
        "Share of the oracle's reward with the gate as trained, and with another in its place:",
        table(["gate sees", *_GATES], ablations),
    ]  # fmt: skip
    titles = {
        "usage": "Weight of each expert in each regime",
        "alone": "Reward per decision of each expert alone",
        "loss": "Reward per decision that is lost without it",
    }
    chosen = [line for line in lines if line["arm"] == SLOW_GATE]
    for kind, title in titles.items():
        mean = np.mean([line[kind] for line in chosen], axis=0)
        parts += [
            f"{title} (mean over seeds; gate on the {SLOW_GATE}):",
            table(
                ["expert, by its name", *REGIMES],
                [[n, *(f"{v:.3f}" for v in row)] for n, row in zip(REGIMES, mean, strict=True)],
            ),
        ]
    return "\n\n".join(parts)


CLAIM = Claim(
    says="experts specialise by themselves",
    config=DecisionConfig(),
    quick=DecisionConfig(paths=40, held_out=20, updates=20),
    run=run,
    summary=summary,
)
