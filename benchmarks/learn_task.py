"""What everybody learns in the rows `learn-stream` and beside it: one environment, one network, one batch.

64 numbers are observed of 8 instruments, 12 joint actions answer them; 64 environments side by side, 4,096
steps an update, 4 epochs in minibatches of 512, two layers of 64 for the policy and two for values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bars import MINUTE_NS
from benchmarks.dataset import write_bars, write_registry
from benchmarks.env_store import build
from benchmarks.pipeline import SYMBOLS
from streambot.agents.batch import LearnConfig
from streambot.agents.ppo import PPOAgent
from streambot.env.settings import make_config
from streambot.env.sources import StoredSource
from streambot.env.trading_env import TradingEnv
from streambot.env.vector_env import VectorTradingEnv
from streambot.learning.policy import AGENTS, agent_config

ENVS, ROLLOUT = 64, 64
BATCH = ENVS * ROLLOUT
EPOCHS, MINIBATCH, LAYERS = 4, 512, (64, 64)
BARS = 10_000
SETTINGS: dict[str, Any] = {"window": 10, "regime_windows": [64]}
FEATURES = 64


class Files(NamedTuple):
    """Where the bars are.

    Attributes:
        home: folder of everything, the store of the environments included.
        data, registry: files.
    """

    home: Path
    data: Path
    registry: Path

    @classmethod
    def at(cls, home: Path) -> Files:
        """Those of a folder."""
        return cls(home, home / "bars.parquet", home / "instruments.yaml")

    @classmethod
    def write(cls, home: Path) -> Files:
        """New ones."""
        made = cls.at(home)
        write_bars(made.data, SYMBOLS, BARS, MINUTE_NS)
        write_registry(made.registry, SYMBOLS)
        return made

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment of every process that takes part.

        One thread each: two cores are shared by all of them, and threads that wait for each other
        are slower.
        """
        return {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(self.home)}

    def envs(self, count: int = ENVS, mode: str = "SameStep") -> VectorTradingEnv:
        """Environments over them; `mode` says when one that ended begins again."""
        env = VectorTradingEnv(self.source(), count, autoreset_mode=mode, **SETTINGS)
        assert env.single_observation_space.shape == (FEATURES,)
        return env

    def env(self, slot: int) -> TradingEnv:
        """One of them, by itself."""
        return TradingEnv(self.source(), slot=slot, **SETTINGS)

    def source(self) -> StoredSource:
        """Their store, in the folder."""
        return build(self.home, data=str(self.data), registry=str(self.registry), **SETTINGS)

    def flags(self) -> list[str]:
        """The same as words of `streambot train`."""
        sets = [f"--set=window={SETTINGS['window']}", "--set=regime_windows=64"]
        learn = [f"--learn=epochs={EPOCHS}", f"--learn=minibatch={MINIBATCH}"]
        return [
            "--data", str(self.data), "--registry", str(self.registry), "--test-from", "none", *sets,
            *learn, "--batch", str(BATCH), "--envs", str(ENVS), "--rollout", str(ROLLOUT),
            "--hidden", ",".join(map(str, LAYERS)),
        ]  # fmt: skip


def new_agent(kind: str) -> PPOAgent:
    """An agent of that kind, `moe` or `ppo`, that begins."""
    learn = LearnConfig(epochs=EPOCHS, minibatch=MINIBATCH)
    return AGENTS[kind](agent_config(make_config(SETTINGS), hidden=LAYERS, learn=learn))
