"""`streambot env check`: whether an environment keeps its promises on a person's own data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streambot.cli.human import count
from streambot.domain.words import few

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streambot.cli.env_settings import Wanted
    from streambot.env.trading_env import TradingEnv

_ENVS = 4


class CheckResult(NamedTuple):
    """How a check ended.

    Attributes:
        name: `gymnasium`, `vector` or `lookahead`.
        ok: nothing was found.
        detail: what was looked at, or what was found.
    """

    name: str
    ok: bool
    detail: str


def checks(wanted: Wanted, *, steps: int, seed: int) -> Iterator[CheckResult]:
    """Do the checks, one after the other.

    Args:
        steps: of the comparison with the vector environment.
        seed: of episodes, actions and futures.

    Raises:
        StreambotError: there is no such environment.
    """
    from streambot.env.trading_env import TradingEnv

    # What cannot be made is a mistake in data or settings, not a failed check.
    env = TradingEnv(wanted.source, **wanted.settings)
    yield _gymnasium(wanted)
    yield _vector(wanted, steps, seed)
    yield _lookahead(env, seed)


def _gymnasium(wanted: Wanted) -> CheckResult:
    from streambot.env.conformance import gymnasium_complaint

    complaint = gymnasium_complaint(wanted.source, wanted.settings)
    fine = "check_env of Gymnasium: every render mode, no warning"
    return CheckResult("gymnasium", complaint is None, complaint or fine)


def _vector(wanted: Wanted, steps: int, seed: int) -> CheckResult:
    from streambot.env.conformance import vector_difference

    found = vector_difference(
        wanted.source, wanted.settings, num_envs=_ENVS, steps=steps, seed=seed
    )
    fine = (
        f"{_ENVS} environments in one and {_ENVS} single ones agree for {count(steps, 'step')} of "
        "random actions, legal and illegal"
    )
    return CheckResult("vector", found is None, found or fine)


def _lookahead(env: TradingEnv, seed: int) -> CheckResult:
    from streambot.env.lookahead import check_lookahead

    found = check_lookahead(env.core.segments, env.config, seed=seed)
    fine = (
        f"{count(found.cuts, 'other future')} and {count(found.steps, 'step')} of "
        f"{few(found.symbols)} ({len(found.symbols)} of {found.instruments}): no bit of the past "
        "changes"
    )
    return CheckResult("lookahead", found.leak is None, str(found.leak) if found.leak else fine)
