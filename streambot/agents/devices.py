"""Where tensors are computed: CUDA, XLA or the CPU, chosen in one place and said in one line."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from typing import NamedTuple

import torch

from streambot.domain.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _PIECE_BYTES = 256 << 20, 32 << 20
WIDE = 256
CHOICES = ("auto", "cuda", "xla", "cpu", "meta")


class Device(NamedTuple):
    """A device that was chosen.

    Attributes:
        torch: for `.to(...)`.
        said: one line for people.
        mixed: type for autocast where mixed precision pays; None: full precision.
    """

    torch: torch.device
    said: str
    mixed: torch.dtype | None = None


def resolve_device(asked: str = "auto") -> Device:
    """The device that was asked for; `auto`: CUDA where there is one, then XLA, then the CPU.

    CUDA turns on `cudnn.benchmark`; mixed precision is bfloat16, where the card computes in it. The
    CPU lets the process keep memory that it has freed, see `keep_freed_memory`.

    Raises:
        ConfigError: no such device here, or no such word.
    """
    if asked not in CHOICES:
        raise ConfigError(f"there is no device `{asked}`", hint=f"one of {', '.join(CHOICES[:-1])}")
    if asked == "meta":
        return Device(torch.device("meta"), "device: meta (shapes only, nothing is computed)")
    if asked in {"auto", "cuda"} and torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        name = torch.cuda.get_device_name()
        mixed = torch.bfloat16 if torch.cuda.is_bf16_supported() else None
        precision = "bfloat16 where it pays" if mixed else "float32"
        return Device(torch.device("cuda"), f"device: cuda ({name}), {precision}", mixed)
    if asked in {"auto", "xla"} and importlib.util.find_spec("torch_xla") is not None:
        from torch_xla.core import xla_model  # noqa: PLC0415  # type: ignore[import-not-found]

        return Device(xla_model.xla_device(), "device: xla (torch_xla)")
    if asked in {"cuda", "xla"}:
        raise ConfigError(
            f"there is no {asked} device here",
            hint="--device cpu, or auto, which takes what there is",
        )
    keep_freed_memory()
    return Device(torch.device("cpu"), f"device: cpu, {torch.get_num_threads()} threads")


def mixed_pays(hidden: tuple[int, ...]) -> bool:
    """Whether networks are wide enough that cheaper products make up for the casts around them.

    Assumed of cards with tensor cores, not measured: below `WIDE` a policy of this kind waits for
    the launch of its operations, not for their sums.
    """
    return max(hidden, default=0) >= WIDE


def leave_cores(others: int) -> None:
    """Let torch compute on the cores that processes beside this one do not need; on one at least.

    Threads that wait for a core that somebody else uses make an update twenty times as slow. Who has
    set `OMP_NUM_THREADS` is obeyed.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - others))


def keep_freed_memory() -> None:
    """Keep up to 256 MiB that this process has freed, for the tensors of the next step.

    glibc hands a freed megabyte back to the system, which hands it out again page by page, zeroed:
    a third of the time of a policy on 1,024 observations. Where the C library is another one,
    nothing is changed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _PIECE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
