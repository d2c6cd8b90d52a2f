"""The claims about learning, small: each holds, and each catches an agent that is broken on purpose.

`docs/learning-results.md` has the experiments themselves. Figures in the tests are
means and deviations of twenty other seeds; bounds stand more than 3.3 deviations away, most of them
more than 4, so that each test fails by chance in fewer than 1 of 1,000 seeds. The seed is fixed
besides. All together take about 20 s.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.learning import adapts, honest, learns, meta, specialisation, specialise  # noqa: E402
from benchmarks.learning.bars import market  # noqa: E402
from benchmarks.learning.decisions import (  # noqa: E402
    TEST,
    TRAIN,
    Data,
    DecisionConfig,
    agent,
    data,
    share,
    train,
)
from benchmarks.learning.hidden import draw  # noqa: E402
from benchmarks.learning.mixture import MARKETS  # noqa: E402
from benchmarks.learning.mutants import AveragedAgent, ContraryAgent  # noqa: E402
from benchmarks.learning.trading import TradingConfig  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.naming import REGIMES  # noqa: E402
from streambot.agents.ppo import PPOAgent  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train

SMALL = DecisionConfig(paths=80, held_out=30, updates=50)
TRADE = TradingConfig(bars=6_000, updates=10, episodes=64, lr=3e-3)
ADAPT = meta.AdaptsConfig(updates=40, tasks=8, decisions=48, held_out=64, lr=5e-3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def given() -> Data:
    return data(SMALL, SEED)


@cache
def learnt(kind: type[PPOAgent]) -> PPOAgent:
    return train(agent(kind, SEED, SMALL.lr), given().train, SMALL, SEED)


def test_a_mixture_learns_to_decide() -> None:
    """0.63 +- 0.07 of what the oracle earns, -1.09 +- 0.04 with the sign wrong, -0.15 +- 0.02 at random."""
    assert share(learnt(MoEAgent), given().test) > 0.3
    assert share(learnt(ContraryAgent), given().test) < -0.5
    assert float(given().test.expected().mean()) < 0.0


def test_experts_share_the_regimes_out() -> None:
    """NMI is 0.27 +- 0.08 above its null, and 0 where a gate is not trained.

    Of the oracle's reward 0.20 +- 0.06 is lost with a uniform gate, 0.18 +- 0.05 with a shuffled one.
    """
    rng = np.random.default_rng(SEED)
    fresh = given().test
    seen = specialise.views(learnt(MoEAgent), fresh)
    null = np.quantile(specialisation.shift_null(seen.gate, fresh.regime, rng), 0.99)
    assert specialisation.nmi(seen.gate, fresh.regime) > null
    paid = {
        name: specialisation.pays(seen.under(gate), fresh).mean()
        for name, gate in specialisation.gates(seen, rng).items()
    }
    assert paid["trained"] > paid["uniform"]
    assert paid["trained"] > paid["shuffled in time"]
    never = specialise.views(learnt(AveragedAgent), fresh)
    assert specialisation.nmi(never.gate, fresh.regime) == pytest.approx(0.0, abs=1e-6)


def test_the_null_of_a_gate_that_knows_nothing_holds_it() -> None:
    """A gate as slow as the regimes, and without a bond to them, is seldom above its null.

    In 8 of 300 trials it was, for nominally 1 in 100: shifts overlap. 8 or more of 60 come 4 times in
    10,000. Labels that are shuffled, not shifted, would let nearly all of them pass.
    """
    rng = np.random.default_rng(SEED)

    def slow() -> np.ndarray:
        lengths = 10 + rng.geometric(1 / 20, size=180)
        return np.repeat(rng.integers(0, 4, len(lengths)), lengths)[:1_800]

    above = shuffled = 0
    for _ in range(60):
        regime, gate = slow(), np.eye(4)[slow()] * 0.9 + 0.025
        found = specialisation.nmi(gate, regime)
        null = specialisation.shift_null(gate, regime, rng, shifts=100)
        above += found > np.quantile(null, 0.99)
        shuffled += found > max(
            specialisation.nmi(gate, rng.permutation(regime)) for _ in range(20)
        )
    assert above < 8
    assert shuffled > 40


def test_experts_are_taken_apart_as_they_stand() -> None:
    """A mixture of four experts that each serve one regime perfectly: the matrices say so, by name."""
    fresh = given().test
    positions = fresh.expected().shape[1]
    order = np.random.default_rng(SEED).permutation(4)
    best = np.eye(positions)[fresh.expected().argmax(1)]
    worst = np.eye(positions)[fresh.expected().argmin(1)]
    right = (fresh.regime[:, None] == order)[:, :, None]
    seen = specialisation.Views(
        0.96 * right[:, :, 0] + 0.01, np.where(right, best[:, None], worst[:, None])
    )
    found = specialisation.matrices(seen, fresh)
    assert [REGIMES[r] for r in order[list(found.order)]] == list(REGIMES)
    assert np.diag(found.usage) == pytest.approx(0.97)
    assert (np.diag(found.alone) > found.alone.max(0) - 1e-9).all()
    assert (np.diag(found.loss) > 0).all()
    assert specialisation.diagonal_advantage(found.alone) > 0.2
    swapped = found.alone[[1, 0, 3, 2]]
    assert specialisation.diagonal_advantage(swapped) < 0


def test_a_mixture_earns_more_than_experts_that_are_weighed_alike() -> None:
    """0.105 +- 0.036 of the oracle's reward more, on each of two seeds; a fair tie would be none."""
    config = DecisionConfig(updates=60)
    more = 0.0
    for seed in (SEED, SEED + 1):
        fair = data(config, seed, MARKETS["weaker"])
        whole, alike = (
            share(train(agent(kind, seed, config.lr), fair.train, config, seed), fair.test)
            for kind in (MoEAgent, AveragedAgent)
        )
        more += whole - alike
    assert more > 0


