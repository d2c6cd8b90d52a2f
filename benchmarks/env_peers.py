"""Trading environments of others, each in a process of its own, on the same closes with random actions.

The processes run in `$BENCH_PEERS_PYTHON`, an interpreter with the peers installed, or in this one. A peer's rate is
the better one of its rates by CPU time and by wall time, so that two threads are not held against it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.bars import TICK, random_walk
from benchmarks.command import ROOT, environment, last_words
from benchmarks.harness import SkippedError

BARS = 10_000
EPISODE = 256
FLOATS = 64
THREADS = 2
INTERPRETER = "BENCH_PEERS_PYTHON"
Work = Callable[[], int]


def anytrading(_n: int, steps: int) -> Work:
    """gym-anytrading: 1 feature pair x 32 bars."""
    import pandas as pd

    envs = importlib.import_module("gym_anytrading.envs")

    bars = random_walk(BARS)
    env = envs.StocksEnv(
        pd.DataFrame({"Close": bars.close * TICK}), window_size=32, frame_bound=(32, BARS)
    )
    actions = np.random.default_rng(0).integers(0, 2, steps).tolist()

    def work() -> int:
        env.reset(seed=1)
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return steps

    return work


def sekai(n: int, steps: int) -> Work:
    """sekai: its own vector environment, or the single one; 63 returns and the position."""
    finance = importlib.import_module("sekai.envs.finance")
    settings: dict[str, Any] = {
        "prices": random_walk(BARS).close * TICK,
        "lookback": FLOATS - 1,
        "episode_length": EPISODE,
    }
    env = finance.TradingVecEnv(n, **settings)
    actions = np.random.default_rng(0).integers(0, 3, (64, n))

    def work() -> int:
        env.reset(seed=1)
        for k in range(steps):
            env.step(actions[k & 63])
        return n * steps

    return work


def torchtrade(n: int, steps: int) -> Work:
    """TorchTrade: its own vector environment, 12 bars x 5 features, two threads."""
    import pandas as pd
    import torch

    torch.set_num_threads(THREADS)
    offline = importlib.import_module("torchtrade.envs.offline")
    bars = random_walk(BARS)
    columns = {name: getattr(bars, name) * TICK for name in ("open", "high", "low", "close")}
    frame = pd.DataFrame(
        {"timestamp": pd.to_datetime(bars.ts), **columns, "volume": bars.volume.astype(float)}
    )
    env = offline.VectorizedSequentialTradingEnv(
        frame,
        offline.VectorizedSequentialTradingEnvConfig(
            num_envs=n,
            time_frames="1Min",
            window_sizes=12,
            execute_on="1Min",
            max_traj_length=EPISODE,
        ),
    )
    actions = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (64, n)))

    def work() -> int:
        state = env.reset()
        for k in range(steps):
            state["action"] = actions[k & 63]
            _, state = env.step_and_maybe_reset(state)
        return n * steps

    return work


PEERS = {
    "gym-anytrading": ("gym_anytrading", anytrading),
    "sekai": ("sekai", sekai),
    "TorchTrade": ("torchtrade", torchtrade),
}


class Peer:
    """A peer in its process: it works when it is asked to, and waits otherwise.

    Args:
        name: of `PEERS`.
        n: environments.
        steps: vector steps of one piece of work.

    Raises:
        SkippedError: it cannot be measured here.
    """

    def __init__(self, name: str, n: int, steps: int) -> None:
        python = os.environ.get(INTERPRETER, sys.executable)
        self._name = name
        # A file: a pipe that nobody reads fills up.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [python, "-W", "ignore", "-m", "benchmarks.env_peers", name, str(n), str(steps)],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as cause:
            self._errors.close()
            raise SkippedError(f"${INTERPRETER}: {cause.strerror}") from None
        self._answer()

    def rate(self) -> float:
        """Environment steps a second of one piece of work."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("= "):
                return line[2:]
        self._process.communicate()
        self._errors.seek(0)
        said = last_words(self._errors.read())
        self._errors.close()
        raise SkippedError(f"{self._name} cannot be measured: {said}")


def start(
    names: tuple[str, ...], n: int, steps: dict[str, int]
) -> tuple[dict[str, Peer], list[str]]:
    """The peers that can be measured here, and why the others cannot."""
    peers: dict[str, Peer] = {}
    notes = []
    for name in names:
        try:
            peers[name] = Peer(name, n, steps[name])
        except SkippedError as reason:
            notes.append(f"{reason} (set ${INTERPRETER} to a Python that has it)")
    return peers, notes


def _serve(name: str, n: int, steps: int) -> int:
    module, make = PEERS[name]
    importlib.import_module(module)
    work = make(n, steps)
    work()
    print("= ready", flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        units = work()
        spent = min(time.process_time() - cpu, time.perf_counter() - wall)
        print("=", json.dumps(units / spent), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
