"""What experience costs a learner before it learns from it: reading, decoding, and the buffer, beside the update.

Fragments of an actor lie on a broker. They are read, decoded and taken batch by batch with what a training uses,
in the learner's process, and RLlib's learner learns from the same batches. Everything is CPU time of that process;
the broker has its own.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import torch

from benchmarks.harness import MIN_ROUNDS, Check, Row, SkippedError, interleave
from benchmarks.learn_task import BATCH, ENVS, FEATURES, ROLLOUT, Files, new_agent
from benchmarks.peers import load
from streambot.adapters.broker import EmbeddedBroker
from streambot.adapters.kafka import APACHE, EMBEDDED, KafkaLog
from streambot.agents.devices import resolve_device
from streambot.learning.collecting import Collector
from streambot.learning.learner.buffer import ExperienceBuffer
from streambot.learning.learner.feeding import MOST_RECORDS, ExperienceReader
from streambot.streams.fragment import Fragment, encode_fragment
from streambot.streams.ports import Record, StreamSpec

TARGET_PERCENT = 10.0
BATCHES = 16
TOPIC = "bench.decode.experience"
NAMES = {"moe": "update of the mixture", "ppo": "update of one network"}


def rows(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """The embedded broker, and Apache Kafka where there is one."""
    load("ray")
    resolve_device("cpu")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        files = Files.write(Path(folder))
        for apache in (False, True):
            what = (
                f"before the learner learns, {'Apache Kafka' if apache else 'the embedded broker'}, "
                f"{ENVS} environments of {FEATURES} floats"
            )
            if apache and not os.environ.get("KAFKA_HOME"):
                yield Row(what, "", skipped="$KAFKA_HOME is not set")
                continue
            with asyncio.Runner() as runner:
                stored = runner.run(_Stored.open(files, apache=apache))
                try:
                    yield _row(what, stored, runner, rounds, quick)
                finally:
                    runner.run(stored.close())


def before_learning(files: Files) -> tuple[float, float]:
    """CPU seconds of a step for reading and decoding, through the embedded broker, and its bytes."""
    with asyncio.Runner() as runner:
        stored = runner.run(_Stored.open(files, apache=False))
        try:
            rates = interleave(_before(stored, runner))
        finally:
            runner.run(stored.close())
    seconds = sum(1 / statistics.median(some) for some in rates.values())
    return seconds, stored.size / (BATCHES * BATCH)


class _Stored:
    """Fragments on a broker.

    Args:
        log: of the broker.
        written: what was written to it.
        closing: ends all of it.
    """

    def __init__(self, log: KafkaLog, written: list[Fragment], closing: AsyncExitStack) -> None:
        self._log, self.written, self._closing = log, written, closing
        self.size = 0

    @classmethod
    async def open(cls, files: Files, *, apache: bool) -> _Stored:
        """A broker with the experience of one actor, `BATCHES` rollouts."""
        from benchmarks.kafka import broker

        collector = Collector(
            files.envs(), ROLLOUT, training="bench", actor="a", incarnation=0, seed=1
        )
        agent = new_agent("moe")
        written = [f for _ in range(BATCHES) for f in collector.collect(agent, 0).fragments]
        async with AsyncExitStack() as stack:
            if apache:
                servers = await stack.enter_async_context(broker(files.home))
            else:
                servers = (await stack.enter_async_context(EmbeddedBroker())).address
            log = await KafkaLog.open(servers, profile=APACHE if apache else EMBEDDED)
            await stack.enter_async_context(log)
            stored = cls(log, written, stack.pop_all())
        await log.create([StreamSpec(name=TOPIC)])
        sink = await log.sink()
        for fragment in written:
            record = encode_fragment(fragment)
            stored.size += len(record)
            await sink.append(TOPIC, 0, record, timestamp_ms=0, key=b"a")
        await sink.close()
        return stored

    async def close(self) -> None:
        """The broker ends."""
        await self._closing.aclose()

    async def read(self) -> list[Record]:
        """All of it, as a learner reads it."""
        reader = ExperienceReader(self._log)
        await reader.begin({TOPIC: "beginning"})
        found: list[Record] = []
        while len(found) < len(self.written):
            some = await reader.read(5.0)
            if not some:
                raise SkippedError("the broker does not give back what was written to it")
            found += some
        await reader.close()
        return found


def _before(stored: _Stored, runner: asyncio.Runner) -> dict[str, Callable[[], int]]:
    """What is done with all of it before it is learnt from."""
    records = runner.run(stored.read())
    steps = BATCHES * BATCH

    def reading() -> int:
        runner.run(stored.read())
        return steps

    def decoding() -> int:
        buffer = ExperienceBuffer("bench", stored.written[0].head.layout)
        for low in range(0, len(records), MOST_RECORDS):
            buffer.offer(records[low : low + MOST_RECORDS], 0)
        taken = 0
        while some := buffer.take(BATCH, 0):
            taken += sum(fragment.head.steps for fragment in some)
        assert taken == steps
        return steps

    return {"reading": reading, "decoding": decoding}


def _row(what: str, stored: _Stored, runner: asyncio.Runner, rounds: int, quick: bool) -> Row:
    contestants = _before(stored, runner)
    for kind, name in NAMES.items():
        contestants[name] = _updates(kind, stored.written, 2 if quick else 8)
    rates = interleave(contestants, rounds)
    cost = {name: [1 / rate for rate in some] for name, some in rates.items()}
    checks = []
    for name in NAMES.values():
        shares = [
            100.0 * (read + decode) / (read + decode + update)
            for read, decode, update in zip(
                cost["reading"], cost["decoding"], cost[name], strict=True
            )
        ]
        checks.append(Check(f"share, beside the {name}", shares, at_most=TARGET_PERCENT, unit="%"))
    notes = [
        f"{len(stored.written):,} fragments, {stored.size / (BATCHES * BATCH):.0f} bytes a step",
        "decoding is with the buffer; updates of 4,096 steps, 4 epochs, minibatches of 512",
    ]
    return Row(what, "steps per CPU second", rates, checks, notes)


def _updates(kind: str, written: list[Fragment], times: int) -> Callable[[], int]:
    from streambot.learning.learner.algorithm import stream_ppo

    learns = stream_ppo(new_agent(kind), batch=BATCH)
    some: list[Fragment] = []
    for fragment in written:
        if sum(f.head.steps for f in some) >= BATCH:
            break
        some.append(fragment)
    rewards = [fragment.reward for fragment in some]

    def work() -> int:
        for _ in range(times):
            learns.update(some, rewards)
        return times * sum(fragment.head.steps for fragment in some)

    return work
