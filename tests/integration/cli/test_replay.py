"""`streambot replay …` and the keys, against a `simulate` in a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import ROOT, Run, Start, end, wait_for

pytestmark = pytest.mark.integration

PACED = ("simulate", "--speed", "600x", "--run", "r", "--json")  # 39 s for the default session
LIMIT_S = 60
PAUSED = re.compile(r"paused at 2020-12-15 \d\d:\d\d EST \(barrier \d+\)\n")


@pytest.fixture(scope="module")
def digest_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Digest of the default scenario, undisturbed, from some time on."""
    known: dict[tuple[str, ...], str] = {}

    def digest(*flags: str) -> str:
        if flags not in known:
            done = subprocess.run(
                [sys.executable, "-m", "streambot.cli.main", "simulate", "--speed", "max", "--json",
                 "-q", "--broker", "in-process", *flags],
                cwd=tmp_path_factory.mktemp("undisturbed"),
                env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
            )  # fmt: skip
            known[flags] = json.loads(done.stdout)["digest"]
        return known[flags]

    return digest


def under_way(process: subprocess.Popen[str], here: Run) -> None:
    """Wait until the replay has closed some barriers."""
    wait_for(process, "about")
    limit = time.monotonic() + LIMIT_S
    while last_json(here("replay", "status", "--json").out)["barrier"] < 3:
        assert time.monotonic() < limit
        time.sleep(0.05)


def last_json(text: str) -> dict[str, Any]:
    return json.loads(text.splitlines()[-1])


def test_a_run_is_paused_stepped_made_faster_and_has_the_digest_of_one_left_alone(
    start: Start, here: Run, digest_of: Callable[..., str]
) -> None:
    process = start(*PACED)
    under_way(process, here)
    paused = here("replay", "pause")
    assert paused.code == 0, paused.err
    assert PAUSED.fullmatch(paused.out)
    before = last_json(here("replay", "status", "--json").out)
    assert before["schema"] == "streambot.replay-acknowledgement/1"
    assert (before["run"], before["status"], before["speed"]) == ("r", "paused", "600x")
    again = here("replay", "pause")
    assert again.code == 2
    assert "run r: the replay is paused already" in again.err
    stepped = last_json(here("replay", "step", "5", "--json").out)
    assert (stepped["status"], stepped["barrier"]) == ("paused", before["barrier"] + 5)
    time.sleep(0.5)
    still = last_json(here("replay", "status", "--json", "--run", "r").out)
    assert still["barrier"] == stepped["barrier"]
    faster = here("replay", "speed", "5000x")
    assert faster.out.startswith("paused at ")
    assert faster.out.endswith(", speed 5000x\n")
    resumed = here("replay", "resume")
    assert resumed.out.startswith("running at 2020-12-15 ")
    ended = end(process)
    assert ended.code == 0, ended.err
    summary = last_json(ended.out)
    assert summary["digest"] == digest_of()
    assert summary["speed_asked"] == "5000x"
    over = here("replay", "status", "--run", "r")
    assert (over.code, over.out) == (0, "run r: complete\n")
    late = here("replay", "pause", "--run", "r")
    assert late.code == 2
    assert "run r is complete" in late.err


def test_a_seek_goes_on_with_another_run_that_is_like_a_straight_one(
    start: Start, here: Run, tmp_path: Path, digest_of: Callable[..., str]
) -> None:
    process = start(*PACED)
    under_way(process, here)
    sought = here("replay", "seek", "2020-12-15T14:00")
    assert sought.code == 0, sought.err
    assert re.fullmatch(r"run r ended at .* \(barrier \d+\); run r\.s1 goes on\n", sought.out)
    said = wait_for(process, "run r.s1   ")
    assert "(barrier" in said
    assert "left by a seek" in said
    nowhere = here("replay", "seek", "2031-01-01")
    assert nowhere.code == 2
    assert "nothing to replay from 2031-01-01" in nowhere.err
    assert here("replay", "seek", "2020-12-15T11:00").code == 0  # back, from a successor
    wait_for(process, "run r.s2   ")
    wait_for(process, "about")
    assert here("replay", "speed", "max").code == 0
    ended = end(process)
    assert ended.code == 0, ended.err
    first, second, third = (json.loads(line) for line in ended.out.splitlines())
    assert [s["run"] for s in (first, second, third)] == ["r", "r.s1", "r.s2"]
    assert [s["stopped_by"] for s in (first, second, third)] == ["seek", "seek", None]
    assert third["digest"] == digest_of("--from", "2020-12-15T11:00")
    for run, parent in (("r", None), ("r.s1", "r"), ("r.s2", "r.s1")):
        record = json.loads((tmp_path / "runs" / run / "run.json").read_text())
        assert record["state"] == "complete"
        assert record["manifest"]["parent"] == parent
    assert first["event_to"] < "2020-12-15T18:00"


