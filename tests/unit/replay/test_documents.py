"""The diagram in the documents is the table of transitions."""

from pathlib import Path

from streambot.replay.control import diagram

PAGE = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
BEGIN, END = "<!-- replay: begin -->", "<!-- replay: end -->"


def test_the_diagram_of_a_replay_is_the_table():
    page = PAGE.read_text(encoding="utf-8")
    shown = page.partition(BEGIN)[2].partition(END)[0]
    assert shown == f"\n```mermaid\n{diagram()}\n```\n"
