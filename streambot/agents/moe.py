"""`MoEAgent`: experts under a gate, learning together.

    pi(a | s) = sum_k g_k(s) pi_k(a | s)

Never the action of the likeliest expert, never averaged marginals of kind and size: both are other
policies, whose log-probabilities nobody computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from streambot.agents.losses import gate_balance
from streambot.agents.networks import Mixed, MixtureNetwork
from streambot.agents.ppo import PPOAgent
from streambot.agents.updates import Said
from streambot.domain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class MoEAgent(PPOAgent):
    """A mixture of experts: `PPOAgent` whose policy is the gate's average of several.

    `learn` moves gate and experts together, with the balance of the gate as a bonus; `adapt` moves
    both too.

    Args and attributes as `PPOAgent`.

    Raises:
        ConfigError: no regime features: the gate would see nothing.
    """

    kind = "moe"

    def _make_network(self) -> nn.Module:
        config = self.config
        if not config.regimes:
            raise ConfigError(
                "a gate needs the positions of the slow regime features", where="regimes"
            )
        return MixtureNetwork(
            config.features, config.actions, config.regimes, experts=config.experts,
            hidden=config.hidden, gate_hidden=config.gate_hidden, seed=config.seed,
        )  # fmt: skip

    def mixed(self, obs: Tensor, mask: Tensor) -> Mixed:
        """Mixture, gate and experts at observations [..., F], without a gradient."""
        with torch.no_grad():
            said: Mixed = self.network(obs, mask)
            return said

    def log_probs(
        self, obs: Tensor, mask: Tensor, parameters: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """See `PPOAgent.log_probs`."""
        if parameters is None:
            said: Mixed = self.network(obs, mask)
            return said.log_probs
        return self.policy(parameters, obs, mask)

    def policy(self, parameters: Mapping[str, Tensor], obs: Tensor, mask: Tensor) -> Tensor:
        """See `PPOAgent.policy`."""
        return self._said_of(parameters, obs, mask)[0]

    def _said_of(
        self, parameters: Mapping[str, Tensor], obs: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        said: Mixed = functional_call(self.network, dict(parameters), (obs, mask))
        return said.log_probs, said.log_gate

    def _speaks(self, obs: Tensor, mask: Tensor) -> Said:
        said: Mixed = self.network(obs, mask)
        return Said(said.log_probs, self.critic(obs), said.log_gate)

    def gate_entropy(self, obs: Tensor) -> float:
        """See `PPOAgent.gate_entropy`."""
        return float(gate_balance(self.gate(obs).log()))

    def gate(self, obs: Tensor) -> Tensor:
        """Weights of the experts, [..., experts]."""
        assert isinstance(self.network, MixtureNetwork)  # noqa: S101  # it has made it
        with torch.no_grad():
            weights: Tensor = self.network.gate(obs).exp()
            return weights
