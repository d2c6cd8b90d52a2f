"""Where the learners of one machine meet: a file of theirs.

Ray has torch meet at a port, which torch opens to every network that the machine is in and asks nobody
who he is. Of a Ray on this machine alone, learners meet in its folder, and talk over the loopback
interface.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray
from ray.rllib.core.learner import learner_group
from ray.train.torch.config import TorchConfig, _TorchBackend
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT = timedelta(minutes=5)
"""For the others in an operation of all; whoever has died is missed at once."""


def _join(backend: str, place: str, rank: int, size: int) -> None:
    distributed.init_process_group(
        backend, init_method=f"file://{place}", rank=rank, world_size=size, timeout=WAIT
    )


class _AtFile(_TorchBackend):  # type: ignore[misc]
    share_cuda_visible_devices = False  # as RLlib has it: each learner sees its own

    def on_start(self, worker_group: Any, backend_config: Any) -> None:  # noqa: ANN401  # Ray's own
        cards = worker_group.get_resources_per_worker().get("GPU", 0)
        size = len(worker_group)
        ray.get([
            worker_group.execute_single_async(
                rank, _join, "nccl" if cards else "gloo", backend_config.place, rank, size
            )
            for rank in range(size)
        ])  # fmt: skip


@dataclass
class _Meeting(TorchConfig):  # type: ignore[misc]
    place: str = ""

    @property
    def backend_cls(self) -> type[_AtFile]:
        return _AtFile


@contextmanager
def met_in(folder: Path | None) -> Iterator[None]:
    """Learners that are made inside meet in a folder; None: as Ray has it."""
    if folder is None:
        yield
        return
    before = learner_group._get_backend_config  # noqa: SLF001  # RLlib has no setting for it
    place = str(folder / f"learners-{uuid4().hex}")
    learner_group._get_backend_config = lambda _: _Meeting(place=place)  # noqa: SLF001
    try:
        yield
    finally:
        learner_group._get_backend_config = before  # noqa: SLF001
