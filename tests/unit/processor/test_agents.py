"""Policies by name and by place; every way to get one wrong says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from streambot.domain.errors import ConfigError
from streambot.engine.scripts import Script
from streambot.processor.agents import SCRIPTS, load_agent

GOOD = """
from beside import ANSWER

class Mine:
    def on_bar(self, bar, account):
        return ANSWER

class NoMethod:
    pass

class NeedsArguments:
    def __init__(self, x):
        pass
    def on_bar(self, bar, account):
        return ANSWER

not_a_class = 5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("from streambot.domain.events import HOLD as ANSWER\n")
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "torn.py").write_text("class Mine:\n    def on_bar(self, bar\n")
    (tmp_path / "raises.py").write_text("x = 1\nraise RuntimeError('no licence')\n")
    return tmp_path


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name: str) -> None:
    assert load_agent(name, folder=Path()) is SCRIPTS[name]
    assert isinstance(SCRIPTS[name], Script)


def test_one_instance_per_instrument_with_modules_beside_it(folder: Path) -> None:
    make = load_agent("mine.py:Mine", folder=folder)
    assert callable(make)
    first, second = make(), make()
    assert first is not second
    assert type(first).__name__ == "Mine"


def test_from_a_package() -> None:
    make = load_agent("examples.sma_cross:SmaCross", folder=Path())
    assert callable(make)
    assert type(make()).__name__ == "SmaCross"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sma-cros", "sma-cross"),
        ("nothing", "path.py:Class"),
        (":Mine", "there is no policy"),
        ("missing.py:Mine", "no such file"),
        ("mine.py:Mien", "Mine"),
        ("mine.py:not_a_class", "has no class"),
        ("mine.py:NoMethod", "on_bar"),
        ("torn.py:Mine", r"torn\.py:\d+.*does not compile"),
        ("raises.py:Mine", r"raises\.py:2.*no licence"),
        ("no_such_package.mod:Mine", "cannot import"),
    ],
)
def test_mistakes(folder: Path, spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_agent(spec, folder=folder)
    import re

    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_class_that_wants_arguments(folder: Path) -> None:
    make = load_agent("mine.py:NeedsArguments", folder=folder)
    assert callable(make)
    with pytest.raises(ConfigError, match=r"mine\.py.*without arguments|mine\.py") as caught:
        make()
    assert "without arguments" in caught.value.hint
