"""`streambot data`: what a file of bars holds, as `simulate` would read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]

HEADER = "time,open,high,low,close,volume\n"
BARS = HEADER + "".join(
    f"2024-03-04T14:{30 + n}:00Z,100.{n:02d},101.00,99.50,100.{n + 1:02d},{10 * n}\n"
    for n in range(20)
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(BARS)
    return tmp_path


def test_inspect_tells_mapping_counts_durations_and_the_declaration(streambot: Invoke) -> None:
    said = streambot("data", "inspect", "mine.csv")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "mine.csv   1 instrument   1m bars   20 bars   1 session"
    assert any(line.split()[:4] == ["mine", "1m?", "20", "1"] for line in lines)
    assert "time time (moments, opens of the bars)" in said.out
    assert "volume volume" in said.out
    assert "at 100x 12 s with closed hours skipped, 12 s with them kept" in said.out
    assert (
        "\ninstruments:\n  mine:\n    type: STOCK\n    lot_size: 1\n    tick_size: 0.01\n"
        in said.out
    )


def test_inspect_as_json(streambot: Invoke) -> None:
    document = json.loads(streambot("data", "inspect", "mine.csv", "--json").out)
    assert document["schema"] == "streambot.data-inspect/1"
    assert (document["bars"], document["ticks"]) == (20, 80)
    assert document["instruments"][0]["zero_volume"] == 1
    assert document["undeclared"].startswith("instruments:")


def test_what_is_declared_needs_no_declaration(streambot: Invoke, folder: Path) -> None:
    (folder / "instruments.yaml").write_text(
        "instruments:\n  mine: {type: STOCK, lot_size: 1, tick_size: 0.01, volume_step: 10}\n"
    )
    assert "declare" not in streambot("data", "inspect", "mine.csv").out


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gone.csv", None, ["gone.csv", "no such file"]),
        ("empty.csv", "", ["empty.csv", "empty"]),
        ("header.csv", HEADER, ["header.csv"]),
        ("wrong.csv", "a,b\n1,2\n", ["wrong.csv"]),
        ("notes.md", "# notes\n", ["notes.md", "Parquet"]),
        ("nan.csv", BARS.replace("100.05,101.00", "nan,101.00"), ["nan.csv:line 7"]),
        ("negative.csv", BARS.replace("100.05,101.00", "-3,101.00"), ["negative.csv:line 7"]),
        (
            "inside.csv",
            BARS.replace("101.00,99.50,100.06", "99.00,99.50,100.06"),
            ["inside.csv:line 7"],
        ),
    ],
)
def test_mistakes_are_4_and_name_file_and_line(
    streambot: Invoke, folder: Path, name: str, text: str | None, words: list[str]
) -> None:
    if text is not None:
        (folder / name).write_text(text)
    said = streambot("data", "inspect", name)
    assert said.code == 4, said
    assert said.out == ""
    for word in words:
        assert word in said.err
    assert "Traceback" not in said.err


def test_ls_lists_what_comes_with_streambot(
    streambot: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMBOT_DATA", raising=False)
    said = streambot("data", "ls")
    assert said.code == 0
    assert "spy_1m_2020.parquet" in said.out
    assert "Apache-2.0" in said.out
    assert "default" in said.err
    objects = [json.loads(line) for line in streambot("data", "ls", "--json").out.splitlines()]
    assert all(o["schema"] == "streambot.data-file/1" and o["bundled"] for o in objects)


def test_ls_of_a_folder_shows_its_bar_files_only(streambot: Invoke, folder: Path) -> None:
    (folder / "other.csv").write_text("a,b\n1,2\n")
    said = streambot("data", "ls", str(folder))
    assert [line.split()[-1] for line in said.out.splitlines()[2:]] == ["mine.csv"]
    assert streambot("data", "ls", "nowhere").code == 4


def test_the_folder_of_real_data_is_listed_too(
    streambot: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMBOT_DATA", str(folder))
    assert "mine.csv" in streambot("data", "ls").out
