"""`PPOAgent`: one network, one critic; the baseline, and what every expert is by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import msgspec
import torch
from torch import Tensor
from torch.func import functional_call

from streambot.agents.adaptation import (
    Parameters,
    adapted,
    as_parameters,
    checked_support,
    taken,
)
from streambot.agents.batch import AdaptConfig, Batch, LearnConfig, Stats
from streambot.agents.devices import mixed_pays
from streambot.agents.losses import policy_loss
from streambot.agents.memory import memory_of, part_of, remember
from streambot.agents.networks import PolicyNetwork, ValueNetwork, seeded
from streambot.agents.updates import Said, adam, ppo_update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


_ROWS = 8_192
"""Observations that are valued at once: what lies between the layers stays in the cache."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an agent is.

    Attributes:
        features: numbers of an observation.
        actions: joint actions.
        regimes: positions of the slow regime features in an observation.
        experts: of a mixture.
        hidden: widths of the layers of policy and critic.
        gate_hidden: widths of the layers of the gate.
        learn, adapt: how it learns, and adapts.
        layout: digest of what the numbers of an observation and of an action mean; empty: not said.
        seed: of parameters and of the order of minibatches.
    """

    features: int
    actions: int
    regimes: tuple[int, ...] = ()
    experts: int = 4
    hidden: tuple[int, ...] = (64, 64)
    gate_hidden: tuple[int, ...] = (32,)
    learn: LearnConfig = LearnConfig()
    adapt: AdaptConfig = AdaptConfig()
    layout: str = ""
    seed: int = 0


def chosen(log_probs: Tensor, uniform: Tensor | None) -> Tensor:
    """Actions [...] of distributions [..., A]: drawn by numbers in [0, 1) [...], or the likeliest.

    The draw is a function of the numbers alone, whatever device the distribution was computed on.
    """
    if uniform is None:
        return log_probs.argmax(-1)
    reached = log_probs.exp().cumsum(-1)
    # Rounding may leave the sum below the number: the last action that is possible at all is meant.
    inside = uniform.unsqueeze(-1) * reached[..., -1:]
    return (reached <= inside).sum(-1).clamp(max=log_probs.shape[-1] - 1)


class PPOAgent:
    """Proximal policy optimisation (Schulman et al. 2017) over joint actions with a mask.

    Args:
        config: see `AgentConfig`.
        device: where it computes.
        mixed: type that `learn` multiplies in where that pays, see `devices.mixed_pays`; None: none.

    Attributes:
        network: of the policy. critic: of the values.
    """

    kind = "ppo"

    def __init__(
        self,
        config: AgentConfig,
        *,
        device: torch.device | None = None,
        mixed: torch.dtype | None = None,
    ) -> None:
        self.config = config
        self._mixed = mixed if mixed_pays(config.hidden) else None
        self.device = device or torch.device("cpu")
        self.network = self._make_network().to(self.device)
        self.critic = ValueNetwork(
            config.features, hidden=config.hidden, seed=config.seed * 1_000 + 999
        ).to(self.device)
        self.optimizer = adam(self.parameters, config.learn.lr)
        self.generator = seeded(config.seed)

    def _make_network(self) -> nn.Module:
        config = self.config
        return PolicyNetwork(
            config.features, config.actions, hidden=config.hidden, seeds=config.seed * 1_000 + 1
        )

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What learning moves."""
        return [*self.network.parameters(), *self.critic.parameters()]

    def log_probs(
        self, obs: Tensor, mask: Tensor, parameters: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Log-probabilities [..., A] of joint actions.

        Args:
            obs: [..., F].
            mask: [..., A], not 0 where legal.
            parameters: of the policy; None: its own.
        """
        if parameters is None:
            said: Tensor = self.network(obs, mask)
            return said
        return self.policy(parameters, obs, mask)

    def policy(self, parameters: Mapping[str, Tensor], obs: Tensor, mask: Tensor) -> Tensor:
        """`log_probs` as a function of named parameters, as `adaptation` and `maml` take it."""
        said: Tensor = functional_call(self.network, dict(parameters), (obs, mask))
        return said

    def outer_loss(
        self, parameters: Mapping[str, Tensor], batch: Batch, *, clip: float, balance: float
    ) -> Tensor:
        """The loss that `learn` moves the policy by, at other parameters: what an outer loop needs.

        Args:
            parameters: of the policy.
            batch: [N, T]; its advantages as they are.
            clip: epsilon of the surrogate.
            balance: weight of the gate's balance.
        """
        said = self._said_of(parameters, batch.obs, batch.mask)
        return policy_loss(
            *said, batch, clip=clip, entropy=self.config.learn.entropy, balance=balance
        ).loss

    def _said_of(
        self, parameters: Mapping[str, Tensor], obs: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        return self.policy(parameters, obs, mask), None

    def probabilities(self, obs: Tensor, mask: Tensor) -> Tensor:
        """Probabilities [..., A] of joint actions; 0 where the mask is."""
        with torch.no_grad():
            return self.log_probs(obs, mask).exp()

    def values(self, obs: Tensor) -> Tensor:
        """Values [...] of observations [..., F]."""
        with torch.no_grad():
            rows = torch.split(obs.reshape(-1, obs.shape[-1]), _ROWS)
            return torch.cat([self.critic(some) for some in rows]).view(obs.shape[:-1])

    def gate_entropy(self, obs: Tensor) -> float:
        """Entropy of the mean gate over observations [..., F], nats; 0 without a gate."""
        del obs
        return 0.0

    def select_action(
        self, obs: Tensor, mask: Tensor, uniform: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Actions and their log-probabilities.

        Args:
            obs: [..., F]. mask: [..., A].
            uniform: numbers in [0, 1) that draw them, [...]; None: the likeliest.
        """
        with torch.no_grad():
            log_probs = self.log_probs(obs, mask)
            action = chosen(log_probs, uniform)
            return action, taken(log_probs, action)

    def _speaks(self, obs: Tensor, mask: Tensor) -> Said:
        return Said(self.network(obs, mask), self.critic(obs))

    def _speaks_mixed(self, obs: Tensor, mask: Tensor) -> Said:
        """`_speaks`, its products in another type where that pays; what it says is in full precision."""
        if self._mixed is None:
            return self._speaks(obs, mask)
        with torch.autocast(self.device.type, self._mixed):
            said = self._speaks(obs, mask)
        gate = None if said.log_gate is None else said.log_gate.float()
        return Said(said.log_probs.float(), said.value.float(), gate)

    def learn(self, batch: Batch, *, progress: float = 0.0) -> Stats:
        """Update policy and critic on a batch [N, T].

        Args:
            progress: share of the training that is done, for the schedules.

        Raises:
            DataError: the batch is empty or not finite, or the loss is not.
        """
        return ppo_update(
            self._speaks_mixed, self.parameters, self.optimizer, batch, self.config.learn,
            progress=progress, generator=self.generator,
        )  # fmt: skip

    def adapt(
        self, batch: Batch, steps: int, rates: Mapping[str, Tensor] | None = None
    ) -> Parameters:
        """Parameters of the policy after gradient steps on a support set; its own stay as they are.

        Differentiable in the parameters of the network, so that an outer loop can learn from what
        came of them.

        Args:
            batch: the support set, [N, T].
            steps: how many.
            rates: learnt rate of every parameter; None: that of the settings.

        Raises:
            DataError: the support set is empty, or has numbers that are none.
        """
        return adapted(
            self.policy, as_parameters(self.network), checked_support(batch), steps,
            self.config.adapt, rates,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds: parameters, Adam's memory, the generator."""
        named: dict[str, Tensor] = {}
        for part, module in (("network", self.network), ("critic", self.critic)):
            for name, value in module.state_dict().items():
                named[f"{part}.{name}"] = value.detach().cpu().contiguous()
        named |= {f"adam.{name}": value for name, value in memory_of(self.optimizer).items()}
        named["generator"] = self.generator.get_state()
        return named

    def load(self, named: Mapping[str, Tensor]) -> Self:
        """Take over what `state` gave, of an agent with the same settings."""
        for part, module in (("network", self.network), ("critic", self.critic)):
            module.load_state_dict(part_of(named, f"{part}."))
        remember(self.optimizer, part_of(named, "adam."))
        self.generator.set_state(named["generator"])
        return self
