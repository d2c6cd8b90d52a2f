"""The documents say what the code does: settings, exit codes, commands, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from streambot.cli.main import COMMANDS
from streambot.domain import errors
from tools import settings_table

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def commands_named_in(text: str) -> set[str]:
    """The word behind `streambot` in code: a command, wherever it is shown."""
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    found = set()
    for block in code:
        found |= set(re.findall(r"(?:^|[\s/`])streambot ([a-z][a-z-]*)", block))
    return found


def test_the_table_of_settings_is_the_settings():
    page = settings_table.PAGE.read_text(encoding="utf-8")
    assert settings_table.filled(page) == page, "run: python -m tools.settings_table"


def test_every_exit_code_of_an_error_is_documented():
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.StreambotError)
    }
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+)", page, re.MULTILINE)}
    assert codes <= documented


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_documents_name_only_commands_that_exist(page):
    assert commands_named_in(page.read_text(encoding="utf-8")) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_documents_name_only_flags_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for command, rest in re.findall(r"streambot ([a-z][a-z-]*)([^\n`#]*)", text):
        if command in COMMANDS:
            assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= settings_table.flags(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_decision_is_in_the_index_and_in_the_navigation():
    pages = {path.name for path in (DOCS / "adr").glob("[0-9]*.md")}
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = next(group["Decisions"] for group in nav if "Decisions" in group)
    assert {name for name in pages if f"({name})" in index} == pages
    assert {f"adr/{name}" for name in pages} <= set(listed)


@pytest.mark.parametrize(
    "path", sorted((DOCS / "adr").glob("[0-9]*.md")), ids=lambda path: path.stem
)
def test_a_decision_has_its_four_parts(path):
    headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Context", "Decision", "Rejected", "Consequences"]
