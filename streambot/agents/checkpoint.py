"""Checkpoints: tensors as safetensors, everything else as JSON. Nothing in them can run.

    folder/
      weights.safetensors     parameters, Adam's memory, generators
      checkpoint.json         kind, settings, progress, digest of the weights

The JSON is written last and names the digest of the weights: a checkpoint that was cut off has none,
and the one before it is still whole.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import safetensors
import safetensors.torch

from streambot.agents.experts import EXPERTS
from streambot.agents.memory import part_of
from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import AgentConfig, PPOAgent
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1
_WEIGHTS, _HEAD = "weights", "checkpoint.json"
_MOST_BYTES = 4 << 30
_MOST_HEAD_BYTES = 1 << 20
KINDS: dict[str, type[PPOAgent]] = {k.kind: k for k in (PPOAgent, MoEAgent, *EXPERTS)}


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint says of itself.

    Attributes:
        format: version of the layout.
        kind: which class of agent.
        agent: its settings.
        weights: name of the file of tensors.
        digest: blake2b of that file.
        progress: counters of the training, plain numbers by name.
        about: what it was trained on, texts by name.
        env: settings of the environment that the policy knows, as `env.settings.make_config` takes
            them.
        names: of the experts, from the regimes that they were found to serve; empty: not found yet.
    """

    format: int
    kind: str
    agent: AgentConfig
    weights: str
    digest: str
    progress: dict[str, float] = {}
    about: dict[str, str] = {}
    env: dict[str, Any] = {}
    names: tuple[str, ...] = ()


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint, read: its head, the agent, and tensors of the training beside it."""

    head: Head
    agent: Any
    extra: dict[str, Any]


def save_checkpoint(
    folder: Path,
    agent: PPOAgent,
    *,
    progress: dict[str, float] | None = None,
    about: dict[str, str] | None = None,
    env: dict[str, Any] | None = None,
    names: tuple[str, ...] = (),
    extra: dict[str, Tensor] | None = None,
    state: dict[str, Tensor] | None = None,
) -> Head:
    """Write a checkpoint; one that is there is replaced, as a whole.

    Args:
        progress: counters of the training.
        about: what it was trained on.
        env: settings of its environment.
        names: of its experts.
        extra: tensors of the training, by name.
        state: of the agent, as its `state` gave it before; None: as it is.

    Raises:
        DataError: the folder cannot be written.
    """
    tensors = {f"agent.{name}": value for name, value in (state or agent.state()).items()}
    tensors |= {f"extra.{name}": value.detach().cpu() for name, value in (extra or {}).items()}
    data = safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()})
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    head = Head(
        format=FORMAT,
        kind=agent.kind,
        agent=agent.config,
        # Named by its content: the head that is there keeps its own file until the new one is.
        weights=f"{_WEIGHTS}-{digest[:12]}.safetensors",
        digest=digest,
        progress=progress or {},
        about=about or {},
        env=env or {},
        names=names,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / head.weights, data)
        _put(folder / _HEAD, msgspec.json.format(msgspec.json.encode(head)))
        for old in folder.glob(f"{_WEIGHTS}-*.safetensors"):
            if old.name != head.weights:
                old.unlink(missing_ok=True)
    except OSError as cause:
        raise DataError(
            f"the checkpoint cannot be written: {cause.strerror or cause}", where=str(folder)
        ) from cause
    return head


def _put(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def load_checkpoint(
    folder: Path,
    *,
    layout: str | None = None,
    device: torch.device | None = None,
    mixed: torch.dtype | None = None,
) -> Checkpoint:
    """Read a checkpoint.

    Args:
        layout: digest of the observations and actions that the policy is to meet; None: any.
        device, mixed: where and in what the agent computes, see `PPOAgent`.

    Raises:
        DataError: there is none, it is damaged, of another version, or of other observations.
    """
    head = read_head(folder)
    if layout is not None and head.agent.layout and head.agent.layout != layout:
        raise DataError(
            f"the policy was trained on other observations or actions (layout {head.agent.layout}, "
            f"not {layout})",
            where=str(folder),
            hint="make the environment with the settings that it was trained with",
        )
    path = folder / head.weights
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"weights of more than {_MOST_BYTES:,} bytes", where=str(path))
        data = path.read_bytes()
    except OSError as cause:
        raise DataError(
            f"the weights cannot be read: {cause.strerror or cause}", where=str(path)
        ) from cause
    if hashlib.blake2b(data, digest_size=16).hexdigest() != head.digest:
        raise DataError("the weights are not those that the checkpoint names", where=str(path))
    try:
        tensors = safetensors.torch.load(data)
        agent = KINDS[head.kind](head.agent, device=device, mixed=mixed)
        agent.load(part_of(tensors, "agent."))
    except (safetensors.SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as cause:
        first = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise DataError(
            f"the weights do not fit the agent: {first[:200]}", where=str(path)
        ) from cause
    return Checkpoint(head, agent, part_of(tensors, "extra."))


def read_head(folder: Path) -> Head:
    """What a checkpoint says of itself.

    Raises:
        DataError: there is none, or it is not what this version writes.
    """
    path = folder / _HEAD
    try:
        if path.stat().st_size > _MOST_HEAD_BYTES:
            raise DataError("no checkpoint: its head is too large", where=str(path))
        head = msgspec.json.decode(path.read_bytes(), type=Head)
    except OSError as cause:
        raise DataError(
            f"no checkpoint: {cause.strerror or cause}", where=str(path),
            hint="a folder that `train` or `meta-train` wrote",
        ) from cause  # fmt: skip
    except msgspec.MsgspecError as cause:
        raise DataError(f"no checkpoint: {cause}", where=str(path)) from cause
    if head.format != FORMAT or head.kind not in KINDS or Path(head.weights).name != head.weights:
        raise DataError(
            f"a checkpoint of format {head.format} and kind `{head.kind[:40]}`", where=str(path),
            hint="written by another version?",
        )  # fmt: skip
    return head
