"""`streambot simulate` end to end: the same digest everywhere, signals, closed pipes, mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import ROOT, Ended, Run, Start, end, wait_for

pytestmark = pytest.mark.integration

PACED = ("simulate", "--speed", "600x", "--run", "paced")  # 39 s for the default session
COUNTS = (
    "late",
    "duplicates",
    "dead_letters",
    "rounded",
    "flagged",
    "rejected_rows",
    "fills",
    "bars",
)


def summary(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    (line,) = ended.out.splitlines()  # stdout is data: one object, nothing else
    document = json.loads(line)
    assert document["schema"].startswith("streambot.summary/")
    return document


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the default scenario, undisturbed."""
    done = subprocess.run(
        [sys.executable, "-m", "streambot.cli.main", "simulate", "--speed", "max", "--json", "-q"],
        cwd=tmp_path_factory.mktemp("undisturbed"), env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)["digest"]


def test_a_whole_run(run: Run, tmp_path: Path, digest: str) -> None:
    ended = run("simulate", "--speed", "max", "--run", "first")
    assert ended.code == 0, ended.err
    for words in ("run first", "complete", "total USD", "brokerage", "digest", digest, "late 0",
                  "dead letters 0", "proxied 50 %", "EST"):  # fmt: skip
        assert words in ended.out
    for words in (
        "run first",
        "as fast as this machine goes",
        "next: streambot tail fills --run first",
    ):
        assert words in ended.err
    assert "Traceback" not in ended.err
    folder = tmp_path / "runs" / "first"
    names = {path.name for path in folder.iterdir()}
    assert {
        "run.json",
        "config.yaml",
        "orders.ndjson",
        "fills.ndjson",
        "pnl.ndjson",
        "summary.json",
    } <= names
    assert json.loads((folder / "run.json").read_text())["state"] == "complete"
    again = run("runs", "show")
    assert again.out == ended.out  # the summary can be had again


@pytest.mark.parametrize(
    "flags",
    [
        ("--broker", "in-process"),
        ("--partitions", "1"),
        ("--speed", "20000x"),
        ("--instruments", "SPY_OPT,SPY"),
    ],
)
def test_one_digest_whatever_the_way(here: Run, digest: str, flags: tuple[str, ...]) -> None:
    speed = () if "--speed" in flags else ("--speed", "max")
    document = summary(here("simulate", *speed, "--json", *flags))
    assert document["digest"] == digest
    assert all(count in document for count in COUNTS)  # zeros included


def test_json_leaves_stdout_to_one_object_and_quiet_leaves_stderr_empty(here: Run) -> None:
    ended = here("simulate", "--speed", "max", "--json", "--quiet")
    assert summary(ended)["state"] == "complete"
    assert ended.err == ""


def test_a_paced_run_says_how_long_it_will_take(start: Start) -> None:
    process = start("simulate", "--speed", "1x")
    said = wait_for(process, "would take one minute")
    process.send_signal(signal.SIGINT)
    assert "at 1x, gaps skipped: about 6 h 31 min" in said
    assert re.search(r"--speed \d+x would take one minute", said)
    assert end(process).code == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_at_a_bar_sums_up_and_can_be_resumed(
    start: Start, run: Run, tmp_path: Path, digest: str, number: int, code: int
) -> None:
    process = start(*PACED)
    wait_for(process, "about")
    time.sleep(1.0)
    process.send_signal(number)
    ended = end(process)
    assert ended.code == code
    assert "interrupted" in ended.out.splitlines()[0]
    assert "stopping at the close of a bar" in ended.err
    assert "next: streambot simulate --resume paced" in ended.err
    assert json.loads((tmp_path / "runs/paced/run.json").read_text())["state"] == "interrupted"
    document = summary(run("simulate", "--resume", "paced", "--speed", "max", "--json"))
    assert document["digest"] == digest
    assert document["resumes"] == 1


def test_a_second_signal_aborts(start: Start, run: Run, digest: str) -> None:
    process = start(*PACED)
    wait_for(process, "about")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    wait_for(process, "again to abort")
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert summary(run("simulate", "--resume", "paced", "-s", "max", "--json"))["digest"] == digest


def test_a_killed_run_is_resumed(start: Start, run: Run, digest: str) -> None:
    process = start(*PACED)
    wait_for(process, "about")
    time.sleep(1.0)
    process.kill()
    process.wait()
    assert "killed" in run("runs", "ls").out
    assert summary(run("simulate", "--resume", "paced", "-s", "max", "--json"))["digest"] == digest


def test_a_broker_that_dies_is_5_and_the_run_can_go_on(start: Start, run: Run, digest: str) -> None:
    process = start(*PACED)
    wait_for(process, "about")
    children = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    (broker,) = (int(line.split()[0]) for line in children if "tansu" in line)
    os.kill(broker, signal.SIGKILL)
    ended = end(process)
    assert ended.code == 5
    assert "the embedded broker was killed" in ended.err
    assert "--resume paced" in ended.err
    assert summary(run("simulate", "--resume", "paced", "-s", "max", "--json"))["digest"] == digest


