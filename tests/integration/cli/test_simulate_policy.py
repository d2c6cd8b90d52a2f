"""`simulate --policy CHECKPOINT` end to end: everywhere the same orders, by the weights it began with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streambot.processor.snapshot import load_snapshot
from tests.integration.cli.conftest import ROOT, Ended, Run, Start, end, wait_for
from tests.trained import EXPERTS, save_loud

pytestmark = [pytest.mark.integration, pytest.mark.train]
FAST = ("simulate", "--speed", "max", "--json", "-q")
INSIDE = ("--broker", "in-process")
ENV = {
    "max_quantity": 3, "window": 6, "lookback": 20, "warmup": 20, "regime_windows": [16, 32],
    "zscore_window": 64,
}  # fmt: skip


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A checkpoint beside the runs, named by a relative path."""
    return save_loud(tmp_path / "best", env=ENV, progress={"weights_seq_no": 5})


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of the same policy, undisturbed, in one process; with its orders."""
    folder = tmp_path_factory.mktemp("inside")
    save_loud(folder / "best", env=ENV, progress={"weights_seq_no": 5})
    done = subprocess.run(
        [sys.executable, "-m", "streambot.cli.main", *FAST, *INSIDE, "--policy", "best", "--run", "r"],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "HOME": str(Path.home())},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {**summary(Ended(0, done.stdout, "")), "orders": orders_of(folder / "runs" / "r")}


def summary(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    document: dict[str, Any] = json.loads(ended.out)
    return document


def orders_of(folder: Path) -> dict[tuple[str, int], Any]:
    """Orders by instrument and barrier, each with what the policy said there."""
    found = {}
    for line in map(json.loads, (folder / "orders.ndjson").read_text().splitlines()):
        for order in line["orders"]:
            head = f"{order['instrument']}@{order['barrier']}."
            said = {k: v for k, v in line["policy"].items() if k.startswith(head)}
            assert [key.removeprefix(head) for key in said] == list(EXPERTS)
            assert line["policy"]["weights"] == 5
            found[order["instrument"], order["barrier"]] = order, said
    return found


def test_it_trades_whatever_the_way(
    here: Run, policy: Path, inside: dict[str, Any], tmp_path: Path
) -> None:
    assert inside["fills"] > 100
    for name, flags in {
        "one": (*INSIDE, "--partitions", "1"),
        "two": ("--broker", "embedded"),
        "three": (*INSIDE, "--speed", "20000x", "--policy", str(policy)),
    }.items():
        ended = here(*FAST, "--policy", "best", "--run", name, *flags)
        assert summary(ended)["digest"] == inside["digest"]
        assert orders_of(tmp_path / "runs" / name) == inside["orders"]
    manifest = json.loads((tmp_path / "runs/one/run.json").read_text())["manifest"]
    assert (
        manifest["policy"]["weights"]
        == json.loads((policy / "checkpoint.json").read_text())["digest"]
    )
    found = summary(here("verify", "--run", "one", "--json"))
    assert found["digest"] == found["digest_again"] == inside["digest"]
    ways = summary(here("verify", "--quick", "--policy", "best", "--json"))
    assert ways["equal"]
    assert len(ways["ways"]) >= 5


def test_tail_shows_which_experts_gave_an_order(here: Run, policy: Path) -> None:
    assert here(*FAST, *INSIDE, "--policy", "best", "--run", "r").code == 0
    human = here("tail", "orders", "--run", "r", "-n", "3").out
    assert human.count("gate ") == 3
    assert all(f"{name} 0." in human for name in EXPERTS)
    said = here("tail", "orders", "--run", "r", "--json", "--where", "policy.trend > 0.3")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert rows
    for row in rows:
        assert list(row["policy"]) == [*EXPERTS, "weights"]
        assert row["policy"]["trend"] > 0.3


def test_stopped_killed_and_resumed_it_goes_on_with_the_same_orders(
    start: Start, run: Run, policy: Path, inside: dict[str, Any], tmp_path: Path
) -> None:
    process = start("simulate", "--speed", "6000x", "--policy", "best", "--run", "r")
    wait_for(process, "about")
    wait_for_orders(process, tmp_path / "runs" / "r", 20)
    process.send_signal(signal.SIGINT)
    assert end(process).code == 130
    snapshot = load_snapshot(tmp_path / "runs" / "r", "r", 0)
    assert snapshot is not None
    assert snapshot.core is not None  # it goes on from there, not from the first frame
    before = len(orders_of(tmp_path / "runs" / "r"))
    process = start("simulate", "--resume", "r", "--speed", "6000x")
    wait_for(process, "about")
    wait_for_orders(process, tmp_path / "runs" / "r", before + 20)
    process.kill()
    process.wait()
    policy.rename(tmp_path / "kept")
    save_loud(policy, env=ENV, seed=2)
    refused = run("simulate", "--resume", "r")
    assert (refused.code, "another one than when the run began" in refused.err) == (3, True)
    shutil.rmtree(policy)
    (tmp_path / "kept").rename(policy)
    done = summary(run("simulate", "--resume", "r", "--speed", "max", "--json"))
    assert done["digest"] == inside["digest"]
    assert orders_of(tmp_path / "runs" / "r") == inside["orders"]


def wait_for_orders(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    import time

    limit = time.monotonic() + 60
    while len(orders_of(folder)) < count:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_an_actor_in_another_process_gives_the_same_orders(
    run: Run, start: Start, policy: Path, inside: dict[str, Any]
) -> None:
    simulation = start(*FAST, "--broker", "embedded", "--run", "r", "--agent", "me")
    acted = end(start("actor", "--run", "r", "--wait", "60s", "--policy", "best", "--json"))
    assert acted.code == 0, acted.err
    done = summary(end(simulation))
    assert done["digest"] == inside["digest"]
    assert json.loads(acted.out)["compared"] >= done["fills"]


def test_other_weights_are_not_those_of_the_run(here: Run, policy: Path, tmp_path: Path) -> None:
    assert here(*FAST, *INSIDE, "--policy", "best", "--run", "r").code == 0
    kept = (policy / "checkpoint.json").read_text()
    for changed, what in (
        ({"seed": 2, "env": ENV}, "its weights are"),
        ({"env": ENV | {"lookback": 25}}, "what it observes is"),
    ):
        save_loud(policy, **changed)
        ended = here("verify", "--run", "r")
        assert ended.code == 3
        said = f"the checkpoint is another one than when the run began: {what} not the same"
        assert said in " ".join(ended.err.split())
        assert json.loads(kept)["digest"] in ended.err
    ended = here("verify", "--run", "r", "--policy", "sma-cross")
    assert ended.code == 3
    assert "is a trained policy, and this one is no trained policy" in " ".join(ended.err.split())
    policy.rename(tmp_path / "moved")
    ended = here("verify", "--run", "r")
    assert (ended.code, "no such folder" in ended.err) == (3, True)
    save_loud(tmp_path / "moved", env=ENV)
    assert here("verify", "--run", "r", "--policy", "moved").code == 0


@pytest.fixture
def broker(here: Run) -> Iterator[str]:
    """The embedded broker, outliving its command."""
    started = here("broker", "start", "--kind", "embedded")
    yield started.out.strip()
    here("broker", "stop", "--delete-data")


def test_a_recording_is_repeated_with_its_weights_or_traded_with_new_ones(
    here: Run, policy: Path, broker: str, inside: dict[str, Any]
) -> None:
    record = here(*FAST, "--policy", "best", "--run", "r", "--bootstrap-servers", broker)
    assert summary(record)["digest"] == inside["digest"]
    again = (*FAST, *INSIDE, "--from-run", "r", "--from-broker", broker)
    assert summary(here(*again))["digest"] == inside["digest"]
    assert summary(here(*again, "--policy", "recorded"))["digest"] == inside["digest"]
    save_loud(policy, seed=2, env=ENV)
    assert here(*again).code == 3
    assert summary(here(*again, "--policy", "best"))["digest"] != inside["digest"]


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        ("empty", 4, "no checkpoint: No such file"),
        ("./nowhere", 3, "there is no such folder"),
        ("bestt", 3, "there is no policy `bestt`"),
        ("best/checkpoint.json", 0, ""),
    ],
)
def test_what_is_no_checkpoint_is_one_line(
    here: Run, policy: Path, tmp_path: Path, spec: str, code: int, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    ended = here(*FAST, *INSIDE, "--policy", spec)
    assert ended.code == code
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert (tmp_path / "runs").exists() is (code == 0)


def test_bars_that_do_not_fit_the_policy_are_found_before_the_run(
    here: Run, tmp_path: Path
) -> None:
    save_loud(tmp_path / "coarse", env=ENV | {"timeframes": ["5m"]})
    ended = here(*FAST, *INSIDE, "--policy", "coarse", "--timeframe", "2m")
    assert ended.code == 3
    assert "--timeframe" in ended.err
    assert not (tmp_path / "runs").exists()


def test_without_torch_it_says_what_to_install(run: Run, policy: Path, tmp_path: Path) -> None:
    """Everything else goes on without: nothing of it is imported before it is needed."""
    away = tmp_path / "without"
    away.mkdir()
    (away / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = sys.modules['safetensors'] = None\n"
    )
    path = f"{away}:{ROOT}"
    ended = run(*FAST, *INSIDE, "--policy", "best", PYTHONPATH=path)
    assert ended.code == 3, ended.err
    assert "needs the extra `train`" in ended.err
    assert "pip install 'streambot[train]'" in ended.err
    assert run(*FAST, *INSIDE, PYTHONPATH=path).code == 0
    told = run("simulate", "--help", PYTHONPATH=path)
    assert told.code == 0
    assert "CHECKPOINT" in told.out
    assert "CHECKPOINT" in run("actor", "--help", PYTHONPATH=path).out
