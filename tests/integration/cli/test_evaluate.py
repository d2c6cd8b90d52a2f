"""`streambot evaluate`: its numbers are those of runs, it says what was seen, mistakes in words."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from streambot.cli.evaluate import set_over  # noqa: E402
from tests.integration.cli.conftest import Ended, Run  # noqa: E402
from tests.three_markets import SETTINGS, SYMBOLS, write_bars, write_registry  # noqa: E402
from tests.trained import save_loud  # noqa: E402

pytestmark = pytest.mark.train
ABOUT = {
    "instruments": "AAA,BBB", "trained_from": "2019-04-14T09:05:00+00:00",
    "trained_to": "2019-04-27T10:00:00+00:00", "timeframes": "5m",
}  # fmt: skip
DATA = ("--data", "three.parquet", "--registry", "three.yaml")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    """Bars, their registry, and a policy that was trained on a part of them."""
    write_bars(tmp_path)
    write_registry(tmp_path)
    save_loud(tmp_path / "policy", env=SETTINGS, about=ABOUT)
    return tmp_path


def objects(ended: Ended) -> dict[str, list[dict[str, Any]]]:
    """Objects by schema."""
    assert ended.code == 0, ended.err
    found: dict[str, list[dict[str, Any]]] = {}
    for line in ended.out.splitlines():
        row = json.loads(line)
        found.setdefault(
            row.pop("schema").removeprefix("streambot.").removesuffix("/1"), []
        ).append(row)
    return found


def test_a_table_with_everybody_in_it(here: Run) -> None:
    ended = here("evaluate", "policy", *DATA, "--by-instrument", "--trials", "5")
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if line.strip()]
    assert "AAA, BBB, CCC" in lines[0]
    assert "never seen in training" in lines[0]
    assert "2019-04-28" in lines[0]
    names = ["policy", "flat", "buy-hold", "sma-cross", "random"]
    tables = 1 + 1 + len(SYMBOLS)
    assert [line.split()[0] for line in lines if line.split()[0] in names[1:]] == names[1:] * tables
    headings = next(line for line in lines if "Sharpe" in line)
    flat = next(line for line in lines if line.split()[0] == "flat")
    assert headings.split()[:3] == ["policy", "return", "Sharpe"]
    assert flat.split()[1:5] == ["+0.00", "%", "-", "-"]
    assert "deflated Sharpe ratio of `policy` after 5 trials" in ended.out
    assert "BBB, 26 days, brokerage in EUR" in ended.out
    assert "device: cpu" in ended.err
    assert "stationary bootstrap over 26 days" in ended.err
    assert "warning" not in ended.err


@pytest.mark.integration
@pytest.mark.parametrize("policy", ["policy", "buy-hold", "sma-cross", "random"])
def test_numbers_are_those_of_a_run(policy: str, here: Run) -> None:
    """`simulate` with the same policy on the same bars: fills, brokerage, and P&L to the cent."""
    simulated = here(
        "simulate", "--speed", "max", "--json", "-q", "--broker", "in-process", *DATA, "--policy", policy,
        "--capital", "3000", "--lots", "2", "--seed", "8",
    )  # fmt: skip
    assert simulated.code == 0, simulated.err
    run = json.loads(simulated.out.splitlines()[-1])["by_instrument"]
    # Scripts of a run begin at its first close, a policy where it can look back.
    start = () if policy == "policy" else ("--set", "lookback=0")
    ended = here(
        "evaluate", "policy", *DATA, "--from", "2019-01-01", "--lots", "2", "--seed", "8", "--json",
        "--by-instrument", *start,
    )  # fmt: skip
    rows = [r for r in objects(ended)["evaluation-instrument"] if r["policy"] == policy]
    assert [row["instrument"] for row in rows] == sorted(run)
    for row in rows:
        theirs = run[row["instrument"]]
        assert row["fills"] + row["settled"] == theirs["fills"]
        assert row["fills"] >= 1
        assert Decimal(row["brokerage_paid"]) == Decimal(theirs["brokerage"])
        earned = Decimal(row["total_return"] * 3000).quantize(Decimal("0.01"))
        assert earned == Decimal(theirs["pnl_net"])
        assert sum(row["rejected"].values()) == theirs["rejected"]


def test_json_says_what_was_judged(here: Run) -> None:
    found = objects(
        here("evaluate", "policy", *DATA, "--from", "2019-04-22", "--json", "--seed", "2")
    )
    (whole,) = found["evaluation"]
    assert whole["instruments"] == list(SYMBOLS)
    assert whole["from"].startswith("2019-04-22T09:05")
    assert 0 < whole["bars_trained_on"] < whole["bars"]
    assert 0 < whole["bars_same_time"] < whole["bars"] - whole["bars_trained_on"]
    assert whole["trained_on_by_instrument"]["CCC"] == 0.0
    assert whole["lots"] == dict.fromkeys(SYMBOLS, 3)
    assert whole["capital"] == "3000"
    assert (whole["deflated_sharpe"], whole["trials"], whole["adapt"]) == (None, 1, None)
    policies = {row["policy"]: row for row in found["evaluation-policy"]}
    assert list(policies) == ["policy", "flat", "buy-hold", "sma-cross", "random"]
    days = len(whole["dates"])
    assert days >= 20
    for row in policies.values():
        assert len(row["returns"]) == row["days"] == days
        assert row["daily"]["low"] <= row["daily"]["mean"] <= row["daily"]["high"]
        assert row["less_flat"] == row["daily"]
    assert "evaluation-instrument" not in found
    again = here("evaluate", "policy", *DATA, "--from", "2019-04-22", "--json", "--seed", "2")
    assert objects(again) == found


def test_what_was_seen_is_said_loudly(here: Run, folder: Path) -> None:
    part = here("evaluate", "policy", *DATA, "--from", "2019-04-22")
    assert "% of the bars were trained on" in part.out
    assert "at which it saw other instruments" in part.out
    assert "warning: " in part.err
    save_loud(folder / "late", env=SETTINGS, about=ABOUT | {"trained_to": "2030-01-01"})
    late = here("evaluate", "late", *DATA)
    assert "no bars lie behind the training" in late.err
    save_loud(folder / "silent", env=SETTINGS, about={})
    silent = here("evaluate", "silent", *DATA)
    assert "seen in training: not said by the checkpoint" in silent.out


def test_adapted_stands_beside_the_policy(here: Run) -> None:
    found = objects(
        here(
            "evaluate", "policy", *DATA, "--adapt", "2", "--support-bars", "40", "--accounts", "4",
            "--json", "--trials", "3",
        )
    )  # fmt: skip
    assert [row["policy"] for row in found["evaluation-policy"]][:2] == ["policy", "adapted 2"]
    (whole,) = found["evaluation"]
    assert whole["adapt"] == {"steps": 2, "bars": 40, "accounts": 4, "seed": 0}


def test_data_and_timeframe_are_those_of_the_training(here: Run, folder: Path) -> None:
    """A training keeps what it was asked for; nobody has to say it again."""
    request = {
        "data": {"data": ["three.parquet"], "registry": "three.yaml", "instruments": ["AAA"]}
    }
    save_loud(
        folder / "kept",
        env=SETTINGS,
        about=ABOUT | {"request": json.dumps(request), "timeframes": "15m"},
    )
    ended = here("evaluate", "kept")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("AAA   ")
    assert "bars of 15m" in ended.out
    assert "the data of its training" in ended.err
    other = here("evaluate", "kept", *DATA, "-i", "BBB", "--timeframe", "5m")
    assert other.out.startswith("BBB   ")
    assert "bars of 5m: the policy was trained on 15m" in other.err


def test_trades_that_cost_nothing_and_small_orders_are_told(here: Run, folder: Path) -> None:
    registry = (folder / "three.yaml").read_text()
    lines = [
        line for line in registry.splitlines() if "brokerage" not in line and "entry" not in line
    ]
    (folder / "free.yaml").write_text("\n".join(line for line in lines if "exit" not in line))
    data = (*DATA[:2], "--registry", "free.yaml")
    ended = here("evaluate", "policy", *data, "--set", "capital=1000000")
    assert ended.code == 0, ended.err
    assert "trades cost nothing: AAA, BBB, CCC" in ended.err
    assert "of the capital: all returns are small against it" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere",), 4, "no checkpoint"),
        (("policy", "--device", "tpu"), 2, "no device `tpu`"),
        (("policy", "--from", "yesterday"), 2, "no date or time"),
        (("policy", *DATA, "--from", "2031-01-01"), 4, "no instrument has two bars"),
        (("policy", *DATA, "--set", "window=4"), 3, "trained on other observations"),
        (("policy", *DATA, "--set", "start=2019-05-01"), 2, "is not set with `start`"),
        (("policy", *DATA, "--set", "capital=1"), 3, "does not buy one lot"),
        (("policy", *DATA, "--lots", "4"), 3, "4 lots, where 3 is the most"),
        (("policy", *DATA, "--adapt", "1"), 4, "too few bars before the range"),
        (("policy", *DATA, "--adapt", "0"), 2, "--adapt"),
        (("policy", "--data", "no.parquet"), 4, "no such file"),
        (("policy", "three.parquet"), 2, "--data three.parquet"),
    ],
)  # fmt: skip
def test_mistakes_in_one_line(arguments: tuple[str, ...], code: int, words: str, here: Run) -> None:
    if "--adapt" in arguments and code == 4:
        arguments = (*arguments, "--from", "2019-04-20")
    ended = here("evaluate", *arguments)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_without_torch_it_says_which_extra(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        n for n in sys.modules if n.startswith(("streambot.agents", "streambot.learning"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    ended = here("evaluate", "policy")
    assert ended.code == 3
    assert "needs the extra `train`" in ended.err
    assert "pip install 'streambot[train]'" in ended.err


def test_settings_are_set_over_those_of_the_policy() -> None:
    known = {"capital": 5, "reward": "pnl", "features": {"window": 3}}
    assert set_over(known, {"capital": 7}) == {**known, "capital": 7}
    over = set_over(known, {"reward": {"eta": 0.1}, "features": {"warmup": 2}})
    assert over["reward"] == {"core": "pnl", "eta": 0.1}
    assert over["features"] == {"window": 3, "warmup": 2}
    assert set_over({}, {"reward": {"core": "pnl"}}) == {"reward": {"core": "pnl"}}
    assert set_over(known, {"reward": {"core": "log_return"}})["reward"] == {"core": "log_return"}
