"""Claim 7: it learns through the streams as well as without.

The same market, agent, seeds, environment steps, updates and batches, three times: in one process
(`train --local`), over streams (two actors, a log, RLlib's learner), and over streams with weights that
come so late that what is learnt from is eight updates old. The measure is that of claim 1 in the
environment: net P&L of held-out episodes, as a share of what an oracle earns that is told the drift of
the next bar. Controls: the policy as it was before the training, random actions, doing nothing,
rewards of the wrong sign over the streams, and PPO that clips around the policy that acted, however old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median
from typing import Any

import msgspec
import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from benchmarks.learning import streaming, trading
from benchmarks.learning.bars import BROKERAGE, Market, market
from benchmarks.learning.claim import Claim, Line, of, table
from benchmarks.learning.decisions import RANDOM, TEST, TRAIN
from benchmarks.learning.intervals import interval
from benchmarks.learning.trading import TradingConfig
from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import PPOAgent
from streambot.env.fields import HOLD_INDEX
from streambot.learning.learner.algorithm import StreamAlgorithm
from streambot.learning.learner.progress import Learns, Learnt
from streambot.learning.learner.updates import MOST_WEIGHT
from streambot.learning.trainer import Progress

LOCAL, STREAMS, LATE = "one process", "streams", "streams, weights late"
CONTRARY = "streams, rewards of the wrong sign"
COUPLED = "streams, clip around who acted"
COUPLED_LATE = "streams, weights late, clip around who acted"
CONTROLS = ("random", "flat", "untrained")


class StreamsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The experiment.

    Attributes:
        trade: the training, and what is judged.
        actors: over streams; each has its share of the environments.
        late: updates that weights are late by, beside the one that they are late by themselves.
    """

    trade: TradingConfig = TradingConfig()
    actors: int = 2
    late: int = 7


class Contrary:
    """Moves the weights by rewards of the wrong sign."""

    def __init__(self, learns: Learns) -> None:
        self.fetch, self.memory, self.remember = learns.fetch, learns.memory, learns.remember
        self._learns = learns

    def update(
        self, fragments: Sequence[Any], rewards: Sequence[Any], *, progress: float = 0.0
    ) -> dict[str, float]:
        """See `Learns`; it does the opposite."""
        return self._learns.update(fragments, [-r for r in rewards], progress=progress)


def coupled(algorithm: StreamAlgorithm) -> Learns:
    """PPO as it is written for experience that is new: its ratios are to the policy that acted."""

    def around_who_acted(learner: Any) -> None:  # noqa: ANN401  # of RLlib
        whole = learner.columns

        def columns(steps: Any) -> dict[str, Any]:  # noqa: ANN401
            found: dict[str, Any] = whole(steps)
            weight = (found[Columns.ACTION_LOGP] - steps.log_prob).exp().clamp(max=MOST_WEIGHT)
            advantage = found[Postprocessing.ADVANTAGES] / weight
            return found | {
                Columns.ACTION_LOGP: steps.log_prob, Postprocessing.ADVANTAGES: advantage
            }  # fmt: skip

        learner.columns = columns

    algorithm.each(around_who_acted)
    return algorithm


MUTANTS: dict[str, Callable[[StreamAlgorithm], Learns]] = {
    CONTRARY: Contrary, COUPLED: coupled, COUPLED_LATE: coupled,
}  # fmt: skip


class Halves:
    """Keeps a policy as it is half-way."""

    def __init__(self, who: PPOAgent, updates: int) -> None:
        self._who, self._at = who, updates // 2
        self.policy = as_it_is(who)

    def told(self, update: int) -> None:
        """So many updates are made."""
        if update == self._at:
            self.policy = as_it_is(self._who)


def as_it_is(who: PPOAgent) -> PPOAgent:
    """A copy of a policy."""
    made = type(who)(who.config)
    made.network.load_state_dict(who.network.state_dict())
    return made


def run(config: StreamsConfig, seed: int, tuned: dict[str, Any]) -> Iterator[Line]:
    """All arms and controls."""
    del tuned
    seen, fresh = (
        market(np.random.default_rng([seed, s]), config.trade.bars) for s in (TRAIN, TEST)
    )
    most = earned(config.trade, fresh, trading.told(fresh), seed)["earned"]
    yield {"arm": "oracle", "seed": seed, "share": 1.0, "earned": most}
    controls = {
        "random": trading.at_random(np.random.default_rng([seed, RANDOM])),
        "flat": lambda obs, mask, env: np.full(len(obs), HOLD_INDEX),
        "untrained": trading.greedy(newborn(config, seen, seed)),
    }
    for arm, policy in controls.items():
        played = earned(config.trade, fresh, policy, seed)
        yield {"arm": arm, "seed": seed, "share": played["earned"] / most, **played}
    for arm in (LOCAL, STREAMS, LATE, *MUTANTS):
        line = learnt(config, arm, seen, fresh, seed)
        yield line | {n: line[e] / most for n, e in (("share", "earned"), ("half", "half_earned"))}


