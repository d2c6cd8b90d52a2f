"""From an exception to an exit code and a message that helps.

A user's mistake gets what, where, why and what to try, never a traceback. Anything outside the
tree of `domain.errors` is a bug: its traceback goes to a file, or to stderr with `--debug`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING

import typer

from streambot.domain.errors import StreambotError, UnknownInstrumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_CONFIGURATION = 3
EXIT_DATA = 4
EXIT_INTERRUPTED = 128 + signal.SIGINT


def report(error: BaseException, *, debug: bool = False) -> int:
    """Say on stderr what went wrong and return the exit code.

    Args:
        error: what a command raised; groups of exceptions are taken apart.
        debug: print the traceback too.
    """
    cause = _cause(error)
    if isinstance(cause, BrokenPipeError):
        silence_closed_streams()
        return 0
    if debug and not isinstance(cause, (typer.TyperException, KeyboardInterrupt)):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(cause, KeyboardInterrupt):
        _say_error("interrupted")
        return EXIT_INTERRUPTED
    if isinstance(cause, StreambotError):
        return _report_mistake(cause)
    if isinstance(cause, typer.TyperException):
        return _report_usage(cause)
    code = _report_system(cause) if isinstance(cause, OSError) else None
    return _report_bug(error, cause, debug=debug) if code is None else code


def silence_closed_streams() -> None:
    """Point stdout and stderr at the null device: their reader has gone, and that is no error."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
    os.close(null)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _cause(error: BaseException) -> BaseException:
    """The one exception of a group that explains best: ours first, then what is not a bug."""
    leaves = list(_leaves(error))
    for kind in (StreambotError, BrokenPipeError, KeyboardInterrupt, OSError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _report_mistake(error: StreambotError) -> int:
    _say_error(f"{error.where}: {error.message}" if error.where else error.message)
    if error.hint:
        # "did you mean" and "known: …" are sentences of their own.
        alone = error.hint.startswith(("did you mean", "known:"))
        _say_hint("" if alone else "try", error.hint)
    if isinstance(error, UnknownInstrumentError) and error.suggestion:
        from streambot.cli.console import say

        say()
        say(error.suggestion.rstrip("\n"), style="cyan")
    return error.exit_code


def _report_system(cause: OSError) -> int | None:
    """What the system refused: a file by its name, or the output; None where it is neither."""
    if cause.filename is not None:
        _say_error(f"{cause.filename}: {cause.strerror or cause}")
        return EXIT_CONFIGURATION
    if cause.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
        _say_error(f"the output cannot be written: {cause.strerror}")
        silence_closed_streams()
        return EXIT_DATA
    return None


def _report_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    possibilities = sorted(getattr(error, "possibilities", None) or ())
    # Without its list of guesses the message of an unknown option reads like all others.
    message = error.message if possibilities else error.format_message()
    _say_error(message[:1].lower() + message[1:].rstrip("."))
    if possibilities:
        _say_hint("", f"did you mean {' or '.join(f'`{name}`' for name in possibilities)}?")
    if context is not None:
        _say_hint("help", f"{context.command_path} --help")
    return EXIT_USAGE


def _report_bug(error: BaseException, cause: BaseException, *, debug: bool) -> int:
    _say_error(f"unexpected failure: {type(cause).__name__}: {cause}")
    _say_hint("why", "this is a bug in streambot, not a mistake of yours")
    if not debug:
        with (
            contextlib.suppress(OSError),
            tempfile.NamedTemporaryFile(
                "w", prefix="streambot-failure-", suffix=".txt", delete=False, encoding="utf-8"
            ) as file,
        ):
            traceback.print_exception(error, file=file)
            _say_hint("traceback", file.name)
    return EXIT_BUG


def _say_error(message: str) -> None:
    from rich.text import Text

    from streambot.cli.console import console

    console(stderr=True).print(Text.assemble(("error: ", "bold red"), message))


def _say_hint(label: str, text: str) -> None:
    from rich.text import Text

    from streambot.cli.console import console

    lead = f"{label}: " if label else ""
    for line in text.splitlines():
        console(stderr=True).print(Text.assemble("  ", (lead, "bold"), line))
        lead = " " * len(lead)
