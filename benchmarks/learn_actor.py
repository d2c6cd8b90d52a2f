"""An actor by itself: environments, mixture and fragments, with nobody behind it.

It is the actor that takes part in trainings (`learning.actor.act`), in this process: weights come from a log
in memory, and what it publishes is encoded, handed over and dropped. All sides are measured in CPU time, on
one thread.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.harness import MIN_ROUNDS, Check, Row, interleave, ratio
from benchmarks.learn_task import ENVS, FEATURES, ROLLOUT, Files, new_agent
from streambot.agents.devices import resolve_device
from streambot.agents.ppo import PPOAgent
from streambot.env.vector_env import VectorTradingEnv
from streambot.learning.actor import Acted, ActorPlace, act
from streambot.learning.declaration import EXPERIENCE, POLICY, RUNS, STATUS, Training
from streambot.learning.weights import encode_weights
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import Sink, StreamSpec

TARGET, TARGET_RATE = 0.5, 50_000.0
ENDLESS = 2**52


class Dropping(MemoryLog):
    """A log in memory that keeps what was written through `MemoryLog`, and drops what an actor writes.

    Attributes:
        bytes, records: that were handed over since it was made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.records = 0

    async def sink(self) -> Any:  # noqa: ANN401  # of another class than the one it stands for
        """See `Log.sink`; what is appended is counted."""
        return _Dropped(self)


class _Dropped:
    """`streams.ports.Sink` into nothing."""

    def __init__(self, log: Dropping) -> None:
        self._log = log

    async def append(self, stream: str, partition: int, value: bytes, **_: Any) -> Any:  # noqa: ANN401
        """Counts it."""
        del stream, partition
        self._log.bytes += len(value)
        self._log.records += 1
        done = asyncio.get_running_loop().create_future()
        done.set_result(0)
        return done

    async def flush(self) -> None:
        """There is nothing."""

    async def close(self) -> None:
        """There is nothing."""


def training_of(agent: PPOAgent, prefix: str = "bench.actor") -> Training:
    """A training of an agent, as its log would declare it."""
    namespace, _, name = prefix.rpartition(".")
    return Training(
        namespace=namespace, training=name, policy="main",
        topics={stream: f"{prefix}.{stream}" for stream in (EXPERIENCE, POLICY, STATUS, RUNS)},
        request=msgspec.Raw(b"{}"), data="", layout=agent.config.layout, seed=1, envs=ENVS,
        rollout=ROLLOUT,
    )  # fmt: skip


class Actor:
    """Acts with the same weights, rollout after rollout.

    Args:
        agent: whose weights.
        env: in which.
        rollouts: of one piece of work.

    Attributes:
        log: what was handed over.
    """

    def __init__(self, agent: PPOAgent, env: VectorTradingEnv, rollouts: int) -> None:
        self._env, self._rollouts, self._training = env, rollouts, training_of(agent)
        self._record = encode_weights(
            agent, training=self._training.training, policy=self._training.policy, sequence=0,
            wanted=ENDLESS,
        )  # fmt: skip
        self._lives = 0
        self.log = Dropping()

    def __call__(self) -> int:
        """One life; steps."""
        self._lives += 1
        with ThreadPoolExecutor(1) as executor:
            return asyncio.run(self._live(executor))

    async def _live(self, executor: ThreadPoolExecutor) -> int:
        self.log = log = Dropping()
        await log.create([StreamSpec(name=topic) for topic in self._training.topics.values()])
        writer: Sink = await MemoryLog.sink(log)
        topic, key = self._training.topics[POLICY], self._training.policy.encode()
        await writer.append(topic, 0, self._record, timestamp_ms=0, key=key)
        acted: list[Acted] = []
        await act(
            log, ActorPlace(self._training, "a", 0, self._lives), lambda _: self._env,
            executor=executor, now_ms=lambda: 0, stopping=lambda: len(acted) >= self._rollouts,
            tell=acted.append,
        )  # fmt: skip
        return acted[-1].steps


def rows(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Steps of the actor against inference alone, at the same batch of 64."""
    resolve_device("cpu")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        yield _row(Files.write(Path(folder)), rounds, 4 if quick else 32)


def _row(files: Files, rounds: int, rollouts: int) -> Row:
    moe, single = new_agent("moe"), new_agent("ppo")
    actors = {
        "mixture": Actor(moe, files.envs(), rollouts),
        "one network": Actor(single, files.envs(), rollouts),
    }
    contestants: dict[str, Callable[[], int]] = {
        **actors,
        "inference of the mixture alone": _inference(moe, files.envs(), rollouts * ROLLOUT),
        "of one network alone": _inference(single, files.envs(), rollouts * ROLLOUT),
        "stepping alone": _stepping(files.envs(), rollouts * ROLLOUT),
    }  # fmt: skip
    rates = interleave(contestants, rounds)
    sizes = {name: actor.log.bytes / (rollouts * ENVS * ROLLOUT) for name, actor in actors.items()}
    return Row(
        f"actor by itself, {ENVS} environments of {FEATURES} floats, fragments encoded and dropped",
        "env-steps per CPU second",
        rates,
        [
            Check("mixture", rates["mixture"], at_least=TARGET_RATE),
            ratio(rates, "mixture", "inference of the mixture alone", at_least=TARGET),
            ratio(rates, "one network", "of one network alone"),
        ],
        [
            "experience takes "
            + ", ".join(f"{size:.0f} bytes a step of the {name}" for name, size in sizes.items())
            + f"; {actors['mixture'].log.records:,} fragments of {rollouts} rollouts"
        ],
    )


def _inference(agent: PPOAgent, env: VectorTradingEnv, times: int) -> Callable[[], int]:
    obs, infos = env.reset(seed=1)
    seen, mask = torch.from_numpy(obs), torch.from_numpy(infos["action_mask"])
    uniform = torch.from_numpy(np.random.default_rng(1).random(ENVS, np.float32))

    def work() -> int:
        for _ in range(times):
            agent.select_action(seen, mask, uniform)
        return times * ENVS

    return work


def _stepping(env: VectorTradingEnv, times: int) -> Callable[[], int]:
    env.reset(seed=1)
    drawn = np.random.default_rng(1).integers(0, env.core.masks.shape[1], (64, ENVS))

    def work() -> int:
        for k in range(times):
            env.step(drawn[k & 63])
        return times * ENVS

    return work
