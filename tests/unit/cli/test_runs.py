"""`streambot runs`: what was run here, and how each of them ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from streambot.processor.run_state import RunState
from tests.unit.cli.run_folders import write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_an_empty_folder_says_how_to_begin(streambot: Invoke) -> None:
    said = streambot("runs", "ls")
    assert (said.code, said.out) == (0, "")
    assert "streambot simulate" in said.err
    assert streambot("runs", "show").code == 2


def test_ls_lists_the_newest_last(streambot: Invoke, runs: Path) -> None:
    write_run(runs, "b", started="2026-11-24T20:00:00Z")
    write_run(runs, "a", started="2026-11-24T21:00:00Z", state=RunState.RUNNING, summary=False)
    lines = streambot("runs", "ls").out.splitlines()
    assert lines[2].split()[:4] == ["b", "complete", "2026-11-24", "20:00"]
    assert lines[2].endswith("+217.0000 USD")
    assert lines[3].split()[:2] == ["a", "killed"]  # nobody holds its lock
    objects = [json.loads(line) for line in streambot("runs", "ls", "--json").out.splitlines()]
    assert [(o["run"], o["state"], o["schema"]) for o in objects] == [
        ("b", "complete", "streambot.run-listed/1"),
        ("a", "killed", "streambot.run-listed/1"),
    ]


def test_show_prints_the_summary_in_the_exchanges_zone(streambot: Invoke, runs: Path) -> None:
    write_run(runs)
    said = streambot("runs", "show")
    assert said.code == 0
    assert "2020-12-15 09:30 to 16:00 EST" in said.out
    assert "dead letters 0" in said.out
    assert json.loads(streambot("runs", "show", "--json").out)["schema"].startswith(
        "streambot.summary/"
    )


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        (RunState.RUNNING, None, ["killed"]),
        (RunState.INTERRUPTED, None, ["interrupted"]),
        (RunState.FAILED, "the broker died", ["failed", "it failed: the broker died"]),
    ],
)
def test_a_run_without_summary_says_where_it_stands_and_how_to_go_on(
    streambot: Invoke, runs: Path, state: RunState, error: str | None, words: list[str]
) -> None:
    write_run(runs, state=state, error=error, summary=False)
    said = streambot("runs", "show", "spy-7f3a")
    for word in words:
        assert word in said.out
    assert "next: streambot simulate --resume spy-7f3a" in said.err
    assert json.loads(streambot("runs", "show", "--json").out)["schema"] == "streambot.run/1"


def test_mistakes(streambot: Invoke, runs: Path) -> None:
    folder = write_run(runs)
    said = streambot("runs", "show", "spy-7f3")
    assert said.code == 2
    assert "did you mean `spy-7f3a`?" in said.err
    (folder / "summary.json").write_text("{}")
    said = streambot("runs", "show")
    assert said.code == 3
    assert "summary.json" in said.err
    (folder / "run.json").write_text("[]")
    said = streambot("runs", "show", "spy-7f3a")
    assert said.code == 3
    assert "run.json" in said.err
