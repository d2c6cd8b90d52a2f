"""What a learner's checkpoint holds: the training as it was behind its last whole update.

Weights, the optimizer's memory, positions in the streams and all counters are taken at one moment, so
that an update that is broken off leaves nothing of itself: what it learnt from is learnt from again,
and in weights that do not know it yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streambot.agents.checkpoint import save_checkpoint
from streambot.agents.memory import part_of
from streambot.domain.errors import DataError
from streambot.learning.learner.buffer import BufferState, Life

if TYPE_CHECKING:
    from streambot.agents.ppo import PPOAgent
    from streambot.learning.policy import LoadedPolicy
    from streambot.learning.trainer import Kept

BUFFER = "buffer"
"""Text of a checkpoint: `BufferState` without its lives, which are many."""
UNTOLD = "untold"
"""Text of a checkpoint: records of updates that nobody is known to have been told of."""
LIVES, MEMORY, USAGE = "lives", "optimizer.", "usage"
"""Tensors of a checkpoint; that of lives holds JSON."""


class Whole(NamedTuple):
    """A training behind an update.

    Attributes:
        updates, steps: made, and learnt from.
        agent: its state. memory: of what moved the weights.
        buffer: where to read on.
        scale: counters of the scale of rewards.
        usage: of the experts, by regime; None: nothing was seen.
        names: of the experts.
        untold: see `telling.Untold`.
    """

    updates: int
    steps: int
    agent: dict[str, Tensor]
    memory: dict[str, Tensor]
    buffer: BufferState
    scale: dict[str, float]
    usage: npt.NDArray[np.float64] | None
    names: tuple[str, ...]
    untold: tuple[bytes, ...] = ()


def frozen(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies, which stay as they are whatever becomes of those that they are of."""
    return {name: value.clone() for name, value in state.items()}


def keep(whole: Whole, agent: PPOAgent, kept: Kept) -> None:
    """Write the checkpoint.

    Args:
        agent: whose state it is; as it is now is not asked.
        kept: what checkpoints say beside it.

    Raises:
        DataError: the folder cannot be written.
    """
    without = msgspec.structs.replace(whole.buffer, lives=())
    lives = msgspec.json.encode(whole.buffer.lives)
    extra = {f"{MEMORY}{name}": value for name, value in whole.memory.items()}
    extra[LIVES] = torch.frombuffer(bytearray(lives), dtype=torch.uint8)
    if whole.usage is not None:
        extra[USAGE] = torch.from_numpy(whole.usage)
    save_checkpoint(
        kept.folder, agent, state=whole.agent, extra=extra, env=kept.env, names=whole.names,
        progress={"updates": whole.updates, "steps": whole.steps} | whole.scale,
        about=kept.about | {
            BUFFER: msgspec.json.encode(without).decode(),
            UNTOLD: msgspec.json.encode([record.decode() for record in whole.untold]).decode(),
        },
    )  # fmt: skip


def buffer_of(resume: LoadedPolicy) -> BufferState:
    """Where the training of a checkpoint reads on.

    Raises:
        DataError: it does not say so.
    """
    try:
        said = msgspec.json.decode(resume.head.about[BUFFER], type=BufferState)
        lives = said.lives
        if LIVES in resume.extra:
            text = resume.extra[LIVES].numpy().tobytes()
            lives = msgspec.json.decode(text, type=tuple[Life, ...])
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError) as cause:
        raise DataError(
            "the checkpoint does not say how far experience was learnt from",
            hint="a folder that a learner wrote",
        ) from cause
    return msgspec.structs.replace(said, lives=lives)


def untold_of(resume: LoadedPolicy) -> tuple[bytes, ...]:
    """Records of updates that nobody is known to have been told of.

    Raises:
        DataError: what the checkpoint says of them cannot be read.
    """
    try:
        said = msgspec.json.decode(resume.head.about.get(UNTOLD, "[]"), type=tuple[str, ...])
    except msgspec.MsgspecError as cause:
        raise DataError(
            "the checkpoint does not say which updates were told of",
            hint="a folder that a learner wrote",
        ) from cause
    return tuple(record.encode() for record in said)


def memory_of_learns(resume: LoadedPolicy) -> dict[str, Tensor]:
    """What moved the weights remembers."""
    return part_of(resume.extra, MEMORY)
