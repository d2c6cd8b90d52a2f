"""`streambot train --local` and `meta-train`: a policy from bundled bars, Ctrl-C, resume, mistakes in words."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

pytest.importorskip("torch")

from streambot.learning.policy import load_policy
from tests.integration.cli.conftest import Run, Start, end

pytestmark = pytest.mark.train

DATA = (
    "spy-four-sessions",
    "-i",
    "SPY",
    "--set",
    "episode_bars=30",
    "--set",
    "max_quantity=2",
    "--hidden",
    "8",
)
SMALL = ("--local", *DATA, "--envs", "4", "--rollout", "16")
TASKS = (
    *DATA, "--tasks", "2", "--support", "16", "--query", "12", "--accounts", "2", "--set",
    "window=4",
)  # fmt: skip


def objects(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def test_a_training_says_what_it_does_and_keeps_a_policy(here: Run, tmp_path: Path) -> None:
    ended = here("train", *SMALL, "--updates", "3", "--seed", "2")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("moe in policies/moe-1: 3 updates, 192 steps in ")
    assert "device: cpu" in ended.err
    assert "moe, seed 2, on SPY; bars of 1m, 2020-12-15 to 2020-12-" in ended.err
    assert "held out: from 2020-12-" in ended.err
    assert "next: streambot evaluate policies/moe-1" in ended.err
    folder = tmp_path / "policies" / "moe-1"
    assert list((folder / "tensorboard").glob("events.*"))
    head = load_policy(folder).head
    assert head.env == {"episode_bars": 30, "max_quantity": 2}
    assert head.about["instruments"] == "SPY"
    assert head.about["trained_to"] < "2020-12-18T22"
    again = here("train", *SMALL, "--updates", "3", "--seed", "2", "--out", "other")
    assert again.code == 0, again.err
    assert files(tmp_path / "other") == files(folder)


def test_a_meta_training_looks_at_tasks_it_never_learns_from(here: Run, tmp_path: Path) -> None:
    ended = here("meta-train", *TASKS, "--updates", "2", "--timeframe", "1m,2m", "--json")
    assert ended.code == 0, ended.err
    *updates, last = objects(ended.out)
    assert [u["schema"] for u in updates] == ["streambot.training/1"] * 2
    assert updates[0]["held_out"] is None
    assert len(updates[1]["held_out"]) == 6
    assert updates[1]["steps"] == 2 * 2 * 2 * (16 + 12)
    assert last["schema"] == "streambot.policy/1"
    assert last["complete"] is True
    assert load_policy(tmp_path / last["folder"]).head.about["timeframes"] == "1m,2m"


def test_trained_further_from_what_was_meta_trained(here: Run, tmp_path: Path) -> None:
    window = ("--set", "window=4")
    assert here("meta-train", *TASKS, "--updates", "1").code == 0
    ended = here("train", *SMALL, *window, "--from", "policies/moe-1", "--updates", "1")
    assert ended.code == 0, ended.err
    other = here("train", *SMALL, "--from", "policies/moe-1", "--updates", "1")
    assert other.code == 3
    assert "policies/moe-1: the policy is a `moe` that observes something else" in other.err


@pytest.mark.parametrize("way", [("train", *SMALL), ("meta-train", *TASKS)])
def test_ctrl_c_keeps_what_was_learnt_and_resume_goes_on(
    start: Start, here: Run, tmp_path: Path, way: tuple[str, ...]
) -> None:
    """That what comes of it is the same is held by `tests.unit.learning.test_trainer`."""
    process = start(*way, "--updates", "100000", "--json", "--out", "kept")
    assert process.stdout is not None
    for _ in range(2):
        assert json.loads(process.stdout.readline())["schema"] == "streambot.training/1"
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert ended.code == 130, ended.err
    assert "stopping behind this update" in ended.err
    last = objects(ended.out)[-1]
    assert last["complete"] is False
    whole = last["updates"] + 2
    local = ("--local",) if way[0] == "train" else ()
    resumed = here(way[0], *local, "--resume", "kept", "--updates", str(whole))
    assert resumed.code == 0, resumed.err
    assert load_policy(tmp_path / "kept").head.progress["updates"] == whole


def test_a_reader_that_leaves_ends_a_training_that_is_kept(start: Start, tmp_path: Path) -> None:
    process = start("train", *SMALL, "--updates", "100000", "--json", "--out", "kept")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["update"] == 1
    process.stdout.close()
    process.stdout = None
    ended = end(process)
    assert ended.code == 0, ended.err
    assert load_policy(tmp_path / "kept").head.progress["updates"] >= 1


def test_two_trainings_never_keep_their_policies_in_one_folder(start: Start, here: Run) -> None:
    """Neither of a new training nor of one that is resumed twice: each would delete the other's weights."""
    process = start("train", *SMALL, "--updates", "100000", "--json", "--out", "kept")
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(30):
        process.stdout.readline()  # a checkpoint was written
    other = here("train", "--local", "--resume", "kept")
    assert other.code == 2, other.err
    assert "kept: another training keeps its policy there" in other.err
    process.send_signal(signal.SIGINT)
    assert end(process).code == 130


