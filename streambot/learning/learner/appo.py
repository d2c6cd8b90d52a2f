"""`StreamAPPO`: RLlib's APPO (V-trace, target network) on the same path as `StreamPPO`.

V-trace (Espeholt et al. 2018) values what an older policy did, step by step, as the target policy
would have done it; the surrogate is clipped around the target policy (Luo et al. 2020, IMPACT). So it
bears experience that is many updates old, and learns more slowly than PPO from what is new.

Fragments lie in a grid, [fragments, steps], filled up to the longest. RLlib looks one row behind the
last step for the value there, and would count that row as a step that earned nothing: the correction
of its own is then minus that value, which takes away what it was looked up for. A policy that can
hardly have done what stands in those rows gives them the weight 0 that they should have.

RLlib's learners of this kind work through a queue in a thread of their own. Here it is ended as soon as
it has begun: an update is made where it is asked for, and has been made when that returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from ray.rllib.algorithms.appo import APPO, APPOConfig
from ray.rllib.algorithms.appo.torch.appo_torch_learner import APPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import TARGET_NETWORK_ACTION_DIST_INPUTS, TargetNetworkAPI
from torch import Tensor

from streambot.agents.losses import gate_balance
from streambot.agents.memory import part_of
from streambot.learning.learner.algorithm import StreamAlgorithm, built, configured
from streambot.learning.learner.columns import Grid, Steps, Tensors
from streambot.learning.learner.module import LOG_GATE, MASK, PolicyModule
from streambot.learning.learner.updates import FragmentLearner

if TYPE_CHECKING:
    from streambot.agents.ppo import PPOAgent

TARGET_EVERY = 2
"""Updates between two steps of the target network to the policy."""
BEYOND = 80.0
"""Log-probability of what stands behind the last step: its weight is exp of minus this."""
SEQ_LENS = "seq_lens"
"""RLlib takes a batch with this for one that is a grid."""
TARGET, TARGET_AT = "target.", "target_at"
_SAID = {"policy_loss": POLICY_LOSS_KEY, "value_loss": VF_LOSS_KEY, "entropy": ENTROPY_KEY}


class TargetedModule(PolicyModule, TargetNetworkAPI):  # type: ignore[misc]
    """A policy, and the one that it was some updates ago.

    Attributes:
        target: of the policy's network; nothing but RLlib moves it.
    """

    target: torch.nn.Module

    def make_target_networks(self) -> None:
        """See RLlib."""
        self.target = make_target_network(self.network)

    def get_target_network_pairs(self) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
        """See RLlib."""
        return [(self.network, self.target)]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """See RLlib."""
        with torch.no_grad():
            said = self.said(self.target, batch)
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: said[Columns.ACTION_DIST_INPUTS]}

    def load_weights(self, named: dict[str, Tensor]) -> None:
        """Take over what `weights` gave; the target begins there."""
        super().load_weights(named)
        self.target.load_state_dict(self.network.state_dict())


class APPOFragmentLearner(FragmentLearner, APPOTorchLearner):  # type: ignore[misc]
    """RLlib's APPO with its loss, and the balance of the gate as `LearnConfig` weighs it."""

    policy: TargetedModule

    def build(self) -> None:
        """See RLlib; without its thread, and with targets behind what shares gradients too."""
        super().build()
        self.shutdown()
        if not hasattr(self.policy, "target"):
            self.policy.make_target_networks()

    def columns(self, steps: Tensors) -> dict[str, Tensor]:
        """A grid [B, T + 1] of fragments: what lies behind a last step has no weight."""
        grid = Grid.of(steps.lengths)
        done = torch.cat([grid.done, grid.done[-1:]])
        none = torch.zeros_like(grid.valid[:1])
        valid, last = torch.cat([grid.valid, none]), torch.cat([grid.last, none])
        in_time = {
            Columns.OBS: steps.obs[grid.seen],
            MASK: steps.mask[grid.seen],
            Columns.ACTIONS: steps.action[done],
            Columns.ACTION_LOGP: steps.log_prob[done].where(valid, BEYOND),
            Columns.REWARDS: steps.reward[done].where(valid, 0.0),
            Columns.TERMINATEDS: last & steps.terminated,
            Columns.LOSS_MASK: valid,
        }
        by_fragment = {name: column.transpose(0, 1) for name, column in in_time.items()}
        return by_fragment | {SEQ_LENS: steps.lengths}

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: Any,  # noqa: ANN401  # RLlib's own
        batch: dict[str, Any],
        fwd_out: dict[str, Any],
    ) -> Tensor:
        """See RLlib."""
        if config.clip_param != self.clip:
            config = config.copy(copy_frozen=False)
            config.clip_param = self.clip
        loss: Tensor = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        valid = batch[Columns.LOSS_MASK]
        said = {n: torch.as_tensor(self.metrics.peek((module_id, k))) for n, k in _SAID.items()}
        if LOG_GATE in fwd_out:
            usage = gate_balance(fwd_out[LOG_GATE][valid])
            loss -= self.learn.balanced(self.turn.progress) * usage
            said["gate_entropy"] = usage
        self.measure(fwd_out[Columns.ACTION_DIST_INPUTS], batch, valid, **said)
        return loss

    def memory(self) -> dict[str, Tensor]:
        """What the optimizer remembers, the target network, and when that was moved."""
        state = self.policy.target.state_dict()
        moved = torch.tensor(self._last_update_ts_by_mid[DEFAULT_MODULE_ID])
        target = {f"{TARGET}{name}": value.cpu().clone() for name, value in state.items()}
        return super().memory() | target | {TARGET_AT: moved}

    def remember(self, memory: dict[str, Tensor]) -> None:
        """Take over what `memory` gave; of PPO's, which has no target, that is the policy's own."""
        target = part_of({n: v for n, v in memory.items() if n.startswith(TARGET)}, TARGET)
        if target:
            self.policy.target.load_state_dict(target)
            self._last_update_ts_by_mid[DEFAULT_MODULE_ID] = int(memory[TARGET_AT])
        ours = {n: v for n, v in memory.items() if n != TARGET_AT and not n.startswith(TARGET)}
        super().remember(ours)


