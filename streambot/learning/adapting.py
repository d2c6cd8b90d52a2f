"""A policy adapted to each instrument on bars that lie before those it is judged on.

    |-- support --|-- embargo --|-- evaluated --|        bars of one instrument, in order of time

Several accounts trade the support with sampled actions; gradient steps on what came of it give the
parameters that trade the instrument afterwards. The embargo is that of a task (`learning.tasks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from streambot.domain.errors import DataError
from streambot.learning.meta import adapted_all, task_batch
from streambot.learning.scaling import RewardScale
from streambot.learning.tasks import Arena, Task, TaskConfig, TaskPool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from torch import Tensor

    from streambot.agents.adaptation import Parameters
    from streambot.data.segments import Segments
    from streambot.env.passage import Stretch
    from streambot.env.sources import Source
    from streambot.learning.policy import LoadedPolicy

_RATE = "rate."


class Adaptation(NamedTuple):
    """How a policy is adapted before it is judged.

    Attributes:
        steps: gradient steps, all on the same support.
        bars: of the support.
        accounts: that trade it side by side.
        seed: of their actions.
    """

    steps: int
    bars: int = 256
    accounts: int = 8
    seed: int = 0


def rates_of(policy: LoadedPolicy) -> Parameters | None:
    """The inner rates that training learnt, by parameter; None: it learnt none.

    Raises:
        DataError: they are not those of the policy's parameters.
    """
    rates = {
        name.removeprefix(_RATE): value.to(policy.agent.device)
        for name, value in policy.extra.items()
        if name.startswith(_RATE)
    }
    if not rates:
        return None
    wanted = {name for name, _ in policy.agent.network.named_parameters()}
    if set(rates) != wanted:
        raise DataError(
            "the checkpoint has learnt rates of other parameters than its policy",
            hint=f"the first that differs: {min(set(rates) ^ wanted)}",
        )
    return rates


def scale_of(policy: LoadedPolicy) -> RewardScale:
    """The rewards' scale as training left it: the critic values in its units."""
    return RewardScale.of_progress(policy.agent.config.learn.gamma, policy.head.progress)


def adapt(
    policy: LoadedPolicy,
    source: Source,
    settings: Mapping[str, Any],
    segments: Segments,
    spans: Sequence[Stretch],
    how: Adaptation,
) -> Parameters:
    """Parameters adapted to every stretch, in their order, [stretches, ...] each.

    Args:
        policy: where the steps begin; it stays as it is.
        source, segments: the data, and the same, open.
        settings: of the environment, as `make_config` takes them.
        spans: what it will be judged on.
        how: see `Adaptation`.

    Raises:
        DataError: an instrument has too few bars before its stretch.
    """
    tasks = TaskConfig(support=how.bars, query=1, accounts=how.accounts)
    # The support may lie before any range that the settings name.
    free = {k: v for k, v in settings.items() if k not in {"start", "end"}}
    symbols = [segments.head.instruments[span.instrument].symbol for span in spans]
    gap = tasks.gap(policy.config)
    first = [span.first - gap - how.bars for span in spans]
    least = policy.config.lookback
    short = [
        f"{symbol} has {max(0, span.first - least):,}"
        for symbol, span, bar in zip(symbols, spans, first, strict=True)
        if bar < least
    ]
    if short:
        more = f" (and {len(short) - 3:,} more instruments)" if len(short) > 3 else ""
        raise DataError(
            f"too few bars before the range to adapt on: {'; '.join(short[:3])}{more}; {how.bars} of "
            f"support and {gap} between are needed behind the first {least}",
            hint="a later --from, fewer --support-bars, or --instruments that have them",
        )
    pool = TaskPool([source], free, tasks, instruments=symbols)
    agent, rates = policy.agent, rates_of(policy)
    arena = Arena(pool, 1, seed=how.seed)
    after = []
    # One by one, each with the same chance: none depends on what else is judged.
    for symbol, bar, span in zip(symbols, first, spans, strict=True):
        played = arena.play(
            [Task(0, symbol, bar, span.first)], agent.select_action,
            np.random.default_rng([how.seed, 5]), query=False, device=agent.device,
        )  # fmt: skip
        support = task_batch(agent, played, how.accounts, scale_of(policy))
        after.append(adapted_all(agent, support, how.steps, rates))
        check_finite(after[-1], f"adapting to {symbol} has diverged", "fewer steps: --adapt 1")
    return {name: torch.cat([one[name] for one in after]) for name in after[0]}


def check_finite(parameters: Mapping[str, Tensor], message: str, hint: str = "") -> None:
    """Raise `DataError` where parameters are no numbers: such a policy answers nothing."""
    if not all(bool(torch.isfinite(value).all()) for value in parameters.values()):
        raise DataError(message, hint=hint)
