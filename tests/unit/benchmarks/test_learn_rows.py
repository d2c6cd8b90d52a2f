"""What the rows of actors and learner are made from: whole programs that are watched, and their costs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("psutil")

from benchmarks.harness import SkippedError
from benchmarks.watched import REST, watch
from tests.processes import lives

HELPER = """
import time
while time.process_time() < 0.4: pass
print("tired", flush=True)
time.sleep(60)
"""
PROGRAM = f"""
import json, os, subprocess, sys, time
def tell(steps): print(json.dumps({{"steps": steps}}), flush=True)
print("no object")
tell(0); time.sleep(0.3); tell(10)
helper = subprocess.Popen([sys.executable, "-c", {HELPER!r}, "helper"], stdout=subprocess.PIPE)
helper.stdout.readline()
tell(30)
tell(40)
while not os.path.exists("seen"): time.sleep(0.02)
helper.kill(); helper.wait()
"""


def look(program: str, tmp_path: Path, **more):
    def steps_of(line):
        if line["steps"] == 40:  # the line before was looked at
            (tmp_path / "seen").touch()
        return line["steps"]

    return watch(
        [sys.executable, "-c", program], steps_of, begin=5, end=25, cwd=tmp_path,
        variables={"PYTHONPATH": ""}, **more,
    )  # fmt: skip


def test_a_program_is_measured_between_two_of_its_lines(tmp_path):
    """Not its start, not its end; and its helpers' time is theirs."""
    seen = look(PROGRAM, tmp_path, roles={"helper": lambda words: words[-1] == "helper"})
    assert seen.steps == 20
    assert 0.3 < seen.seconds < 60
    assert [line["steps"] for line in seen.lines] == [30]
    assert 0.2 < seen.cpu["helper"] < 2
    assert seen.cost("helper") == seen.cpu["helper"] / 20
    assert seen.cpu[REST] < 0.2
    assert seen.rate == 20 / seen.seconds


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('error: no luck')", "exit code 1: error: no luck"),
        ("print('{\"steps\": 7}')", "did not get there"),
    ],
)
def test_a_program_that_fails_says_so(program, said, tmp_path):
    with pytest.raises(SkippedError, match=said):
        look(program, tmp_path)


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.watched._LIMIT_S", 3.0)
    deaf = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('pid', 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(SkippedError, match="exit code -9"):
        look(deaf, tmp_path)
    left = int((tmp_path / "pid").read_text())
    limit = time.monotonic() + 20  # the signal was sent; it would live for a minute
    while lives(left):
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.train
def test_what_a_learner_needs_follows_from_what_steps_cost():
    """Twice as fast an update needs twice as many actors, up to what reading alone allows."""
    pytest.importorskip("torch")
    from benchmarks.learn_actors import Costs

    costs = Costs(actor=10e-6, learner=40e-6, broker=5e-6, reading=1e-6, size=400.0)
    assert costs.rate() == pytest.approx(25_000)
    assert costs.saturating() == pytest.approx(0.25)
    assert costs.rate(2) == pytest.approx(1 / 20.5e-6)
    assert costs.rate(1e9) == pytest.approx(1e6)
    assert "1 actors (0.25 cores), broker 0.12 cores and 10 MiB/s" in costs.said(1)


@pytest.mark.train
def test_everybody_learns_the_same_task(tmp_path):
    """64 floats, 64 environments; a whole update of every size is one batch."""
    pytest.importorskip("torch")
    from benchmarks.learn_task import BATCH, ENVS, FEATURES, ROLLOUT, Files, new_agent

    files = Files.write(tmp_path)
    env = files.envs()
    assert env.num_envs * ROLLOUT == ENVS * ROLLOUT == BATCH
    assert (tmp_path / "streambot").is_dir(), "its store is not in the user's cache"
    for kind in ("moe", "ppo"):
        config = new_agent(kind).config
        assert (config.features, config.actions) == (FEATURES, env.core.masks.shape[1])
        assert (config.hidden, config.learn.epochs, config.learn.minibatch) == ((64, 64), 4, 512)
    words = " ".join(files.flags())
    assert "epochs=4" in words
    assert "minibatch=512" in words
    assert f"--batch {BATCH} --envs {ENVS}" in words
