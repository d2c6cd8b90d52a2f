"""Agents that are broken on purpose: a proof that cannot tell them from whole ones proves nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from streambot.agents.batch import Batch, Stats
from streambot.agents.moe import MoEAgent
from streambot.agents.networks import GatingNetwork


class ContraryAgent(MoEAgent):
    """Learns from advantages of the wrong sign."""

    kind = "contrary"

    def learn(self, batch: Batch, *, progress: float = 0.0) -> Stats:
        """See `PPOAgent.learn`; it does the opposite."""
        return super().learn(batch._replace(advantage=-batch.advantage), progress=progress)


class _EvenGate(GatingNetwork):
    def in_rows(self, obs: Tensor) -> Tensor:
        said = super().in_rows(obs)
        return torch.full_like(said, -math.log(said.shape[-2]))


class AveragedAgent(MoEAgent):
    """Experts under a gate that weighs them alike, always: an ensemble that learns together."""

    kind = "averaged"

    def _make_network(self) -> nn.Module:
        network, config = super()._make_network(), self.config
        network.gate = _EvenGate(config.regimes, config.experts, hidden=config.gate_hidden)
        return network
