"""How long a log that has gone is waited for, by whoever reads or writes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from streambot.domain.errors import BrokerError, FencedError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 60.0
"""A broker that has been gone for so long is given up."""
MOST_OUTAGES = 8
"""So many failures, each after the broker had answered, without anything done between them: no outage."""


def mends(failure: BaseException) -> bool:
    """True where trying again may help: the broker is away, or busy; it has not said no."""
    return isinstance(failure, BrokerError) and not isinstance(failure, FencedError | RefusedError)


class Patience:
    """How long nothing has succeeded.

    Args:
        limit_s: after which the last failure is final; None: `PATIENCE_S`.
        told: told once when it goes, and once when it is back.
        done: what could not be: `stored`, `read`.
        again: what to do once the broker is back.

    Attributes:
        failures: so far.
    """

    def __init__(
        self,
        limit_s: float | None = None,
        *,
        told: Callable[[str], None] | None = None,
        done: str = "stored",
        again: str = "start the same command again once the broker is back",
    ) -> None:
        self._limit_s = PATIENCE_S if limit_s is None else limit_s
        self._told = told
        self._done = done
        self._again = again
        self._since: float | None = None
        self._outages = 0
        self.failures = 0

    def answered(self) -> None:
        """The broker is there."""
        if self._since is not None and self._told is not None:
            self._told(f"the broker is back after {self._gone():.0f} s: going on")
        self._since = None

    def succeeded(self) -> None:
        """Something was stored, or read."""
        self.answered()
        self._outages = 0

    def failed(self, failure: BrokerError) -> BrokerError | None:
        """Count a failure; the error to end with, once it is enough."""
        self.failures += 1
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
            self._outages += 1
            if self._outages > MOST_OUTAGES:
                return BrokerError(
                    f"failed {self._outages} times, and nothing could be {self._done} between: "
                    f"{failure.message}",
                    where=failure.where, hint=failure.hint,
                )  # fmt: skip
            if self._told is not None and self._limit_s > 0:
                self._told(f"{_words(failure)}; trying again for {self._limit_s:g} s")
        gone = self._gone()
        if gone < self._limit_s:
            return None
        return BrokerError(
            f"nothing could be {self._done} for {gone:.0f} s: {failure.message}",
            where=failure.where,
            hint=self._again,
        )

    def _gone(self) -> float:
        assert self._since is not None  # noqa: S101  # of the callers
        return asyncio.get_running_loop().time() - self._since


def _words(failure: BrokerError) -> str:
    return f"{failure.where}: {failure.message}" if failure.where else failure.message
