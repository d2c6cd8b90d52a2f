"""What an optimizer remembers, as tensors by name, for checkpoints that go on exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping


def memory_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What it remembers of every parameter: `<number>.<field>`, on the CPU."""
    return {
        f"{k}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for k, fields in optimizer.state_dict()["state"].items()
        for name, value in fields.items()
    }


def remember(optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor]) -> None:
    """Take over what `memory_of` gave, of an optimizer over parameters of the same shapes."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in named.items():
        number, field = name.split(".", 1)
        state.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def part_of(named: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What begins with `prefix`, without it."""
    return {n.removeprefix(prefix): v for n, v in named.items() if n.startswith(prefix)}
