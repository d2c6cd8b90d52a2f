"""Work on a broker that may go away and come back: tried again until it has been gone for too long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeVar

from streambot.domain.errors import BrokerError
from streambot.streams.patience import Patience, mends
from streambot.wiring.failures import first_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from streambot.wiring.stopping import StopRequest

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


SUCCESSOR_S = 60.0
"""How long the run that follows a seek is waited for."""


class _Followed(Protocol):
    """The summary of a piece that a run's end may send on to another run."""

    @property
    def run(self) -> str:
        """The run that has ended."""

    @property
    def successor(self) -> str | None:
        """The run that goes on after a seek."""


_Summary = TypeVar("_Summary", bound=_Followed)


async def through_seeks(
    play: Callable[[str, float | None], Awaitable[_Summary]],
    run: str,
    stop: StopRequest,
    told: Callable[[str], None],
) -> _Summary:
    """Work on a run, and on those that follow it after seeks; the last one's summary.

    Args:
        play: works on a run of that name, which is waited for that long (None: as asked).
        run: the first one.
        stop: ends it with the run that is going.
        told: what a person should know.
    """
    wait_s: float | None = None
    while True:
        summary = await play(run, wait_s)
        if summary.successor is None or stop.reason is not None:
            return summary
        told(f"run {summary.run} ended with a seek: going on with {summary.successor}")
        run, wait_s = summary.successor, SUCCESSOR_S
