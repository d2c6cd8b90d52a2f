"""What learning minimises: the clipped surrogate of PPO, and the inner loss of adaptation.

Both are functions of log-probabilities alone, so that experts, gate, a single network and the
meta-learner use the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from streambot.agents.networks import entropy as entropy_of

if TYPE_CHECKING:
    from streambot.agents.batch import Batch


def ppo_loss(log_prob: Tensor, behaviour: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Clipped surrogate, Schulman et al. 2017, eq. 7, as a loss: its mean over all steps.

    Args:
        log_prob: of the actions taken, now, [...].
        behaviour: of the same when they were taken, [...].
        advantage: [...].
        clip: epsilon; infinity: no clipping.
    """
    ratio = (log_prob - behaviour).exp()
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


class PolicyLoss(NamedTuple):
    """What a policy is moved by, and its parts.

    Attributes:
        loss: surrogate, less the bonuses for entropy and for the balance of the gate.
        surrogate: see `ppo_loss`.
        entropy: mean entropy of the policy, nats.
        gate: entropy of the mean gate, nats; 0 without a gate.
    """

    loss: Tensor
    surrogate: Tensor
    entropy: Tensor
    gate: Tensor


def policy_loss(
    log_probs: Tensor,
    log_gate: Tensor | None,
    batch: Batch,
    *,
    clip: float,
    entropy: float,
    balance: float,
) -> PolicyLoss:
    """The loss of a policy: of an expert by itself, of the mixture, of adapted ones in the outer loop.

    Args:
        log_probs: of all actions, now, [..., A].
        log_gate: [..., experts]; None without a gate.
        batch: what was done, [...].
        clip: epsilon of the surrogate.
        entropy, balance: weights of the bonuses.
    """
    log_prob = log_probs.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    surrogate = ppo_loss(log_prob, batch.log_prob, batch.advantage, clip)
    spread = entropy_of(log_probs).mean()
    gate = spread.new_zeros(()) if log_gate is None else gate_balance(log_gate)
    return PolicyLoss(surrogate - entropy * spread - balance * gate, surrogate, spread, gate)


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared error of values against returns."""
    return 0.5 * (value - target).pow(2).mean()


def gate_balance(log_gate: Tensor) -> Tensor:
    """Entropy of the mean gate over all observations, nats: what load balancing makes large.

    It asks that all experts be used somewhere, not that each be used everywhere.

    Args:
        log_gate: [..., experts].
    """
    usage = log_gate.exp().flatten(0, -2).mean(0)
    return -(usage * (usage + 1e-12).log()).sum()


def _of_itself(x: Tensor) -> Tensor:
    """1, with the gradient of exp: Foerster et al. 2018, the magic box."""
    return (x - x.detach()).exp()


def dice_loss(
    log_prob: Tensor,
    advantage: Tensor,
    episode: Tensor,
    lam: float,
    behaviour: Tensor | None = None,
) -> Tensor:
    """Loaded DiCE, Farquhar et al. 2019: a surrogate whose second derivatives are right too.

        w_t = λ w_{t-1} + log π(a_t | s_t),   v_t = w_t - log π(a_t | s_t)
        J = Σ_t (f(w_t) - f(v_t)) A_t,         f(x) = exp(x - stop(x))

    λ 0 is the low-variance curvature estimator of ProMP, λ 1 DiCE. `log π x A` differentiated twice
    is neither: it gives a first-order answer at the cost of a second-order one.

    Args:
        log_prob: of the actions taken, [N, T], in order of time.
        advantage: [N, T].
        episode: whole numbers [N, T], equal within an episode: what was done before does not reach
            into the next one.
        lam: λ, 0 to 1.
        behaviour: log-probabilities of when the actions were taken, [N, T]; advantages are weighted
            by the ratio, held fixed and cut at 2. None: they are taken now.
    """
    steps = log_prob.shape[-1]
    at = torch.arange(steps, device=log_prob.device)
    back = at.unsqueeze(-1) - at
    reach = torch.where(
        back >= 0, torch.full_like(back, lam, dtype=log_prob.dtype) ** back.clamp(min=0), 0.0
    )
    same = (episode.unsqueeze(-1) == episode.unsqueeze(-2)).to(log_prob.dtype)
    w_t = ((reach * same) @ log_prob.unsqueeze(-1)).squeeze(-1)
    v_t = w_t - log_prob
    if behaviour is not None:
        advantage = advantage * (log_prob.detach() - behaviour).exp().clamp(max=2.0)
    return -((_of_itself(w_t) - _of_itself(v_t)) * advantage).mean()
