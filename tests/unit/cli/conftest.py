"""Running the command line inside the test, with what it said and its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from streambot.cli.console import _console_of
from streambot.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Callable


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def streambot(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`streambot("version", "--json")`: exit code, stdout, stderr."""

    def invoke(*arguments: str) -> Said:
        _console_of.cache_clear()  # capture replaced the streams
        capfd.readouterr()
        code = run(arguments)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return invoke
