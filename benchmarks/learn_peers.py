"""Others that do what the learning code does, in this process: torchopt, higher, Stable-Baselines3.

A peer that is not installed skips its figure, and the table says so. Torch is the same on all sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.peers import load
from streambot.agents.adaptation import Parameters, taken
from streambot.agents.batch import Batch
from streambot.agents.losses import Reach, dice_loss, divergence, ppo_loss
from streambot.agents.maml import MetaConfig
from streambot.agents.networks import ILLEGAL, Affine, MixtureNetwork, Tanh
from streambot.env.vector_env import VectorTradingEnv

Says = Callable[[Tensor, Tensor], Tensor]
"""Log-probabilities [..., A] at observations and mask."""


class Mixture(nn.Module):
    """A mixture as one writes it, expert by expert, with the parameters of one of ours."""

    def __init__(self, ours: MixtureNetwork) -> None:
        super().__init__()
        experts = _affine(ours.experts.layers[0]).weight.shape[0]
        self.experts = nn.ModuleList(_sequence(ours.experts.layers, k) for k in range(experts))
        self.gate = _sequence(ours.gate.layers, None)
        self.regimes = ours.gate.regimes

    def forward(self, obs: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities [..., A]."""
        said = [
            expert(obs).masked_fill(mask == 0, ILLEGAL).log_softmax(-1) for expert in self.experts
        ]
        gate = self.gate(obs[..., self.regimes]).log_softmax(-1)
        return torch.logsumexp(gate.unsqueeze(-1) + torch.stack(said, -2), -2)


def _affine(layer: nn.Module) -> Affine:
    assert isinstance(layer, Affine)
    return layer


def _sequence(layers: nn.Sequential, k: int | None) -> nn.Sequential:
    made: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, Tanh):
            made.append(nn.Tanh())
            continue
        ours = _affine(layer)
        weight, bias = (part if k is None else part[k] for part in (ours.weight, ours.bias))
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        linear.load_state_dict({"weight": weight, "bias": bias})
        made.append(linear)
    return nn.Sequential(*made)