def test_the_digest_of_every_run_that_a_seek_started(
    start: Start, here: Run, digest_of: Callable[..., str]
) -> None:
    process = start(*PACED, "--broker", "embedded")
    wait_for(process, "about")
    here("replay", "pause")  # a seek works from a pause as well
    assert here("replay", "seek", "2020-12-15T15:00").code == 0
    ended = end(process)
    assert ended.code == 0, ended.err
    assert last_json(ended.out)["digest"] == digest_of("--from", "2020-12-15T15:00")


def test_a_paused_run_is_stopped_by_a_signal_and_can_be_resumed(
    start: Start, here: Run, run: Run, digest_of: Callable[..., str]
) -> None:
    process = start(*PACED)
    wait_for(process, "about")
    assert here("replay", "step", "60").code == 0
    process.send_signal(signal.SIGINT)
    assert end(process).code == 130
    resumed = run("simulate", "--resume", "r", "--speed", "max", "--json")
    assert last_json(resumed.out)["digest"] == digest_of()


def test_a_run_in_its_own_process_says_why_it_cannot_be_reached(start: Start, here: Run) -> None:
    process = start(*PACED, "--broker", "in-process")
    wait_for(process, "about")
    for verb in ("pause", "status"):
        ended = here("replay", verb)
        assert ended.code == 5
        assert "streams stay inside its own process" in ended.err
        assert "press space" in ended.err
    process.send_signal(signal.SIGINT)
    assert end(process).code == 130


def test_a_run_that_does_not_answer_is_an_error_within_its_limit(start: Start, here: Run) -> None:
    process = start(*PACED)
    under_way(process, here)
    process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        ended = here("replay", "pause", "--wait", "3s")
        assert time.monotonic() - begun < 20
    finally:
        process.send_signal(signal.SIGCONT)
    assert ended.code == 5
    assert "Traceback" not in ended.err
    assert "nobody answered" in ended.err
    # What was asked before it slept is done once it wakes.
    for _ in range(LIMIT_S):
        said = here("replay", "status", "--json")
        if last_json(said.out)["status"] == "paused":
            break
        time.sleep(0.2)
    else:
        raise AssertionError(said)
    process.send_signal(signal.SIGINT)
    assert end(process).code == 130


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pause",), 2, "no run is going"),
        (("pause", "--run", "nobody"), 2, "no run nobody"),
        (("step", "0"), 2, "no count of barriers"),
        (("step", "five"), 2, "no count of barriers"),
        (("step", "1" * 30), 2, "no count of barriers"),
        (("speed", "fast"), 2, "`fast` is no speed"),
        (("speed",), 2, "SPEED"),
        (("seek", "yesterday"), 2, "no date or time"),
        (("puase",), 2, "did you mean `pause`"),
        (("pause", "--wait", "soon"), 2, "no duration"),
    ],
)
def test_mistakes_are_said_in_words(here: Run, arguments, code, words) -> None:
    ended = here("replay", *arguments)
    assert ended.code == code
    assert words in ended.err
    assert "Traceback" not in ended.err


