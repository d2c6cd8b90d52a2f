"""The update of RLlib's learners, from columns of fragments.

    columns -> (values, advantages) -> epochs of minibatches -> loss -> RLlib: gradients, optimizer

What an algorithm needs of the columns, and its loss, is `FragmentLearner`'s subclass to say. RLlib's
own way makes an object of every step and reads it again: it takes as long as all gradients do.

The order of minibatches is drawn from the agent's seed and the number of the update, so an update
that is made again is the same. Learners that share an update take as many gradients each, with
RLlib's mean of theirs: a minibatch is what all of them see at once.
"""

from __future__ import annotations

from abc import abstractmethod
from math import isinf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor, distributed, nn

from streambot.agents.adaptation import taken
from streambot.agents.advantages import gae, normalised
from streambot.agents.batch import Batch
from streambot.agents.devices import resolve_device
from streambot.agents.losses import divergence, policy_loss, value_loss
from streambot.agents.memory import memory_of, remember
from streambot.agents.updates import adam
from streambot.learning.learner.columns import Grid, Tensors
from streambot.learning.learner.module import LOG_GATE, MASK, PolicyModule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray.rllib.core.learner.training_data import TrainingData

    from streambot.agents.batch import LearnConfig

_ROWS = 8_192
"""Observations that are valued at once: what lies between the layers stays in the cache."""
MOST_WEIGHT = 2.0
"""What an action counts at most that the policy takes more often by now than when it acted."""
MEASURES = (
    "policy_loss", "value_loss", "entropy", "kl", "clipped", "gate_entropy", "gradient_norm",
)  # fmt: skip
"""What an update is measured by, means over its gradients; without a gate there is no entropy of it."""


class Turn(NamedTuple):
    """Which update it is.

    Attributes:
        number: of those before.
        progress: share of the training that is done, 0 to 1, for the schedules of `LearnConfig`.
        parts: minibatches of an epoch.
    """

    number: int
    progress: float
    parts: int


