"""`streambot dlq` over the file of a run: counts, bytes, and nothing that a record's bytes can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streambot.cli.dlq import hex_lines
from streambot.domain.errors import DecodeError
from streambot.streams.dead_letter import dead_letter_line
from streambot.streams.ports import Record
from tests.unit.cli.run_folders import write_run
from tests.unit.streams.frames import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]

GOOD = frames(1)[0]
FLIPPED = GOOD[:-1] + bytes([GOOD[-1] ^ 1])


def a_line(
    offset: int, value: bytes, reason: str = "crc", partition: int = 0, message: str = ""
) -> bytes:
    record = Record("streambot.one.ticks", partition, offset, 0, None, value, ())
    return dead_letter_line(record, DecodeError(message or f"it is {reason}", reason=reason))


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the embedded broker that has ended, with four dead letters in its file."""
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "runs", "one")
    lines = [
        a_line(40, b"ab", "short", 1),
        a_line(17, FLIPPED),
        a_line(3, b"\x1b[2Jhello", message="\x1b[2J gone"),
        a_line(41, b"", "short", 1),
        a_line(17, FLIPPED),  # once more, after a crash
    ]
    (folder / "dead-letter.ndjson").write_bytes(b"".join(lines))
    return folder


def test_ls_lists_in_the_order_of_the_log_and_counts(streambot: Invoke) -> None:
    said = streambot("dlq", "ls", "--json")
    *letters, counts = [json.loads(line) for line in said.out.splitlines()]
    assert [(one["number"], one["partition"], one["offset"], one["bytes"]) for one in letters] == [
        (1, 0, 3, 9), (2, 0, 17, len(FLIPPED)), (3, 1, 40, 2), (4, 1, 41, 0),
    ]  # fmt: skip
    assert counts["counts"] == [
        {"reason": "crc", "partition": 0, "letters": 2},
        {"reason": "short", "partition": 1, "letters": 2},
    ]
    assert (counts["letters"], counts["repeats"], counts["altered"]) == (4, 1, 0)


def test_ls_for_people_shows_no_byte_that_a_terminal_would_obey(streambot: Invoke) -> None:
    said = streambot("dlq", "ls")
    assert said.code == 0
    assert "\x1b" not in said.out
    assert "1 record more bury" in said.err
    assert "dead-letter.ndjson" in said.err
    assert "next: streambot dlq show 1 --run one" in said.err


def test_no_dead_letters(streambot: Invoke, run: Path) -> None:
    (run / "dead-letter.ndjson").unlink()
    said = streambot("dlq", "ls")
    assert (said.code, said.out) == (0, "no dead letters\n")
    said = streambot("dlq", "show", "1")
    assert said.code == 2
    assert "it has none" in said.err


@pytest.mark.parametrize("which", ["2", "0/17"])
def test_show_tells_what_the_header_of_the_frame_says(streambot: Invoke, which: str) -> None:
    said = streambot("dlq", "show", which, "--json")
    shown = json.loads(said.out)
    assert (shown["number"], shown["reason"], shown["intact"]) == (2, "crc", True)
    assert shown["header"]["kind"] == "DATA"
    assert shown["header"]["rows"] == 12
    assert shown["header"]["intact"] is False
    people = streambot("dlq", "show", which)
    assert "header: DATA frame 0, partition 0, version 1, schema 1" in people.out
    assert "differs: the bytes have" in people.out
    assert people.out.count("\n0000") == 16, "256 bytes"
    assert "--bytes 0 shows all" in people.err
    assert "more byte" not in streambot("dlq", "show", which, "--bytes", "0").err


def test_show_of_what_is_no_frame(streambot: Invoke) -> None:
    said = streambot("dlq", "show", "1")
    assert "no header of a frame" in said.out
    assert "|.[2Jhello|" in said.out
    assert "\x1b" not in said.out


def test_an_altered_value_is_said_to_be_one(streambot: Invoke, run: Path) -> None:
    file = run / "dead-letter.ndjson"
    file.write_bytes(file.read_bytes().replace(b'"value":"YWI="', b'"value":"YWE="'))
    assert "3" in streambot("dlq", "ls").err.split("are not those that were buried:")[1]
    assert "NOT the bytes" in streambot("dlq", "show", "3").out


def test_export_writes_the_bytes_under_names_of_its_own(
    streambot: Invoke, run: Path, tmp_path: Path
) -> None:
    """A stream called `../../x` in a header is a word in the index, and no path."""
    file = run / "dead-letter.ndjson"
    file.write_bytes(file.read_bytes().replace(b"streambot.one.ticks", b"../../../evil"))
    said = streambot("dlq", "export", "out")
    assert said.code == 0, said.err
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "000001.bin", "000002.bin", "000003.bin", "000004.bin", "index.json",
    ]  # fmt: skip
    index = json.loads((out / "index.json").read_text())
    assert index["schema"] == "streambot.dead-letters-exported/1"
    assert [one["file"] for one in index["letters"]] == [f"{n:06d}.bin" for n in (1, 2, 3, 4)]
    assert index["letters"][0]["stream"] == "../../../evil"
    values = [(out / one["file"]).read_bytes() for one in index["letters"]]
    assert values == [b"\x1b[2Jhello", FLIPPED, b"ab", b""]
    assert not (tmp_path.parent / "evil").exists()


def test_export_overwrites_nothing(streambot: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    said = streambot("dlq", "export", "mine")
    assert said.code == 2
    assert "notes.txt" in said.err
    assert len(list((tmp_path / "mine").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("show", "9"), 2, "no dead letter 9: it has 4"),
        (("show", "0/99"), 2, "no dead letter 0/99"),
        (("show", "first"), 2, "names no dead letter"),
        (("show", "1/"), 2, "names no dead letter"),
        (("show", "-1"), 2, "no such option"),
        (("ls", "--run", "on"), 2, "did you mean `one`"),
        (("ls", "--run", "../one"), 2, "is no name"),
        (("ls", "--bootstrap-servers", "nowhere"), 2, "no broker address"),
        (("ls", "--bootstrap-servers", "127.0.0.1:1"), 5, "no broker answers"),
    ],
)
def test_mistakes(streambot: Invoke, arguments: tuple[str, ...], code: int, says: str) -> None:
    said = streambot("dlq", *arguments)
    assert said.code == code
    assert says in said.err.lower()
    assert said.out == ""
    assert "Traceback" not in said.err


def test_a_damaged_line_is_told_by_its_number_and_a_cut_one_is_not_there(
    streambot: Invoke, run: Path
) -> None:
    file = run / "dead-letter.ndjson"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    assert streambot("dlq", "ls").code == 0
    file.write_bytes(
        whole.replace(b'{"stream"', b'{"strem"', 2).replace(b'{"strem"', b'{"stream"', 1)
    )
    said = streambot("dlq", "ls")
    assert said.code == 4
    assert "dead-letter.ndjson:2" in said.err


def test_the_dump_shows_every_byte() -> None:
    lines = list(hex_lines(bytes(range(20))))
    assert lines[0].startswith("00000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  |")
    assert lines[1] == f"00000010  {'10 11 12 13':<23}  {'':<23}  |....|"
    assert len({line.index("|") for line in lines}) == 1