def test_closed_pipes_end_quietly(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m streambot.cli.main simulate'
    for line in (
        f"{command} -s max -q | head -n 1",
        f"{command} -s 600x 2>&1 >/dev/null | head -n 1",
    ):
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=100,
        )  # fmt: skip
        assert done.stdout.count("\n") == 1
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert time.monotonic() - began < 30  # and a paced run ends, too: nobody watches it


STRATEGY = """
class Mine:
    def on_bar(self, bar, account):
        raise ValueError("my own mistake")

class Nonsense:
    def on_bar(self, bar, account):
        return "buy everything"

class Silent:
    pass
"""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--speed", "0x"), 2, ["--speed", "nothing would ever happen"]),
        (("--speed", "-1x"), 2, ["--speed", "backwards"]),
        (("--speed", "fast"), 2, ["--speed", "`fast` is no speed", "100x"]),
        (("--sped", "3x"), 2, ["--sped", "did you mean", "`--speed`"]),
        (("--policy", "smacross"), 3, ["did you mean `sma-cross`?"]),
        (("--policy", "gone.py:Mine"), 3, ["gone.py", "no such file"]),
        (("--policy", "syntax.py:Mine"), 3, ["syntax.py:1", "does not compile"]),
        (("--policy", "mine.py:Mein"), 3, ["has no class `Mein`", "did you mean `Mine`?"]),
        (("--policy", "mine.py:Silent"), 3, ["`Silent`", "on_bar"]),
        (("--policy", "mine.py:Mine", "-s", "max"), 4, ["mine.py:4", "my own mistake"]),
        (("--policy", "mine.py:Nonsense", "-s", "max"), 4, ["Nonsense", "buy everything"]),
        (("--data", "gone.csv"), 4, ["gone.csv", "no such file"]),
        (("--data", "mine.csv"), 3, ["no registry declares mine", "instruments:\n  mine:\n    type: STOCK",
                                     "--infer-instruments"]),
        (("mine.csv",), 2, ["file of bars", "--data mine.csv"]),
        (("defualt",), 3, ["no scenario `defualt`", "did you mean `default`?"]),
        (("default", "--data", "mine.csv"), 2, ["leave one of them out"]),
        (("--instruments", "SPX"), 3, ["`SPX`", "did you mean `SPY`?"]),
        (("--timeframe", "1s"), 3, ["finer than the bars"]),
        (("--bootstrap-servers", "127.0.0.1:1"), 5, ["no broker answers at 127.0.0.1:1"]),
        (("--runs-dir", "mine.py/runs"), 3, ["mine.py/runs", "cannot be written"]),
        (("--resume", "gone"), 2, ["no run"]),
        (("--resume", "gone", "--lots", "3"), 2, ["--lots cannot be given with --resume"]),
        (("--config", "gone.yaml"), 3, ["gone.yaml"]),
    ],
)  # fmt: skip
def test_mistakes_have_their_code_and_help(
    here: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, words: list[str]
) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY)
    (tmp_path / "syntax.py").write_text("def (\n")
    (tmp_path / "mine.csv").write_text(
        "time,open,high,low,close\n2024-03-04T14:30:00Z,1.00,1.02,0.98,1.01\n2024-03-04T14:31:00Z,1,1,1,1\n"
    )
    ended = here("simulate", *arguments)
    assert ended.code == code, ended
    assert ended.out == ""
    for word in words:
        assert word in ended.err
    assert "Traceback" not in ended.err


def test_a_port_that_is_no_broker_is_5(here: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        ended = here("simulate", "--bootstrap-servers", f"127.0.0.1:{port}")
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert ended.code == 5
    assert f"no broker answers at 127.0.0.1:{port}" in ended.err


def test_a_persons_own_file_with_an_inferred_declaration_says_so_twice(
    here: Run, tmp_path: Path
) -> None:
    rows = "".join(
        f"2024-03-04T{14 + n // 60:02d}:{n % 60:02d}:00Z,{1 + n / 100:.2f},{1.02 + n / 100:.2f},"
        f"{0.98 + n / 100:.2f},{1.01 + n / 100:.2f}\n"
        for n in range(90)
    )
    (tmp_path / "mine.csv").write_text(f"time,open,high,low,close\n{rows}")
    ended = here(
        "simulate", "--data", "mine.csv", "--infer-instruments", "-s", "max", "-p", "buy-hold"
    )
    assert ended.code == 0, ended.err
    assert "warning: mine is in no registry" in ended.err
    assert "mine is in no registry" in ended.out
    declared = here("simulate", "--data", "mine.csv").err.split("\n\n", 1)[1]
    (tmp_path / "instruments.yaml").write_text(declared)  # pasted as it stands
    again = here("simulate", "--data", "mine.csv", "-s", "max", "-p", "buy-hold")
    assert again.code == 0, again.err
    assert "no registry" not in again.out + again.err


def test_what_a_strategy_prints_does_not_end_up_in_the_json(here: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from streambot.domain.events import HOLD\n"
        "class Mine:\n    def on_bar(self, bar, account):\n        print('hello')\n        return HOLD\n"
    )
    ended = here("simulate", "-s", "max", "-p", "mine.py:Mine", "--json", "-q")
    assert summary(ended)["state"] == "complete"
    assert ended.err.splitlines() == ["hello"] * 782