def _sit_down() -> None:
    """What a login does: the terminal is its own, and no signal is ignored (as `nohup make test &` ignores them)."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """`streambot simulate` on a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.master, slave = os.openpty()
        self.before = termios.tcgetattr(slave)
        self.seen = ""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBOT_")}
        kept = {k: v for k, v in os.environ.items() if k == "STREAMBOT_KERNEL_CACHE"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streambot.cli.main", *arguments],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, start_new_session=True,
            preexec_fn=_sit_down,  # noqa: PLW1509
            env={**clean, **kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
        )  # fmt: skip
        self.slave = slave
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.seen += os.read(self.master, 65_536).decode("utf-8", "replace")
            except OSError:
                return

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait(self, words: str, since: int = 0) -> int:
        """Wait until the words are on the terminal; how much was seen by then."""
        self.until(lambda: words in self.seen[since:], words)
        return len(self.seen)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        limit = time.monotonic() + LIMIT_S
        while not holds():
            if time.monotonic() > limit:
                raise AssertionError(f"no {what}: {self.seen[-2_000:]}")
            time.sleep(0.02)

    @property
    def cbreak(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    def close(self) -> int:
        try:
            return self.process.wait(LIMIT_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            assert termios.tcgetattr(self.slave) == self.before  # whatever happened
            os.close(self.slave)
            self._reader.join(LIMIT_S)
            os.close(self.master)


def test_the_keys_pause_step_and_change_the_speed(
    tmp_path: Path, here: Run, digest_of: Callable[..., str]
) -> None:
    terminal = Terminal(tmp_path, "simulate", "--speed", "600x", "--run", "r")
    try:
        terminal.wait("? shows the keys")
        terminal.until(lambda: terminal.cbreak, "keys")
        at = terminal.wait("(asked 600x)")
        terminal.press(" ")
        at = terminal.wait("PAUSED", at)
        paused = last_json(here("replay", "status", "--json").out)
        assert paused["status"] == "paused"
        terminal.press("..\x1b[C")

        def stepped() -> bool:
            said = last_json(here("replay", "status", "--json").out)
            return said["barrier"] == paused["barrier"] + 3

        terminal.until(stepped, "three steps")
        terminal.press("+")
        at = terminal.wait("PAUSED (asked 1200x)", at)
        terminal.press("---")
        at = terminal.wait("PAUSED (asked 150x)", at)
        terminal.press("?x\x1b[D")
        terminal.wait("space: pause", at)
        terminal.press("+++++ ")
        at = terminal.wait("(asked 4800x)", at)
    finally:
        assert terminal.close() == 0
    summary = json.loads((tmp_path / "runs" / "r" / "summary.json").read_text())
    assert summary["digest"] == digest_of()


@pytest.mark.parametrize("way", ["ctrl-c", "twice", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_the_terminal_is_given_back_whatever_ends_the_run(tmp_path: Path, way: str) -> None:
    terminal = Terminal(tmp_path, "simulate", "--speed", "60x", "--run", "r")
    try:
        terminal.until(lambda: terminal.cbreak, "keys")
        terminal.wait("(asked 60x)")
        if way == "ctrl-c":
            terminal.press("\x03")
        elif way == "twice":
            terminal.press(" ")
            terminal.wait("PAUSED")
            terminal.process.send_signal(signal.SIGSTOP)
            terminal.process.send_signal(signal.SIGINT)
            terminal.process.send_signal(signal.SIGTERM)
            terminal.process.send_signal(signal.SIGCONT)
        else:
            terminal.process.send_signal(signal.Signals[way])
    finally:
        code = terminal.close()
    expected = {
        "ctrl-c": {130},
        "twice": {130, 143},
        "SIGTERM": {143},
        "SIGHUP": {-1},
        "SIGQUIT": {-3},
    }
    assert code in expected[way]


def test_ctrl_z_gives_the_terminal_back_until_the_run_goes_on(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "simulate", "--speed", "600x", "--run", "r")
    try:
        terminal.until(lambda: terminal.cbreak, "keys")
        terminal.wait("(asked 600x)")  # before it goes there is nothing to pause
        terminal.press("\x1a")
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert termios.tcgetattr(terminal.slave) == terminal.before
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until(lambda: terminal.cbreak, "keys")
        at = len(terminal.seen)
        terminal.press(" ")
        terminal.wait("PAUSED", at)
        terminal.press("\x03")
    finally:
        assert terminal.close() == 130


def test_no_terminal_no_keys(start: Start) -> None:
    """A pipe on stdin is left alone: nothing of it is read."""
    process = start("simulate", "--speed", "5000x", "--run", "r")
    said = wait_for(process, "about")
    ended = end(process)
    assert ended.code == 0
    assert "shows the keys" not in said + ended.err
