"""`streambot tail` on Apache Kafka, where streams outlive their run: ticks can be had later, too."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from streambot.adapters.broker import ApacheBroker
from streambot.adapters.kafka import APACHE, KafkaLog
from streambot.domain.topics import Of, load_topics, streams_of
from streambot.streams.fragment import encode_fragment
from streambot.streams.ports import StreamSpec
from tests.integration.cli.conftest import ROOT, Run
from tests.unit.cli.run_folders import write_run
from tests.unit.streams.test_fragment import made

pytestmark = pytest.mark.kafka


async def test_ticks_of_a_run_that_has_ended(run: Run, kafka_home: Path, tmp_path: Path) -> None:
    def steps(servers: str) -> None:
        done = run(
            "simulate", "-s", "max", "--run", "kept", "--bootstrap-servers", servers, "--json"
        )
        assert done.code == 0, done.err
        summary = json.loads(done.out)
        for arguments, count in (
            (["--from", "beginning"], summary["ticks"]),
            (["-n", "3"], 3),
            (["--from", "2020-12-15T15:59:30", "--where", "instrument == SPY"], 5 + 1),
            (["--from", "end"], 0),
        ):
            ended = run("tail", "ticks", "--json", *arguments)
            assert ended.code == 0, ended.err
            assert len(ended.out.splitlines()) == count, arguments
        assert (
            len(run("tail", "fills", "--json", "-n", "1000").out.splitlines()) == summary["fills"]
        )

    async with ApacheBroker(kafka_home, tmp_path / "broker") as broker:
        await asyncio.to_thread(steps, broker.address)


@pytest.mark.train
async def test_a_training_that_has_ended(run: Run, kafka_home: Path, tmp_path: Path) -> None:
    """Its streams outlive it, under one name each; weights are published in transactions."""
    pytest.importorskip("torch")
    from streambot.agents.ppo import AgentConfig, PPOAgent
    from streambot.learning.weights import encode_weights

    agent = PPOAgent(AgentConfig(features=6, actions=4, hidden=(8,)))
    now = time.time_ns() // 1_000_000
    own = streams_of(load_topics(ROOT / "topics.yaml"), Of.TRAINING)
    topics = {stream: f"streambot.t1.{stream}" for stream in ("experience", "policy")}
    async with ApacheBroker(kafka_home, tmp_path / "broker") as broker:
        async with await KafkaLog.open(broker.address, profile=APACHE) as log:
            await log.create([
                StreamSpec(name=topic, config=own[stream].kafka_settings())
                for stream, topic in topics.items()
            ])  # fmt: skip
            sink = await log.sink()
            for k in range(5):
                value = encode_fragment(made(sequence=k))
                await sink.append(topics["experience"], 0, value, timestamp_ms=now + k, key=b"a")
            await sink.close()
            writer = await log.transactions("streambot.t1.learner")
            for k in range(1, 5):
                value = encode_weights(agent, training="t1", policy="ppo", sequence=k)
                await writer.begin()
                await writer.append(topics["policy"], 0, value, timestamp_ms=now + k, key=b"ppo")
                await writer.commit()
            await writer.close()
        write_run(
            tmp_path / "runs", "t1", kind="training", topics=topics, broker=broker.address,
            embedded=False, summary=False,
        )  # fmt: skip
        for stream, arguments, expected in (
            ("experience", ["--from", "beginning"], range(5)),
            ("experience", ["-n", "2"], range(3, 5)),
            ("policy", ["-n", "2"], range(3, 5)),
            ("policy", ["--where", "pin == false and sequence < 3"], range(1, 3)),
        ):
            ended = await asyncio.to_thread(run, "tail", stream, "--json", *arguments)
            assert ended.code == 0, ended.err
            found = [json.loads(line)["sequence"] for line in ended.out.splitlines()]
            assert found == list(expected), (stream, arguments)
