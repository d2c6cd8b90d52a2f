"""Streams of a training as `tail` shows them: a fragment a line, and no bytes that end in a traceback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from streambot.cli import tail_generations
from streambot.cli.lines import Traded
from streambot.cli.tail_experience import fragment_row, weights_row
from streambot.cli.tail_generations import GenerationReader, first_positions, stream_of
from streambot.cli.tail_log import Place
from streambot.cli.tail_views import make_view
from streambot.cli.where import compile_where
from streambot.learning.declaration import generation
from streambot.streams.fragment import encode_fragment
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import Record, StreamSpec, TopicPartition
from tests.conftest import SEED
from tests.unit.cli.run_folders import write_run
from tests.unit.streams.test_fragment import made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Said

AT_MS = 1_795_552_265_250
STREAM = "streambot.t.experience"


def record(value: bytes, *, at_ms: int = AT_MS, key: bytes | None = b"a7") -> Record:
    return Record(STREAM, 0, 4, at_ms, key, value, ())


def human(row: dict[str, Any], stream: str = "experience", width: int | None = None) -> str:
    return make_view(stream, Traded({}, {}), width).human(row)


def test_a_fragment_is_a_line() -> None:
    fragment = made(actor="a7", task="SPY/1m/1200+390", instrument="SPY", truncated=True)
    reward = np.array([0.5, -1, 0, 0, 1.25], np.float32)
    row = fragment_row(record(encode_fragment(fragment._replace(reward=reward))))
    line = " ".join(human(row).split())
    assert line == ("2026-11-24 20:31:05 UTC a7 SPY SPY/1m/1200+390 2.3.4 10+5 12 +0.15 truncated")
    going = fragment_row(record(encode_fragment(made(actor="a7"))))
    assert human(going).endswith(f"{going['reward_mean']:+.4g}")


def test_json_has_the_head_and_sums_and_no_arrays() -> None:
    fragment = made(steps=9)
    log_probs = np.log(np.random.default_rng(SEED).dirichlet(np.ones(4), 9)).astype(np.float32)
    fragment = fragment._replace(log_probs=log_probs)
    row = fragment_row(record(encode_fragment(fragment)))
    written = json.loads(make_view("experience", Traded({}, {})).machine(row))
    assert written["schema"] == "streambot.fragment/1"
    assert written["time"] == "2026-11-24T20:31:05.25Z"
    assert written["training"] == "t1"
    assert (written["steps"], written["weights"], written["offset"]) == (9, 12, 4)
    assert written["reward_sum"] == pytest.approx(float(fragment.reward.sum()), rel=1e-6)
    assert written["reward_mean"] == pytest.approx(float(fragment.reward.mean()), rel=1e-6)
    assert written["gate_mean"] == pytest.approx(fragment.gate.mean(0).tolist(), rel=1e-5)
    nats = -(np.exp(log_probs) * log_probs).sum(1).mean()
    assert written["entropy_mean"] == pytest.approx(float(nats), rel=1e-6)
    assert len(json.dumps(written)) < 1_000


def test_every_field_can_be_asked_for() -> None:
    view = make_view("experience", Traded({}, {}))
    rows = [
        fragment_row(record(encode_fragment(made(weights=w, terminated=w == 3)))) for w in range(5)
    ]
    rows.append(fragment_row(record(b"noise")))
    assert set(rows[0]) | set(rows[-1]) == set(view.fields)
    wanted = compile_where("weights >= 3 and terminated == true", view.fields)
    assert [row["weights"] for row in rows if wanted(row)] == [3]
    refused = compile_where("not refused == null", view.fields)
    assert [row for row in rows if refused(row)] == rows[-1:]


@pytest.mark.parametrize("width", [None, 200, 120, 80])
def test_lines_are_as_wide_as_the_terminal(width: int | None) -> None:
    """What a training has ordinarily: at 80 columns time, actor, task, weights, reward and end."""
    fragment = made(actor="actor-0", task="SPY/1m/1200+390", instrument="SPY", terminated=True)
    row = fragment_row(record(encode_fragment(fragment)))
    line = human(row, width=width)
    assert len(line) <= (width or 1_000)
    for words in ("20:31:05", "actor-0", "SPY/1m/1200+390", "terminated"):
        assert words in line


@pytest.mark.parametrize("value", [b"", b"noise", encode_fragment(made())[:-1], b"SBX1" * 100])
@pytest.mark.parametrize("at_ms", [AT_MS, -1, 0, 2**62])
def test_what_is_no_fragment_is_said(value: bytes, at_ms: int) -> None:
    """Whatever somebody has written, at whatever time he says: a line with the reason."""
    row = fragment_row(record(value, at_ms=at_ms, key=b"\x1b[31m\xff"))
    line = human(row)
    assert f"no fragment ({row['refused']})" in line
    assert line.isprintable()
    written = json.loads(make_view("experience", Traded({}, {})).machine(row))
    assert written["bytes"] == len(value)
    assert written["message"]


def test_numbers_that_are_none_are_shown_and_not_warned_of() -> None:
    wild = made()
    wild = wild._replace(
        reward=np.array([np.nan, np.inf, -np.inf, 0, 1], np.float32),
        log_probs=np.full_like(wild.log_probs, np.inf),
    )
    row = fragment_row(record(encode_fragment(wild)))
    assert "nan" in human(row)
    assert json.loads(make_view("experience", Traded({}, {})).machine(row))["reward_sum"] is None


@pytest.mark.train
def test_weights_are_a_line() -> None:
    pytest.importorskip("torch")
    from streambot.agents.moe import MoEAgent
    from streambot.agents.ppo import AgentConfig
    from streambot.learning.weights import decode_weights, encode_weights

    agent = MoEAgent(AgentConfig(features=6, actions=4, regimes=(1, 2), hidden=(8,), layout="L"))
    value = encode_weights(
        agent, training="t", policy="moe", sequence=1_200, progress={"steps": 5e6}
    )
    newest, pin = (weights_row(record(value, key=key)) for key in (b"moe", b"moe@1200"))
    digest = decode_weights(value).head.head.digest
    line = " ".join(human(newest, "policy").split())
    assert line == (f"2026-11-24 20:31:05 UTC moe 1,200 5,000,000 moe {len(value):,} {digest}")
    assert human(pin, "policy").endswith(f"{digest}  pin")
    assert len(human(pin, "policy", 80)) <= 80
    assert (newest["pin"], pin["pin"], newest["layout"]) == (False, True, "L")
    gone, torn = weights_row(record(b"", key=b"moe@1200")), weights_row(record(value[:-3]))
    assert human(gone, "policy").endswith("removed")
    assert f"no weights ({torn['refused']})" in human(torn, "policy")
    fields = make_view("policy", Traded({}, {})).fields
    assert set(newest) | set(gone) | set(torn) == set(fields)


@pytest.mark.parametrize("wild", [float("inf"), -1.0, 1e300])
@pytest.mark.train
def test_progress_that_cannot_be_counted(wild: float) -> None:
    pytest.importorskip("torch")
    from streambot.agents.ppo import AgentConfig, PPOAgent
    from streambot.learning.weights import encode_weights

    agent = PPOAgent(AgentConfig(features=6, actions=4, hidden=(8,)))
    value = encode_weights(agent, training="t", policy="p", sequence=1, progress={"steps": wild})
    row = weights_row(record(value))
    assert "refused" in row or row["steps"] == 0
    assert human(row, "policy")


# --- Generations ------------------------------------------------------------------------------


def test_a_generation_names_its_stream() -> None:
    for number in (0, 7, 12_345):
        assert stream_of(generation(STREAM, number)) == STREAM
    assert stream_of(STREAM) is None
    assert stream_of(f"{STREAM}.gate") is None


@pytest.mark.parametrize("last", [0, 1, 3, 5, 9, 100])
def test_the_last_lines_may_be_of_several_generations(last: int) -> None:
    bounds = {
        TopicPartition(generation(STREAM, k), 0): of
        for k, of in enumerate([(2, 6), (0, 0), (0, 3)])
    }
    starts = first_positions(bounds, Place(last=last))
    read = [(p, at) for p, (_, end) in bounds.items() for at in range(int(starts[p]), end)]
    there = [(p, at) for p, (first, end) in bounds.items() for at in range(first, end)]
    assert read == there[len(there) - min(last, len(there)) :]
    at_end = first_positions(bounds, Place(at="end"))
    assert at_end == {p: end for p, (_, end) in bounds.items()}
    assert first_positions(bounds, Place()) == {p: first for p, (first, _) in bounds.items()}


@pytest.mark.parametrize("seed", range(20))
async def test_every_record_once_through_all_generations(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, written to side by side, deleted unread: what is kept comes once, and in order."""
    monkeypatch.setattr(tail_generations, "_LOOK_S", 0.0)
    draws = np.random.default_rng([SEED, seed])
    log = MemoryLog()
    await log.create(
        [StreamSpec(name=generation(STREAM, 0)), StreamSpec(name="streambot.t.policy.g0000")]
    )
    sink = await log.sink()
    reader = GenerationReader(log, STREAM, {})
    await reader.look()
    alive, opened, written = [0], 1, 0
    kept: dict[int, list[int]] = {0: []}
    found: list[Record] = []
    for _ in range(120):
        match draws.integers(12):
            case 0:
                await log.create([StreamSpec(name=generation(STREAM, opened))])
                alive.append(opened)
                kept[opened] = []
                opened += 1
            case 1 if len(alive) > 1:
                oldest = alive.pop(0)
                await log.delete([generation(STREAM, oldest)])
            case 2 | 3 | 4:
                found += await reader.read(max_records=2, timeout_s=0.0)
            case _:
                number = alive[-1] if draws.random() < 0.7 else alive[max(0, len(alive) - 2)]
                await sink.append(
                    generation(STREAM, number), 0, b"%d" % written, timestamp_ms=0, key=b"a"
                )
                kept[number].append(written)
                written += 1
    while more := await reader.read(timeout_s=0.0):
        found += more
    for number, right in kept.items():
        topic = generation(STREAM, number)
        came = [int(one.value) for one in found if one.stream == topic]
        assert came == (right if number in alive else right[: len(came)])
    assert {place.stream for place in reader.positions()} == {generation(STREAM, k) for k in alive}
    assert written > len(found) / 2
    await reader.close()
    await log.close()


