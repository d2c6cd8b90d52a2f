"""What ends an update, as one line that says what to do: memory that ran out, learners that died."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from ray.exceptions import (
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from streambot.domain.errors import ConfigError, StreambotError

if TYPE_CHECKING:
    from collections.abc import Iterator

WHERE = "learner"
BEFORE = "the last checkpoint is from before"
_NO_MEMORY = ("DefaultCPUAllocator", "can't allocate memory")
"""torch has no error of its own for this on a CPU."""


@contextmanager
def explained(group: Any = None) -> Iterator[None]:  # noqa: ANN401  # RLlib's
    """Errors of RLlib, Ray and torch that a user can mend, as one line; a bug stays as it is.

    Args:
        group: RLlib's learners, who of them lives.

    Raises:
        ConfigError: no memory, or a learner has died.
        StreambotError: what a learner in another process raised.
    """
    try:
        yield
    except StreambotError:
        raise
    except Exception as error:
        cause = error
        while isinstance(cause, RayTaskError) and isinstance(cause.cause, Exception):
            cause = cause.cause
        told = cause if isinstance(cause, StreambotError) else _told(cause, group)
        if told is None:
            raise
        raise told from error


def _told(cause: Exception, group: Any) -> StreambotError | None:  # noqa: ANN401
    if isinstance(cause, torch.OutOfMemoryError):
        return ConfigError(
            "the GPU has no memory for this update", where=WHERE,
            hint=f"a smaller minibatch, a smaller batch, or narrower layers; {BEFORE}",
        )  # fmt: skip
    if isinstance(cause, (MemoryError, OutOfMemoryError)) or _is_memory(cause):
        return ConfigError(
            "memory ran out in an update", where=WHERE,
            hint=f"a smaller batch, fewer learners or actors on this machine; {BEFORE}",
        )  # fmt: skip
    if isinstance(cause, (ObjectStoreFullError, OutOfDiskError)):
        return ConfigError(
            "Ray has no room for a batch", where=WHERE,
            hint=f"a smaller batch, or a larger /dev/shm and disk; {BEFORE}",
        )  # fmt: skip
    if isinstance(cause, (RayActorError, WorkerCrashedError)) or _one_is_dead(group):
        return _death(_first_line(cause) if isinstance(cause, RayError) else "the others miss it")
    if isinstance(cause, RayError) and not isinstance(cause, RayTaskError):
        return ConfigError(
            f"Ray does not work any more: {_first_line(cause)}", where=WHERE,
            hint=f"is its cluster running (`ray status`)? {BEFORE}",
        )  # fmt: skip
    return None


def _death(why: str) -> ConfigError:
    return ConfigError(
        f"a learner has died: {why}", where=WHERE,
        hint=f"was it killed for its memory (`dmesg`)? a smaller batch, or fewer learners; {BEFORE}",
    )  # fmt: skip


def check_whole(group: Any) -> None:  # noqa: ANN401
    """RLlib asks those that live, and says nothing of the others.

    Raises:
        ConfigError: a learner has died.
    """
    if _one_is_dead(group):
        raise _death("RLlib goes on without it")


def _is_memory(cause: Exception) -> bool:
    return isinstance(cause, RuntimeError) and any(word in str(cause) for word in _NO_MEMORY)


def _one_is_dead(group: Any) -> bool:  # noqa: ANN401
    """Whether one of several learners is: the others say that they have lost a connection."""
    if group is None or not group.is_remote:
        return False
    alive: int = group._worker_manager.num_healthy_actors()  # noqa: SLF001  # RLlib tells nobody else
    return alive < len(group)


def _first_line(cause: Exception) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(cause).__name__
