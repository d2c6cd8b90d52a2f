"""One event digest: at any speed, on any broker and partitions, however often it was killed."""

import json
import subprocess
import sys

import pytest

from streambot.domain.errors import UsageError
from streambot.processor.folder import read_record
from tests.integration.simulate.bars import (
    CHILD,
    Told,
    run,
    stopped_after,
    write_bars,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("same")
    write_bars(made / "bars.parquet")
    return made


@pytest.fixture(scope="module")
def reference(folder):
    summary = run(folder, run="reference", partitions="1")
    assert summary.state == "complete"
    assert summary.fills > 100
    return summary


def figures(summary) -> dict:
    """What may not depend on how the run was carried out."""
    return {
        name: getattr(summary, name)
        for name in (
            "bars", "ticks", "barriers", "fills", "rejected", "expired", "settled", "breached",
            "pnl_gross", "pnl_net", "pnl_realized", "pnl_unrealized", "brokerage", "equity",
            "max_drawdown", "max_drawdown_pct", "by_instrument", "proxied_share", "late",
            "duplicates", "dead_letters", "event_from", "event_to", "digest",
        )
    }  # fmt: skip


@pytest.mark.parametrize("partitions", ["1", "2", "4"])
@pytest.mark.parametrize(
    "broker", ["in-process", pytest.param("embedded", marks=pytest.mark.integration)]
)
def test_partitions_and_broker_change_nothing(folder, reference, partitions, broker):
    summary = run(folder, partitions=partitions, broker=broker)
    assert figures(summary) == figures(reference)
    assert summary.partitions == int(partitions)


@pytest.mark.parametrize(("speed", "gaps"), [("20000x", "skip"), ("50000x", "max:50ms")])
def test_a_paced_run_changes_nothing_but_the_time_it_takes(folder, reference, speed, gaps):
    told = Told()
    summary = run(folder, told=told, speed=speed, gaps=gaps)
    assert figures(summary) == figures(reference)
    [plan] = told.plans
    assert plan.wall_ns_skip <= plan.wall_ns <= plan.wall_ns_keep
    assert summary.wall_s == pytest.approx(plan.wall_ns / 1e9, rel=0.3)
    assert summary.lateness_ms.p50 is not None


def test_the_order_of_instruments_in_the_data_changes_nothing(folder, reference, tmp_path):
    write_bars(tmp_path / "bars.parquet", "EEE CCC AAA DDD BBB")
    assert figures(run(tmp_path)) == figures(reference)


def test_another_seed_is_another_digest(folder, reference):
    """The comparison can fail."""
    assert run(folder, seed="8").digest != reference.digest


def test_an_option_on_the_same_chart_leaves_the_others_alone(folder, reference):
    names = "AAA,AAA_OPT,BBB,CCC,DDD,EEE"
    both = run(folder, instruments=names, partitions="3")
    for symbol, one in reference.by_instrument.items():
        assert both.by_instrument[symbol] == one
    assert both.by_instrument["AAA_OPT"].proxied_share == 1.0


@pytest.mark.parametrize("records", [1, 9, 40])
def test_a_stopped_and_resumed_run_changes_nothing(folder, reference, records):
    name = f"stopped-{records}"
    part = stopped_after(folder, records, run=name, speed="60000x", partitions="2")
    assert part.state == "interrupted"
    assert part.stopped_by == "request"
    assert 0 < part.ticks < reference.ticks
    assert read_record(folder / "runs" / name).state == "interrupted"
    told = Told()
    summary = run(folder, resume=name, told=told)
    assert figures(summary) == figures(reference)
    assert summary.resumes == 1
    assert told.plans[0].resumed_at_barrier > 0
    for stream in ("fills", "pnl"):
        ours = (folder / "runs" / name / f"{stream}.ndjson").read_bytes().splitlines()
        theirs = (folder / "runs" / "reference" / f"{stream}.ndjson").read_bytes().splitlines()
        assert sorted(ours) == sorted(theirs)
    with pytest.raises(UsageError, match="cannot resume"):
        run(folder, resume=name)


@pytest.mark.parametrize(
    "broker", ["in-process", pytest.param("embedded", marks=pytest.mark.integration)]
)
def test_a_run_killed_again_and_again_and_resumed_changes_nothing(folder, reference, broker):
    name = f"killed-{broker}"

    def child(kill_after: int, resume: str, *flags: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(CHILD), str(folder), str(kill_after), resume, *flags],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    flags = (f"broker={broker}", "speed=20000x", "partitions=2")
    assert child(250, "", f"run={name}", *flags).returncode == -9
    barriers = []
    for kill_after in (150, 1):
        done = child(kill_after, name, *flags)
        assert done.returncode == -9, done.stdout + done.stderr
        barriers.append(int(done.stdout.split()[1]))
    assert 0 < barriers[0] < barriers[1]
    done = child(0, name, "speed=max")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[-2:] == ["complete", reference.digest]
    summary = json.loads((folder / "runs" / name / "summary.json").read_text())
    assert summary["resumes"] == 3
    assert summary["max_drawdown"] == reference.max_drawdown
    assert summary["by_instrument"]["BBB"]["fills"] == reference.by_instrument["BBB"].fills


def test_a_run_killed_between_its_end_and_its_last_word_is_only_finished(folder, reference):
    run(folder, run="nearly", partitions="2")
    file = folder / "runs" / "nearly" / "run.json"
    file.write_text(file.read_text().replace('"state": "complete"', '"state": "running"'))
    (folder / "runs" / "nearly" / "summary.json").unlink()
    summary = run(folder, resume="nearly")
    assert figures(summary) == figures(reference)
    assert read_record(folder / "runs" / "nearly").state == "complete"


@pytest.mark.real_data
def test_fifty_real_stocks_give_one_digest(data_folder, tmp_path):
    flags = {
        "data": str(data_folder / "nse_50_5m_week_2026.parquet"),
        "infer_instruments": "true", "policy": "sma-cross",
    }  # fmt: skip
    digests = {
        run(tmp_path, partitions=partitions, **flags).digest for partitions in ("1", "3", "8")
    }
    assert len(digests) == 1
    part = stopped_after(tmp_path, 40, run="part", partitions="4", speed="50000x", **flags)
    assert part.state == "interrupted"
    assert run(tmp_path, resume="part", speed="max").digest in digests
