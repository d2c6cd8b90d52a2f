"""A state that somebody has written himself is refused before compiled code believes it."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from streambot.domain.bars import BarBlock
from streambot.domain.errors import DecodeError
from streambot.domain.instruments import Instrument, InstrumentType
from streambot.env.core import Core
from streambot.env.sources import ArraySource
from streambot.env.vector_env import VectorTradingEnv
from tests.conftest import SEED

BARS, N = 200, 3


def core() -> Core:
    rng = np.random.default_rng(SEED)
    close = 10_000 + np.cumsum(rng.integers(-30, 31, BARS))
    open_ = np.concatenate([[10_000], close[:-1]])
    data = BarBlock(
        np.arange(BARS) * 60 * 10**9, np.full(BARS, 60 * 10**9), open_, np.maximum(open_, close),
        np.minimum(open_, close), close, np.full(BARS, 10), np.zeros(BARS, np.uint8),
    )  # fmt: skip
    stock = Instrument(symbol="S", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"))
    env = VectorTradingEnv(ArraySource(stock, data), N, warmup=0, episode_bars=17, capital=1_000)
    env.reset(seed=1)
    env.step(np.zeros(N, np.int64))
    return env.core


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instrument", 1), ("instrument", -1), ("instrument", 2**62), ("bar", 10**12), ("bar", -1),
        ("bar", BARS), ("last_bar", 10**12), ("last_bar", 0), ("events_n", 10**9), ("events_n", -5),
        ("cause", 99), ("cause", -1), ("asked_instrument", 7),
    ],
)  # fmt: skip
def test_an_environment_that_stands_nowhere_is_refused(field: str, value: int) -> None:
    of = core()
    good = of.snapshot()
    of.envs[1][field] = value
    bad = of.snapshot()
    other = core()
    with pytest.raises(DecodeError, match="points behind the data"):
        other.restore(bad)
    other.restore(good)


def test_an_episode_that_is_asked_for_must_be_there() -> None:
    of = core()
    of.envs[0]["asked_instrument"], of.envs[0]["asked_bar"] = 0, BARS + 5
    with pytest.raises(DecodeError, match="points behind the data"):
        core().restore(of.snapshot())


def test_honest_states_are_taken_at_every_step() -> None:
    """Episodes that end and begin included."""
    of, other = core(), core()
    for _ in range(60):
        other.restore(of.snapshot())
        of.actions[:] = 0
        of.step()
