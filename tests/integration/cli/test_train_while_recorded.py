"""`streambot train --from-run` of a replay that is still going on: what is held out is planned, and actors see more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.learning.policy import load_policy
from tests.integration.cli.conftest import Run, Start, wait_for

pytestmark = [pytest.mark.train, pytest.mark.integration]


@pytest.mark.timeout(240)
def test_a_replay_that_goes_on_is_trained_on(
    start: Start,
    run: Run,
    broker: str,
    tmp_path: Path,
) -> None:
    # Four sessions at a pace at which the third one is reached while the training is over.
    replay = start(
        "replay", "spy-four-sessions", "-i", "SPY", "--run", "tape", "--speed", "1200x",
        "--bootstrap-servers", broker,
    )  # fmt: skip
    wait_for(replay, "tape")
    while True:
        said = run("topics", "ls", "--run", "tape", "--bootstrap-servers", broker, "--json").out
        ticks = [json.loads(line) for line in said.splitlines() if '"ticks"' in line]
        if any(sum(one["end"]) > 400 for one in ticks):
            break
    trained = run(
        "train", "--from-run", "tape", "--set", "episode_bars=20", "--set", "max_quantity=2",
        "--set", "warmup=20", "--set", "lookback=20", "--set", "window=6", "--set",
        "regime_windows=16,32", "--set", "zscore_window=64", "--hidden", "8", "--envs", "8",
        "--rollout", "16", "--batch", "256", "--updates", "3", "--actors", "1", "--json",
    )  # fmt: skip
    replay.kill()
    assert trained.code == 0, trained.err
    assert "the recording is still written" in trained.err
    about = load_policy(tmp_path / "policies" / "moe-1").head.about
    assert about["growing"] == "yes"
    # The last of the four sessions is held out although it was not there yet, and the third is not.
    assert "2020-12-17T20" < about["trained_to"] < "2020-12-18T14:31"