def gains(name: str) -> list[float]:
    """Share of the oracle's reward after 0, 1, 2, 3 and 5 steps."""
    recipe = (adapts.ARMS | adapts.MUTANTS)[name]
    who, rates = meta.trained(recipe, ADAPT, 0.01, SEED)
    rng = np.random.default_rng([SEED, TEST])
    tasks = draw(rng, ADAPT.held_out, ADAPT.decisions)
    curve = meta.curve(who, rates, tasks, rng, meta.sign_of(recipe))
    return [reward / tasks.query.oracle() for reward in curve]


def test_a_meta_trained_mixture_adapts_in_one_step() -> None:
    """0.87 +- 0.04 of the oracle's reward after one step or more, FOMAML 0.82 +- 0.04; -0.1 before any."""
    for name in ("MAML, learnt rates", "FOMAML"):
        before, *after = gains(name)
        assert before < 0.1
        assert min(after) > 0.6


@pytest.mark.parametrize(
    "mutant", ["inner loop detached", "support and query swapped", "advantage of the wrong sign"]
)
def test_a_meta_training_that_is_broken_is_seen(mutant: str) -> None:
    """-0.01 +- 0.01, 0.09 +- 0.02 and -1.20 +- 0.03 after one step."""
    assert gains(mutant)[1] < 0.3


def test_a_mixture_learns_in_the_environment() -> None:
    """0.29 +- 0.06 of who is told the drift, brokerage paid; at random -1.7 +- 0.3, wrongly -3.1 +- 0.4."""
    share_of = {line["arm"]: line["share"] for line in learns.in_environment(TRADE, SEED)}
    assert share_of["mixture"] > -0.1
    assert share_of["random"] < -0.7
    assert share_of["advantage of the wrong sign"] < -1.3


def test_a_leak_is_found_and_nothing_else_earns() -> None:
    """2,380 +- 150 an episode with the next bar in sight; 4 +- 42 without, on a random walk."""
    seen, fresh = (
        market(np.random.default_rng([SEED, s]), TRADE.bars, mu=0.0) for s in (TRAIN, TEST)
    )
    net = {
        name: next(honest.earned(name, seen, fresh, TRADE, SEED))["net"]
        for name in ("no brokerage", "no brokerage, the next bar is seen")
    }
    assert abs(net["no brokerage"]) < 250
    assert net["no brokerage, the next bar is seen"] > 1_500