# --- Which training ---------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, and a training whose broker has gone with it."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs")
    topics = {
        "experience": f"{STREAM}.g0000", "policy": "streambot.t.policy.g0000",
        "status": "streambot.t.status",
    }  # fmt: skip
    write_run(tmp_path / "runs", "t", kind="training", topics=topics)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["experience"], 5, ["experience of training t went with its broker"]),
        (["policy", "--run", "t"], 5, ["policy of training t went with its broker"]),
        (["status", "--run", "t"], 5, ["status of training t went with its broker"]),
        (["status", "--run", "x"], 2, ["no run x", "known: "]),
        (["experience", "--run", "spy-7f3a"], 2, ["spy-7f3a is a run, not a training"]),
        (["experience", "--run", "x"], 2, ["no training x", "known: t"]),
        (["experience", "--run", "../t"], 2, ["no name of a run"]),
        (["fills", "--run", "t"], 2, ["t is a training, not a run"]),
        (["experience", "--from", "2020-12-15"], 2, ["no market time", "--from beginning"]),
        (["experience", "--where", "rewards > 0"], 2, ["`rewards`", "`reward"]),
        (["experiences"], 2, ["did you mean `experience`?"]),
    ],
)
@pytest.mark.usefixtures("runs")
def test_mistakes(
    streambot: Callable[..., Said], arguments: list[str], code: int, words: list[str]
) -> None:
    said = streambot("tail", *arguments)
    assert said.code == code, said
    assert said.out == ""
    for word in words:
        assert word in said.err
    assert "Traceback" not in said.err


def test_a_training_without_streams(streambot: Callable[..., Said], runs: Path) -> None:
    """One that was one process, without a broker."""
    write_run(
        runs, "local", kind="training", topics={}, embedded=False, broker="in-process",
        started="2026-11-25T00:00:00Z",
    )  # fmt: skip
    said = streambot("tail", "experience")
    assert (said.code, said.out) == (2, "")
    assert "training local has no stream experience" in said.err


def test_no_training_at_all(streambot: Callable[..., Said], runs: Path) -> None:
    said = streambot("tail", "experience", "--runs-dir", str(runs / "none"))
    assert said.code == 2
    assert "there is no training yet" in said.err
