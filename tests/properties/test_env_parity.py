"""What is learnt in the environment is what trades on the stream: bit for bit, on real bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streambot.data.segments import Segments
from streambot.env.config import CoreReward, EnvConfig, RewardConfig
from streambot.env.core import Core
from streambot.market.feature_config import FeatureConfig
from tests.conftest import ROOT, SEED
from tests.env_world import (
    CAPITAL,
    Chart,
    Episode,
    aliases,
    in_the_stream,
    play,
    prepared,
    segments_of,
)

MINUTE = 60 * 10**9
BUNDLED = [
    Chart(ROOT / "replay/bars/spy_1m_2020.parquet", "SPY", "0.0001", "XNYS", "America/New_York",
          "USD", "3.9", 100),
]  # fmt: skip
# Every setting that a step may look at, small enough that something happens in few bars.
ENV = EnvConfig(
    capital=CAPITAL,
    max_quantity=4,
    window=7,
    episode_bars=None,
    drawdown_limit_bp=300,
    features=FeatureConfig(
        zscore_window=90, warmup=20, regime_windows=(20, 60), timeframes=(5 * MINUTE, 30 * MINUTE)
    ),
)


def paid(core: CoreReward) -> EnvConfig:
    """The same environment, with another core reward and loud shaping."""
    reward = RewardConfig(
        core=core, idleness=0.01, realized_profit=3.0, overtrading=0.2, overtrading_bars=9,
        trail=0.3, early_close=0.4, early_distance=0.2, profit_window=16, eta=0.05,
    )  # fmt: skip
    return EnvConfig(
        **{name: getattr(ENV, name) for name in EnvConfig.__struct_fields__ if name != "reward"},
        reward=reward,
    )


def episodes_of(segments: Segments, env: EnvConfig, rng: np.random.Generator) -> list[Episode]:
    """One episode on every instrument, each in an environment of its own core."""
    found = []
    for n, instrument in enumerate(segments.head.instruments):
        core = Core(segments, env)
        count = len(segments.bars_of(n))
        bar = int(rng.integers(0, count - 3))
        bars = int(rng.integers(2, count - bar))
        found.append(play(core, 0, instrument.symbol, bar, min(bars, count - bar - 1), rng))
    return found


def check_coverage(episodes: list[Episode]) -> None:
    """The comparison is worth something: the episodes hold what can differ."""
    assert any(e.seen[-1].terminated for e in episodes), "no episode terminated"
    assert any(e.seen[-1].truncated for e in episodes), "no episode was truncated"
    assert sum(len(s.events) > 0 for e in episodes for s in e.seen) > 10 * len(episodes)


def check_same(episodes: list[Episode], streamed: dict[str, list]) -> None:
    for episode in episodes:
        theirs = streamed[episode.symbol]
        assert len(theirs) == len(episode.seen), episode.symbol
        for mine, other in zip(episode.seen, theirs, strict=True):
            for name, a, b in zip(mine._fields, mine, other, strict=True):
                assert a == b, (episode.symbol, mine.barrier, name)


@pytest.mark.parametrize("core", list(CoreReward))
def test_the_environment_and_the_stream_agree(core: CoreReward, tmp_path: Path) -> None:
    """Observation, mask, reward, equity, slot and events of every close, up to the end."""
    rng = np.random.default_rng([SEED, list(CoreReward).index(core)])
    env = paid(core)
    run = prepared(BUNDLED, aliases(BUNDLED, 8, rng), env, tmp_path)
    episodes = episodes_of(segments_of(run, env), env, rng)
    streamed = in_the_stream(
        run, {e.symbol: e for e in episodes}, env,
        max_rows=int(rng.integers(64, 8192)), spans=(int(rng.integers(1, 400)) * 10**9,),
    )  # fmt: skip
    check_same(episodes, streamed)


@pytest.mark.real_data
def test_two_hundred_episodes_on_real_bars(data_folder: Path, tmp_path: Path) -> None:
    """Three markets, every kind of instrument, several partitions, frames cut anywhere."""
    charts = [
        *(Chart(data_folder / "nse_50_5m_week_2026.parquet", symbol, "0.05", "XBOM",
                "Asia/Kolkata", "INR", "40", 1) for symbol in ("NIFTY", "RELIANCE", "SBIN")),
        *(Chart(data_folder / "us_equity_1m_trades_2013.parquet", symbol, "0.0001", "XNYS",
                "America/New_York", "USD", "1.5", 100) for symbol in ("SPY", "BAC")),
    ]  # fmt: skip
    total = 0
    for number, group in enumerate((charts[:3], charts[3:])):
        rng = np.random.default_rng([SEED, 100 + number])
        env = paid(list(CoreReward)[number])
        run = prepared(group, aliases(group, 105, rng), env, tmp_path, partitions=3)
        episodes = episodes_of(segments_of(run, env), env, rng)
        check_coverage(episodes)
        check_same(episodes, in_the_stream(run, {e.symbol: e for e in episodes}, env))
        total += len(episodes)
    assert total >= 200
