"""Regimes are what the slow features say, and names follow the gate that serves them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

pytest.importorskip("torch")

from streambot.agents.naming import REGIMES
from streambot.env.fields import observation_fields
from streambot.env.settings import make_config
from streambot.learning.regimes import EVERY_REGIME, Usage, names_of, regimes_of
from tests.conftest import SEED

pytestmark = pytest.mark.train
FIELDS = observation_fields(2, make_config({"regime_windows": [32, 64]}).features)


def stood_in(regime: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Observations of bars that stand in a regime, with everything else at random."""
    obs = rng.normal(size=(len(regime), len(FIELDS))).astype(np.float32)
    shown = {
        "drift": np.choose(regime, [4, 0, 0, 0]) * rng.choice([-1, 1], len(regime)),
        "efficiency": np.choose(regime, [0.9, 0.2, 0.3, 0.1]),
        "autocorrelation": np.choose(regime, [0.2, -0.6, 0.1, 0.2]),
        "volatility": np.choose(regime, [0.0, 0.0, 2.5, -2.5]),
    }
    for field in FIELDS:
        if field.group == "regime":
            kind = field.name.rsplit("_", 1)[0]
            noise = rng.normal(scale=0.05, size=len(regime))
            obs[:, field.position] = shown[kind] + noise
    return obs


def test_each_regime_is_told_from_the_others() -> None:
    rng = np.random.default_rng(SEED)
    regime = rng.integers(4, size=4_000)
    assert (regimes_of(stood_in(regime, rng), FIELDS) == regime).mean() > 0.95


@pytest.mark.parametrize("serves", list(permutations(range(4)))[::5])
def test_names_follow_the_gate(serves: tuple[int, ...]) -> None:
    """Expert k is given the name of the regime that it serves, in whatever order they do."""
    rng = np.random.default_rng(SEED)
    regime = rng.integers(4, size=2_000)
    obs = stood_in(regime, rng)
    gate = np.full((2_000, 4), 0.2)
    gate[np.arange(2_000), np.argsort(serves)[regime]] = 0.4
    assert names_of(gate, obs, FIELDS) == tuple(REGIMES[r] for r in serves)


def test_no_name_where_a_regime_was_hardly_seen() -> None:
    rng = np.random.default_rng(SEED)
    obs = stood_in(
        rng.integers(4, size=4 * EVERY_REGIME - 1), rng
    )  # one regime is too rare at least
    assert names_of(np.full((len(obs), 4), 0.25), obs, FIELDS) == ()


def test_no_name_for_another_number_of_experts_or_without_slow_features() -> None:
    rng = np.random.default_rng(SEED)
    obs = stood_in(rng.integers(4, size=400), rng)
    assert names_of(np.full((400, 3), 1 / 3), obs, FIELDS) == ()
    plain = tuple(field for field in FIELDS if field.group != "regime")
    assert names_of(np.full((400, 4), 1 / 4), obs, plain) == ()


def test_one_rollout_that_says_otherwise_changes_no_name() -> None:
    """Names follow what the gate does of late; another gate that stays is found in time."""
    rng = np.random.default_rng(SEED)
    regime = rng.integers(4, size=2_000)
    obs = stood_in(regime, rng)
    usual, odd = (np.full((2_000, 4), 0.2) for _ in range(2))
    usual[np.arange(2_000), regime] = 0.4
    odd[np.arange(2_000), (regime + 1) % 4] = 0.4
    usage = Usage()
    for gate in (usual, usual, odd, usual):
        usage.see(gate, obs, FIELDS)
        assert usage.names == REGIMES
    usage.see(odd[:, :3], obs, FIELDS)
    assert usage.names == REGIMES
    for _ in range(20):
        usage.see(odd, obs, FIELDS)
    assert usage.names == names_of(odd, obs, FIELDS) != REGIMES
