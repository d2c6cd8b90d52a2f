"""`streambot env`: checks on bundled data, an episode by policy and by hand, mistakes in words."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Run

SHORT = ("--set", "episode_bars=30")


def objects(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_check_says_a_line_a_check(here: Run) -> None:
    ended = here("env", "check", "--steps", "100", *SHORT)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "gymnasium"], ["ok", "vector"], ["ok", "lookahead"],
    ]  # fmt: skip
    assert "SPY, SPY_OPT (2 of 2)" in lines[2]


def test_check_takes_settings_and_speaks_json(here: Run) -> None:
    ended = here(
        "env", "check", "us-stocks-daily", "-i", "IBM,AAPL", "--json", "--steps", "50", *SHORT,
        "--set", "reward=differential_sharpe", "--set", "reward.eta=0.05", "--set", "actions=multi",
        "--set", "timeframes=1d", "--set", "regime_windows=16,32", "--set", "capital=50000",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    found = objects(ended.out)
    assert {row["schema"] for row in found} == {"streambot.env-check/1"}
    assert [(row["name"], row["ok"]) for row in found] == [
        ("gymnasium", True), ("vector", True), ("lookahead", True),
    ]  # fmt: skip


def test_a_check_that_fails_says_what_and_exits_8(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streambot.env.vector_env import VectorTradingEnv

    honest = VectorTradingEnv.step

    def step(self, actions):
        obs, rewards, *rest = honest(self, actions)
        return obs, rewards + 1e-12, *rest

    monkeypatch.setattr(VectorTradingEnv, "step", step)
    ended = here("env", "check", "--steps", "20", *SHORT)
    assert ended.code == 8
    assert ended.out.splitlines()[1].startswith(
        "FAILED  vector     reward of environment 0 at step 1"
    )
    assert "1 check failed" in ended.err


def test_play_by_policy_needs_no_terminal(here: Run, tmp_path: Path) -> None:
    arguments = ("env", "play", "--policy", "random", "--seed", "3", "-n", "20")
    ended = here(*arguments, "--picture", "out.png")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert len(lines) == 1 + 21 + 3  # headings, closes, summary
    assert "EST" in lines[1]
    assert "20 bars" in lines[-3]
    assert "after brokerage" in lines[-2]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert here(*arguments).out == ended.out


def test_play_in_json_tells_every_close_and_the_episode(here: Run) -> None:
    ended = here(
        "env", "play", "-p", "random", "--json", *SHORT, "-i", "SPY", "--at", "2020-12-15T11:00",
        "--set", "actions=multi",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    *closes, whole = objects(ended.out)
    assert len(closes) == 31
    assert closes[0]["ts"] == "2020-12-15T16:00:00Z"
    assert closes[0]["action"] is None
    assert closes[-1]["end_reason"] == whole["end_reason"] == "length"
    assert whole["schema"] == "streambot.env-episode/1"
    assert whole["entries"] >= 1
    assert closes[-1]["equity"] == whole["equity"]
    for before, after in pairwise(closes):
        # The policy answers with what the mask called legal, and nothing legal is rejected.
        assert after["action"] in before["legal"]
        assert after["rejected"] is None


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_play_reads_answers_from_stdin(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "b2\nn 3\nb1\n\nc\nq\nh\n")
    ended = here("env", "play", "--json", "-i", "SPY")
    assert ended.code == 0, ended.err
    *closes, whole = objects(ended.out)
    assert [row["action"] for row in closes] == [None, "b2", "h", "h", "h", "b1", "h", "c"]
    assert [row["position"] for row in closes] == [0, 2, 2, 2, 2, 2, 2, 0]
    assert [row["rejected"] for row in closes].count("position_open") == 1
    assert (whole["entries"], whole["exits"], whole["rejected"]) == (1, 1, 1)
    assert whole["end_reason"] is None


def test_what_is_no_answer_stops_a_pipe(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "b9\n")
    ended = here("env", "play", "-i", "SPY")
    assert ended.code == 2
    assert "`b9`: 1 to 5 lots" in ended.err


def test_fields_lists_every_number_and_action(here: Run) -> None:
    shown = objects(here("env", "fields", "--json", "--set", "window=2").out)
    fields = [row for row in shown if row["schema"] == "streambot.env-field/1"]
    actions = [row for row in shown if row["schema"] == "streambot.env-action/1"]
    assert [row["position"] for row in fields] == list(range(2 * 5 + 8 + 10))
    assert [row["index"] for row in actions] == list(range(12))
    text = here("env", "fields", "--set", "window=3", "--set", "max_quantity=2").out
    assert "0, 5, … 10  log_return[-2 … 0]" in text
    assert "buy 1 to 2 lots" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("check", "--set", "windw=3"), 3, "did you mean `window`?"),
        (("check", "--set", "window=abc"), 3, "window"),
        (("check", "--set", "window"), 2, "NAME=VALUE"),
        (("check", "--set", "window=3", "--set", "window=4"), 2, "twice"),
        (("check", "--set", "episode_bars=9000"), 4, "shorten `episode_bars`"),
        (("check", "-d", "nowhere.csv"), 4, "nowhere.csv"),
        (("check", "--from-run", "r"), 5, "--bootstrap-servers"),
        (("check", "--from-run", "r", "-d", "a.csv"), 2, "--from-run and --data"),
        (("play", "-p", "rndom"), 2, "did you mean `random`?"),
        (("play", "--at", "2020-12-15T11:00"), 2, "--instruments SPY"),
        (("play", "--picture", "a.jpg"), 2, "no PNG file"),
        (("play", "--picture", "no/a.png"), 2, "no such folder"),
    ],
)
def test_a_mistake_is_one_error_with_what_to_try(
    here: Run, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ended = here("env", *arguments)
    assert ended.code == code
    assert ended.err.count("error:") == 1
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
