"""Where words go: data to stdout, narration to stderr, styles only on a terminal.

`rich` honours `NO_COLOR` and `TERM=dumb`; it is imported on the first word, so that a command
whose output is JSON never pays for it.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """The console of a stream as it is now (tests and pipes replace the streams)."""
    stream = sys.stderr if stderr else sys.stdout
    # While a bar is drawn, rich puts a proxy in front of the stream.
    return _console_of(getattr(stream, "rich_proxied_file", stream))


@cache
def _console_of(stream: Any) -> Console:
    from rich.console import Console

    class QuietConsole(Console):
        """Leaves a closed pipe to `cli.failures`; rich would end the process with a code of its own."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    # Lines are never wrapped: a terminal wraps what is too long by itself, a pipe wants it whole.
    return QuietConsole(file=stream, highlight=False, soft_wrap=True, emoji=False)


def on_terminal(*, stderr: bool = False) -> bool:
    """True where a person watches this stream on a terminal that can redraw a line."""
    return console(stderr=stderr).is_terminal and not console(stderr=stderr).is_dumb_terminal


def terminal_width(*, stderr: bool = False) -> int | None:
    """Columns of the terminal; None for a pipe or a file, whose lines may be as long as they are."""
    return console(stderr=stderr).width if console(stderr=stderr).is_terminal else None


def say(text: str = "", *, style: str = "") -> None:
    """A line of narration on stderr."""
    _print(text, style, stderr=True)


def show(text: str = "", *, style: str = "") -> None:
    """A line of data on stdout."""
    if style and on_terminal():
        _print(text, style, stderr=False)
    else:  # plain text needs no rich, which is a hundred times slower
        sys.stdout.write(text + "\n")


def _print(text: str, style: str, *, stderr: bool) -> None:
    # Markup is off: a `[` in a file name is a `[`.
    console(stderr=stderr).print(text, style=style or None, markup=False)


def warn(text: str) -> None:
    """A warning on stderr: what happened and what streambot did about it."""
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("warning: ", "bold yellow"), text))


def write_line(line: bytes) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(line.decode() + "\n")


def flush() -> None:
    """Hand over what was shown: a pipe may be waiting for it."""
    sys.stdout.flush()


def emit(schema: str, **fields: Any) -> None:
    """One JSON object on one line of stdout, its `schema` first (`streambot.<name>/1`)."""
    write_line(msgspec.json.encode({"schema": f"streambot.{schema}/1", **fields}, enc_hook=str))
