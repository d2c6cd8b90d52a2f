"""What goes wrong ends in one clear error, a folder that says so, and a run that can go on."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from streambot.domain.errors import (
    BrokerError,
    ConfigError,
    DataError,
    StrategyError,
    UnknownInstrumentError,
    UsageError,
)
from streambot.processor.folder import read_record
from streambot.wiring import StopRequest, run_simulation
from tests.integration.simulate.bars import (
    CHILD,
    Told,
    run,
    settings,
    stopped_after,
    write_bars,
)
from tests.processes import living_children


@pytest.fixture
def folder(tmp_path):
    write_bars(tmp_path / "bars.parquet", "AAA BBB", bars=400)
    return tmp_path


def children() -> set[int]:
    return {child.pid for child in living_children()}


@pytest.mark.integration
def test_a_broker_killed_in_the_middle_is_one_error_within_seconds_and_the_run_goes_on(folder):
    reference = run(folder, run="reference")
    before = children()
    told = Told()
    killed_at = []

    def kill(n: int) -> None:
        if n == 20:
            for pid in children() - before:
                os.kill(pid, signal.SIGKILL)
                killed_at.append(time.monotonic())

    told.at_record = kill
    with pytest.raises(BrokerError) as caught:
        run(folder, told=told, run="lost", broker="embedded", speed="30000x")
    assert killed_at
    assert time.monotonic() - killed_at[0] < 10
    assert "embedded broker" in caught.value.message
    record = read_record(folder / "runs" / "lost")
    assert record.state == "failed"
    assert "embedded broker" in record.error
    assert children() <= before
    assert run(folder, resume="lost", speed="max").digest == reference.digest


STRATEGY = '''
from streambot.domain.events import HOLD, buy


class Raises:
    def __init__(self):
        self.bars = 0

    def on_bar(self, bar, account):
        self.bars += 1
        if self.bars == 77:
            raise RuntimeError("no idea")
        return HOLD


class Nonsense:
    def on_bar(self, bar, account):
        return "up"


class Stateless:
    """Buys at its hundredth bar, and cannot say so."""

    def __init__(self):
        self.bars = 0

    def on_bar(self, bar, account):
        self.bars += 1
        return buy(1) if self.bars == 100 else HOLD
'''


@pytest.mark.parametrize(("name", "line"), [("Raises", 12), ("Nonsense", 17)])
def test_a_strategy_at_fault_is_named_by_file_and_line(folder, name, line):
    (folder / "mine.py").write_text(STRATEGY)
    with pytest.raises(StrategyError) as caught:
        run(folder, run="mine", policy=f"mine.py:{name}")
    assert caught.value.where == f"{folder / 'mine.py'}:{line}"
    assert read_record(folder / "runs" / "mine").state == "failed"


def test_a_strategy_without_state_is_resumed_from_the_start(folder):
    (folder / "mine.py").write_text(STRATEGY)
    policy = "mine.py:Stateless"
    reference = run(folder, policy=policy)
    assert reference.fills == 2
    part = stopped_after(folder, 30, run="part", policy=policy, speed="60000x")
    assert part.state == "interrupted"
    assert run(folder, resume="part", speed="max").digest == reference.digest


def child(folder: Path, *flags: str, resume: str = "", limit: int = 0) -> subprocess.Popen:
    def limited() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), "0", resume, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limited,  # noqa: PLW1509
    )  # fmt: skip


def ended(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, out


def test_a_full_disk_stops_the_run_whole_lines_only_and_it_goes_on(folder):
    reference = run(folder, run="reference")
    code, out = ended(child(folder, "run=full", limit=20_000))
    assert code == 14, out
    assert "DataError" in out
    assert "no room left" in out
    files = list((folder / "runs" / "full").glob("*.ndjson"))
    assert files
    for file in files:
        assert file.read_bytes()[-1:] in {b"", b"\n"}
    assert run(folder, resume="full").digest == reference.digest


def test_a_runs_folder_that_cannot_be_written_is_named(folder):
    (folder / "blocked").write_text("")
    with pytest.raises((ConfigError, DataError)) as caught:
        run(folder, runs_dir=str(folder / "blocked" / "runs"))
    assert "blocked" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")]
)
def test_one_signal_stops_at_a_barrier(folder, number, name):
    process = child(folder, "run=mine", "speed=600x")
    assert process.stdout.readline().startswith("planned")
    time.sleep(0.5)
    process.send_signal(number)
    code, out = ended(process)
    assert code == 30, out
    assert out.startswith("interrupted")
    assert f'"{name}"' in (folder / "runs" / "mine" / "summary.json").read_text()
    assert read_record(folder / "runs" / "mine").state == "interrupted"


SLOW = """
import time
from streambot.domain.events import HOLD


