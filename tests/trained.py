"""Policies that trade without a training: loud networks of a seed, and one that is no network at all."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from streambot.data.segments import Segments
from streambot.env.trader import Decided
from streambot.market.feature_config import FeatureConfig
from streambot.processor.manifest import RunManifest
from streambot.streams.frame import Frame
from streambot.wiring.preparation import Prepared
from streambot.wiring.rerun import Rerun, Tasks

EXPERTS = ("trend", "mean-reversion", "volatility", "consolidation")
SETTINGS: dict[str, Any] = {
    "window": 7, "max_quantity": 3, "lookback": 30, "zscore_window": 90, "warmup": 20,
    "regime_windows": [20, 60], "timeframes": ["5m", "30m"],
}  # fmt: skip
"""Of an environment with everything in it that a policy may look at, in few bars."""


class Hashing:
    """A `Policy` that is a function of every bit of what it is shown; it needs no torch."""

    experts = EXPERTS
    version = 3

    def __init__(self, calm: int = 4) -> None:
        self._calm = calm

    def decide(self, observation: Any, mask: Any) -> Decided:
        draw = zlib.crc32(observation.tobytes() + mask.tobytes())
        gate = np.array([1 + (draw >> 8 * k) % 251 for k in range(4)], np.float64)
        legal = np.flatnonzero(mask[0])
        held = draw % self._calm != 0
        action = 0 if held else int(legal[(draw >> 3) % len(legal)])
        return Decided(action, (gate / gate.sum()).tolist())


class Given:
    """A source of segments that are there already."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def open(self, features: FeatureConfig) -> Segments:
        assert features == self.segments.head.features
        return self.segments


class Pieces(Rerun):
    """The frames of a run, in the order of a replay, without executing them."""

    def __init__(self, run: Prepared, manifest: RunManifest) -> None:
        super().__init__(Tasks(manifest, run.context, None))
        self.found: list[tuple[int, Frame]] = []

    def _run(self, core: Any, frame: Frame) -> Iterator[tuple[str, bytes]]:
        self.found.append((core.partition, frame))
        return iter(())


def frames_of(run: Prepared, manifest: RunManifest, **cut: Any) -> list[tuple[int, Frame]]:
    """Partition and frame, cut as `Rerun.over_windows` does."""
    pieces = Pieces(run, manifest)
    for _ in pieces.over_windows(run.timeline.windows(), **cut):
        pass
    return pieces.found


def loud_agent(
    kind: str = "moe", *, seed: int = 1, gain: float = 300.0, env: dict[str, Any] | None = None
) -> Any:
    """An agent that was not trained, its last layers so large that it does trade."""
    import torch

    from streambot.agents.experts import EXPERTS as ALONE
    from streambot.env.settings import make_config
    from streambot.learning.policy import AGENTS, agent_config

    settings = SETTINGS if env is None else env
    kinds = {agent.kind: agent for agent in (*AGENTS.values(), *ALONE)}
    agent = kinds[kind](agent_config(make_config(settings), seed=seed, hidden=(16,)))
    with torch.no_grad():
        for name, parameter in agent.network.named_parameters():
            if name.endswith("layers.2.weight"):  # the last one of every network
                parameter.mul_(gain)
    return agent


def save_loud(
    folder: Path,
    kind: str = "moe",
    *,
    seed: int = 1,
    gain: float = 300.0,
    env: dict[str, Any] | None = None,
    **more: Any,
) -> Path:
    """A checkpoint of a loud agent."""
    from streambot.agents.checkpoint import save_checkpoint

    agent = loud_agent(kind, seed=seed, gain=gain, env=env)
    names = EXPERTS if kind == "moe" else ()
    save_checkpoint(
        folder, agent, env=SETTINGS if env is None else env, **({"names": names} | more)
    )
    return folder
