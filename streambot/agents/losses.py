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


def divergence(log_prob: Tensor, behaviour: Tensor) -> Tensor:
    """KL(b || π) of the policy b that acted from the policy π now, nats: one estimate a step.

        r = π(a | s) / b(a | s),   k3 = r - 1 - log r       (Schulman 2020, "Approximating KL divergence")

    Its mean over actions of b is the divergence, and the mean of its slope is the divergence's slope,
    which cannot be said of estimates in general (Tang and Munos 2025): half the squared log-ratio,
    k2, has it for actions of π, and there of KL(π || b). No step counts as less than nothing, and
    where the policies agree every step's slope is 0, not only their mean. So what the policy b said
    of the actions that were not taken need not be kept.

    Args:
        log_prob: of the actions taken, now, [...].
        behaviour: of the same when they were taken, [...].
    """
    change = log_prob - behaviour
    return change.exp() - 1.0 - change


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
        batch: what was done, [steps], [N, T], or that of K tasks, [K, N, T]: their mean.
        clip: epsilon of the surrogate.
        entropy, balance: weights of the bonuses.
    """
    log_prob = log_probs.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    surrogate = ppo_loss(log_prob, batch.log_prob, batch.advantage, clip)
    spread = entropy_of(log_probs).mean()
    gate = spread.new_zeros(())
    if log_gate is not None:
        gate = gate_balance(log_gate, tasks=max(0, batch.action.dim() - 2)).mean()
    return PolicyLoss(surrogate - entropy * spread - balance * gate, surrogate, spread, gate)


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared error of values against returns."""
    return 0.5 * (value - target).pow(2).mean()


def gate_balance(log_gate: Tensor, *, tasks: int = 0) -> Tensor:
    """Entropy of the mean gate over all observations, nats: what load balancing makes large.

    It asks that all experts be used somewhere, not that each be used everywhere.

    Args:
        log_gate: [..., experts].
        tasks: axes in front that are kept apart: of each, its own mean.
    """
    usage = log_gate.exp().flatten(tasks, -2).mean(tasks)
    return -(usage * (usage + 1e-12).log()).sum(-1)


class Reach(NamedTuple):
    """What the steps before a step weigh in its sum, see `dice_loss`.

    Attributes:
        powers: λ^(t - s) of step s in the sum of step t, [T, T]; 0 where s is later.
        last: the last step of the episode before, [..., T]; 0 where there is none.
        left: what the sum of that step weighs in step t, [..., T]; 0 where there is none.
    """

    powers: Tensor
    last: Tensor
    left: Tensor


def reach_of(episode: Tensor, lam: float, dtype: torch.dtype) -> Reach:
    """The weights for episodes [..., T], whole numbers that are equal within one.

    Args:
        lam: λ, 0 to 1.
        dtype: of the weights.
    """
    at = torch.arange(episode.shape[-1], device=episode.device)
    back = at.unsqueeze(-1) - at
    of_lam = torch.full((), lam, dtype=dtype, device=episode.device)
    powers = torch.where(back >= 0, of_lam ** back.clamp(min=0), 0.0)
    begins = episode.diff(prepend=episode[..., :1]) != 0
    first = torch.where(begins, at, 0).cummax(-1).values
    left = torch.where(first > 0, of_lam ** (at - first + 1), 0.0)
    return Reach(powers, (first - 1).clamp(min=0), left)


def _sums(log_prob: Tensor, reach: Reach) -> Tensor:
    """w_t, [..., T]: the sum over all steps before, less what of it is another episode's."""
    over_all = log_prob @ reach.powers.mT
    return over_all - reach.left * over_all.gather(-1, reach.last)


def _of_itself(x: Tensor) -> Tensor:
    """1, with the gradient of exp: Foerster et al. 2018, the magic box."""
    return (x - x.detach()).exp()


def dice_loss(
    log_prob: Tensor,
    advantage: Tensor,
    reach: Reach,
    behaviour: Tensor | None = None,
) -> Tensor:
    """Loaded DiCE, Farquhar et al. 2019: a surrogate whose second derivatives are right too.

        w_t = λ w_{t-1} + log π(a_t | s_t),   v_t = w_t - log π(a_t | s_t)
        J = Σ_t (f(w_t) - f(v_t)) A_t,         f(x) = exp(x - stop(x))

    λ 0 is the low-variance curvature estimator of ProMP, λ 1 DiCE. `log π x A` differentiated twice
    is neither: it gives a first-order answer at the cost of a second-order one.

    Args:
        log_prob: of the actions taken, [..., N, T], in order of time.
        advantage: [..., N, T].
        reach: of the episodes and of λ: what was done before does not reach into the next one.
        behaviour: log-probabilities of when the actions were taken, [..., N, T]; advantages are
            weighted by the ratio, held fixed and cut at 2. None: they are taken now.

    Returns:
        Mean over the steps, [...].
    """
    w_t = _sums(log_prob, reach)
    v_t = w_t - log_prob
    if behaviour is not None:
        advantage = advantage * (log_prob.detach() - behaviour).exp().clamp(max=2.0)
    return -((_of_itself(w_t) - _of_itself(v_t)) * advantage).mean((-2, -1))
