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
from streambot.agents.losses import Reach, dice_loss, reach_of

Parameters = dict[str, Tensor]
LogProbs = Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]
"""Log-probabilities [..., A] at parameters, observations [..., F] and mask [..., A].

Where the parameters have an axis more, for tasks, so have the others: [K, ...].
"""


def taken(log_probs: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities of the actions taken: [...] of [..., A] and [...]."""
    return log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def support_loss(
    policy: LogProbs, parameters: Mapping[str, Tensor], support: Batch, lam: float
) -> Tensor:
    """What the inner loop minimises on a support set [N, T], or on each of several [K, N, T]."""
    reach = reach_of(support.episode, lam, support.advantage.dtype)
    return _support_loss(policy, parameters, support, reach)[0]


def _support_loss(
    policy: LogProbs, parameters: Mapping[str, Tensor], support: Batch, reach: Reach
) -> tuple[Tensor, Tensor]:
    """The loss, and the log-probabilities of the actions."""
    log_prob = taken(policy(parameters, support.obs, support.mask), support.action)
    return dice_loss(log_prob, support.advantage, reach, support.log_prob), log_prob


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
        parameters: where the steps begin; unchanged. Of several tasks: [K, ...] each, see `for_each`.
        support: what is adapted to, [N, T]; of several tasks [K, N, T], each to its own.
        steps: how many; 0 gives the parameters back.
        config: see `AdaptConfig`.
        rates: learnt rate of every parameter, as large as it or a scalar; None: `config.lr`.
    """
    return descended(policy, parameters, support, steps, config, rates)[0]


def descended(
    policy: LogProbs,
    parameters: Parameters,
    support: Batch,
    steps: int,
    config: AdaptConfig,
    rates: Mapping[str, Tensor] | None = None,
) -> tuple[Parameters, Tensor | None]:
    """As `adapted`, and what the first step has found on its way.

    Returns:
        The parameters, and log-probabilities of the support's actions before any step, as
        differentiable; None: there was no step.
    """
    reach = reach_of(support.episode, config.lam, support.advantage.dtype)

    def loss(parameters: Parameters) -> tuple[Tensor, Tensor]:
        each, log_prob = _support_loss(policy, parameters, support, reach)
        return (
            each.sum(),
            log_prob,
        )  # of parameters that are a task's own, the slope of its own loss

    after, before = dict(parameters), None
    for _ in range(steps):
        slopes, log_prob = grad(loss, has_aux=True)(after)
        before = log_prob if before is None else before
        if config.first_order:
            slopes = {name: slope.detach() for name, slope in slopes.items()}
        after = {
            name: value - (config.lr if rates is None else rates[name]) * slopes[name]
            for name, value in after.items()
        }
    return after, before


def for_each(parameters: Mapping[str, Tensor], tasks: int) -> Parameters:
    """The same parameters for each of K tasks, [K, ...]: views."""
    return {name: value.expand(tasks, *value.shape) for name, value in parameters.items()}


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
