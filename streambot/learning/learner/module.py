"""The policy as RLlib's module: the networks of `agents`, whose tensors actors act with.

RLlib knows observations as one box; the mask of legal actions is a column beside them.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from streambot.agents.checkpoint import KINDS
from streambot.agents.devices import mixed_pays
from streambot.agents.memory import part_of
from streambot.agents.ppo import AgentConfig, PPOAgent

MASK = "mask"
LOG_GATE = "log_gate"

Spaces = tuple[Box, "Discrete[Any]"]


def spaces_of(config: AgentConfig) -> Spaces:
    """Spaces as RLlib is told of them: observations without their mask, and joint actions."""
    return Box(-np.inf, np.inf, (config.features,), np.float32), Discrete(config.actions)


def model_config(agent: PPOAgent) -> dict[str, Any]:
    """What `PolicyModule` is made from: plain values."""
    return {"kind": agent.kind, "agent": msgspec.to_builtins(agent.config)}


class PolicyModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """An agent's networks, as RLlib's learner moves them.

    Attributes:
        network, critic: of the agent; their state has the names that it has in checkpoints.
        settings: of the agent.
        mixed: type that training multiplies in; None: full precision.
    """

    mixed: torch.dtype | None = None

    def setup(self) -> None:
        """Make the networks that `model_config` describes."""
        described = self.model_config
        self.settings = msgspec.convert(described["agent"], AgentConfig)
        made = KINDS[described["kind"]](self.settings)
        self.network, self.critic = made.network, made.critic
        self.action_dist_cls = TorchCategorical

    def take_precision(self, mixed: torch.dtype | None) -> None:
        """Train in another type where that pays, as agents do."""
        self.mixed = mixed if mixed_pays(self.settings.hidden) else None

    def _precision(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.mixed, enabled=self.mixed is not None)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: ANN401
        return self.said(self.network, batch)

    def said(self, network: torch.nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
        """What a network says of a batch, in RLlib's words; a mixture its gate too."""
        obs = batch[Columns.OBS]
        with self._precision(obs.device):
            said = network(obs, batch[MASK])
        if isinstance(said, Tensor):
            return {Columns.ACTION_DIST_INPUTS: said.float()}
        return {
            Columns.ACTION_DIST_INPUTS: said.log_probs.float(), LOG_GATE: said.log_gate.float()
        }  # fmt: skip

    def compute_values(self, batch: dict[str, Any], embeddings: object = None) -> Tensor:
        """Values [...] of observations [..., F]."""
        del embeddings
        obs = batch[Columns.OBS]
        with self._precision(obs.device):
            values: Tensor = self.critic(obs)
        return values.float()

    def weights(self) -> dict[str, Tensor]:
        """Of network and critic, on the CPU, by the names of checkpoints."""
        return {
            f"{part}.{name}": value.detach().cpu().clone()
            for part in ("network", "critic")
            for name, value in getattr(self, part).state_dict().items()
        }

    def load_weights(self, named: dict[str, Tensor]) -> None:
        """Take over what `weights` gave."""
        self.network.load_state_dict(part_of(named, "network."))
        self.critic.load_state_dict(part_of(named, "critic."))
