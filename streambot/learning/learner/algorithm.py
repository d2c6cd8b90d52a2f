"""`StreamPPO`: RLlib's PPO, whose experience comes from actors outside Ray.

    poll -> fragments -> columns -> RLlib's learner -> weights

RLlib samples nothing here, and is told so: then it makes no environment and no runner of one, and a
learner in this process needs no Ray that runs. Checkpoints are not RLlib's, which are pickles: `fetch`
and `memory` give tensors, and `give` and `remember` take them back.
"""

from __future__ import annotations

import logging
import tempfile
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
)

from streambot.agents.memory import part_of
from streambot.domain.errors import DataError
from streambot.learning.learner.cluster import own_folder, stops_with_ray
from streambot.learning.learner.columns import Steps, shares
from streambot.learning.learner.faults import check_whole, explained
from streambot.learning.learner.meeting import met_in
from streambot.learning.learner.module import PolicyModule, model_config, spaces_of
from streambot.learning.learner.updates import MEASURES, FragmentLearner, PPOFragmentLearner, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from torch import Tensor

    from streambot.agents.ppo import PPOAgent
    from streambot.streams.fragment import Fragment

COUNTS = "counts."
UNCLIPPED = 1e9
"""RLlib cuts the loss of values by default, in units of rewards; ours does not."""


class Feed(Protocol):
    """Where experience comes from."""

    def take(self, steps: int) -> tuple[list[Fragment], list[Any]]:
        """Fragments of `steps` steps or a little more, and the rewards to learn from, [T] each; none yet: empty."""
        ...


