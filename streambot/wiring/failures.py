"""Which of several failures is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.domain.errors import BrokerError, StreambotError

if TYPE_CHECKING:
    from collections.abc import Iterator


def first_failure(failures: BaseException) -> BaseException:
    """The failure to tell: a bug before all, then what people can act on, the lost broker last."""
    if not isinstance(failures, BaseExceptionGroup):
        return failures
    flat = list(_leaves(failures))
    for failure in flat:
        if not isinstance(failure, StreambotError):
            return failure
    for failure in flat:
        if not isinstance(failure, BrokerError):
            return failure
    return flat[0]


def _leaves(failures: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            yield from _leaves(failure)
        else:
            yield failure