def test_goes_on_with_its_own_command_alone(here: Run) -> None:
    assert here("train", *SMALL, "--updates", "1", "--out", "kept").code == 0
    wrong = here("meta-train", "--resume", "kept", "--updates", "2")
    assert wrong.code == 2
    assert "kept: the training was begun with `train --local`" in wrong.err
    assert "streambot train --local --resume kept" in wrong.err
    over_streams = here("train", "--resume", "kept", "--updates", "2")
    assert over_streams.code == 2
    assert "streambot train --local --resume kept" in over_streams.err


def test_a_policy_begun_with_another_says_what_that_one_saw(here: Run, tmp_path: Path) -> None:
    """Else an evaluation would show it bars as new that its parameters were learnt from."""
    assert here("train", *SMALL, "--updates", "1", "--out", "kept").code == 0
    further = (
        *SMALL, "--updates", "1", "--out", "further", "--from", "kept",
        "--test-from", "2020-12-16T12:00",
    )  # fmt: skip
    wider = here("train", *further, "--hidden", "8,8")
    assert wider.code == 3
    assert "the policy has `hidden` (8,)" in wider.err
    ended = here("train", *further)
    assert ended.code == 0, ended.err
    kept, after = (load_policy(tmp_path / part).head.about for part in ("kept", "further"))
    assert after["trained_to"] == kept["trained_to"] > "2020-12-17"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("train", *SMALL, "--actors", "3"), 2, "--actors is for actors and learner"),
        (("train", *DATA, "--replay-from", "beginning"), 2, "experience of which training?"),
        (("train", *DATA, "--algorithm", "a2c"), 3, "algorithm"),
        (("train", *DATA, "--run", "no/name"), 2, "cannot be the name of a run"),
        (("train", *DATA, "--bootstrap-servers", "127.0.0.1:1"), 5, "no broker answers"),
        (("train", *SMALL, "--agent", "mo"), 3, "did you mean `moe`?"),
        (("train", *SMALL, "--learn", "lrr=1"), 3, "did you mean `lr`?"),
        (("train", *SMALL, "--learn", "lr"), 2, "--learn: `lr` sets nothing"),
        (("train", *SMALL, "--hidden", "0"), 2, "are no widths of layers"),
        (("train", *SMALL, "--set", "actions=multi"), 3, "kind and size of an order together"),
        (("train", *SMALL, "--test-from", "2031-01-01"), 4, "nothing is left to look at"),
        (("train", *SMALL, "--test-from", "2001-01-01"), 4, "nothing is left to train on"),
        (("train", "--local", "--resume", "nowhere"), 4, "no checkpoint"),
        (("train", "--local", "--resume", "nowhere", "--seed", "1"), 2, "--seed would change"),
        (("meta-train", *TASKS, "--hold-out", "X"), 3, "no instrument `X`"),
        (("meta-train", *TASKS, "--hold-out", "SPY"), 3, "every instrument is held out"),
        (("meta-train", *TASKS, "--embargo", "5"), 3, "an embargo of 5 bars"),
        (("meta-train", *TASKS, "--support", "5000"), 4, "too few bars for one task: SPY"),
        (("meta-train", *TASKS, "--timeframe", "1m,2m,5m"), 3, "a multiple of 3"),
    ],
)  # fmt: skip
def test_mistakes_in_words(
    here: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = here(*arguments)
    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "policies").exists() or not list((tmp_path / "policies").iterdir())


def test_meta_training_publishes_its_policy(here: Run, broker: str, tmp_path: Path) -> None:
    """Whoever serves policies from a broker finds it, and `train --from` goes on from its folder."""
    nowhere = here("meta-train", *TASKS, "--run", "meta", "--updates", "2")
    assert nowhere.code == 0, nowhere.err  # `broker start` names the broker
    listed = here("policy", "ls", "--run", "meta", "--bootstrap-servers", broker, "--json")
    assert listed.code == 0, listed.err
    (newest,) = (one for one in objects(listed.out) if one.get("training") == "meta")
    assert newest["sequence"] == 2
    shorter = here("meta-train", *TASKS, "--support", "5000", "--run", "other", "--updates", "2")
    assert shorter.code == 4
    assert "other" not in here("topics", "ls", "--bootstrap-servers", broker).out
    same = ("meta-train", *TASKS, "--run", "meta", "--updates", "2")
    again = here(*same)
    assert again.code == 2
    assert "--resume policies/meta goes on with it; --out names another folder" in again.err
    again = here(*same, "--out", "policies/elsewhere")
    assert again.code == 6
    assert "holds the records of an earlier training" in again.err
    on = here("meta-train", "--resume", "policies/meta", "--updates", "3")
    assert on.code == 0, on.err
    listed = here("policy", "ls", "--run", "meta", "--bootstrap-servers", broker, "--json")
    assert [one["sequence"] for one in objects(listed.out) if one.get("training") == "meta"] == [3]