class StreamAlgorithm:
    """What RLlib's algorithms have in common here: `update`, and everything in and out as tensors.

    Attributes:
        feed: where experience comes from; to be set for `train`.
        updates: made so far: the sequence number of the weights.
        trained_steps: steps learnt from so far.
        minibatch: steps of a gradient, over all learners.
    """

    feed: Feed | None = None
    updates = 0
    trained_steps = 0
    minibatch = 1
    _results: list[Any]
    _stopped = False
    # Of RLlib's `Algorithm`.
    config: Any
    metrics: Any
    learner_group: Any

    def _setup_logdir(self) -> None:
        """Ray would make a folder in the user's home for every algorithm; nothing is written to it."""
        self._logdir = tempfile.gettempdir()

    def stop(self) -> None:
        """Give back what Ray lent; again, nothing."""
        if not self._stopped:
            self._stopped = True
            super().stop()  # type: ignore[misc]  # of RLlib's `Algorithm`

    def training_step(self) -> None:
        """One update, if there is experience for one; in RLlib's metrics, which `train` sums up."""
        assert self.feed is not None  # noqa: S101  # set by who trains
        fragments, rewards = self.feed.take(self.config.total_train_batch_size)
        if not fragments:
            return
        before = self.trained_steps
        self.update(fragments, rewards)
        steps = self.trained_steps - before
        self.metrics.log_value((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED), steps, reduce="sum")
        self.metrics.log_value(
            (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), steps, reduce="lifetime_sum"
        )
        self.metrics.aggregate(self._results, key=LEARNER_RESULTS)

    def update(
        self, fragments: Sequence[Fragment], rewards: Sequence[Any], *, progress: float = 0.0
    ) -> dict[str, float]:
        """Learn from fragments, all steps of each; they have been learnt from when it returns.

        Args:
            fragments: of any lengths.
            rewards: what is learnt from, [T] each.
            progress: share of the training that is done, for the schedules of `LearnConfig`.

        Returns:
            What was measured of it, see `updates.MEASURES`; finite numbers, and those there are.

        Raises:
            DataError: fewer steps than learners.
            ConfigError: there is no memory for it, or a learner has died.
        """
        steps = sum(fragment.head.steps for fragment in fragments)
        if steps < self.learners:
            raise DataError(
                f"{steps} steps for {self.learners} learners",
                hint="larger batches, or fewer learners",
            )
        with explained(self.learner_group):
            check_whole(self.learner_group)
            self._results = self._learn(shares(fragments, rewards, self.learners), steps, progress)
        self.updates += 1
        self.trained_steps += steps
        said = [result[DEFAULT_MODULE_ID] for result in self._results]
        found = {
            name: fmean(float(of_one[name].peek()) for of_one in said)
            for name in MEASURES
            if name in said[0]
        }
        return {name: value for name, value in found.items() if isfinite(value)}

    @property
    def learners(self) -> int:
        """How many share an update."""
        return max(1, int(self.config.num_learners))

    def _learn(self, parts: list[Steps], steps: int, progress: float) -> list[Any]:
        turn = Turn(self.updates, progress, self.minibatches(parts, steps))
        data = {"batches": parts} if self.config.num_learners else {"batch": parts[0]}
        all_steps = self.trained_steps + steps
        results: list[Any] = self.learner_group.update(
            **data, turn=turn,
            timesteps={
                NUM_ENV_STEPS_SAMPLED_LIFETIME: all_steps, NUM_ENV_STEPS_TRAINED_LIFETIME: all_steps
            },
        )  # fmt: skip
        return results

    def minibatches(self, parts: list[Steps], steps: int) -> int:
        """How many an epoch has: as large as `LearnConfig` asks, about, and all alike."""
        del parts
        wanted = round(steps / self.minibatch)
        return max(1, min(wanted, steps // self.learners))

    def give(self, agent: PPOAgent) -> None:
        """Take over an agent's weights."""
        named = {
            name: value.clone()
            for name, value in agent.state().items()
            if name.startswith(("network.", "critic."))
        }
        self.each(lambda learner: learner.policy.load_weights(named))

    def fetch(self, agent: PPOAgent) -> None:
        """Put the weights as they are now into an agent."""
        named = self.each(lambda learner: learner.policy.weights(), only_first=True)[0]
        agent.network.load_state_dict(part_of(named, "network."))
        agent.critic.load_state_dict(part_of(named, "critic."))

    def memory(self) -> dict[str, Tensor]:
        """What has to be kept to go on exactly, by name: of the optimizer, and how far it is."""
        found = self.each(lambda learner: learner.memory(), only_first=True)[0]
        counts = {"updates": self.updates, "steps": self.trained_steps}
        return dict(found) | {f"{COUNTS}{n}": torch.tensor(v) for n, v in counts.items()}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Take over what `memory` gave."""
        counts = part_of(memory, COUNTS)
        self.updates = int(counts.get("updates", self.updates))
        self.trained_steps = int(counts.get("steps", self.trained_steps))
        of_learners = {n: v for n, v in memory.items() if not n.startswith(COUNTS)}
        self.each(lambda learner: learner.remember(of_learners))

    def each(
        self, function: Callable[[FragmentLearner], Any], *, only_first: bool = False
    ) -> list[Any]:
        """What a function says of every learner.

        Raises:
            ConfigError: a learner has died.
        """
        group = self.learner_group
        with explained(group):
            check_whole(group)
            first = [0] if only_first and group.is_remote else None
            results = list(group.foreach_learner(function, remote_actor_ids=first))
            for result in results:
                if not result.ok:
                    raise result.get()
            return [result.get() for result in results]


def configured(
    config: AlgorithmConfig,
    agent: PPOAgent,
    learner: type[FragmentLearner],
    module: type[PolicyModule],
    *,
    batch: int,
    learners: int,
    gpus: float,
) -> AlgorithmConfig:
    """The settings of RLlib that its algorithms share here.

    Args:
        config: of the algorithm.
        agent: whose networks.
        learner, module: that train them.
        batch: steps of an update.
        learners: processes that share an update; 0: this one.
        gpus: of each.
    """
    learn = agent.config.learn
    observation_space, action_space = spaces_of(agent.config)
    config._is_online = False  # noqa: SLF001  # as RLlib's own algorithms without an environment say it
    return (
        config.environment(observation_space=observation_space, action_space=action_space)
        .framework("torch")
        # It would tell of its new interface, and of a learner that died what `faults` tells.
        .debugging(seed=agent.config.seed, log_level="CRITICAL", log_sys_usage=False)
        .env_runners(num_env_runners=0)
        .reporting(min_time_s_per_iteration=0)  # `train` makes one update, also with APPO
        .learners(num_learners=learners, num_gpus_per_learner=gpus, learner_class=learner)
        .rl_module(
            rl_module_spec=RLModuleSpec(module_class=module, model_config=model_config(agent))
        )
        .training(
            train_batch_size_per_learner=max(1, batch // max(1, learners)),
            num_epochs=learn.epochs,
            lr=learn.lr,
            gamma=learn.gamma,
            clip_param=learn.clip,
            entropy_coeff=learn.entropy,
            grad_clip=learn.max_grad_norm,
            grad_clip_by="global_norm",
            use_kl_loss=False,
        )
    )


def built(config: AlgorithmConfig, agent: PPOAgent) -> Any:  # noqa: ANN401  # of the config's class
    """The algorithm, with the weights of an agent.

    Raises:
        ConfigError: its learners do not start.
    """
    for name in ("ray", "ray.rllib"):  # they tell people who write modules what is old in RLlib
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with explained(), met_in(own_folder()):
        algorithm = config.build_algo()
    stops_with_ray(algorithm)
    algorithm.minibatch = agent.config.learn.minibatch
    algorithm.give(agent)
    return algorithm


class StreamPPO(StreamAlgorithm, PPO):  # type: ignore[misc]
    """PPO on what a `feed` gives, or on what `update` is called with."""


def stream_ppo(agent: PPOAgent, *, batch: int, learners: int = 0, gpus: float = 0) -> StreamPPO:
    """The algorithm that trains an agent's networks, as its `LearnConfig` says.

    Args:
        agent: whose networks; its weights are begun with.
        batch: steps of an update.
        learners: processes that share an update; 0: this one.
        gpus: of each.

    Raises:
        ConfigError: its learners do not start.
    """
    learn = agent.config.learn
    config = configured(
        PPOConfig(algo_class=StreamPPO), agent, PPOFragmentLearner, PolicyModule,
        batch=batch, learners=learners, gpus=gpus,
    ).training(
        lambda_=learn.lam, minibatch_size=1, vf_clip_param=UNCLIPPED,
        vf_loss_coeff=learn.value / 2,  # of the whole square, where ours is of half of it
    )  # fmt: skip
    algorithm: StreamPPO = built(config, agent)
    return algorithm
