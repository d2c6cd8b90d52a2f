"""`streambot instruments`: lists, one instrument with all its settings, checks with exit code 3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of the test's own, without a registry."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ls_lists_the_bundled_registry(streambot: Invoke) -> None:
    said = streambot("instruments", "ls")
    assert said.code == 0
    assert said.err == "registry: bundled\n"
    assert "symbol" in said.out.splitlines()[0]
    assert any(line.split()[:2] == ["SPY", "STOCK"] for line in said.out.splitlines())


def test_ls_takes_a_pattern_and_json_is_one_object_a_line(streambot: Invoke) -> None:
    said = streambot("instruments", "ls", "NIFTY*", "--json")
    objects = [json.loads(line) for line in said.out.splitlines()]
    assert {one["symbol"] for one in objects} == {"NIFTY", "NIFTY_OPT"}
    assert all(one["schema"] == "streambot.instrument/1" for one in objects)
    assert all(one["tick_size"] == "0.05" for one in objects)  # exact, never a float


def test_show_tells_lot_sizes_by_expiry(streambot: Invoke) -> None:
    said = streambot("instruments", "show", "NIFTY_OPT")
    assert said.code == 0
    assert "OPTION on the chart of NIFTY" in said.out
    assert any(
        line.split() == ["weekly", "2024-05-02", "2024-12-19", "25"]
        for line in said.out.splitlines()
    )


def test_an_unknown_symbol_is_3_with_a_guess(streambot: Invoke) -> None:
    said = streambot("instruments", "show", "NIFTI")
    assert said.code == 3
    assert "no instrument `NIFTI`" in said.err
    assert "did you mean `NIFTY`?" in said.err
    assert streambot("instruments", "ls", "NIFTI").code == 3


def test_the_registry_of_the_working_folder_wins(streambot: Invoke, elsewhere: Path) -> None:
    (elsewhere / "instruments.yaml").write_text(
        "instruments:\n  MINE: {type: STOCK, lot_size: 1, tick_size: 0.05}\n"
    )
    assert (
        streambot("instruments", "check").out == "ok  instruments.yaml: 1 stock, 0 proxy options\n"
    )
    document = json.loads(streambot("instruments", "check", "--json").out)
    assert document == {
        "schema": "streambot.registry/1", "registry": "instruments.yaml", "instruments": 1, "options": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "instruments:\n  X: {type: STOCK, lot_sise: 1, tick_size: 1}\n",
            ["bad.yaml:2", "lot_sise", "did you mean"],
        ),
        ("instruments:\n  X: {type: STONK, lot_size: 1, tick_size: 1}\n", ["bad.yaml:2", "STONK"]),
        (
            "instruments:\n  X: {type: STOCK, lot_size: 0, tick_size: 1}\n",
            ["bad.yaml:2", "lot_size"],
        ),
        ("instruments:\n  X: {}\n  X: {}\n", ["bad.yaml:3", "X"]),
        ("instruments: [\n", ["bad.yaml"]),
        ("", ["bad.yaml"]),
    ],
)
def test_mistakes_in_a_registry_are_3_with_file_line_and_key(
    streambot: Invoke, elsewhere: Path, text: str, words: list[str]
) -> None:
    path = elsewhere / "bad.yaml"
    path.write_text(text)
    said = streambot("instruments", "check", str(path))
    assert said.code == 3, said
    assert said.out == ""
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


def test_a_missing_registry_is_3(streambot: Invoke) -> None:
    said = streambot("instruments", "check", "nowhere.yaml")
    assert said.code == 3
    assert "nowhere.yaml" in said.err
