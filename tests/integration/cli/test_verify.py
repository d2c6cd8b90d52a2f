"""`streambot verify`: what stands there comes out again, and whatever was altered is named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streambot.adapters.kafka import EMBEDDED, KafkaLog
from streambot.processor import task
from streambot.processor.close_rows import CloseRows
from streambot.streams.ports import StreamSpec
from streambot.streams.reading import read_to_end
from tests.integration.cli.conftest import Run

pytestmark = pytest.mark.integration
SIMULATE = ("simulate", "-s", "max", "-p", "random", "-q", "--json")


@pytest.fixture
def broker(here: Run) -> Iterator[str]:
    """The embedded broker, outliving its command."""
    started = here("broker", "start", "--kind", "embedded")
    yield started.out.strip()
    here("broker", "stop", "--delete-data")


def simulated(here: Run, run: str, *flags: str) -> str:
    ended = here(*SIMULATE, "--run", run, *flags)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)["digest"]


def verified(here: Run, *flags: str) -> tuple[int, dict[str, Any], str]:
    ended = here("verify", *flags, "--json")
    assert ended.code in {0, 8}, ended.err
    return ended.code, json.loads(ended.out), ended.err


def test_a_run_comes_out_again_from_its_files(here: Run, tmp_path: Path) -> None:
    digest = simulated(here, "one", "--broker", "in-process")
    code, found, _ = verified(here, "--run", "one")
    assert code == 0
    assert found["schema"] == "streambot.verification/1"
    assert found["digest"] == found["digest_again"] == digest
    assert (found["outputs"], found["ticks"], found["orders"]) == ("files", "the data", "random")
    assert found["complete"]
    assert (found["gaps"], found["repeats"], found["difference"]) == (0, 0, None)
    assert found["lines"]["fills"] == len(lines_of(tmp_path, "one", "fills"))
    told = here("verify", "--run", "one")
    first, *_ = told.out.splitlines()
    assert first == f"equal  run one  digest {digest}, done again {digest}"


def lines_of(folder: Path, run: str, stream: str) -> list[bytes]:
    return (folder / "runs" / run / f"{stream}.ndjson").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("stream", ["fills", "pnl"])
def test_one_altered_byte_in_a_file_is_found_and_named(
    here: Run, tmp_path: Path, stream: str
) -> None:
    simulated(here, "one", "--broker", "in-process")
    path = tmp_path / "runs" / "one" / f"{stream}.ndjson"
    lines = lines_of(tmp_path, "one", stream)
    row = json.loads(lines[7])
    price = f'"price":"{row["price"]}"'.encode()
    other = price[:-2] + bytes([price[-2] ^ 1]) + b'"'
    assert price in lines[7]
    path.write_bytes(b"".join([*lines[:7], lines[7].replace(price, other), *lines[8:]]))
    code, found, said = verified(here, "--run", "one")
    assert code == 8
    difference = found["difference"]
    number = sum(json.loads(line)["instrument"] == row["instrument"] for line in lines[:8])
    assert (difference["instrument"], difference["stream"], difference["line"]) == (
        row["instrument"], stream, number,
    )  # fmt: skip
    assert difference["where"].endswith(f"{stream}.ndjson:8")
    assert json.loads(difference["expected"]) == row
    assert json.loads(difference["found"]) != row
    assert f"{row['instrument']}, {stream} line {number} differs" in said
    assert found["digest"] != found["digest_again"]


@pytest.mark.parametrize("dropped", [0, 6, -1])
def test_one_dropped_line_is_found_and_named(here: Run, tmp_path: Path, dropped: int) -> None:
    simulated(here, "one", "--broker", "in-process")
    lines = lines_of(tmp_path, "one", "fills")
    gone = json.loads(lines[dropped])
    kept = [line for line in lines if line is not lines[dropped]]
    (tmp_path / "runs" / "one" / "fills.ndjson").write_bytes(b"".join(kept))
    code, found, said = verified(here, "--run", "one")
    assert code == 8
    assert found["difference"]["instrument"] == gone["instrument"]
    assert found["difference"]["line"] == gone["seq"] + 1
    assert json.loads(found["difference"]["expected"]) == gone
    assert f"{gone['instrument']}, fills line {gone['seq'] + 1}" in said


def test_a_line_that_is_none_is_named(here: Run, tmp_path: Path) -> None:
    simulated(here, "one", "--broker", "in-process")
    path = tmp_path / "runs" / "one" / "fills.ndjson"
    path.write_bytes(path.read_bytes().replace(b"{", b"[", 1))
    code, found, _ = verified(here, "--run", "one")
    assert code == 8
    assert found["difference"]["where"].endswith("fills.ndjson:1")
    assert found["difference"]["found"].startswith("[")


def test_an_engine_with_one_rule_changed_is_noticed(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_params = task.make_params

    def dearer(*args: Any) -> Any:
        params = make_params(*args)
        params["brokerage_entry"] += 1
        return params

    with monkeypatch.context() as changed:
        changed.setattr(task, "make_params", dearer)
        simulated(here, "mutant", "--broker", "in-process")
    code, found, said = verified(here, "--run", "mutant")
    assert code == 8
    assert found["difference"]["line"] == 1
    assert "does not come out again" in said


def test_a_run_from_a_recording_and_one_that_was_stopped(here: Run, broker: str) -> None:
    digest = simulated(here, "recorded", "--bootstrap-servers", broker)
    code, found, _ = verified(here, "--run", "recorded")
    assert (code, found["outputs"], found["ticks"]) == (0, "topics", "recorded ticks")
    assert found["digest"] == digest
    again = ("--from-run", "recorded", "--broker", "in-process")
    ended = here("simulate", "-s", "max", "-q", "--json", "--run", "again", *again)
    assert json.loads(ended.out)["digest"] == digest
    code, found, _ = verified(here, "--run", "again")
    assert (code, found["ticks"]) == (0, "the recorded ticks of run recorded")
    # Nobody but the folder of the run knows that it has ended, on a log without state.
    Path("runs/recorded").rename("aside")
    code, found, _ = verified(here, "--run", "recorded", "--bootstrap-servers", broker)
    assert (code, found["complete"]) == (0, False)
    assert found["digest"] == digest
    assert "as far as they go" in found["notes"][0]


def test_one_altered_byte_in_a_topic_is_found_and_named(here: Run, broker: str) -> None:
    simulated(here, "one", "--bootstrap-servers", broker)
    topic = "streambot.one.fills"

    async def alter() -> dict[str, Any]:
        async with await KafkaLog.open(broker, profile=EMBEDDED) as log:
            records = [r async for batch in read_to_end(log, topic) for r in batch]
            partitions = (await log.streams())[topic]
            await log.delete([topic])
            await log.create([StreamSpec(name=topic, partitions=partitions)])
            sink = await log.sink()
            # Partitions come in any order: not every record has a fill.
            altered = next(record for record in records if b'"quantity":1,' in record.value)
            lines = altered.value.splitlines()
            row = json.loads(next(line for line in lines if b'"quantity":1,' in line))
            for record in records:
                value = record.value
                if record is altered:
                    value = value.replace(b'"quantity":1,', b'"quantity":3,', 1)
                    assert value != record.value
                await sink.append(
                    topic, record.partition, value, timestamp_ms=record.timestamp_ms,
                    headers=record.headers,
                )  # fmt: skip
                # A repeat is what such a log may hold, and its readers drop it.
                await sink.append(
                    topic, record.partition, record.value, timestamp_ms=record.timestamp_ms,
                    headers=record.headers,
                )  # fmt: skip
            await sink.close()
            return row

    row = asyncio.run(alter())
    code, found, _ = verified(here, "--run", "one")
    assert code == 8
    assert found["repeats"] > 0
    assert (found["difference"]["instrument"], found["difference"]["line"]) == (
        row["instrument"], row["seq"] + 1,
    )  # fmt: skip
    assert found["difference"]["where"].startswith(topic)
    code, found, _ = verified(here, "--run", "one", "--files")
    assert code == 0, "its files were not altered"


def test_several_ways_give_one_digest(here: Run) -> None:
    digest = simulated(here, "one")
    ended = here("verify", "--quick", "-p", "random", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["schema"] == "streambot.ways/1"
    assert {way["digest"] for way in found["ways"]} == {digest}
    assert len(found["ways"]) == 6
    assert found["left_out"]
    table = here("verify", "--quick", "-p", "random")
    rows = [line for line in table.out.splitlines() if digest[:16] in line]
    assert len(rows) == 7  # the last line says it in full
    assert "one digest: 6 ways" in table.out
    assert "…" in table.err


def test_a_way_that_gives_something_else_is_exit_8(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that forgets what a frame has cut off does the same only while frames are whole."""
    monkeypatch.setattr(CloseRows, "settle", lambda _, frame: frame)
    ended = here("verify", "--quick", "-p", "random")
    assert ended.code == 8
    assert "NOT ONE DIGEST" in ended.out
    assert "frames cut inside bars" in ended.err
    [row] = [line for line in ended.out.splitlines() if line.startswith("frames cut inside bars")]
    assert row.endswith(("DIFFERENT", "failed"))


