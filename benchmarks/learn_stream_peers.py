"""Others that learn what `learn_task` says, each in a process of its own that tells how far it is.

    python -m benchmarks.learn_stream_peers sb3 HOME STEPS

All of them step the very environments that our actors step, 64 side by side in one compiled call, with networks,
epochs and minibatches of the same sizes. They know no mask: an illegal action is a rejected order. `learner` is no
peer: it is our own learner, on experience that lies in memory already, which is as fast as ours can be. With an actor
beside it that has nothing to do with it, it is as fast as ours can be where cores share caches and memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from benchmarks.learn_task import (
    BATCH,
    ENVS,
    EPOCHS,
    LAYERS,
    MINIBATCH,
    ROLLOUT,
    Files,
    new_agent,
)
from benchmarks.peers import load

BATCHES = 4
"""Of experience that `learner` learns from again and again."""
SINGLE_ENVS = 8


def command(name: str, files: Files, steps: int) -> list[str]:
    """What runs a peer until it has learnt from so many steps."""
    return [
        sys.executable, "-W", "ignore", "-m", "benchmarks.learn_stream_peers", name, str(files.home),
        str(steps),
    ]  # fmt: skip


def steps_of(line: dict[str, Any]) -> int | None:
    """Steps that a line says are done."""
    return int(line["steps"])


def _tell(steps: float) -> None:
    print(json.dumps({"steps": int(steps)}), flush=True)


def sb3(files: Files, steps: int) -> None:
    """PPO of Stable-Baselines3."""
    load("stable_baselines3")
    from benchmarks.learn_peers import as_vec_env

    _sb3(as_vec_env(files.envs()), steps)


def sb3_single(files: Files, steps: int) -> None:
    """The same as people usually have it: a few environments, stepped one by one in Python."""
    load("stable_baselines3")
    from stable_baselines3.common.vec_env import DummyVecEnv

    _sb3(DummyVecEnv([lambda slot=slot: files.env(slot) for slot in range(SINGLE_ENVS)]), steps)  # type: ignore[misc]


def _sb3(envs: Any, steps: int) -> None:  # noqa: ANN401  # of a package that may be missing
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    class Telling(BaseCallback):
        """Behind every update, before the next rollout."""

        def _on_rollout_start(self) -> None:
            _tell(self.num_timesteps)

        def _on_step(self) -> bool:
            return True

    peer = PPO(
        "MlpPolicy", envs, n_steps=BATCH // envs.num_envs, batch_size=MINIBATCH,
        n_epochs=EPOCHS, ent_coef=0.01, policy_kwargs={"net_arch": list(LAYERS)}, device="cpu", seed=0,
    )  # fmt: skip
    peer.learn(steps, callback=Telling())
    _tell(peer.num_timesteps)


def rllib(files: Files, steps: int, runners: int = 0) -> None:
    """PPO of RLlib, its new interfaces, which samples in this process or in two of its own."""
    load("ray")
    import gymnasium as gym
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.tune.registry import register_env

    from streambot.learning.learner.cluster import ray_here

    home = str(files.home)
    register_env("trading", lambda told: Files.at(Path(home)).envs(told["num_envs"], "NextStep"))
    config = (
        PPOConfig()
        .environment("trading")
        .env_runners(
            num_env_runners=runners, num_envs_per_env_runner=ENVS // max(1, runners),
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .learners(num_learners=0)
        .rl_module(
            model_config=DefaultModelConfig(fcnet_hiddens=list(LAYERS), vf_share_layers=False)
        )
        .training(
            train_batch_size_per_learner=BATCH, minibatch_size=MINIBATCH, num_epochs=EPOCHS,
            use_kl_loss=False, entropy_coeff=0.01,
        )
        .debugging(log_level="ERROR", seed=0)
    )  # fmt: skip
    with ray_here(learners=max(1, runners)):
        algorithm: Any = config.build_algo()
        done = 0.0
        while done < steps:
            found = algorithm.train()
            done = found["env_runners"]["num_env_steps_sampled_lifetime"]
            _tell(done)
        algorithm.stop()


def rllib_runners(files: Files, steps: int) -> None:
    """The same, with two processes that sample."""
    rllib(files, steps, runners=2)


def learner(
    files: Files, steps: int, kind: str = "moe", meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Updates of our learner, on fragments in memory; `meanwhile` is called as each begins."""
    from streambot.agents.devices import resolve_device
    from streambot.learning.collecting import Collector
    from streambot.learning.learner.algorithm import stream_ppo

    resolve_device("cpu")
    agent = new_agent(kind)
    collector = Collector(files.envs(), ROLLOUT, training="bench", actor="a", incarnation=0, seed=1)
    batches = [collector.collect(agent, 0).fragments for _ in range(BATCHES)]
    learns = stream_ppo(agent, batch=BATCH)
    for update in range(steps // BATCH):
        fragments = batches[update % BATCHES]
        meanwhile()
        learns.update(fragments, [fragment.reward for fragment in fragments])
        learns.fetch(agent)
        _tell((update + 1) * BATCH)


def plain_learner(files: Files, steps: int) -> None:
    """The same, of one network."""
    learner(files, steps, "ppo")


def learner_beside(files: Files, steps: int) -> None:
    """The mixture's, and an actor that acts in a batch of its own during each update."""
    with _beside(files) as act:
        learner(files, steps, meanwhile=act)


@contextmanager
def _beside(files: Files) -> Iterator[Callable[[], None]]:
    with subprocess.Popen(
        command("actor", files, 0), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as actor:
        assert actor.stdin is not None
        assert actor.stdout is not None
        actor.stdout.readline()
        told = actor.stdin
        yield lambda: _more(told)
        told.close()


def _more(told: IO[bytes]) -> None:
    told.write(b"\n")


def actor(files: Files, steps: int) -> None:
    """Fragments of a batch for every line that it reads, dropped."""
    del steps
    from streambot.agents.devices import resolve_device
    from streambot.learning.collecting import Collector

    resolve_device("cpu")
    agent = new_agent("moe")
    collector = Collector(files.envs(), ROLLOUT, training="bench", actor="b", incarnation=0, seed=2)
    collector.collect(agent, 0)
    _tell(0)
    for _ in sys.stdin:
        collector.collect(agent, 0)


PEERS: dict[str, Callable[[Files, int], None]] = {
    "sb3": sb3,
    "sb3-single": sb3_single,
    "rllib": rllib,
    "rllib-runners": rllib_runners,
    "learner": learner,
    "plain-learner": plain_learner,
    "learner-beside": learner_beside,
    "actor": actor,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    PEERS[sys.argv[1]](Files.at(Path(sys.argv[2])), int(sys.argv[3]))