class StreamAPPO(StreamAlgorithm, APPO):  # type: ignore[misc]
    """APPO on what a `feed` gives, or on what `update` is called with."""

    def minibatches(self, parts: list[Steps], steps: int) -> int:
        """As many as `LearnConfig` asks, of whole fragments."""
        return min(super().minibatches(parts, steps), *(len(part.lengths) for part in parts))


def stream_appo(agent: PPOAgent, *, batch: int, learners: int = 0, gpus: float = 0) -> StreamAPPO:
    """The algorithm that trains an agent's networks by APPO, as its `LearnConfig` says.

    Of RLlib's own settings: V-trace with both thresholds at 1; the target network takes over the policy
    (tau 1) every `TARGET_EVERY` updates; ratios of the policy that acted to the target are cut at 2; no
    loss of the divergence; no circular buffer, because `epochs` passes are made of a batch while it is
    new. Not used of `LearnConfig`: `lam`, which V-trace has not, and `target_kl`. Advantages are as large
    as the rewards make them: they are not set to a deviation of 1.

    Args:
        agent: whose networks; its weights are begun with.
        batch: steps of an update.
        learners: processes that share an update; 0: this one.
        gpus: of each.

    Raises:
        ConfigError: its learners do not start.
    """
    config = configured(
        APPOConfig(algo_class=StreamAPPO), agent, APPOFragmentLearner, TargetedModule,
        batch=batch, learners=learners, gpus=gpus,
    ).training(
        vtrace=True, vtrace_clip_rho_threshold=1.0, vtrace_clip_pg_rho_threshold=1.0,
        num_gpu_loader_threads=0, use_circular_buffer=False, circular_buffer_num_batches=1,
        circular_buffer_iterations_per_batch=1, vf_loss_coeff=agent.config.learn.value, tau=1.0,
        # RLlib counts in the batches of one learner.
        target_network_update_freq=TARGET_EVERY * max(1, learners),
    ).env_runners(use_env_runner_state_server=False)  # fmt: skip
    algorithm: StreamAPPO = built(config, agent)
    return algorithm