class Slow:
    def on_bar(self, bar, account):
        time.sleep(0.02)
        return HOLD
"""


def test_two_signals_abort_and_leave_a_run_that_can_go_on(folder):
    (folder / "slow.py").write_text(SLOW)
    process = child(folder, "run=mine", "policy=slow.py:Slow")
    assert process.stdout.readline().startswith("planned")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    code, out = ended(process)
    assert code == 130, out
    record = read_record(folder / "runs" / "mine")
    assert (record.state, record.error) == ("interrupted", "aborted")


def test_a_stop_asked_for_before_the_start_leaves_nothing(folder):
    stop = StopRequest()
    stop.request()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run_simulation(settings(folder), stop=stop, cwd=folder))
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"data": "nowhere.parquet"}, DataError, "no such file"),
        ({"instruments": "AAB"}, ConfigError, "did you mean"),
        ({"instruments": "Z*"}, ConfigError, "matches"),
        ({"policy": "sma-cros"}, ConfigError, "sma-cross"),
        ({"policy": "none.py:Class"}, ConfigError, "no such file"),
        ({"timeframe": "10s"}, ConfigError, "finer"),
        ({"capital": "0.001"}, (ConfigError, UsageError), "finer"),
        ({"from": "2031-01-01"}, DataError, "no bars"),
        ({"scenario": "defualt", "data": ""}, ConfigError, "default"),
    ],
)
def test_a_mistake_leaves_no_half_run_behind(folder, flags, error, words):
    chosen = settings(folder, **{k: v for k, v in flags.items() if v})
    if flags.get("data") == "":
        config = msgspec.structs.replace(chosen.config, data=(), scenario=flags["scenario"])
        chosen = chosen._replace(config=config)
    with pytest.raises(error) as caught:
        asyncio.run(run_simulation(chosen, cwd=folder))
    assert words in str(caught.value)
    runs = folder / "runs"
    assert not runs.exists() or not list(runs.iterdir())


def test_an_unknown_symbol_comes_with_its_declaration(folder, tmp_path):
    write_bars(folder / "bars.parquet", "AAA XYZ", bars=50)
    with pytest.raises(UnknownInstrumentError) as caught:
        run(folder)
    assert caught.value.symbols == ("XYZ",)
    assert "XYZ:" in caught.value.suggestion
    assert "tick_size: 0.01" in caught.value.suggestion
    (folder / "instruments.yaml").write_text(caught.value.suggestion)
    assert run(folder, instruments="XYZ").ticks > 0
    (folder / "instruments.yaml").unlink()
    told = Told()
    inferred = settings(folder, infer_instruments="true")
    summary = asyncio.run(run_simulation(inferred, observer=told, cwd=folder))
    assert summary.by_instrument["XYZ"].ticks > 0
    assert any("XYZ is in no registry" in warning for warning in summary.warnings)
    assert told.warnings == summary.warnings


def test_two_runs_of_one_name_do_not_mix(folder):
    run(folder, run="mine")
    with pytest.raises(UsageError, match="exists"):
        run(folder, run="mine")


def test_data_that_changed_since_are_not_resumed(folder):
    stopped_after(folder, 10, run="mine", speed="60000x")
    write_bars(folder / "bars.parquet", "AAA BBB", bars=399)
    with pytest.raises(DataError, match="changed"):
        run(folder, resume="mine")
    assert read_record(folder / "runs" / "mine").state == "interrupted"


def test_a_file_that_was_altered_is_not_resumed(folder):
    stopped_after(folder, 30, run="mine", speed="60000x")
    file = folder / "runs" / "mine" / "pnl.ndjson"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[1:]))
    with pytest.raises(DataError, match="altered"):
        run(folder, resume="mine")


@pytest.mark.integration
def test_a_bug_in_an_observer_is_no_quiet_hang(folder):
    told = Told()

    def broken(_: int) -> None:
        raise ZeroDivisionError

    told.at_record = broken
    before = children()
    with pytest.raises(ZeroDivisionError):
        run(folder, told=told, broker="embedded")
    assert read_record(next((folder / "runs").iterdir())).state == "failed"
    assert children() <= before
