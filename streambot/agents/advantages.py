"""Advantages of what was done: returns that look as far ahead as the value function cannot."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    r_t: Tensor, v_tm1: Tensor, v_t: Tensor, discount_t: Tensor, cut_t: Tensor, lam: float
) -> Tensor:
    """Generalised advantage estimates, Schulman et al. 2016, eq. 16.

        δ_t = r_t + γ_t v_t - v_tm1
        A_t = δ_t + γ_t λ (1 - cut_t) A_{t+1}

    Args:
        r_t: rewards, [T, ...].
        v_tm1: values of the observations that were answered, [T, ...].
        v_t: values of the observations reached, [T, ...]; a real value also at a truncation.
        discount_t: γ, or 0.0 where the episode terminated, [T, ...].
        cut_t: 1.0 where the episode ended for any reason, else 0.0, [T, ...].
        lam: λ, 0 to 1.

    Returns:
        A_t, [T, ...]; nothing behind the last step is known.
    """
    delta_t = r_t + discount_t * v_t - v_tm1
    share_t = discount_t * lam * (1.0 - cut_t)
    carried = torch.zeros_like(delta_t[0])
    advantages = []
    for delta, share in zip(delta_t.flip(0).unbind(), share_t.flip(0).unbind(), strict=True):
        carried = torch.addcmul(delta, share, carried)
        advantages.append(carried)
    return torch.stack(advantages[::-1])


def normalised(advantages: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over all; of a single one, or of equal ones, 0."""
    centred = advantages - advantages.mean()
    deviation = centred.pow(2).mean().sqrt()
    return centred / (deviation + 1e-8)
