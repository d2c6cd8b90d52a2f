"""`streambot tail` over the files of a run: where it begins, what it leaves out, when it ends."""

from __future__ import annotations

import fcntl
import json
from typing import TYPE_CHECKING

import pytest

from streambot.cli import tail, tail_views
from streambot.processor.run_state import RunState
from tests.unit.cli.run_folders import a_fill, an_orders_line, write_lines, write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete run of 30 fills in the working folder's `runs`."""
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "runs")
    write_lines(folder / "fills.ndjson", [a_fill(n) for n in range(30)])
    write_lines(
        folder / "orders.ndjson",
        [
            an_orders_line(0),
            an_orders_line(1, "BUY_LONG"),
            an_orders_line(2),
            an_orders_line(3, "CLOSE"),
        ],
    )
    return folder


def seqs(said: Said) -> list[int]:
    assert said.code == 0, said.err
    return [json.loads(line)["seq"] for line in said.out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], range(20, 30)),  # like `tail`: the last ten
        (["-n", "3"], range(27, 30)),
        (["-n", "0"], range(0)),
        (["-n", "1000"], range(30)),
        (["--from", "beginning"], range(30)),
        (["--from", "beginning", "-n", "4"], range(4)),
        (["--from", "beginning", "-n", "0"], range(0)),
        (["--from", "end"], range(0)),
        (["--from", "2020-12-15T09:55"], range(25, 30)),  # the exchange's zone
        (["--from", "2020-12-15T14:55Z", "-n", "2"], range(25, 27)),
        (["--from", "2020-12-15"], range(30)),
        (["--from", "2020-12-16"], range(0)),
        (["--where", "quantity == 1", "-n", "2"], range(28, 30)),
        (["--where", "effect == exit", "-n", "2"], [27, 29]),
        (["--where", "price < 373", "--from", "beginning"], range(3)),
        (
            ["--where", "price < 373", "-n", "2"],
            [1, 2],
        ),  # the last two that match, not of the last two
        (["--where", "time >= 2020-12-15T14:58 and effect == entry", "--from", "beginning"], [28]),
        (["--no-follow", "-n", "1"], [29]),
    ],
)
def test_which_lines(streambot: Invoke, arguments: list[str], expected: list[int]) -> None:
    assert seqs(streambot("tail", "fills", "--json", *arguments)) == list(expected)


def test_people_get_columns_with_a_heading(streambot: Invoke) -> None:
    lines = streambot("tail", "fills", "-n", "2").out.splitlines()
    assert lines[0].split()[:2] == ["time", "symbol"]
    assert lines[1].startswith("2020-12-15 09:58:00 EST  SPY")
    assert len(lines) == 3


def test_orders_are_one_a_line_and_hold_makes_none(streambot: Invoke) -> None:
    said = streambot("tail", "orders", "--json")
    objects = [json.loads(line) for line in said.out.splitlines()]
    assert [(o["barrier"], o["action"], o["agent"]) for o in objects] == [
        (1, "BUY_LONG", "sma-cross"),
        (3, "CLOSE", "sma-cross"),
    ]
    assert all(o["schema"] == "streambot.order/1" for o in objects)
    said = streambot("tail", "orders", "--where", "action == CLOSE", "--json")
    assert len(said.out.splitlines()) == 1


def test_nothing_to_show_is_said(streambot: Invoke) -> None:
    said = streambot("tail", "late")
    assert (said.code, said.out) == (0, "")
    assert said.err == "run spy-7f3a (complete): nothing in late\n"
    said = streambot("tail", "alerts")
    assert "nothing in alerts; `simulate --alerts`" in said.err
    said = streambot("tail", "fills", "--where", "price > 10000")
    assert said.err == "run spy-7f3a: none of 30 lines of fills matched\n"


def test_the_newest_run_unless_one_is_named(streambot: Invoke, run: Path) -> None:
    newer = write_run(run.parent, "newer", started="2026-11-24T21:00:00Z")
    write_lines(newer / "fills.ndjson", [a_fill(0)])
    assert seqs(streambot("tail", "fills", "--json")) == [0]
    assert len(seqs(streambot("tail", "fills", "--json", "--run", "spy-7f3a"))) == 10


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fill"], 2, ["no stream `fill`", "did you mean `fills`?"]),
        (["fills", "--run", "spy-7f3b"], 2, ["no run spy-7f3b", "did you mean `spy-7f3a`?"]),
        (["fills", "--run", "../x"], 2, ["no name of a run"]),
        (["fills", "--from", "begining"], 2, ["--from", "did you mean `beginning`?"]),
        (["fills", "--from", "2020-13-01"], 2, ["--from", "no date or time"]),
        (["orders", "--from", "2020-12-15"], 2, ["no market time", "barrier >= 100"]),
        (["fills", "--where", "prise > 3"], 2, ["`prise`", "did you mean `price`?"]),
        (["fills", "--where", "price >"], 2, ["expected a value"]),
        (["fills", "-n", "-3"], 2, ["`-3` is no count"]),
        (["fills", "-n", "many"], 2, ["`many` is no count"]),
        (["ticks"], 5, ["went with its broker", "--bootstrap-servers"]),
    ],
)
def test_mistakes(streambot: Invoke, arguments: list[str], code: int, words: list[str]) -> None:
    said = streambot("tail", *arguments)
    assert said.code == code, said
    assert said.out == ""
    for word in words:
        assert word in said.err
    assert "Traceback" not in said.err


def test_a_broker_out_of_reach_leaves_the_files(streambot: Invoke, run: Path) -> None:
    """A run on another machine's Kafka, say: its folder is here, its broker is not."""
    living = write_run(
        run.parent, "living", state=RunState.RUNNING, summary=False, embedded=False,
        started="2026-11-25T00:00:00Z",
    )  # fmt: skip
    write_lines(living / "fills.ndjson", [a_fill(n) for n in range(4)])
    with (living / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = streambot("tail", "fills", "--no-follow", "--json")
        assert seqs(said) == [0, 1, 2, 3]
        assert "no broker answers at 127.0.0.1:1" in said.err
        assert "going on with the run's files" in said.err
        assert streambot("tail", "ticks").code == 5


def test_streams_are_those_with_a_view() -> None:
    assert tail.STREAMS == tail_views.STREAMS


def test_no_run_at_all(streambot: Invoke, tmp_path: Path) -> None:
    said = streambot("tail", "fills", "--runs-dir", str(tmp_path / "none"))
    assert said.code == 2
    assert "there is no run yet" in said.err


def test_a_damaged_line_is_4_and_names_the_file(streambot: Invoke, run: Path) -> None:
    with (run / "fills.ndjson").open("ab") as file:
        file.write(b"not json\n")
    said = streambot("tail", "fills")
    assert said.code == 4
    assert "fills.ndjson" in said.err


def test_a_killed_run_is_read_from_its_files_and_ends(streambot: Invoke, run: Path) -> None:
    killed = write_run(run.parent, "killed", state=RunState.RUNNING, summary=False,
                       started="2026-11-25T00:00:00Z")  # fmt: skip
    write_lines(killed / "fills.ndjson", [a_fill(0), a_fill(1)])
    with (killed / "fills.ndjson").open("ab") as file:
        file.write(b'{"kind":"OrderFi')  # where the kill came
    assert seqs(streambot("tail", "fills", "--json")) == [0, 1]
