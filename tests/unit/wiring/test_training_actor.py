"""An actor whose streams are gone: is that the end of the training, a newer generation, or a failure?"""

from __future__ import annotations

import msgspec
import pytest

from streambot.domain.errors import TopicError
from streambot.learning.declaration import State, Training, declare_training, generation
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import StreamSpec
from streambot.wiring.training_actor import _moved_on

RUNS = "lab.t.runs"


def in_generation(number: int, state: State = State.RUNNING) -> Training:
    topics = {name: generation(f"lab.t.{name}", number) for name in ("experience", "policy")}
    return Training(
        namespace="lab", training="t", policy="main", topics=topics | {"runs": RUNS},
        request=msgspec.Raw(b"{}"), data="", layout="x", seed=1, envs=1, rollout=1, state=state,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("now", "gone", "expected"),
    [
        (in_generation(5), "lab.t.policy.g0002", True),
        (in_generation(5), "lab.t.policy.g0004/0", True),
        (in_generation(0, State.COMPLETE), "lab.t.policy.g0000", True),
        (in_generation(0), "lab.t.policy.g0000", False),
        (None, "lab.t.policy.g0000", False),
        (in_generation(5), "lab.other.policy.g0000", False),
        (in_generation(5), "", False),
    ],
)
async def test_streams_that_are_gone(now: Training | None, gone: str, expected: bool) -> None:
    log = MemoryLog()
    await log.create([StreamSpec(name=RUNS)])
    if now is not None:
        await declare_training(log, now, at_ms=0)
    error = TopicError("the stream was deleted", where=gone)
    assert await _moved_on(log, in_generation(0), RUNS, error) is expected
    await log.close()
