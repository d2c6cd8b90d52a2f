"""Environments with random actions: against bare ones, and against those of others.

All sides are measured unwrapped (`env.unwrapped`), actions drawn before the time, resets included, one thread, 64
floats or more in an observation, 10,000 bars, episodes of 256 where the peer can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

from benchmarks.bars import random_walk
from benchmarks.engine import CAPITAL, as_block, stock
from benchmarks.env_peers import BARS, EPISODE, start
from benchmarks.floor_env import ACTIONS, FLOATS, BareBatch, BareEnv
from benchmarks.harness import MIN_ROUNDS, Check, Row, rate_of, ratio
from streambot.env.sources import ArraySource
from streambot.env.trading_env import TradingEnv
from streambot.env.vector_env import VectorTradingEnv

SINGLE_TARGET, VECTOR_TARGET = 0.4, 0.3
SIZES = (16, 1_024)
UNIT = "env-steps per CPU second"
_DRAWN = 64


def source() -> ArraySource:
    """The bars of these rows, of a stock with an enforced trailing stop."""
    return ArraySource(stock(enforce=True), as_block(random_walk(BARS)))


def vector_env(n: int) -> VectorTradingEnv:
    """N environments over those bars."""
    env = VectorTradingEnv(source(), n, capital=CAPITAL, episode_bars=EPISODE)
    assert env.single_observation_space.shape is not None
    assert env.single_observation_space.shape[0] >= FLOATS
    return env


def play(env: gymnasium.Env[Any, Any], actions: list[int]) -> int:
    """Step through drawn actions; resets included."""
    env = env.unwrapped
    env.reset(seed=1)
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return len(actions)


def play_vector(env: VectorTradingEnv, steps: int, seed: int = 0) -> int:
    """Step all environments through drawn actions; they begin anew by themselves."""
    size = env.core.masks.shape[1]
    actions = np.random.default_rng(seed).integers(0, size, (_DRAWN, env.num_envs))
    env.reset(seed=1)
    for k in range(steps):
        env.step(actions[k % _DRAWN])
    return steps * env.num_envs


def single(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """`TradingEnv` alone."""
    steps = 20_000 if quick else 200_000
    ours = TradingEnv(source(), capital=CAPITAL, episode_bars=EPISODE)
    bare = BareEnv(random_walk(BARS).close.astype(np.float32))
    draw = np.random.default_rng(0).integers
    drawn, few = draw(0, ours.core.masks.shape[1], steps).tolist(), draw(0, ACTIONS, steps).tolist()
    contestants = {
        "streambot": lambda: play(ours, drawn),
        "bare env": lambda: play(bare, few),
    }
    rates, notes = _measure(contestants, ("gym-anytrading",), 1, {"gym-anytrading": steps}, rounds)
    checks = [ratio(rates, "streambot", "bare env", at_least=SINGLE_TARGET)]
    yield Row(
        "one environment, random actions, unwrapped",
        "steps per CPU second",
        rates,
        checks + _against(rates, ("gym-anytrading",)),
        [f"{ours.observation_space.shape[0]} floats", *notes],  # type: ignore[index]
    )


def vector(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """`VectorTradingEnv` of each size, and its compiled step alone."""
    for n in SIZES:
        yield _vector(n, rounds, quick)


def _vector(n: int, rounds: int, quick: bool) -> Row:
    steps = (200_000 if quick else 2_000_000) // n
    env, core_env = vector_env(n), vector_env(n)
    core = core_env.core
    core_env.reset(seed=1)
    bare = BareBatch(random_walk(BARS).close, n)
    draw = np.random.default_rng(0).integers
    few, drawn = draw(0, ACTIONS, (_DRAWN, n)), draw(0, core.masks.shape[1], (_DRAWN, n))

    def floor() -> int:
        for k in range(steps):
            bare.step(few[k % _DRAWN])
        return steps * n

    def compiled() -> int:
        for k in range(steps):
            core.actions[:] = drawn[k % _DRAWN]
            core.step()
        return steps * n

    contestants = {
        "streambot": lambda: play_vector(env, steps),
        "its compiled step alone": compiled,
        "bare batch": floor,
    }
    names = ("sekai", "TorchTrade")
    slower = {"sekai": max(20, steps // 20), "TorchTrade": max(20, steps // 20)}
    rates, notes = _measure(contestants, names, n, slower, rounds)
    checks = [ratio(rates, "streambot", "bare batch", at_least=VECTOR_TARGET)]
    checks += [ratio(rates, "its compiled step alone", "bare batch")]
    return Row(
        f"{n:,} environments, random actions, unwrapped",
        UNIT,
        rates,
        checks + _against(rates, names),
        notes,
    )


def _against(rates: dict[str, list[float]], names: tuple[str, ...]) -> list[Check]:
    return [ratio(rates, "streambot", name, at_least=1.0) for name in names if name in rates]


def _measure(
    contestants: dict[str, Callable[[], int]],
    names: tuple[str, ...],
    n: int,
    steps: dict[str, int],
    rounds: int,
) -> tuple[dict[str, list[float]], list[str]]:
    """As `interleave`, with peers that run in processes of their own."""
    if rounds < MIN_ROUNDS:
        raise ValueError(f"a median of {rounds} rounds says nothing: at least {MIN_ROUNDS}")
    peers, notes = start(names, n, steps)
    try:
        for work in contestants.values():
            work()
        rates: dict[str, list[float]] = {name: [] for name in (*contestants, *peers)}
        for _ in range(rounds):
            for name, work in contestants.items():
                rates[name].append(rate_of(work))
            for name, peer in peers.items():
                rates[name].append(peer.rate())
    finally:
        for peer in peers.values():
            peer.close()
    return rates, notes
