"""A recorded run, replayed again: the same events as from its bars, whatever else is asked for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.kafka import EMBEDDED, KafkaLog
from streambot.domain.config import resolve
from streambot.domain.errors import (
    BrokerError,
    ConfigError,
    DataError,
    TopicError,
    UsageError,
)
from streambot.processor.folder import read_record
from streambot.wiring import StopRequest, run_simulation
from tests.integration.simulate.bars import Told, run, stopped_after, write_bars

pytestmark = pytest.mark.integration
NAMES = "AAA,AAA_OPT,BBB,CCC"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("recorded")
    write_bars(made / "bars.parquet", "AAA BBB CCC", bars=500)
    return made


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """An embedded broker that outlives the runs, in a loop of its own."""
    log = tmp_path_factory.mktemp("broker") / "broker.log"
    with asyncio.Runner() as runner:
        broker = EmbeddedBroker(log=log)
        runner.run(broker.start())
        yield broker.address
        runner.run(broker.stop())


@pytest.fixture(scope="module")
def original(folder, servers):
    """The recording: stocks and an option, three partitions, at pace."""
    return record(folder, servers, "original", speed="60000x", partitions="3")


def record(folder: Path, servers: str, name: str, **flags: str):
    return run(
        folder, run=name, instruments=NAMES, bootstrap_servers=servers, broker="auto", **flags
    )


def again(folder: Path, servers: str, source: str = "original", **flags: str):
    """A run from the recording; nothing but the folder's own settings besides."""
    given = {"from_run": source, "from_broker": servers, "runs_dir": str(folder / "runs")}
    told = Told()
    wanted = resolve({"speed": "max", "broker": "in-process", **given, **flags}, {}, None)
    summary = asyncio.run(run_simulation(wanted, observer=told, cwd=folder))
    return summary, told


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"policy": "recorded"},
        {"policy": "recorded", "partitions": "1"},
        {"partitions": "4"},
        {"speed": "50000x"},
        {"broker": "embedded", "partitions": "2"},
    ],
    ids=str,
)
def test_a_recording_repeats_its_run(folder, servers, original, flags):
    summary, told = again(folder, servers, **flags)
    assert summary.digest == original.digest
    assert (summary.ticks, summary.bars, summary.fills) == (
        original.ticks, original.bars, original.fills,
    )  # fmt: skip
    assert summary.by_instrument == original.by_instrument
    assert summary.max_drawdown == original.max_drawdown
    assert told.progress[-1].done == 1.0
    assert not told.warnings
    manifest = json.loads(bytes(read_record(Path(summary.folder)).manifest))
    [source] = manifest["sources"]
    assert source.startswith("run original, END ")


@examples(max_examples=8)
@given(
    policy=st.sampled_from(["random", "sma-cross", "buy-hold"]),
    seed=st.integers(0, 99),
    capital=st.sampled_from(["1000000", "30000", "50000,BBB=2000"]),
    speed=st.sampled_from(["max", "400000x"]),
    partitions=st.integers(1, 4),
)
def test_any_policy_over_a_recording_does_what_it_does_over_the_bars(
    folder, servers, original, policy, seed, capital, speed, partitions
):
    del original
    flags = {"policy": policy, "seed": str(seed), "capital": capital, "pnl_every": "7m"}
    bars = run(folder, instruments=NAMES, **flags)
    recorded, _ = again(folder, servers, speed=speed, partitions=str(partitions), **flags)
    assert recorded.digest == bars.digest
    assert recorded.max_drawdown == bars.max_drawdown


def test_a_recording_of_a_recording_is_the_same_again(folder, servers, original):
    copy, _ = again(
        folder, servers, run="copy", broker="auto", bootstrap_servers=servers, policy="recorded",
        partitions="2",
    )  # fmt: skip
    assert copy.digest == original.digest
    third, _ = again(folder, servers, source="copy", partitions="1")
    assert third.policy == "recorded"
    assert third.digest == original.digest


def test_what_was_interrupted_counts_up_to_its_last_whole_bar(folder, servers, original):
    part = stopped_after(
        folder, 20, run="part", instruments=NAMES, bootstrap_servers=servers, broker="auto",
        speed="60000x", partitions="2",
    )  # fmt: skip
    assert part.state == "interrupted"
    summary, told = again(folder, servers, source="part", run="of-part")
    assert summary.state == "complete"
    assert 0 < summary.ticks <= part.ticks < original.ticks
    [warning] = told.warnings
    assert "has no end: it is replayed up to barrier" in warning
    for stream in ("fills", "pnl"):
        theirs = {s: [] for s in NAMES.split(",")}
        for line in (folder / "runs" / "original" / f"{stream}.ndjson").read_bytes().splitlines():
            theirs[json.loads(line)["instrument"]].append(line)
        lines = (folder / "runs" / "of-part" / f"{stream}.ndjson").read_bytes().splitlines()
        assert lines
        ours = {s: [] for s in theirs}
        for line in lines:
            if b"end_of_data" not in line:
                ours[json.loads(line)["instrument"]].append(line)
        assert all(theirs[s][: len(ours[s])] == ours[s] for s in theirs)


def test_a_run_from_a_recording_is_resumed_over_the_same_recording_only(folder, servers, original):
    stop, told = StopRequest(), Told()
    told.at_record = lambda n: stop.request() if n == 30 else None
    wanted = resolve(
        {
            "from_run": "original", "from_broker": servers, "runs_dir": str(folder / "runs"),
            "speed": "60000x", "broker": "in-process", "run": "stopped", "policy": "recorded",
        },
        {}, None,
    )  # fmt: skip
    part = asyncio.run(run_simulation(wanted, observer=told, stop=stop, cwd=folder))
    assert part.state == "interrupted"
    whole = run(folder, resume="stopped", speed="max")
    assert whole.digest == original.digest
    stop = StopRequest()
    told.at_record = lambda n: stop.request()
    again_wanted = resolve(
        {
            "from_run": "original", "from_broker": servers, "runs_dir": str(folder / "runs"),
            "speed": "60000x", "broker": "in-process", "run": "changed",
        },
        {}, None,
    )  # fmt: skip
    asyncio.run(run_simulation(again_wanted, observer=told, stop=stop, cwd=folder))
    file = folder / "runs" / "changed" / "run.json"
    file.write_text(file.read_text().replace("run original, END ", "run original, END 0"))
    with pytest.raises(DataError, match="has changed"):
        run(folder, resume="changed", speed="max")


def test_mistakes_are_told(folder, servers, original):
    with pytest.raises(TopicError, match="no run nobody is declared"):
        again(folder, servers, source="nobody")
    with pytest.raises(BrokerError, match="no broker answers"):
        again(folder, "127.0.0.1:9")
    with pytest.raises(UsageError, match="where is the recording"):
        again(folder, None)
    with pytest.raises(ConfigError, match="there is no policy"):
        again(folder, servers, policy="randon")
    before = set((folder / "runs").iterdir())

    async def delete():
        async with await KafkaLog.open(servers, profile=EMBEDDED) as log:
            await log.delete([read_record(folder / "runs" / "empty").topics["ticks"]])

    record(folder, servers, "empty", to="2020-12-01T14:40Z")
    asyncio.run(delete())
    with pytest.raises(TopicError, match="no such"):
        again(folder, servers, source="empty")
    assert set((folder / "runs").iterdir()) == before | {folder / "runs" / "empty"}