def test_an_agent_outside_and_pace_are_ways_as_well(here: Run) -> None:
    ended = here("verify", "--json")
    assert ended.code == 0, ended.err
    ways = [way["way"] for way in json.loads(ended.out)["ways"]]
    assert "an agent outside, on the embedded broker" in ways
    assert any("paced at" in way for way in ways)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--run", "nobody"), 2, "there is no run nobody here"),
        (("--run", "one", "--quick"), 2, "--quick cannot be given with --run"),
        (("--run", "one", "-d", "x.csv"), 2, "--data cannot be given with --run"),
        (("--files",), 2, "which run's files?"),
        (("x.csv",), 2, "--data x.csv"),
        (("nowhere",), 3, "there is no scenario `nowhere`"),
        (("-p", "randon", "--quick"), 3, "there is no policy `randon`"),
        (("--run", "one", "--bootstrap-servers", "127.0.0.1:9"), 5, "no broker answers"),
    ],
)
def test_mistakes(here: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    simulated(here, "one", "--broker", "in-process")
    ended = here("verify", *arguments)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_mistakes_of_replaying_a_recording(here: Run, broker: str) -> None:
    simulated(here, "gone")
    mistakes = [
        (("--from-run", "nobody"), 6, "no run nobody is declared"),
        (("--from-run", "gone"), 5, "went with its embedded broker"),
        (("--from-run", "gone", "-d", "x.csv"), 2, "both say what to replay"),
        (("--from-run", "gone", "--from-broker", "127.0.0.1:9"), 5, "no broker answers"),
        (("--from-broker", broker), 2, "which run is replayed?"),
        (("-p", "recorded"), 2, "--from-run RUN names it"),
        (("--from-run", "gone", "us-stocks-daily"), 2, "both say what to replay"),
    ]
    for arguments, code, words in mistakes:
        ended = here("simulate", *arguments)
        assert (ended.code, words in ended.err) == (code, True), ended.err
    assert [path.name for path in Path("runs").iterdir()] == ["gone"]
