"""Work on a broker that may go away and come back: tried again until it has been gone for too long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from streambot.domain.errors import BrokerError
from streambot.streams.patience import Patience, mends
from streambot.wiring.supervision import first_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")

_PAUSE_S = 0.5


async def persist(work: Callable[[], Awaitable[_T]], patience: Patience) -> _T:
    """The result of `work`, begun anew whenever the broker was lost on the way.

    Args:
        work: opens everything it needs; whatever it stored before a failure it must find again.
        patience: told of success by `work`; tells people.

    Raises:
        BrokerError: nothing could be stored for too long, or the broker said no.
        FencedError: another process has taken over.
        StreambotError: anything that trying again cannot mend.
    """
    first = True
    while True:
        try:
            return await work()
        except (BrokerError, BaseExceptionGroup) as error:
            failure = first_failure(error)
            if not isinstance(failure, BrokerError) or not mends(failure):
                raise failure from None
            # Nobody there at the very start is a mistake of the address, not an outage.
            final = failure if first and patience.failures == 0 and not _began(failure) else None
            final = final or patience.failed(failure)
            if final is not None:
                raise final from None
        first = False
        await asyncio.sleep(_PAUSE_S)


def _began(failure: BrokerError) -> bool:
    return not failure.message.startswith("no broker answers")