class LogProbs(nn.Module):
    """The log-probabilities of one of our networks alone."""

    def __init__(self, network: MixtureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, obs: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities [..., A]."""
        log_probs: Tensor = self.network(obs, mask).log_probs
        return log_probs


class Tasks(NamedTuple):
    """Tasks one by one, as loops take them.

    Attributes:
        supports, queries: [N, T] each.
        reaches: of the supports, computed before.
        config: of the outer loop.
        lr: of the inner one.
    """

    supports: list[Batch]
    queries: list[Batch]
    reaches: list[Reach]
    config: MetaConfig
    lr: float

    def inner(self, says: Says, k: int) -> Tensor:
        """What a step of the inner loop minimises."""
        some = self.supports[k]
        log_prob = taken(says(some.obs, some.mask), some.action)
        return dice_loss(log_prob, some.advantage, self.reaches[k], some.log_prob)

    def outer(self, says: Says, k: int) -> Tensor:
        """The surrogate after adaptation."""
        some = self.queries[k]
        log_prob = taken(says(some.obs, some.mask), some.action)
        return ppo_loss(log_prob, some.log_prob, some.advantage, self.config.clip)

    def left(self, says: Says, k: int) -> Tensor:
        """The penalty for leaving the policy that acted, before adaptation."""
        some = self.supports[k]
        log_prob = taken(says(some.obs, some.mask), some.action)
        return self.config.kl * divergence(log_prob, some.log_prob).mean()


def by_hand(network: nn.Module, tasks: Tasks) -> None:
    """A loop of `autograd.grad(create_graph=True)`, as learn2learn does it; slopes lie in `grad`."""
    first = dict(network.named_parameters())

    def says(parameters: Mapping[str, Tensor]) -> Says:
        def log_probs(obs: Tensor, mask: Tensor) -> Tensor:
            said: Tensor = functional_call(network, dict(parameters), (obs, mask))
            return said

        return log_probs

    network.zero_grad(set_to_none=True)
    for k in range(len(tasks.supports)):
        left = tasks.left(says(first), k)
        now: Parameters = dict(first)
        for _ in range(tasks.config.steps):
            slopes = torch.autograd.grad(
                tasks.inner(says(now), k), list(now.values()), create_graph=True
            )
            now = {
                name: value - tasks.lr * slope
                for (name, value), slope in zip(now.items(), slopes, strict=True)
            }
        _backward(tasks.outer(says(now), k) + left, tasks)


def by_torchopt(network: nn.Module, tasks: Tasks) -> None:
    """torchopt: steps of `MetaSGD` in place, and the parameters put back after each task."""
    torchopt = load("torchopt")
    network.zero_grad(set_to_none=True)
    inner = torchopt.MetaSGD(network, lr=tasks.lr)
    before = (
        torchopt.extract_state_dict(network, by="reference"), torchopt.extract_state_dict(inner),
    )  # fmt: skip
    for k in range(len(tasks.supports)):
        left = tasks.left(network, k)
        for _ in range(tasks.config.steps):
            inner.step(tasks.inner(network, k))
        _backward(tasks.outer(network, k) + left, tasks)
        torchopt.recover_state_dict(network, before[0])
        torchopt.recover_state_dict(inner, before[1])


def by_higher(network: nn.Module, tasks: Tasks) -> None:
    """higher: a functional copy of the network for each task."""
    higher = load("higher")
    network.zero_grad(set_to_none=True)
    inner = torch.optim.SGD(network.parameters(), lr=tasks.lr)
    for k in range(len(tasks.supports)):
        with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (copy, steps):
            left = tasks.left(copy, k)
            for _ in range(tasks.config.steps):
                steps.step(tasks.inner(copy, k))
            _backward(tasks.outer(copy, k) + left, tasks)


def _backward(loss: Tensor, tasks: Tasks) -> None:
    torch.autograd.backward(loss / len(tasks.supports))


class Nothing(gymnasium.Env[Any, Any]):
    """An environment of 64 floats and 12 actions in which nothing happens: only its spaces matter."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (64,), np.float32)
    action_space = gymnasium.spaces.Discrete(12)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Nothing."""
        return np.zeros(64, np.float32), {}

    def step(self, _: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Nothing."""
        return np.zeros(64, np.float32), 0.0, False, False, {}


def sb3_updates(batch: Batch, minibatch: int, epochs: int) -> Callable[[], None]:
    """`PPO.train` of Stable-Baselines3 on a batch of `Nothing`, [N, T]."""
    load("stable_baselines3")
    from stable_baselines3 import PPO
    from stable_baselines3.common.logger import configure

    flat = batch.flat()
    peer = PPO(
        "MlpPolicy", Nothing(), n_steps=len(flat.action), batch_size=minibatch, n_epochs=epochs,
        ent_coef=0.01, device="cpu", seed=0,
    )  # fmt: skip
    peer.set_logger(configure(None, []))
    kept = peer.rollout_buffer
    for name, values in (
        ("observations", flat.obs), ("actions", flat.action), ("log_probs", flat.log_prob),
        ("advantages", flat.advantage), ("returns", flat.target), ("values", flat.target),
    ):  # fmt: skip
        column = getattr(kept, name)
        column[...] = values.numpy().reshape(column.shape)
    kept.full = True
    return peer.train


def sb3_rollouts(env: VectorTradingEnv, steps: int) -> Callable[[], object]:
    """`collect_rollouts` of Stable-Baselines3's PPO, two layers of 64, on one of our environments."""
    load("stable_baselines3")
    from stable_baselines3 import PPO

    peer = PPO("MlpPolicy", as_vec_env(env), n_steps=steps, device="cpu", seed=0)
    _, callback = peer._setup_learn(2**40)  # noqa: SLF001  # what `learn` does before it collects

    def collect() -> object:
        assert peer.env is not None
        return peer.collect_rollouts(peer.env, callback, peer.rollout_buffer, steps)

    return collect


def as_vec_env(env: VectorTradingEnv) -> Any:  # noqa: ANN401  # a class that may be missing
    """Environments that begin again in the same step, as Stable-Baselines3 takes them."""
    from stable_baselines3.common.vec_env import VecEnv

    class Adapted(VecEnv):
        """One of our environments as Stable-Baselines3 wants it; masks are left out."""

        def __init__(self) -> None:
            super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
            self._actions = np.zeros(env.num_envs, np.int64)

        def reset(self) -> Any:  # noqa: ANN401
            return env.reset(seed=1)[0]

        def step_async(self, actions: Any) -> None:  # noqa: ANN401
            self._actions = actions

        def step_wait(self) -> Any:  # noqa: ANN401
            obs, reward, terminated, truncated, given = env.step(self._actions)
            infos: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]
            for i in np.flatnonzero(terminated | truncated).tolist():
                infos[i] = {
                    "terminal_observation": given["final_obs"][i],
                    "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                }
            return obs, reward.astype(np.float32), terminated | truncated, infos

        def close(self) -> None:
            env.close()

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:  # noqa: ANN401
            return [None] * env.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:  # noqa: ANN401
            raise AttributeError(attr_name)

        def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:  # noqa: ANN401
            raise AttributeError(method_name)

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ANN401
            return [False] * env.num_envs

    return Adapted()
