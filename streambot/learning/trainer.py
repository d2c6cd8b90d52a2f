"""`Trainer`: trains a policy over environments in this process, and keeps it where it can go on from.

A checkpoint is written every so many updates, at a stop, at the end, and before any error leaves:
then as it was before the update that failed. Going on from it gives the same parameters, bit for bit,
as never having stopped.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from streambot.agents.batch import Stats
from streambot.agents.checkpoint import save_checkpoint
from streambot.agents.memory import part_of
from streambot.agents.moe import MoEAgent
from streambot.domain.errors import ConfigError, DataError
from streambot.env.fields import observation_fields
from streambot.learning.meta import MetaLearner, MetaStats, MetaTrainConfig
from streambot.learning.regimes import Usage
from streambot.learning.rollouts import Rollouts
from streambot.learning.scaling import RewardScale
from streambot.learning.tasks import Arena

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streambot.agents.ppo import PPOAgent
    from streambot.env.config import EnvConfig
    from streambot.env.vector_env import VectorTradingEnv
    from streambot.learning.policy import LoadedPolicy
    from streambot.learning.tasks import TaskPool

Count = Annotated[int, Meta(ge=1, le=2**31)]
TRAIN, META_TRAIN = "train", "meta-train"
_USAGE = "usage"


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy is trained on all episodes together.

    Attributes:
        updates: of the policy.
        rollout: steps of every environment between two updates.
        checkpoint_every: updates between two checkpoints.
        seed: of episodes and actions.
    """

    updates: Count = 250
    rollout: Count = 128
    checkpoint_every: Count = 25
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0


class Progress(NamedTuple):
    """What an update brought.

    Attributes:
        update: updates done. updates: of the whole training.
        steps: environment steps since the training began.
        reward: mean reward of a step, as the environment pays it.
        returns: total rewards of episodes that ended, newest update.
        learnt: what the update did; None when meta-training.
        meta: what the meta-update did; None when training.
        curve: rewards of held-out tasks after 0, 1, ... inner steps [steps, tasks]; None: not looked at.
    """

    update: int
    updates: int
    steps: int
    reward: float
    returns: tuple[float, ...] = ()
    learnt: Stats | None = None
    meta: MetaStats | None = None
    curve: np.ndarray | None = None


class Kept(NamedTuple):
    """What is told of a policy beside its parameters, in each of its checkpoints.

    Attributes:
        folder: where they are written.
        env: settings of the environment.
        about: texts by name.
    """

    folder: Path
    env: dict[str, Any]
    about: dict[str, str]


