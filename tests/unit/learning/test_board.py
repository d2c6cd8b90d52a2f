"""What TensorBoard is given can be read back, and nothing is written for a training that never began."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tensorboardX.proto.event_pb2 import Event

from streambot.agents.batch import Stats
from streambot.learning.board import Board
from streambot.learning.meta import MetaStats
from streambot.learning.trainer import Progress

pytestmark = pytest.mark.train
STATS = Stats(
    policy_loss=-0.1, value_loss=0.2, entropy=1.5, kl=0.01, clipped=0.25, gate_entropy=1.2,
    gradients=8, stopped=False,
)  # fmt: skip
META = MetaStats(-0.05, 1e-5, 2e-5, 0.3, 1.3, 0.1, 64)


def read(folder: Path) -> dict[tuple[str, int], float]:
    """Scalars by tag and step, of all event files."""
    found = {}
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
            at += 12 + size + 4
    return found


def test_every_figure_is_there(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        board(Progress(1, 9, 100, 0.5, (1.0, 3.0), learnt=STATS))
        board(Progress(2, 9, 200, 0.25, meta=META, curve=np.array([[1.0, 3.0], [2.0, 6.0]])))
    found = read(tmp_path)
    assert found["reward/step", 100] == 0.5
    assert found["reward/episode", 100] == 2.0
    assert found["update/entropy", 100] == 1.5
    assert found["meta/after", 200] == pytest.approx(2e-5)
    assert found["held-out/after_0_steps", 200] == 2.0
    assert found["held-out/after_1_steps", 200] == 4.0


def test_nothing_is_written_for_nothing(tmp_path: Path) -> None:
    with Board(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()
