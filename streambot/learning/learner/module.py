"""The policy as RLlib's module, and the loss that RLlib's PPO has not: the gate's balance.

RLlib knows observations as one box, so mask and observation travel side by side: `obs | mask`. The
networks are those of `agents`: RLlib trains the tensors that actors act with.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from streambot.agents.adaptation import taken
from streambot.agents.checkpoint import KINDS
from streambot.agents.losses import divergence, gate_balance
from streambot.agents.ppo import AgentConfig, PPOAgent

LOG_GATE = "log_gate"
KL, CLIPPED, GATE_ENTROPY = "kl", "clipped", "gate_entropy"
"""What is measured of an update beside RLlib's own."""
BALANCE = "balance"
"""Name of the balance's weight in the settings of the module."""


Spaces = tuple[Box, "Discrete[Any]"]


def spaces_of(config: AgentConfig) -> Spaces:
    """Spaces as RLlib is told of them: `obs | mask`, and joint actions."""
    size = config.features + config.actions
    return Box(-np.inf, np.inf, (size,), np.float32), Discrete(config.actions)


def seen(obs: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Observations [..., F] and masks [..., A] side by side, float32 [..., F + A]."""
    return np.concatenate([obs, mask.astype(np.float32)], axis=-1)


def model_config(agent: PPOAgent) -> dict[str, Any]:
    """What `PolicyModule` is made from: plain values."""
    return {"kind": agent.kind, "agent": msgspec.to_builtins(agent.config)}


class PolicyModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """An agent's networks, as RLlib's learner moves them.

    Attributes:
        network, critic: of the agent; their state has the names that it has in checkpoints.
    """

    def setup(self) -> None:
        """Make the networks that `model_config` describes."""
        described = self.model_config
        config = msgspec.convert(described["agent"], AgentConfig)
        made = KINDS[described["kind"]](config)
        self.network, self.critic = made.network, made.critic
        self._features = config.features
        self.action_dist_cls = TorchCategorical

    def _parted(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        both: Tensor = batch[Columns.OBS]
        return both[..., : self._features], both[..., self._features :]

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: ANN401
        said = self.network(*self._parted(batch))
        if isinstance(said, Tensor):
            return {Columns.ACTION_DIST_INPUTS: said}
        return {Columns.ACTION_DIST_INPUTS: said.log_probs, LOG_GATE: said.log_gate}

    def compute_values(self, batch: dict[str, Any], embeddings: object = None) -> Tensor:
        """Values [B] of a batch."""
        del embeddings
        values: Tensor = self.critic(self._parted(batch)[0])
        return values


class BalancedPPOLearner(PPOTorchLearner):  # type: ignore[misc]
    """RLlib's PPO, and the balance of the gate as `LearnConfig` weighs it."""

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: Any,  # noqa: ANN401  # RLlib's own
        batch: dict[str, Any],
        fwd_out: dict[str, Any],
    ) -> Tensor:
        """See RLlib."""
        loss: Tensor = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        kept = batch.get(Columns.LOSS_MASK)
        rows = slice(None) if kept is None else kept.bool()
        moved = self._moved(
            fwd_out[Columns.ACTION_DIST_INPUTS][rows].detach(),
            batch[Columns.ACTIONS][rows].long(), batch[Columns.ACTION_LOGP][rows], config.clip_param,
        )  # fmt: skip
        if LOG_GATE in fwd_out:
            usage = gate_balance(fwd_out[LOG_GATE][rows])
            loss -= config.learner_config_dict[BALANCE] * usage
            moved[GATE_ENTROPY] = usage.detach()
        self.metrics.log_dict(moved, key=module_id, window=1)
        return loss

    @staticmethod
    def _moved(
        log_probs: Tensor, action: Tensor, behaviour: Tensor, clip: float
    ) -> dict[str, Tensor]:
        """How far the policy is from the one that acted: as `agents.updates` measures it."""
        log_prob = taken(log_probs, action)
        gain = (log_prob - behaviour).exp() - 1.0
        return {
            KL: divergence(log_prob, behaviour).mean(),
            CLIPPED: (gain.abs() > clip).float().mean(),
        }
