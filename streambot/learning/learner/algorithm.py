"""`StreamPPO`: RLlib's PPO, whose experience comes from actors outside Ray.

    poll -> fragments -> episodes -> RLlib's learner and connectors -> weights

RLlib samples nothing here. What it would call its environment runner is made (RLlib insists) over an
environment of the right shapes that is never stepped. Checkpoints are not RLlib's, which are pickles:
`weights_of` and `memory_of_learner` give tensors by name, and take them back.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from streambot.agents.memory import memory_of, part_of, remember
from streambot.learning.learner.episodes import episodes_of
from streambot.learning.learner.module import (
    BALANCE,
    CLIPPED,
    GATE_ENTROPY,
    KL,
    BalancedPPOLearner,
    PolicyModule,
    model_config,
    spaces_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from streambot.agents.ppo import PPOAgent
    from streambot.streams.fragment import Fragment

MEASURES = {
    "policy_loss": POLICY_LOSS_KEY,
    "value_loss": VF_LOSS_KEY,
    "entropy": ENTROPY_KEY,
    "kl": KL,
    "clipped": CLIPPED,
    "gate_entropy": GATE_ENTROPY,
    "gradient_norm": "gradients_default_optimizer_global_norm",
}
"""What an update is measured by, and what RLlib's learner calls it."""
UNCLIPPED = 1e9
"""RLlib clips the loss of values by default, in units of rewards; ours does not."""


class Feed(Protocol):
    """Where experience comes from."""

    def take(self, steps: int) -> tuple[list[Fragment], list[Any]]:
        """Fragments of `steps` steps or a little more, and the rewards to learn from, [T] each; none yet: empty."""
        ...


