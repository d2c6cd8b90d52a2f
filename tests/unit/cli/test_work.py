"""Long work is told on a terminal by a bar, elsewhere by a line every ten seconds; never on stdout."""

from __future__ import annotations

import pytest

from streambot.cli.console import _console_of
from streambot.cli.work import Work


def test_a_line_every_ten_seconds_with_the_time_that_is_left(
    capfd: pytest.CaptureFixture[str],
) -> None:
    _console_of.cache_clear()
    now = 100.0
    with Work("counting", clock=lambda: now) as work:
        now = 500.0  # getting ready took a while, and is no part of the work
        for done in range(0, 51, 5):
            work.told(done, 100)
            now += 3.0
        now += 9.0
        work.told(100, 100)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "counting: 20 %, about 48 s left", "counting: 40 %, about 36 s left",
    ]  # fmt: skip


def test_on_a_terminal_a_bar_that_goes_away(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    _console_of.cache_clear()
    with Work("counting") as work:
        for done in range(3):
            work.told(done, 2)
    _console_of.cache_clear()
    out, err = capfd.readouterr()
    assert out == ""
    assert "counting" in err
    assert "100 %" in err
    assert err.rstrip().endswith("\x1b[2K")
