"""`streambot policy ls|show|pin` on the embedded broker and in folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streambot.processor.folder import TRAINING
from streambot.processor.run_state import RunRecord, RunState
from tests.integration.cli.conftest import Run
from tests.served import ENV, begin, on, trained, training_of, weights_of, write
from tests.trained import EXPERTS, save_loud

pytestmark = [pytest.mark.integration, pytest.mark.train]


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_ls_shows_the_newest_the_pins_and_the_folders(
    here: Run, broker: str, tmp_path: Path
) -> None:
    on(broker, lambda log: trained(log, 1, 2))
    on(broker, lambda log: begin(log, training_of("moe-2")))
    save_loud(tmp_path / "policies" / "best", env=ENV, progress={"updates": 7})
    (tmp_path / "policies" / "broken").mkdir()
    (tmp_path / "policies" / "broken" / "checkpoint.json").write_text("{")
    assert here("policy", "pin", "moe-1@1").code == 0
    listed = here("policy", "ls", "--json")
    assert listed.code == 0, listed.err
    found = {row["policy"]: row for row in rows(listed.out)}
    assert list(found) == [
        "moe-1@newest", "moe-1@1", "moe-2@newest", "policies/best", "policies/broken",
    ]  # fmt: skip
    newest, pinned = found["moe-1@newest"], found["moe-1@1"]
    assert newest["schema"] == "streambot.policy/1"
    assert (newest["what"], newest["sequence"], newest["kind"]) == ("newest", 2, "moe")
    assert (pinned["what"], pinned["sequence"], pinned["broker"]) == ("pin", 1, broker)
    assert newest["bytes"] > 1_000
    assert newest["age_s"] > 0
    assert newest["digest"] != pinned["digest"]
    assert (newest["instruments"], newest["state"]) == ("SPY,QQQ", "running")
    assert found["moe-2@newest"]["what"] == "nothing yet"
    assert found["policies/best"]["what"] == "folder"
    assert found["policies/best"]["updates"] == 7
    human = here("policy", "ls").out
    assert [line.split()[0] for line in human.splitlines()[2:]] == list(found)
    assert "SPY, QQQ 2020-12-01 to 2020-12-11" in human
    alone = rows(here("policy", "ls", "--run", "moe-1", "--json").out)
    assert [row["policy"] for row in alone] == ["moe-1@newest", "moe-1@1"]


def test_without_any_broker_there_are_the_folders(here: Run, tmp_path: Path) -> None:
    assert "no weights of a training" in here("policy", "ls").err
    save_loud(tmp_path / "policies" / "best", env=ENV)
    assert [row["policy"] for row in rows(here("policy", "ls", "--json").out)] == ["policies/best"]
    shown = here("policy", "show", "policies/best")
    assert shown.code == 0
    assert "trend   mean-reversion   volatility   consolidation" in shown.out
    assert "lookback 20" in shown.out


def test_show_says_all_that_the_head_says(here: Run, broker: str) -> None:
    training = on(broker, lambda log: trained(log, 1, 2))
    for name, sequence in (("moe-1", 2), ("moe-1@newest", 2), ("moe-1@1", 1)):
        shown = here("policy", "show", name, "--json")
        assert shown.code == 0, shown.err
        (row,) = rows(shown.out)
        assert row["schema"] == "streambot.policy-shown/1"
        assert row["sequence"] == sequence
        assert row["agent"]["layout"] == training.layout
        assert row["env"] == ENV
        assert row["names"] == list(EXPERTS)
        assert row["progress"] == {"updates": sequence, "steps": 8_192 * sequence}
        assert row["about"]["sources"] == "spy.parquet 1234 abcd"
    words = here("policy", "show", "moe-1@1").out
    for said in ("training moe-1", "on the log", training.layout, "SPY, QQQ", "steps 8,192"):
        assert said in words


def test_pin_keeps_the_newest_or_one_that_is_there_and_says_what_is(here: Run, broker: str) -> None:
    training = on(broker, lambda log: trained(log, 4, 5))
    first = here("policy", "pin", "moe-1", "--json")
    (row,) = rows(first.out)
    assert (row["policy"], row["new"]) == ("moe-1@5", True)
    again = here("policy", "pin", "moe-1@5")
    assert again.code == 0
    assert "is pinned already: moe-1@5" in again.out
    ended = here("policy", "pin", "moe-1@3")
    assert ended.code == 6
    assert "has no weights 3 (any more)" in ended.err
    assert "weights on the log: 4 to 5; pinned: 5" in ended.err
    on(broker, lambda log: log.delete([training.topics["policy"]]))
    assert here("policy", "show", "moe-1").code == 6


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "moe-1@latest"), 3, "`latest` is no sequence of weights"),
        (("show", "moe-9"), 6, "did you mean `moe-1`?"),
        (("pin", "moe-9@3"), 6, "no training moe-9 is declared on"),
        (("show", "./nowhere"), 4, "no checkpoint: No such file"),
        (("show", "no such name"), 2, "cannot be the name of a run"),
        (("ls", "--run", "moe-9"), 6, "no training moe-9 is declared"),
        (("show", "moe-1", "--namespace", "other"), 6, "in namespace other"),
        (("ls", "--bootstrap-servers", "127.0.0.1:1"), 5, "127.0.0.1:1"),
        (("show", "moe-1", "--bootstrap-servers", "127.0.0.1:1"), 5, "127.0.0.1:1"),
    ],
)
def test_what_is_not_there_is_one_line_and_a_hint(
    here: Run, broker: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    on(broker, lambda log: trained(log, 1))
    ended = here("policy", *arguments)
    assert ended.code == code, ended.err
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert ended.err.count("error: ") == 1


def write_training(folder: Path, broker: str, *, embedded: bool, kind: str = TRAINING) -> None:
    folder.mkdir(parents=True)
    record = RunRecord(
        run=folder.name, state=RunState.RUNNING, pid=1, broker=broker, embedded=embedded,
        topics={}, started_at="2026-11-26T10:00:00Z", kind=kind,
    )  # fmt: skip
    (folder / "run.json").write_bytes(msgspec.json.encode(record))


def test_a_training_that_went_with_its_broker_is_told_with_its_checkpoint(
    here: Run, tmp_path: Path
) -> None:
    write_training(tmp_path / "runs" / "moe-1", "127.0.0.1:1", embedded=True)
    ended = here("policy", "show", "moe-1")
    assert ended.code == 5
    assert "the weights of training moe-1 went with its embedded broker" in ended.err
    save_loud(tmp_path / "policies" / "moe-1", env=ENV)
    assert (
        "a checkpoint of that name is there: policies/moe-1" in here("policy", "show", "moe-1").err
    )
    nobody = here("policy", "show", "moe-2")
    assert nobody.code == 2
    assert "no broker to ask about it" in nobody.err
    write_training(tmp_path / "runs" / "r", "127.0.0.1:1", embedded=False, kind="run")
    assert "r is a run, not a training" in here("policy", "show", "r").err


def test_a_training_is_found_by_its_own_folder(here: Run, broker: str, tmp_path: Path) -> None:
    """Without any flag or setting; and one that is torn is told and counted."""
    training = on(broker, lambda log: trained(log, 1))
    torn = weights_of(training, 2)[:-1]
    on(broker, lambda log: write(log, training, torn))
    (tmp_path / ".streambot").rename(tmp_path / "elsewhere")
    write_training(tmp_path / "runs" / "moe-1", broker, embedded=False)
    (row,) = rows(here("policy", "show", "moe-1", "--json").out)
    assert (row["sequence"], row["refused"]) == (1, {"crc": 1})
    listed = here("policy", "ls")
    assert "1 record refused" in listed.out
    (tmp_path / "elsewhere").rename(tmp_path / ".streambot")


def test_without_torch_weights_are_listed_and_pinned(
    run: Run, here: Run, broker: str, tmp_path: Path
) -> None:
    on(broker, lambda log: trained(log, 1))
    away = tmp_path / "without"
    away.mkdir()
    (away / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = sys.modules['safetensors'] = None\n"
    )
    path = f"{away}:{Path(__file__).resolve().parents[3]}"
    for arguments in (("ls",), ("show", "moe-1"), ("pin", "moe-1")):
        ended = run("policy", *arguments, PYTHONPATH=path)
        assert ended.code == 0, ended.err
        assert "moe-1" in ended.out
