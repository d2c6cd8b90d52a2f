"""An update is told until it is known to be there, by whoever has the checkpoint, and not twice."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from streambot.agents.checkpoint import save_checkpoint
from streambot.domain.errors import DataError
from streambot.learning.learner.keeping import UNTOLD, untold_of
from streambot.learning.learner.telling import Untold
from streambot.learning.policy import load_policy
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import StreamSpec
from tests.learner_rig import ENV, new_agent

pytestmark = pytest.mark.train


def test_what_is_on_its_way_stays_until_it_can_be_read() -> None:
    untold = Untold()
    untold.add(b"1")
    assert untold.send() == (b"1",)
    untold.add(b"2")
    assert untold.records == (b"1", b"2"), (
        "as a checkpoint has to have them, if the broker goes now"
    )
    assert untold.send() == (b"2",), "the first one was sent already"
    untold.add(b"3")
    untold.confirm()
    assert untold.records == (b"3",), "which nobody has sent"
    assert untold.send() == (b"3",)
    untold.confirm()
    assert untold.records == ()


async def test_what_has_arrived_after_all_is_not_told_again() -> None:
    log = MemoryLog()
    await log.create([StreamSpec(name="u.t.status")])
    sink = await log.sink()
    for value in (b"1", b"2", b"no update at all"):
        await sink.append("u.t.status", 0, value, timestamp_ms=0)
    await sink.close()
    untold = Untold([b"2", b"3"])
    await untold.look(log, "u.t.status")
    assert untold.send() == (b"3",)


@pytest.mark.parametrize("said", ["{", "[1]", '"two"', "null"])
def test_a_checkpoint_that_was_altered_is_refused(said: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, new_agent(), env=ENV, about={UNTOLD: said})
    with pytest.raises(DataError, match="which updates were told of"):
        untold_of(load_policy(tmp_path))


def test_a_checkpoint_from_before_has_told_of_all(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, new_agent(), env=ENV)
    assert untold_of(load_policy(tmp_path)) == ()
