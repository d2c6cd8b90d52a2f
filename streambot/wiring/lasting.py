"""Work on a broker that may go away and come back: tried again until it has been gone for too long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from streambot.domain.errors import BrokerError, FencedError
from streambot.wiring.supervision import first_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")

PATIENCE_S = 60.0
"""A broker that has been gone for so long is given up."""
_PAUSE_S = 0.5


class Patience:
    """How long nothing has succeeded.

    Args:
        limit_s: after which the last failure is final.
    """

    def __init__(self, limit_s: float = PATIENCE_S) -> None:
        self._limit_s = limit_s
        self._since: float | None = None
        self.failures = 0

    def succeeded(self) -> None:
        """Something was stored, or read: the broker is there."""
        self._since = None

    def failed(self, failure: BrokerError) -> BrokerError | None:
        """Count a failure; the error to end with, once it is enough."""
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._since
        self.failures += 1
        gone = now - self._since
        if gone < self._limit_s:
            return None
        return BrokerError(
            f"nothing could be stored for {gone:.0f} s: {failure.message}",
            where=failure.where,
            hint=failure.hint or "start the same command again once the broker is back",
        )


async def persist(
    work: Callable[[], Awaitable[_T]], patience: Patience, told: Callable[[str], None]
) -> _T:
    """The result of `work`, begun anew whenever the broker was lost on the way.

    Args:
        work: opens everything it needs; whatever it stored before a failure it must find again.
        patience: told of success by `work`.
        told: what a person should know.

    Raises:
        BrokerError: nothing could be stored for too long.
        FencedError: another process has taken over.
        StreambotError: anything that trying again cannot mend.
    """
    first = True
    while True:
        try:
            return await work()
        except (BrokerError, BaseExceptionGroup) as error:
            failure = first_failure(error)
            if not isinstance(failure, BrokerError) or isinstance(failure, FencedError):
                raise failure from None
            # Nobody there at the very start is a mistake of the address, not an outage.
            final = failure if first and patience.failures == 0 and not _began(failure) else None
            final = final or patience.failed(failure)
            if final is not None:
                raise final from None
            told(f"{failure.message}; trying again")
        first = False
        await asyncio.sleep(_PAUSE_S)


def _began(failure: BrokerError) -> bool:
    return not failure.message.startswith("no broker answers")