class Trainer:
    """Trains one agent.

    Args:
        agent: what is trained.
        config: of the environment that it knows.
        kept: what its checkpoints say.
        tell: told of every update.
        stopping: asked behind every update; True: write a checkpoint, and leave.
        resume: a checkpoint of the same training to go on from; `agent` is its agent.

    Raises:
        DataError: the checkpoint counts what no training could have counted.

    Attributes:
        done: updates so far. steps: environment steps so far.
    """

    def __init__(
        self,
        agent: PPOAgent,
        config: EnvConfig,
        kept: Kept,
        *,
        tell: Callable[[Progress], None] = lambda _: None,
        stopping: Callable[[], bool] = lambda: False,
        resume: LoadedPolicy | None = None,
    ) -> None:
        self._agent, self._kept = agent, kept
        self._fields = observation_fields(config.window, config.features)
        self._tell, self._stopping = tell, stopping
        self._resumed = None if resume is None else resume.extra
        progress = {} if resume is None else resume.head.progress
        self._begun = {} if resume is None else resume.head.about
        self.done, self.steps = (_counted(progress, name) for name in ("updates", "steps"))
        self._scale = RewardScale.of_progress(agent.config.learn.gamma, progress)
        self._names: tuple[str, ...] = () if resume is None else resume.head.names
        self._usage = Usage()
        if resume is not None and _USAGE in resume.extra:
            self._usage.mean = resume.extra[_USAGE].numpy()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the experts, so far."""
        return self._names

    def train(self, env: VectorTradingEnv, config: TrainConfig) -> bool:
        """Train on all episodes together: PPO on rollouts, for gate and experts together.

        Args:
            env: with autoreset in the same step.
            config: see `TrainConfig`; of a training that goes on, as it was begun.

        Returns:
            True: all updates are done; False: it was asked to stop.

        Raises:
            DataError: a loss is no number any more, the checkpoint is another one's or cannot be
                written: the policy as it was before is kept.
        """
        rollouts = Rollouts(env, config.rollout, seed=config.seed, scale=self._scale)
        self._take_over(TRAIN, config, lambda extra: rollouts.restore(part_of(extra, "rollouts.")))

        def update() -> Progress:
            collected = rollouts.collect(self._agent)
            stats = self._agent.learn(collected.batch, progress=self.done / config.updates)
            self._look(collected.batch.obs)
            return Progress(
                self.done + 1, config.updates, self.steps + collected.steps, collected.reward,
                collected.returns, learnt=stats,
            )  # fmt: skip

        def state() -> dict[str, Tensor]:
            return {f"rollouts.{name}": value for name, value in rollouts.state().items()}

        return self._run(config, update, state)

    def meta_train(
        self, pool: TaskPool, config: MetaTrainConfig, held_out: TaskPool | None = None
    ) -> bool:
        """Meta-train: a policy that a few gradient steps on a task's support make a good one of it.

        Args:
            pool: tasks to learn from.
            config: see `MetaTrainConfig`; of a training that goes on, as it was begun.
            held_out: tasks to look at in between, never learnt from.

        Returns:
            True: all updates are done; False: it was asked to stop.

        Raises:
            DataError: a loss is no number any more, the checkpoint is another one's or cannot be
                written: the policy as it was before is kept.
        """
        learner = MetaLearner(self._agent, pool, config, self._scale)
        arena = None
        if held_out is not None and config.curve_every:
            arena = Arena(held_out, config.curve_tasks, seed=config.seed)
        self._take_over(META_TRAIN, config, learner.load)

        def update() -> Progress:
            stats, obs = learner.update(self.done)
            self._look(obs)
            done, curve = self.done + 1, None
            if held_out is not None and arena is not None:
                last = done == config.updates
                if last or done % config.curve_every == 0:
                    curve = learner.curve(held_out, arena)
            return Progress(
                done, config.updates, self.steps + stats.steps, stats.after, meta=stats, curve=curve
            )

        return self._run(config, update, learner.state)

    def _take_over(
        self,
        kind: str,
        config: TrainConfig | MetaTrainConfig,
        load: Callable[[dict[str, Tensor]], None],
    ) -> None:
        """Go on from the checkpoint, if there is one."""
        self._kept.about.update(training=kind, settings=_text(config))
        if self._resumed is None:
            return
        before = self._begun.get("training", "nothing"), self._begun.get("settings")
        if before != (kind, _text(config, like=before[1])):
            raise ConfigError(
                f"the training was begun as `{before[0]}` with {before[1]}",
                hint="go on with the same settings: only `updates` may be more",
            )
        if self.done >= config.updates:
            raise ConfigError(
                f"all {self.done:,} updates are done", where="updates",
                hint="more updates, or a new training `--from` this policy",
            )  # fmt: skip
        try:
            load(self._resumed)
        except (KeyError, ValueError, RuntimeError) as cause:
            raise DataError(
                "the checkpoint is not one of this training", where=str(self._kept.folder)
            ) from cause

    def _run(
        self,
        config: TrainConfig | MetaTrainConfig,
        update: Callable[[], Progress],
        state: Callable[[], dict[str, Tensor]],
    ) -> bool:
        kept = self._everything(state)
        while self.done < config.updates:
            try:
                progress = update()
                self.done, self.steps = progress.update, progress.steps
                kept = self._everything(state)
                self._tell(progress)
                stopped = self._stopping() and self.done < config.updates
                due = self.done % config.checkpoint_every == 0 or self.done == config.updates
                if stopped or due:
                    self._save(kept)
            except BaseException:
                # Whatever it was (a loss, memory, a closed pipe, a person): what was learnt before
                # it is kept.
                self._save(kept)
                raise
            if stopped:
                return False
        return True

    def _everything(self, state: Callable[[], dict[str, Tensor]]) -> _Everything:
        usage = self._usage.mean
        return _Everything(
            {name: value.clone() for name, value in self._agent.state().items()},
            state() | ({} if usage is None else {_USAGE: torch.from_numpy(usage)}),
            {"updates": self.done, "steps": self.steps} | self._scale.progress,
            self._names,
        )  # fmt: skip

    def _save(self, kept: _Everything) -> None:
        save_checkpoint(
            self._kept.folder, self._agent, progress=kept.progress, about=self._kept.about,
            env=self._kept.env, names=kept.names, extra=kept.extra, state=kept.agent,
        )  # fmt: skip

    def _look(self, obs: Tensor) -> None:
        """Name the experts, from what the gate said of late of what came in."""
        if isinstance(self._agent, MoEAgent):
            flat = obs.flatten(0, -2)
            self._usage.see(self._agent.gate(flat).cpu().numpy(), flat.cpu().numpy(), self._fields)
            self._names = self._usage.names or self._names


class _Everything(NamedTuple):
    """A training at a moment: agent, what is beside it, counters, names of the experts."""

    agent: dict[str, Tensor]
    extra: dict[str, Tensor]
    progress: dict[str, float]
    names: tuple[str, ...]


def _counted(progress: Mapping[str, float], name: str) -> int:
    count = progress.get(name, 0)
    if not 0 <= count <= 2**53:
        raise DataError(f"a checkpoint of {count} {name}", hint="was it edited?")
    return int(count)


def _text(config: TrainConfig | MetaTrainConfig, *, like: str | None = None) -> str:
    """The settings; with as many updates as other ones have, which may be more when it goes on."""
    fields = msgspec.to_builtins(config)
    if like is not None:
        with contextlib.suppress(msgspec.MsgspecError):  # no settings: they differ from these
            fields["updates"] = msgspec.json.decode(like, type=dict[str, Any]).get("updates")
    return msgspec.json.encode(fields).decode()
