"""The inner loop: gradient steps on a copy of the parameters that can be differentiated through.

Finn et al. 2017, with per-parameter rates (Li et al. 2017, Meta-SGD) and Loaded DiCE as the loss. A
policy is a function of named parameters here; nothing is changed in place, so the original stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import grad

from streambot.agents.batch import AdaptConfig, Batch, check_batch
from streambot.agents.losses import dice_loss

Parameters = dict[str, Tensor]
LogProbs = Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]
"""Log-probabilities [..., A] at parameters, observations [..., F] and mask [..., A]."""


def taken(log_probs: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities of the actions taken: [...] of [..., A] and [...]."""
    return log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def support_loss(
    policy: LogProbs, parameters: Mapping[str, Tensor], support: Batch, lam: float
) -> Tensor:
    """What the inner loop minimises on a support set [N, T]."""
    log_prob = taken(policy(parameters, support.obs, support.mask), support.action)
    return dice_loss(log_prob, support.advantage, support.episode, lam, support.log_prob)


def adapted(
    policy: LogProbs,
    parameters: Parameters,
    support: Batch,
    steps: int,
    config: AdaptConfig,
    rates: Mapping[str, Tensor] | None = None,
) -> Parameters:
    """The parameters after `steps` gradient steps; differentiable in `parameters` and `rates`.

    Args:
        policy: of named parameters.
        parameters: where the steps begin; unchanged.
        support: what is adapted to, [N, T].
        steps: how many; 0 gives the parameters back.
        config: see `AdaptConfig`.
        rates: learnt rate of every parameter, as large as it or a scalar; None: `config.lr`.
    """
    after = dict(parameters)
    for _ in range(steps):
        slopes = grad(lambda q: support_loss(policy, q, support, config.lam))(after)
        if config.first_order:
            slopes = {name: slope.detach() for name, slope in slopes.items()}
        after = {
            name: value - (config.lr if rates is None else rates[name]) * slopes[name]
            for name, value in after.items()
        }
    return after


def checked_support(support: Batch) -> Batch:
    """The support set, if it can be adapted to.

    Raises:
        DataError: it is empty, or has numbers that are none.
    """
    check_batch(support)
    return support


def frozen(parameters: Mapping[str, Tensor]) -> Parameters:
    """Copies without a history."""
    return {name: value.detach().clone() for name, value in parameters.items()}


def as_parameters(module: torch.nn.Module) -> Parameters:
    """The named parameters of a module, as a function takes them."""
    return dict(module.named_parameters())
