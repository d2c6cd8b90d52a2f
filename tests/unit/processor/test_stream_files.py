"""Files of a run hold whole records only, and are cut back to exactly what a snapshot covers."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import DataError
from streambot.processor.stream_files import BUFFER_BYTES, StreamFiles, cut_back, file_of


def owner(line: bytes) -> int:
    return int(line.split(b":")[0])


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=30),
    at=st.integers(0, 30),
    torn=st.binary(max_size=10).filter(lambda b: b"\n" not in b),
)
def test_cutting_back_to_a_snapshot_and_writing_again_changes_nothing(
    tmp_path_factory, records, at, torn
):
    folder = tmp_path_factory.mktemp("run")
    numbers = [0, 0, 0]
    blocks = []
    for partition, count in records:
        lines = b"".join(b"%d:%d\n" % (partition, numbers[partition] + n) for n in range(count))
        numbers[partition] += count
        blocks.append((partition, lines))
    with StreamFiles(folder, ["fills"], 3) as files:
        snapshot = [0, 0, 0]
        for n, (partition, lines) in enumerate(blocks):
            files.append("fills", partition, lines, lines.count(b"\n"))
            if n + 1 == at:
                snapshot = [files.lines_of(p)["fills"] for p in range(3)]
    path = file_of(folder, "fills")
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(torn)
    kept = cut_back(folder, "fills", snapshot, owner)
    assert kept == snapshot
    with StreamFiles(folder, ["fills"], 3, lines={"fills": kept}) as files:
        for partition, lines in blocks[at if at <= len(blocks) else 0 :]:
            files.append("fills", partition, lines, lines.count(b"\n"))
    if at > len(blocks):
        assert snapshot == [0, 0, 0]
    again = path.read_bytes()
    for p in range(3):
        prefix = b"%d:" % p
        assert [x for x in again.splitlines() if x.startswith(prefix)] == [
            x for x in whole.splitlines() if x.startswith(prefix)
        ]


def test_a_full_disk_leaves_whole_records_and_names_the_file(tmp_path, monkeypatch):
    files = StreamFiles(tmp_path, ["fills"], 1)
    files.append("fills", 0, b"first\n", 1)
    files.flush()
    real = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) > 3:
            return real(descriptor, data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DataError, match="no room left") as caught:
        files.append("fills", 0, b"x" * BUFFER_BYTES + b"\n", 1)
    monkeypatch.undo()
    assert caught.value.where == str(tmp_path / "fills.ndjson")
    files.close()
    assert (tmp_path / "fills.ndjson").read_bytes() == b"first\n"


def test_a_missing_file_is_cut_to_nothing(tmp_path):
    assert cut_back(tmp_path, "fills", [3, 4], owner) == [0, 0]
