"""The floors of the environment rows keep their accounts; the rows' peers that are missing say so."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from benchmarks import env_peers
from benchmarks.bars import random_walk
from benchmarks.dataset import write_bars, write_registry
from benchmarks.env_store import build
from benchmarks.floor_env import EPISODE, FLOATS, BareBatch, BareEnv
from benchmarks.harness import SkippedError

CAPITAL, FEE = 10**8, 20


def batch(closes, n=4, **settings):
    return BareBatch(closes, n, capital=CAPITAL, fee=FEE, **settings)


def test_the_bare_environment_is_an_environment_and_hands_out_fresh_arrays():
    env = BareEnv(random_walk(1_000).close.astype(np.float32))
    check_env(env, skip_render_check=True)
    env.reset(seed=1)
    first, second = env.step(0)[0], env.step(1)[0]
    assert first is not second
    assert first.shape == (FLOATS,)
    assert [env.step(0)[3] for _ in range(EPISODE - 2)].index(True) == EPISODE - 3


@pytest.mark.parametrize(("action", "side"), [(0, 0), (1, 1), (2, -1)])
def test_the_bare_batch_gains_what_the_price_moves_less_a_fee_a_change(action, side):
    closes = random_walk(2_000).close
    floor = batch(closes, limit_bp=10_000)
    began = floor.at.copy()
    total = np.zeros(4)
    for _ in range(50):
        floor.step(np.full(4, action))
        total += floor.rewards
    assert not floor.ended.any()
    assert (floor.side == side).all()
    gained = side * (closes[floor.at] - closes[began]) - (FEE if side else 0)
    assert np.array_equal(floor.cash + floor.side * closes[floor.at] - CAPITAL, gained)
    assert total == pytest.approx(gained / CAPITAL)


def test_a_round_trip_of_the_bare_batch_costs_two_fees():
    floor = batch(np.full(2_000, 1_000_000))
    for action in (1, 1, 0, 0):
        floor.step(np.full(4, action))
    assert (floor.cash == CAPITAL - 2 * FEE).all()


def test_the_drawdown_stop_of_the_bare_batch_ends_the_episode_and_begins_another():
    closes = np.linspace(90_000_000, 20_000_000, 2_000).astype(np.int64)
    floor = batch(closes, limit_bp=100)
    ended = 0
    for _ in range(200):
        floor.step(np.ones(4, np.int64))
        done = floor.ended != 0
        ended += int(done.sum())
        assert (floor.cash[done] == CAPITAL).all()
        assert (floor.side[done] == 0).all()
    assert ended > 4 * 200 // EPISODE


def test_the_bare_batch_shows_the_last_bars_and_leaves_what_it_showed():
    closes = random_walk(2_000).close
    floor = batch(closes)
    seen = floor.step(np.zeros(4, np.int64))
    kept = seen.copy()
    floor.step(np.ones(4, np.int64))
    assert np.array_equal(seen, kept)
    at = floor.at[0] - 1
    assert seen[0, -1] == pytest.approx(np.log(closes[at] / closes[at - 1]), rel=1e-5)


def test_a_peer_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setitem(env_peers.PEERS, "nobody", ("no_such_package", env_peers.sekai))
    with pytest.raises(SkippedError, match="nobody cannot be measured"):
        env_peers.Peer("nobody", 1, 1)
    monkeypatch.setenv(env_peers.INTERPRETER, "/no/such/python")
    peers, notes = env_peers.start(("sekai",), 1, {"sekai": 1})
    assert peers == {}
    assert env_peers.INTERPRETER in notes[0]


def test_a_store_is_built_apart_from_the_users_cache(tmp_path):
    data, registry = tmp_path / "bars.parquet", tmp_path / "instruments.yaml"
    symbols = [f"S{number}" for number in range(150)]
    write_bars(data, symbols, 300, 60_000_000_000)
    write_registry(registry, symbols)
    source = build(tmp_path / "home", data=str(data), registry=str(registry))
    assert source.folder.is_relative_to(tmp_path)