def newborn(config: StreamsConfig, seen: Market, seed: int) -> MoEAgent:
    """The agent before any update."""
    env = trading.environment(seen.source(), config.trade.envs)
    made = trading.learner(MoEAgent, seed, config.trade, env)
    assert isinstance(made, MoEAgent)
    return made


def earned(config: TradingConfig, fresh: Market, policy: trading.Policy, seed: int) -> Line:
    """What a policy earns on bars that no arm has seen."""
    played = trading.play(fresh.source(), policy, config.episodes, seed, BROKERAGE)
    return {"earned": float(played.net.mean()), "orders": float(played.orders.mean())}


def learnt(config: StreamsConfig, arm: str, seen: Market, fresh: Market, seed: int) -> Line:
    """Train in one way, and judge the policy at the end and half-way."""
    trade, who = config.trade, newborn(config, seen, seed)
    halves = Halves(who, trade.updates)
    if arm == LOCAL:
        told = in_one_process(who, trade, seen, seed, halves)
    else:
        told = over_streams(who, config, arm, seen, seed, halves)
    played = earned(trade, fresh, trading.greedy(who), seed)
    half = earned(trade, fresh, trading.greedy(halves.policy), seed)
    return {"arm": arm, "seed": seed, **played, "half_earned": half["earned"], **told}


def in_one_process(
    who: PPOAgent, trade: TradingConfig, seen: Market, seed: int, halves: Halves
) -> Line:
    """`train --local`."""
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        halves.told(progress.update)

    env = trading.environment(seen.source(), trade.envs)
    trading.train(who, env, trade, seed, tell)
    stats = [one.learnt for one in told if one.learnt is not None]
    return {
        "steps": told[-1].steps, "kl": fmean(one.kl for one in stats),
        "stopped": fmean(one.stopped for one in stats),
    }  # fmt: skip


def over_streams(
    who: PPOAgent, config: StreamsConfig, arm: str, seen: Market, seed: int, halves: Halves
) -> Line:
    """`train`."""
    told: list[Learnt] = []

    def tell(learnt: Learnt) -> None:
        told.append(learnt)
        halves.told(learnt.update)

    late = config.late if arm in {LATE, COUPLED_LATE} else 0
    way = streaming.Way(config.actors, late, MUTANTS.get(arm, lambda algorithm: algorithm))
    streaming.train(who, seen.source(), config.trade, seed, way, tell)
    settled = told[len(told) // 2 :]
    return {
        "steps": told[-1].steps, "kl": fmean(one.measured["kl"] for one in told),
        "lag": median(one.lag for one in settled),
        "worst_lag": max(one.worst_lag for one in told),
        "stale_steps": told[-1].counts.get("stale_steps", 0),
    }  # fmt: skip


MEASURES = {
    "share": "share of the oracle's", "half": "half-way", "earned": "net P&L of an episode",
    "orders": "orders of an episode", "lag": "lag, updates",
}  # fmt: skip
COMPARED = (
    (STREAMS, LOCAL), (LATE, LOCAL), (LATE, STREAMS), (COUPLED, LOCAL), (COUPLED_LATE, LOCAL),
    (LOCAL, "untrained"), (STREAMS, "untrained"), (LATE, "untrained"),
)  # fmt: skip


def summary(lines: Sequence[Line]) -> str:
    """Shares by arm, and differences seed by seed."""
    rows: list[list[object]] = []
    for arm in ("oracle", LOCAL, STREAMS, LATE, *MUTANTS, *CONTROLS):
        found = [of(lines, measure, arm=arm) for measure in MEASURES]
        rows.append([arm, *(interval(values) if values else "" for values in found)])
    parts = [table(["arm", *MEASURES.values()], rows)]

    def less(first: str, other: str, measure: str = "share") -> list[float]:
        pairs = zip(of(lines, "share", arm=first), of(lines, measure, arm=other), strict=True)
        return [a - b for a, b in pairs]

    differ = {f"{first}, less {other}": less(first, other) for first, other in COMPARED}
    for arm in (LOCAL, STREAMS, LATE):
        differ[f"{arm}, less itself half-way"] = less(arm, arm, "half")
    shown = [[n, interval(d), f"{sum(x > 0 for x in d)} of {len(d)}"] for n, d in differ.items()]
    parts.append(table(["share, seed by seed", "difference", "above 0"], shown))
    return "\n\n".join(parts)


CLAIM = Claim(
    says="it learns through the streams as well as without",
    config=StreamsConfig(),
    quick=StreamsConfig(
        trade=TradingConfig(bars=6_000, envs=32, rollout=32, updates=60, episodes=64, lr=3e-3)
    ),
    run=run,
    summary=summary,
)
