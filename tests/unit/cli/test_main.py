"""The root of the command line: help, exit codes, mistakes of a user, failures of ours."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from streambot.cli import main
from streambot.cli.groups import Entry, single
from streambot.domain.errors import (
    BrokerError,
    ConfigError,
    DataError,
    SequenceGapError,
    TopicError,
    UnknownInstrumentError,
)
from streambot.domain.errors import UsageError as OurUsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]


def test_help_lists_every_command(streambot: Invoke) -> None:
    said = streambot("--help")
    assert said.code == 0
    assert said.err == ""
    for name in main.COMMANDS:
        assert f"\n  {name} " in said.out
    assert streambot().out == said.out  # no arguments: help, not an error


def test_every_command_of_the_table_can_be_imported_and_has_help(streambot: Invoke) -> None:
    for name in main.COMMANDS:
        said = streambot(name, "--help")
        assert said.code == 0, said.err
        assert f"streambot {name}" in said.out


def test_help_imports_nothing_heavy() -> None:
    """Otherwise `--help` takes seconds; rich counts, too, because plain help needs none."""
    script = (
        "import sys; from streambot.cli.main import run; code = run(['--help']); "
        "heavy = {'numpy', 'numba', 'pyarrow', 'aiokafka', 'msgspec', 'yaml', 'rich', 'asyncio'};"
        "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "0 []"


def test_version(streambot: Invoke) -> None:
    assert streambot("--version").out.startswith("streambot ")
    assert streambot("version").out.startswith("streambot ")
    document = json.loads(streambot("version", "--json").out)
    assert document["schema"] == "streambot.version/1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["versoin"], ["no such command 'versoin'", "version"]),
        (["version", "--jsn"], ["no such option: --jsn", "did you mean `--json`?"]),
        (["version", "extra"], ["unexpected extra argument", "streambot version --help"]),
        (["instruments", "lss"], ["no such command 'lss'", "'ls'"]),
        (["instruments", "show"], ["missing argument", "SYMBOL"]),
        (["--verison"], ["no such option", "did you mean `--version`?"]),
    ],
)
def test_wrong_usage_is_2_and_says_what_was_meant(
    streambot: Invoke, arguments: list[str], words: list[str]
) -> None:
    said = streambot(*arguments)
    assert said.code == 2
    assert said.out == ""
    for word in words:
        assert word in said.err
    assert "Traceback" not in said.err


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `streambot fail` raise what the test hands over."""

    def prepare(error: BaseException) -> None:
        def fail() -> None:
            raise error

        module = type(sys)("failing")
        module.app = single(fail)  # type: ignore[attr-defined]
        monkeypatch.setitem(main.COMMANDS, "fail", Entry("failing", "Fail."))
        real = importlib.import_module
        monkeypatch.setattr(
            "streambot.cli.groups.importlib.import_module",
            lambda name: module if name == "failing" else real(name),
        )

    return prepare


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OurUsageError("nonsense", hint="think"), 2),
        (ConfigError("wrong", where="streambot.yaml:3:speed", hint="100x"), 3),
        (DataError("bars are not sorted", where="a.csv:7"), 4),
        (SequenceGapError("ticks", 2, expected=7, received=9), 4),
        (BrokerError("refused", where="localhost:9092"), 5),
        (TopicError("partitions differ", where="ticks"), 6),
        (KeyboardInterrupt(), 130),
        (typer.Exit(7), 7),
        (PermissionError(13, "Permission denied", "runs/x/run.json"), 3),
        (ExceptionGroup("tasks", [ExceptionGroup("in", [DataError("deep")]), ValueError("x")]), 4),
    ],
)
def test_exit_codes(
    streambot: Invoke, raising: Callable[..., None], error: Exception, code: int
) -> None:
    raising(error)
    said = streambot("fail")
    assert said.code == code
    assert said.out == ""
    assert "Traceback" not in said.err


def test_an_error_says_what_where_why_and_what_to_try(
    streambot: Invoke, raising: Callable[..., None]
) -> None:
    raising(
        ConfigError("`fast` is no speed [x]", where="streambot.yaml:3:speed", hint="100x or max")
    )
    said = streambot("fail")
    assert said.err == (
        "error: streambot.yaml:3:speed: `fast` is no speed [x]\n  try: 100x or max\n"
    )


def test_an_unknown_instrument_comes_with_the_block_to_paste(
    streambot: Invoke, raising: Callable[..., None]
) -> None:
    block = "instruments:\n  MINE:\n    type: STOCK\n"
    raising(
        UnknownInstrumentError("no registry declares MINE", symbols=("MINE",), suggestion=block)
    )
    said = streambot("fail")
    assert said.code == 3
    assert block in said.err


def test_a_bug_is_short_and_keeps_its_traceback_in_a_file(
    streambot: Invoke, raising: Callable[..., None]
) -> None:
    raising(KeyError("oops"))
    said = streambot("fail")
    assert said.code == 1
    assert "unexpected failure: KeyError: 'oops'" in said.err
    assert "Traceback" not in said.err
    path = Path(said.err.split("traceback: ")[1].strip())
    assert "KeyError: 'oops'" in path.read_text()
    path.unlink()


@pytest.mark.parametrize("place", ["before", "behind"])
def test_debug_shows_the_traceback_wherever_the_flag_stands(
    streambot: Invoke, raising: Callable[..., None], place: str
) -> None:
    raising(DataError("bars"))
    said = streambot("--debug", "fail") if place == "before" else streambot("fail", "--debug")
    assert said.code == 4
    assert "Traceback" in said.err


def test_a_closed_pipe_ends_quietly() -> None:
    script = "import sys; from streambot.cli.main import run; sys.exit(run(['doctor']))"
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{script}" | head -n 1; echo "${{PIPESTATUS[0]}}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_no_bug() -> None:
    script = "import sys; from streambot.cli.main import run; sys.exit(run(['version']))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


def test_an_output_that_knows_no_lines_gets_question_marks() -> None:
    script = "import sys; from streambot.cli.main import run; sys.exit(run(['instruments', 'ls']))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert "????" in done.stdout
