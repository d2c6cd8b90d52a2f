"""A trained policy that trades: its likeliest joint action at every close.

It computes on the CPU, one close of one slot at a time: the same build on the same kind of CPU gives
the same orders, whatever the other slots, the frames and the threads are like.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch

from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import chosen
from streambot.domain.errors import DataError, StrategyError
from streambot.env.fields import joint_size, observation_fields
from streambot.env.trader import Decided, SlotTraders
from streambot.learning.policy import LoadedPolicy, load_policy

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

_EXPERT = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")
_VERSION = ("weights_seq_no", "weights", "updates")
"""Under the first of these names that is there a training counts its weights (`Head.progress`)."""


class TrainedPolicy:
    """A policy of a checkpoint; `env.trader.Policy`.

    Args:
        loaded: what the checkpoint holds.
        where: its folder, for messages.

    Raises:
        DataError: weights that are no numbers, or an agent of other observations than it says.

    Attributes:
        experts: names of the experts of a mixture; where it has none yet, `expert-1`, `expert-2`, …
        version: see `_VERSION`.
    """

    def __init__(self, loaded: LoadedPolicy, where: str) -> None:
        self._agent, self._where = loaded.agent, where
        self.experts = self._experts(loaded)
        progress = loaded.head.progress
        self.version = next((int(progress[name]) for name in _VERSION if name in progress), None)
        self._check(loaded)

    def _experts(self, loaded: LoadedPolicy) -> tuple[str, ...]:
        agent, names = loaded.agent, loaded.head.names
        if not isinstance(agent, MoEAgent):
            return ()
        count = agent.config.experts
        if not names:
            return tuple(f"expert-{k}" for k in range(1, count + 1))
        if len(set(names)) != count or not all(map(_EXPERT.match, names)):
            raise DataError(
                f"{count} experts, and other names than one for each", where=self._where
            )
        return names

    def _check(self, loaded: LoadedPolicy) -> None:
        config, env = loaded.agent.config, loaded.config
        fields = observation_fields(env.window, env.features)
        regimes = tuple(field.position for field in fields if field.group == "regime")
        wrong = (config.features, config.actions) != (len(fields), joint_size(env.max_quantity))
        if wrong or (self.experts and config.regimes != regimes):
            raise DataError(
                "the agent takes other observations than its checkpoint says", where=self._where
            )
        tensors = loaded.agent.network.state_dict().values()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise DataError("the weights are no numbers", where=self._where)

    def decide(self, observation: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]) -> Decided:
        """See `env.trader.Policy`."""
        agent = self._agent
        gate: list[float] = []
        with torch.inference_mode():
            obs, legal = torch.from_numpy(observation), torch.from_numpy(mask)
            if isinstance(agent, MoEAgent):
                mixed = agent.mixed(obs, legal)
                log_probs = mixed.log_probs
                gate = mixed.log_gate[0].exp().tolist()
            else:
                log_probs = agent.log_probs(obs, legal)
            action = int(chosen(log_probs, None))
            likely = float(log_probs[0, action])
        # Weights beyond all bounds: what they say is no number, or drowns the mask.
        if not math.isfinite(likely) or not mask[0, action]:
            raise StrategyError(
                "the policy gives no legal answer: its weights are beyond what float32 can add up",
                where=self._where,
            )
        return Decided(action, gate)


def load_traders(folder: Path) -> SlotTraders:
    """The policy of a checkpoint as an agent for every slot of a run.

    Raises:
        DataError: there is none, or it is damaged.
        ConfigError: its settings of the environment are wrong.
    """
    loaded = load_policy(folder)
    policy = TrainedPolicy(loaded, str(folder))
    return SlotTraders(policy, loaded.config, weights=loaded.head.digest)
