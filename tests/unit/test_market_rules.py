"""The worked examples of `docs/market-rules.md` are true."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "market-rules.md"


def test_every_example() -> None:
    # A closing fence right behind the expected output would be read as part of it, hence the
    # blank line before each one in the page.
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert tried > 40
    assert failed == 0