class FragmentLearner(TorchLearner):  # type: ignore[misc]
    """A learner of RLlib's that is given `columns.Steps`.

    Without a check of every gradient: an update that ends in numbers that are none is found at its
    end, by who fetches the weights.
    """

    def build(self) -> None:
        """See RLlib; on CUDA as agents have it (`agents.devices`)."""
        super().build()
        device = resolve_device("cuda" if self.device.type == "cuda" else "cpu")
        self.policy.take_precision(device.mixed)
        self._measured: list[dict[str, Tensor]] = []

    @property
    def policy(self) -> PolicyModule:
        """The module that is trained, without what RLlib wraps it in."""
        module: PolicyModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        return module

    @property
    def learn(self) -> LearnConfig:
        """How it learns."""
        return self.policy.settings.learn

    @property
    def turn(self) -> Turn:
        """The update that is being made."""
        return self._turn

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:  # noqa: ANN401
        """Adam as agents have it, over the parameters in their order."""
        parameters = self.get_parameters(self._module[module_id])
        self.register_optimizer(
            module_id=module_id, optimizer=adam(parameters, config.lr), params=parameters
        )

    def update(
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, Any],
        turn: Turn,
        **_: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """One update; RLlib's metrics of it.

        Args:
            training_data: whose `batch` is `Steps`.
            timesteps: see RLlib.
            turn: see `Turn`.
        """
        self._turn, self._weights_seq_no = turn, turn.number + 1
        self.before_gradient_based_update(timesteps=timesteps)
        for group in self._adam().param_groups:
            group["lr"] = self.learn.lr * self.learn.left(turn.progress)
        columns = self.columns(Tensors.of(training_data.batch, self.device))
        for some in self._minibatches(columns):
            self._update({DEFAULT_MODULE_ID: some})
            if self.far_enough():
                break
        self.after_gradient_based_update(timesteps=timesteps)
        self.metrics.log_dict(self._means(), key=DEFAULT_MODULE_ID, window=1)
        return self.metrics.reduce()

    @abstractmethod
    def columns(self, steps: Tensors) -> dict[str, Tensor]:
        """What the loss needs, by name; along the first axis it is shuffled and cut."""

    def far_enough(self) -> bool:
        """Does the update end here, though there are minibatches left? All that share it say the same."""
        return False

    def values(self, obs: Tensor) -> Tensor:
        """Values [R] of observations [R, F], without a gradient."""
        with torch.no_grad():
            return torch.cat([
                self.policy.compute_values({Columns.OBS: some}) for some in torch.split(obs, _ROWS)
            ])  # fmt: skip

    def log_prob(self, obs: Tensor, mask: Tensor, action: Tensor) -> Tensor:
        """Of actions [R], by the policy as it is now, without a gradient, [R]."""
        cut = [torch.split(column, _ROWS) for column in (obs, mask, action)]
        with torch.no_grad():
            return torch.cat([taken(self._said(o, m), a) for o, m, a in zip(*cut, strict=True)])

    def _said(self, obs: Tensor, mask: Tensor) -> Tensor:
        said: Tensor = self.policy.forward_train({Columns.OBS: obs, MASK: mask})[
            Columns.ACTION_DIST_INPUTS
        ]
        return said

    def _minibatches(self, columns: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """All epochs; what is in them is a view of what was shuffled once."""
        (rows, *_) = (len(column) for column in columns.values())
        drawn = np.random.default_rng([self.policy.settings.seed, self.turn.number])
        for _ in range(self.learn.epochs):
            order = torch.from_numpy(drawn.permutation(rows)).to(self.device)
            mixed = {name: column.index_select(0, order) for name, column in columns.items()}
            cut = {n: torch.tensor_split(c, self.turn.parts) for n, c in mixed.items()}
            for part in range(self.turn.parts):
                yield {name: parts[part] for name, parts in cut.items()}

    def measure(
        self, log_probs: Tensor, batch: dict[str, Any], valid: Tensor | None = None, **more: Tensor
    ) -> None:
        """Keep what is said of a gradient, and how far the policy is from the one its ratios are to.

        Args:
            log_probs: of all actions, now, [..., A].
            batch: the minibatch.
            valid: which of its steps count; None: all.
            more: numbers, by the names of `MEASURES`.
        """
        log_prob = taken(log_probs.detach(), batch[Columns.ACTIONS])
        behaviour = batch[Columns.ACTION_LOGP]
        if valid is not None:
            log_prob, behaviour = log_prob[valid], behaviour[valid]
        gain = (log_prob - behaviour).exp() - 1.0
        moved = {
            "kl": divergence(log_prob, behaviour).mean(),
            "clipped": (gain.abs() > self.clip).to(gain.dtype).mean(),
        }
        self._measured.append(moved | {name: value.detach() for name, value in more.items()})

    @property
    def clip(self) -> float:
        """Epsilon of the surrogate now."""
        return self.learn.clip * (0.1 + 0.9 * self.learn.left(self.turn.progress))

    def _means(self) -> dict[str, float]:
        kept, self._measured = self._measured, []
        names = [name for name in MEASURES if name in kept[0]]
        rows = torch.stack([torch.stack([one[name] for name in names]) for one in kept])
        return dict(zip(names, rows.mean(0).tolist(), strict=True))  # one wait for the device

    def postprocess_gradients(self, gradients_dict: dict[Any, Tensor]) -> dict[Any, Tensor]:
        """Cut to the norm that `LearnConfig` allows, all of them as one."""
        parameters: Sequence[nn.Parameter] = list(gradients_dict)
        norm = nn.utils.clip_grad_norm_(parameters, self.learn.max_grad_norm)
        self._measured[-1]["gradient_norm"] = norm.detach()
        return gradients_dict

    def apply_gradients(self, gradients_dict: dict[Any, Tensor]) -> None:
        """One step of Adam."""
        del gradients_dict  # they are the parameters' own
        self._adam().step()

    def _adam(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = self.get_optimizer()
        return optimizer

    def memory(self) -> dict[str, Tensor]:
        """What the optimizer remembers, by name."""
        return {name: value.clone() for name, value in memory_of(self._adam()).items()}

    def remember(self, memory: dict[str, Tensor]) -> None:
        """Take over what `memory` gave."""
        remember(self._adam(), memory)


class PPOFragmentLearner(FragmentLearner, PPOTorchLearner):  # type: ignore[misc]
    """RLlib's PPO, with the loss of `agents.losses`: the same surrogate, values, entropy and balance."""

    def columns(self, steps: Tensors) -> dict[str, Tensor]:
        """Steps, each with its return and its advantage, of mean 0 and deviation 1 before it is weighed.

        The policy is moved away from the one that it is now, not from the one that acted: a clip around
        that one, which is some updates old, would leave each update only what those before it have not
        used up. What acted comes in as the weight of a step (Hilton et al. 2022, "Batch size-invariance
        for policy optimization"); where it is no older the weights are 1, and this is PPO.
        """
        learn, grid = self.learn, Grid.of(steps.lengths)
        v_t = self.values(steps.obs)[grid.seen]
        discount_t = learn.gamma * (1.0 - (grid.last & steps.terminated).to(v_t.dtype))
        cut_t = (grid.last | ~grid.valid).to(v_t.dtype)
        a_t = gae(steps.reward[grid.done], v_t[:-1], v_t[1:], discount_t, cut_t, learn.lam)
        seen = grid.flat(grid.seen[:-1])
        obs, mask = steps.obs.index_select(0, seen), steps.mask.index_select(0, seen)
        log_prob = self.log_prob(obs, mask, steps.action)
        weight = (log_prob - steps.log_prob).exp().clamp(max=MOST_WEIGHT)
        return {
            Columns.OBS: obs,
            MASK: mask,
            Columns.ACTIONS: steps.action,
            Columns.ACTION_LOGP: log_prob,
            Postprocessing.ADVANTAGES: normalised(grid.flat(a_t)) * weight,
            Postprocessing.VALUE_TARGETS: grid.flat(a_t + v_t[:-1]),
        }

    def far_enough(self) -> bool:
        """Has the policy moved as far from the one it was as `LearnConfig.target_kl` allows?

        As the last minibatch has it; learners that share an update go by the mean of theirs.
        """
        if isinf(self.learn.target_kl):
            return False
        distance = self._measured[-1]["kl"]
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            distributed.all_reduce(distance)
            distance /= distributed.get_world_size()
        return float(distance) > self.learn.target_kl

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: Any,  # noqa: ANN401  # RLlib's own
        batch: dict[str, Any],
        fwd_out: dict[str, Any],
    ) -> Tensor:
        """See RLlib."""
        del module_id, config
        learn, log_probs = self.learn, fwd_out[Columns.ACTION_DIST_INPUTS]
        policy = policy_loss(
            log_probs, fwd_out.get(LOG_GATE), _as_batch(batch),
            clip=self.clip, entropy=learn.entropy, balance=learn.balanced(self.turn.progress),
        )  # fmt: skip
        values = value_loss(self.policy.compute_values(batch), batch[Postprocessing.VALUE_TARGETS])
        gate = {"gate_entropy": policy.gate} if LOG_GATE in fwd_out else {}
        self.measure(
            log_probs, batch, policy_loss=policy.surrogate, value_loss=values,
            entropy=policy.entropy, **gate,
        )  # fmt: skip
        return policy.loss + learn.value * values


def _as_batch(columns: dict[str, Any]) -> Batch:
    action = columns[Columns.ACTIONS]
    return Batch(
        columns[Columns.OBS], columns[MASK], action, columns[Columns.ACTION_LOGP],
        columns[Postprocessing.ADVANTAGES], columns[Postprocessing.VALUE_TARGETS],
        torch.zeros_like(action),  # no loss of a policy asks for episodes
    )  # fmt: skip
