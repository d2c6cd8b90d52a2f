"""`streambot train`: actors, broker and learner with one command; Ctrl-C, --resume, another actor."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.learning.policy import load_policy
from tests.integration.cli.conftest import Run, Start, end, wait_for

pytestmark = [pytest.mark.train, pytest.mark.integration]

SMALL = (
    "train", "spy-four-sessions", "-i", "SPY", "--set", "episode_bars=30", "--set", "max_quantity=2",
    "--hidden", "8", "--envs", "16", "--rollout", "16", "--batch", "512", "--actors", "2",
    "--learn", "epochs=1",
)  # fmt: skip


def objects(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


NOISE = ("Traceback", "never retrieved", "nclosed", "was destroyed", "aiokafka", "raylet", "(pid=")
"""Of libraries: nobody should read it, whatever died."""


def pids(folder: Path) -> dict[int, str]:
    """Processes that say that they act for the training whose run folder this is, and as whom."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it is no process, or ends at this moment
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "actor" in words and folder.name in words:
                found[int(entry.name)] = words[words.index("--agent") + 1]
    return found


@pytest.mark.timeout(300)
def test_trains_stops_and_goes_on(start: Start, run: Run, tmp_path: Path) -> None:
    """One command; an actor that is killed is started again; Ctrl-C keeps what was learnt."""
    first = start(*SMALL, "--updates", "5000", "--run", "one", "--json")
    wait_for(first, "watch: streambot tail experience --run one")
    assert first.stdout is not None
    for _ in range(3):
        assert json.loads(first.stdout.readline())["schema"] == "streambot.training/1"
    doomed = pids(tmp_path / "runs" / "one")
    assert len(doomed) == 2
    os.kill(min(doomed), signal.SIGKILL)
    wait_for(first, "was killed by signal 9: started again")
    for _ in range(3):
        first.stdout.readline()
    told = run("tail", "status", "--run", "one", "--from", "beginning", "-n", "3", "--json")
    assert told.code == 0, told.err
    assert [line["update"] for line in objects(told.out)] == [1, 2, 3]
    first.send_signal(signal.SIGINT)
    ended = end(first)
    assert ended.code == 130, ended.err
    assert "stopping behind this update" in ended.err
    *updates, last = objects(ended.out)
    assert last["schema"] == "streambot.policy/1"
    assert (last["complete"], last["training"], last["restarts"]) == (False, "one", 1)
    assert (last["duplicate"], last["foreign"], last["broken"]) == (0, 0, 0)
    assert last["steps"] >= 512 * last["updates"] > 0
    assert {u["update"] for u in updates} <= set(range(1, last["updates"] + 1))
    assert pids(tmp_path / "runs" / "one") == {}, "actors end with the training"
    record = json.loads((tmp_path / "runs" / "one" / "run.json").read_bytes())
    assert (record["kind"], record["state"]) == ("training", "interrupted")

    again = run("train", "--resume", "policies/one", "--updates", str(last["updates"] + 3))
    assert again.code == 0, again.err
    assert "with fresh experience" in again.err
    steps = int(re.search(r"([\d,]+) steps in ", again.out)[1].replace(",", ""))  # type: ignore[index]
    assert f"{last['updates'] + 3:,} updates" in again.out
    assert steps >= last["steps"] + 3 * 512
    assert "0 of others, 0 broken; 0 restarts of actors" in again.out
    folder = tmp_path / "policies" / "one"
    assert list((folder / "tensorboard").glob("events.*"))
    head = load_policy(folder).head
    assert head.about["training"] == "actor-learner"
    assert head.progress["updates"] == last["updates"] + 3
    assert len(head.names) == 4
    local = run("train", "--local", "--resume", "policies/one")
    assert local.code == 2
    assert "was begun with `train`" in local.err


@pytest.mark.timeout(300)
def test_an_actor_that_stood_still_goes_on_in_a_newer_generation(
    start: Start, tmp_path: Path
) -> None:
    """Meanwhile the streams it had were deleted; it finds the newer ones, as a new life of the same process."""
    wide = ("--set", "window=100", "--updates", "100000", "--run", "one", "--json")
    first = start(*SMALL, *wide)
    assert first.stdout is not None
    for _ in range(3):
        first.stdout.readline()
    acting = pids(tmp_path / "runs" / "one")
    (still, _) = acting
    still_log = tmp_path / "runs/one/actors" / f"{acting[still]}.log"
    begun = generation_of(first)
    os.kill(still, signal.SIGSTOP)
    while generation_of(first) < begun + 3:  # each as soon as a checkpoint covers the one before
        pass
    os.kill(still, signal.SIGCONT)
    seen = json.loads(first.stdout.readline())
    while seen["actors"] < 2:
        seen = json.loads(first.stdout.readline())
    assert still in pids(tmp_path / "runs" / "one")
    first.send_signal(signal.SIGINT)
    ended = end(first)
    assert ended.code == 130, ended.err
    # Its first rollout may take as long as eight updates of so small a network.
    warnings = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert [line for line in warnings if "fragments came too late" not in line] == []
    assert [word for word in NOISE if word in ended.err + still_log.read_text()] == []
    assert objects(ended.out)[-1]["restarts"] == 0


def generation_of(training: subprocess.Popen[str]) -> int:
    """Of the experience in the next update that is told."""
    assert training.stdout is not None
    streams = json.loads(training.stdout.readline())["experience"]
    return max(int(stream.rpartition(".g")[2]) for stream in streams)


@pytest.mark.timeout(300)
def test_a_broker_that_dies_is_5_and_the_training_can_go_on(
    start: Start, run: Run, tmp_path: Path
) -> None:
    """Nothing of what was learnt is lost, one line says so, and nothing else stands there."""
    first = start(*SMALL, "--updates", "5000", "--run", "one", "--json")
    assert first.stdout is not None
    for _ in range(3):
        first.stdout.readline()
    children = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(first.pid)],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    (broker,) = (int(line.split()[0]) for line in children if "tansu" in line)
    os.kill(broker, signal.SIGKILL)
    ended = end(first)
    assert ended.code == 5, ended.err
    (error,) = (line for line in ended.err.splitlines() if line.startswith("error: "))
    assert "the embedded broker was killed" in error
    assert "warning: the policy as it was before is kept: --resume policies/one" in ended.err
    assert [word for word in NOISE if word in ended.err] == [], ended.err
    assert "started again" not in ended.err, "actors end with their broker: that is no accident"
    assert pids(tmp_path / "runs" / "one") == {}
    told = objects(ended.out)[-1]["update"] if ended.out else 3
    kept = int(load_policy(tmp_path / "policies" / "one").head.progress["updates"])
    assert kept in {told, told + 1}
    again = run("train", "--resume", "policies/one", "--updates", str(kept + 2))
    assert again.code == 0, again.err
    assert f"{kept + 2:,} updates" in again.out
