"""A snapshot is whole, of this run, or refused."""

import pytest

from streambot.domain.errors import DataError
from streambot.processor import durable
from streambot.processor.core_state import STATE_VERSION, CoreState, SlotState
from streambot.processor.snapshot import TaskSnapshot, load_snapshot, save_snapshot, snapshot_path
from streambot.streams.sequence import ChainState

RUN = b"r" * 16
SLOT = SlotState(symbol="SPY", slot=b"\0\1" * 500, ring=b"ring", counts=b"counts")
CORE = CoreState(version=STATE_VERSION, last_close=7, slots=(SLOT,))


def snapshot(**changes) -> TaskSnapshot:
    fields = {
        "run": "mine", "partition": 2, "core": CORE, "chain": ChainState.start(RUN, 2), "offset": 11, "lines": {"fills": 3}, "duplicates": 1,
        "dead_letters": 2, "ended": False,
    }  # fmt: skip
    return TaskSnapshot(**(fields | changes))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path


def test_what_is_saved_is_loaded(folder):
    assert load_snapshot(folder, "mine", 2) is None
    save_snapshot(folder, snapshot())
    save_snapshot(folder, snapshot(offset=12))
    assert load_snapshot(folder, "mine", 2) == snapshot(offset=12)
    assert [p.name for p in (folder / "state").iterdir()] == ["p0002.snapshot"]


def test_any_flipped_byte_is_noticed(folder):
    save_snapshot(folder, snapshot())
    path = snapshot_path(folder, 2)
    good = path.read_bytes()
    for at in range(0, len(good), 37):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(DataError, match="no snapshot"):
            load_snapshot(folder, "mine", 2)
    path.write_bytes(good[:-1])
    with pytest.raises(DataError):
        load_snapshot(folder, "mine", 2)


def test_a_snapshot_of_another_run_is_refused(folder):
    save_snapshot(folder, snapshot(run="other"))
    with pytest.raises(DataError, match="other"):
        load_snapshot(folder, "mine", 2)


def test_a_failed_write_keeps_the_snapshot_before_it(folder, monkeypatch):
    save_snapshot(folder, snapshot())

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", refuse)
    with pytest.raises(DataError, match="no room left"):
        save_snapshot(folder, snapshot(offset=12))
    monkeypatch.undo()
    assert load_snapshot(folder, "mine", 2) == snapshot()
    assert len(list((folder / "state").iterdir())) == 1