class NoEnvironment(gym.Env[Any, Any]):
    """Has the shapes of an agent's observations and actions. RLlib makes one; nobody steps it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.observation_space, self.action_space = config["spaces"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """An observation of zeros at which everything is legal."""
        super().reset(seed=seed, options=options)
        return np.ones(self.observation_space.shape or (), np.float32), {}

    def step(self, action: Any) -> Any:  # noqa: ANN401
        """The end of the episode."""
        del action
        return np.ones(self.observation_space.shape or (), np.float32), 0.0, True, False, {}


def stream_ppo(agent: PPOAgent, *, batch: int, learners: int = 0, gpus: float = 0) -> StreamPPO:
    """The algorithm that trains an agent's networks, as its `LearnConfig` says.

    Args:
        agent: whose networks; its weights are begun with.
        batch: steps of an update.
        learners: processes that share an update; 0: this one.
        gpus: of each.
    """
    learn, spaces = agent.config.learn, spaces_of(agent.config)
    config = (
        PPOConfig(algo_class=StreamPPO)
        .environment(NoEnvironment, env_config={"spaces": spaces})
        .framework("torch")
        .debugging(seed=agent.config.seed, log_level="ERROR")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
        .learners(
            num_learners=learners,
            num_gpus_per_learner=gpus,
            learner_class=BalancedPPOLearner,
            learner_config_dict={BALANCE: learn.balance},
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(module_class=PolicyModule, model_config=model_config(agent))
        )
        .training(
            train_batch_size_per_learner=batch // max(1, learners),
            minibatch_size=min(learn.minibatch, batch // max(1, learners)),
            num_epochs=learn.epochs,
            lr=learn.lr,
            gamma=learn.gamma,
            lambda_=learn.lam,
            clip_param=learn.clip,
            entropy_coeff=learn.entropy,
            vf_loss_coeff=learn.value,
            vf_clip_param=UNCLIPPED,
            grad_clip=learn.max_grad_norm,
            grad_clip_by="global_norm",
            use_kl_loss=False,
        )
    )
    algorithm: StreamPPO = config.build_algo()
    algorithm.spaces = spaces
    algorithm.give(agent)
    return algorithm


class StreamPPO(PPO):  # type: ignore[misc]
    """PPO on what a `feed` gives.

    Attributes:
        feed: where experience comes from; set before `train`.
        spaces: of observations and actions.
        updates: made so far: the sequence number of the weights.
        trained_steps: steps learnt from so far.
    """

    feed: Feed | None = None
    spaces: Any = None
    updates = 0
    trained_steps = 0

    def training_step(self) -> None:
        """One update, if there is experience for one."""
        assert self.feed is not None  # noqa: S101  # set by who trains
        fragments, rewards = self.feed.take(self.config.total_train_batch_size)
        if fragments:
            self.update(fragments, rewards)

    def update(self, fragments: Sequence[Fragment], rewards: Sequence[Any]) -> dict[str, float]:
        """Learn from fragments, through RLlib's connectors and learner.

        Returns:
            What was measured of it, see `MEASURES`; finite numbers alone, and those there are.
        """
        steps = sum(fragment.head.steps for fragment in fragments)
        self.trained_steps += steps
        self.metrics.log_value((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED), steps, reduce="sum")
        self.metrics.log_value(
            (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), steps, reduce="lifetime_sum"
        )
        results = self.learner_group.update(
            episodes=episodes_of(fragments, self.spaces, rewards),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.trained_steps},
            num_epochs=self.config.num_epochs,
            minibatch_size=self.config.minibatch_size,
            shuffle_batch_per_epoch=True,
        )
        self.updates += 1
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        return self._measured()

    def _measured(self) -> dict[str, float]:
        of_module = self.metrics.peek((LEARNER_RESULTS, DEFAULT_MODULE_ID), default={})
        found = {
            ours: float(of_module[theirs])
            for ours, theirs in MEASURES.items()
            if of_module.get(theirs) is not None
        }
        return {name: value for name, value in found.items() if isfinite(value)}

    def give(self, agent: PPOAgent) -> None:
        """Take over an agent's weights."""
        state = _state_of(agent)
        self.learner_group.foreach_learner(lambda learner: _load(learner, state))

    def fetch(self, agent: PPOAgent) -> None:
        """Put the weights as they are now into an agent."""
        (state, *_) = self._each(_weights)
        agent.network.load_state_dict(part_of(state, "network."))
        agent.critic.load_state_dict(part_of(state, "critic."))

    def memory(self) -> dict[str, Tensor]:
        """What the optimizer remembers, by name."""
        (memory, *_) = self._each(_memory)
        found: dict[str, Tensor] = memory
        return found

    def remember(self, memory: dict[str, Tensor]) -> None:
        """Take over what `memory` gave."""
        self._each(lambda learner: _remember(learner, memory))

    def _each(self, function: Any) -> list[Any]:  # noqa: ANN401
        return [
            result.get() if hasattr(result, "get") else result
            for result in self.learner_group.foreach_learner(function)
        ]


def _state_of(agent: PPOAgent) -> dict[str, Tensor]:
    return {
        name: value.clone()
        for name, value in agent.state().items()
        if name.startswith(("network.", "critic."))
    }


def _load(learner: Any, state: dict[str, Tensor]) -> None:  # noqa: ANN401
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    module.network.load_state_dict(part_of(state, "network."))
    module.critic.load_state_dict(part_of(state, "critic."))


def _weights(learner: Any) -> dict[str, Tensor]:  # noqa: ANN401
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    return {
        f"{part}.{name}": value.detach().cpu().clone()
        for part in ("network", "critic")
        for name, value in getattr(module, part).state_dict().items()
    }


def _optimizer(learner: Any) -> torch.optim.Optimizer:  # noqa: ANN401
    ((_, optimizer),) = learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
    assert isinstance(optimizer, torch.optim.Optimizer)  # noqa: S101
    return optimizer


def _memory(learner: Any) -> dict[str, Tensor]:  # noqa: ANN401
    return {name: value.clone() for name, value in memory_of(_optimizer(learner)).items()}


def _remember(learner: Any, memory: dict[str, Tensor]) -> None:  # noqa: ANN401
    remember(_optimizer(learner), memory)
