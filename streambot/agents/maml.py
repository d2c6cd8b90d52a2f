"""The outer loop: from what adapted policies earned, the gradient of the parameters they began at.

    theta_i = adapted(theta, support_i)             gradient steps, see `adaptation`
    L(theta) = mean_i PPO(theta_i, query_i)         the same loss function as `learn`

MAML (Finn et al. 2017) with ProMP's surrogates (Rothfuss et al. 2019): second derivatives flow
through Loaded DiCE. Query data must come from the adapted policies. Tasks are an axis of the
parameters, so a batch of them is one computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from streambot.agents.adaptation import LogProbs, Parameters, descended, for_each, taken
from streambot.agents.batch import AdaptConfig, Batch, NonNegative, Positive, check_batch
from streambot.agents.losses import divergence, ppo_loss
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


OuterLoss = Callable[[Parameters, Batch], Tensor]
"""Of adapted parameters, and a query set [N, T]; of several tasks [K, ...] and [K, N, T], their mean."""


_STEPS_AT_ONCE = 4_096
"""Steps of supports that are differentiated through at once: some 50 MB for each inner step of a mixture."""


class MetaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the outer loop learns.

    Attributes:
        lr: of Adam, for parameters and inner rates.
        steps: gradient steps of the inner loop.
        clip: epsilon of the outer surrogate.
        kl: weight of the divergence from the policy that sampled the support sets, on what it
            sampled (the η of ProMP), see `losses.divergence`; nothing at the first gradient that is
            taken from a batch.
        learn_rates: every parameter learns its own inner rate (Meta-SGD, Li et al. 2017).
        max_grad_norm: gradients are cut to this norm.
    """

    lr: Positive = 1e-3
    steps: Annotated[int, Meta(ge=0, le=32)] = 1
    clip: Positive = 0.2
    kl: NonNegative = 5e-4
    learn_rates: bool = True
    max_grad_norm: Positive = 1.0


class MetaGradient(NamedTuple):
    """What a batch of tasks says.

    Attributes:
        parameters, rates: slopes by name.
        loss: mean over the tasks, before any step.
    """

    parameters: Parameters
    rates: Parameters
    loss: Tensor


def stacked(batches: Sequence[Batch]) -> Batch:
    """Batches of tasks, [K, N, T, ...]: all as long and as wide as each other.

    Raises:
        DataError: there are none, or they differ in shape.
    """
    if not batches:
        raise DataError("no tasks: there is nothing to adapt to")
    for batch in batches:
        check_batch(batch)
    shapes = {tuple(batch.obs.shape) for batch in batches}
    if len(shapes) > 1:
        raise DataError(f"tasks of different sizes in one batch: {sorted(shapes)}")
    return Batch(*(torch.stack(parts) for parts in zip(*batches, strict=True)))


def task_loss(
    policy: LogProbs,
    parameters: Parameters,
    rates: Mapping[str, Tensor],
    support: Batch,
    query: Batch,
    config: MetaConfig,
    adapt: AdaptConfig,
    outer: OuterLoss | None = None,
) -> Tensor:
    """What tasks say of the parameters: the loss of their query sets, after adaptation.

    Args:
        policy: of named parameters.
        parameters: the meta-parameters.
        rates: inner rate of every parameter; none: that of `adapt`.
        support, query: of one task, [N, T], or of several, [K, N, T], whose mean it is.
        config, adapt: see there.
        outer: see `meta_gradient`.
    """
    if support.action.dim() > 2:
        parameters = for_each(parameters, len(support.action))
    after, before = descended(policy, parameters, support, config.steps, adapt, rates or None)
    if outer is None:
        log_prob = taken(policy(after, query.obs, query.mask), query.action)
        loss = ppo_loss(log_prob, query.log_prob, query.advantage, config.clip)
    else:
        loss = outer(after, query)
    if config.kl > 0:
        if before is None:
            before = taken(policy(parameters, support.obs, support.mask), support.action)
        loss = loss + config.kl * divergence(before, support.log_prob).mean()
    return loss


def meta_gradient(
    policy: LogProbs,
    parameters: Parameters,
    rates: Parameters,
    supports: Batch,
    queries: Batch,
    config: MetaConfig,
    adapt: AdaptConfig,
    outer: OuterLoss | None = None,
) -> MetaGradient:
    """The gradient of the mean loss over a batch of tasks, in parameters and inner rates.

    A parameter that no task reaches has a slope of zero.

    Args:
        policy: of named parameters.
        parameters: the meta-parameters.
        rates: inner rate of every parameter; none: that of `adapt`, and no slopes of rates.
        supports, queries: [K, N, T, ...], see `stacked`.
        outer: loss of a query set at adapted parameters, see `PPOAgent.outer_loss`; None: the
            surrogate of PPO alone.
    """
    of, of_rates = _leaves(parameters), _leaves(rates)
    leaves = [*of.values(), *of_rates.values()]
    total, loss = [torch.zeros_like(leaf) for leaf in leaves], torch.zeros(())
    for support, query in _groups(supports, queries):
        share = len(support.action) / len(supports.action)
        mean = share * task_loss(policy, of, of_rates, support, query, config, adapt, outer)
        slopes = torch.autograd.grad(mean, leaves, materialize_grads=True)
        total = [whole + slope for whole, slope in zip(total, slopes, strict=True)]
        loss = loss.to(mean) + mean.detach()
    return MetaGradient(
        dict(zip(of, total, strict=False)),
        dict(zip(of_rates, total[len(of) :], strict=True)),
        loss,
    )


def _groups(supports: Batch, queries: Batch) -> Iterator[tuple[Batch, Batch]]:
    """Tasks that are computed together: on a CPU no more than its memory is quick for."""
    tasks = len(supports.action)
    size = tasks
    if supports.action.device.type == "cpu":
        size = min(tasks, max(1, _STEPS_AT_ONCE // max(1, supports.action[0].numel())))
    for low in range(0, tasks, size):
        support, query = (
            Batch(*(part[low : low + size] for part in whole)) for whole in (supports, queries)
        )
        yield support, query


def _leaves(values: Mapping[str, Tensor]) -> Parameters:
    return {name: value.detach().requires_grad_() for name, value in values.items()}
