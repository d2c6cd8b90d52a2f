"""A run's folder has one writer, a safe name, and a state that only legal triggers move."""

import datetime as dt
import os
import re
import subprocess
import sys

import pytest

from streambot.domain.errors import ConfigError, StreambotError, UsageError
from streambot.processor.folder import (
    RunFolder,
    check_run_name,
    find_run,
    is_held,
    list_runs,
    read_record,
    shown_state,
)
from streambot.processor.run_state import TRANSITIONS, RunRecord, RunState, Trigger, next_state

DAY = dt.date(2020, 12, 1)


def record(run: str, **changes) -> RunRecord:
    fields = {
        "run": run, "state": RunState.RUNNING, "pid": 1, "broker": "in-process", "embedded": False,
        "topics": {}, "started_at": "2024-01-01T00:00:00Z",
    }  # fmt: skip
    return RunRecord(**(fields | changes))


def start(runs_dir, name=None) -> RunFolder:
    folder = RunFolder.create(runs_dir, name, DAY)
    folder.start(record(folder.path.name))
    return folder


@pytest.mark.parametrize("state", list(RunState))
@pytest.mark.parametrize("trigger", list(Trigger))
def test_every_pair_of_state_and_trigger_is_a_row_of_the_table_or_refused(state, trigger):
    if trigger in TRANSITIONS[state]:
        assert next_state("r", state, trigger) is TRANSITIONS[state][trigger]
    else:
        with pytest.raises(UsageError):
            next_state("r", state, trigger)


def test_a_complete_run_is_never_resumed():
    assert TRANSITIONS[RunState.COMPLETE] == {}


def test_generated_names_are_short_dated_and_unique(tmp_path):
    names = set()
    for _ in range(20):
        folder = start(tmp_path)
        assert re.fullmatch(r"20201201-[0-9a-f]{4}", folder.path.name)
        names.add(folder.path.name)
        folder.close()
    assert len(names) == 20


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a..b", "-x", "x" * 65, "a b", "ä", "a\n", "a.", "\0"]
)
def test_a_name_cannot_leave_the_folder_or_break_a_topic(tmp_path, name):
    with pytest.raises(UsageError):
        check_run_name(name)
    with pytest.raises(UsageError):
        RunFolder.create(tmp_path, name, DAY)
    with pytest.raises(UsageError):
        find_run(tmp_path, name)


def test_the_name_of_a_run_that_was_killed_before_it_started_is_free_again(tmp_path):
    born = RunFolder.create(tmp_path, "mine", DAY)
    (born.path / "config.yaml").write_text("speed: max\n")
    with pytest.raises(UsageError, match="exists already"):
        RunFolder.create(tmp_path, "mine", DAY)  # somebody is about to start it
    born.close()
    again = RunFolder.create(tmp_path, "mine", DAY)
    assert not (again.path / "config.yaml").exists()
    (again.path / "notes.txt").write_text("a person's own")
    again.close()
    with pytest.raises(UsageError, match="exists already"):
        RunFolder.create(tmp_path, "mine", DAY)
    assert (again.path / "notes.txt").exists()
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        RunFolder.create(tmp_path, "bare", DAY)


def test_a_taken_name_is_refused_and_says_how_to_go_on(tmp_path):
    start(tmp_path, "mine").close()
    with pytest.raises(UsageError) as caught:
        RunFolder.create(tmp_path, "mine", DAY)
    assert "--resume mine" in caught.value.hint


def test_one_process_at_a_time(tmp_path):
    folder = start(tmp_path, "mine")
    assert is_held(folder.path)
    assert shown_state(folder.path, folder.record) == "running"
    with pytest.raises(UsageError, match="running in another process"):
        RunFolder.open(tmp_path, "mine")
    folder.close()
    assert not is_held(folder.path)
    RunFolder.open(tmp_path, "mine").close()


def test_a_killed_process_lets_go_of_its_run(tmp_path):
    code = f"""
import datetime as dt, os, pathlib, signal
from streambot.processor.folder import RunFolder
from tests.unit.processor.test_folder import record
folder = RunFolder.create(pathlib.Path({str(tmp_path)!r}), "mine", dt.date(2020, 12, 1))
folder.start(record("mine"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert shown_state(tmp_path / "mine", read_record(tmp_path / "mine")) == "killed"
    folder = RunFolder.open(tmp_path, "mine")
    folder.resume(record("mine"))
    assert folder.record.resumes == 1
    folder.finish(Trigger.END, at="2024-01-01T00:00:01Z")
    assert read_record(folder.path).state is RunState.COMPLETE
    with pytest.raises(UsageError, match="cannot resume"):
        folder.resume(record("mine"))
    folder.close()


def test_runs_are_listed_by_start_and_found_by_name(tmp_path):
    for name, at in (("b", "2024-01-02"), ("a", "2024-01-03"), ("c", "2024-01-01")):
        folder = RunFolder.create(tmp_path, name, DAY)
        folder.start(record(name, started_at=at))
        folder.close()
    (tmp_path / "junk").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    assert [r.run for r in list_runs(tmp_path)] == ["c", "b", "a"]
    assert find_run(tmp_path, None).name == "a"
    with pytest.raises(UsageError, match="no run x"):
        find_run(tmp_path, "x")
    with pytest.raises(ConfigError):
        read_record(tmp_path / "broken")
    with pytest.raises(UsageError):
        find_run(tmp_path / "nowhere", None)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StreambotError) as caught:
        RunFolder.create(blocked / "runs", None, DAY)
    assert str(blocked) in str(caught.value)
    if os.getuid() != 0:
        sealed = tmp_path / "sealed"
        sealed.mkdir(mode=0o500)
        with pytest.raises(ConfigError, match="--runs-dir"):
            RunFolder.create(sealed / "runs", None, DAY)
