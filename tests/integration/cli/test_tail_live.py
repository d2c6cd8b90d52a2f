"""`streambot tail` beside a run that lives: everything once, to the end, and the run undisturbed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import ROOT, Run, Start, end, wait_for

pytestmark = pytest.mark.integration

LIVE = ("simulate", "--speed", "2400x", "--run", "live", "--json")  # 9.8 s


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def lines_of(folder: Path, stream: str) -> list[dict[str, Any]]:
    return rows((folder / f"{stream}.ndjson").read_text())


def bare(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in {"schema", "time"}}


def in_order(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return sorted((row["instrument"], row["seq"]) for row in found)


@pytest.mark.parametrize("broker", ["embedded", "in-process"])
def test_every_line_once_and_it_ends_with_the_run(
    start: Start, tmp_path: Path, broker: str
) -> None:
    simulation = start(*LIVE, "--broker", broker)
    wait_for(simulation, "about")
    tails = {
        stream: start("tail", stream, "--from", "beginning", "--json")
        for stream in ("fills", "pnl", "orders")
    }
    if broker == "embedded":
        tails["ticks"] = start("tail", "ticks", "--from", "beginning", "--json")
    ended = end(simulation)
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    folder = tmp_path / "runs" / "live"
    for stream, tail in tails.items():
        followed = end(tail)
        assert followed.code == 0, followed.err
        assert "run live: complete" in followed.err
        found = rows(followed.out)
        if stream == "ticks":
            # The broker goes with the run: a reader that lags is told what it missed.
            assert len(found) == summary["ticks"] or "before the last ticks" in followed.err
            assert [row["ts_event"] for row in found if row["instrument"] == "SPY"] == sorted(
                row["ts_event"] for row in found if row["instrument"] == "SPY"
            )
        elif stream == "orders":
            orders = [order for row in lines_of(folder, stream) for order in row["orders"]]
            assert len(found) == len(orders) > 0
        else:
            kept = lines_of(folder, stream)
            assert in_order(found) == in_order(kept)
            assert sorted(map(json.dumps, map(bare, found))) == sorted(map(json.dumps, kept))


def test_from_the_end_only_what_is_new_comes(start: Start, tmp_path: Path) -> None:
    simulation = start(*LIVE)
    wait_for(simulation, "about")
    time.sleep(2)
    tail = start("tail", "pnl", "--from", "end", "--json")
    assert end(simulation).code == 0
    found = rows(end(tail).out)
    kept = lines_of(tmp_path / "runs" / "live", "pnl")
    assert 0 < len(found) < len(kept)
    # Every partition has an end of its own: one may already hold a minute that another will get.
    assert {row["instrument"] for row in found} == {row["instrument"] for row in kept}
    for instrument in {row["instrument"] for row in kept}:
        new = [row["seq"] for row in found if row["instrument"] == instrument]
        assert new == [row["seq"] for row in kept if row["instrument"] == instrument][-len(new) :]


def test_the_last_lines_and_then_the_new_ones(start: Start, run: Run) -> None:
    simulation = start(*LIVE)
    wait_for(simulation, "about")
    time.sleep(3)
    ended = run("tail", "ticks", "-n", "5", "--no-follow", "--json")
    assert ended.code == 0, ended.err
    assert len(rows(ended.out)) == 5
    assert end(simulation).code == 0


def test_ctrl_c_ends_the_tail_and_not_the_run(start: Start) -> None:
    simulation = start(*LIVE)
    wait_for(simulation, "about")
    tail = start("tail", "ticks")
    time.sleep(2)
    tail.send_signal(signal.SIGINT)
    ended = end(tail)
    assert ended.code == 130
    assert " shown" in ended.err
    assert "Traceback" not in ended.err
    assert end(simulation).code == 0


def test_a_closed_pipe_ends_the_tail_quietly(start: Start, tmp_path: Path) -> None:
    simulation = start(*LIVE)
    wait_for(simulation, "about")
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -m streambot.cli.main tail ticks | head -n 3'],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 3, "")
    assert end(simulation).code == 0
