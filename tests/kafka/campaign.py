"""Campaigns of crashes on Apache Kafka: runs recorded once, executed again and again, compared.

A `Recording` is a run whose ticks were published. An `Execution` works on these same ticks with
topics, transactions and group of its own (a namespace), so that any number of executions of one
recording can be compared record by record: the undisturbed one, and those in which processes die.

What is compared is the *record digest*: per stream and partition, sha256 over key, value, headers
and time of everything a reader of committed records sees. Where two differ, the numbers say what
was lost, doubled, or written otherwise.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from streambot.adapters.kafka import KafkaLog
from streambot.domain.topics import bundled_topics
from streambot.processor.declaration import Declared, declare, read_declaration
from streambot.processor.journal import EventDigest, event_digest
from streambot.streams.frame import FrameKind, decode_frame
from streambot.streams.ports import Record, StreamSpec
from streambot.streams.reading import read_to_end
from streambot.streams.sequence import SequenceGuard
from tests.kafka.places import COMMITTED, RAW, Kafka, Process, Template
from tests.waiting import until

OUTPUTS = ("orders", "fills", "pnl", "dead-letter")
OWN = (*OUTPUTS, "late", "state")
"""Streams that an execution has for itself."""
NAMESPACE = "recorded"
"""Of the runs that are published."""

Seen = tuple[bytes | None, bytes, Any, int]
"""Key, value, headers and time of a record."""
Place = tuple[str, int]
"""Stream (of the run, not the topic) and partition."""

REPORT: list[str] = []
"""What campaigns found out, for the end of the test run."""


def tell(line: str) -> None:
    """Say something at the end of the test run, and in the output of a test that fails."""
    print(line)
    REPORT.append(line)


class Market(NamedTuple):
    """What is replayed, as flags of the command line."""

    folder: Path
    flags: tuple[str, ...]

    def digest(self, template: Template) -> str:
        """The event digest of an undisturbed simulation in one process, without any broker."""
        process = template.start(
            self.folder, "simulate", *self.flags, "--speed", "max", "--broker", "in-process",
            "--run", "simulated", "--json", "-q",
        )  # fmt: skip
        assert process.end() == 0, process.err
        return str(process.summary["digest"])


def declared(kafka: Kafka, run: str) -> Declared | None:
    """What a run that is published says of itself; None: nothing yet."""
    topic = bundled_topics()["runs"].topic(NAMESPACE, run)
    return kafka.do(lambda log: read_declaration(log, topic))


class Recording:
    """A run whose ticks are on the log."""

    def __init__(self, kafka: Kafka, run: str) -> None:
        self.kafka, self.run = kafka, run
        found = declared(kafka, run)
        assert found is not None
        self.declared: Declared = found
        self.manifest = found.declaration.manifest
        self.ticks = found.declaration.topics["ticks"]

    @property
    def partitions(self) -> range:
        return range(self.manifest.partitions)

    def values(self) -> dict[int, list[bytes]]:
        """All frames, by partition."""
        found = read_all(self.kafka, self.ticks)
        return {p: [record.value for record in found.get(p, [])] for p in self.partitions}

    def check(self) -> dict[int, int]:
        """Frames by partition; every one is taken by the guard once, and END is the last one."""
        counts = {}
        for partition, values in self.values().items():
            guard = SequenceGuard(self.ticks, self.manifest.run_id, partition)
            kind = None
            for value in values:
                frame = decode_frame(
                    value, self.manifest.run_id, partition, len(self.manifest.instruments)
                )
                assert guard.accept(frame), f"frame {frame.frame_seq} of {partition} is there twice"
                kind = frame.kind
            assert kind is FrameKind.END, f"partition {partition} has no END"
            counts[partition] = len(values)
        return counts


def replay(
    template: Template, kafka: Kafka, market: Market, run: str, *flags: str, **ask: Any
) -> Process:
    """A process that publishes the market as a run."""
    return template.start(
        market.folder, "replay", *market.flags, "--run", run, "--bootstrap-servers", kafka.address,
        "--json", "-q", *flags, env={"STREAMBOT_NAMESPACE": NAMESPACE}, **ask,
    )  # fmt: skip


def resumed(template: Template, folder: Path, run: str, *flags: str, **ask: Any) -> Process:
    """A process that goes on with a replay."""
    return template.start(
        folder, "replay", "--resume", run, "--json", "-q", *flags,
        env={"STREAMBOT_NAMESPACE": NAMESPACE}, **ask,
    )  # fmt: skip


class Execution:
    """A run on the ticks of a recording, under a name of its own.

    Args:
        recording: whose ticks; they are only read.
        name: of the execution, on that broker.
        template: starts the workers.
        ticks: what to work on instead: frames by partition, or the topic of such an execution.
    """

    def __init__(
        self, recording: Recording, name: str, template: Template,
        ticks: dict[int, list[bytes]] | str | None = None,
    ) -> None:  # fmt: skip
        self.recording, self.name, self.template = recording, name, template
        self.kafka = recording.kafka
        templates, run = bundled_topics(), recording.run
        declaration = recording.declared.declaration
        own = (*OWN, "ticks") if isinstance(ticks, dict) else OWN
        self.topics = declaration.topics | {s: templates[s].topic(name, run) for s in own}
        if isinstance(ticks, str):
            self.topics["ticks"] = ticks
        self.topics["runs"] = templates["runs"].topic(name, run)
        count = recording.manifest.partitions
        specs = [
            StreamSpec(
                name=self.topics[stream],
                partitions=templates[stream].partition_count(count),
                config=templates[stream].kafka_settings(),
            )
            for stream in (*own, "runs")
        ]

        async def prepare(log: KafkaLog) -> None:
            await log.create(specs)
            declared = msgspec.structs.replace(declaration, namespace=name, topics=self.topics)
            await declare(log, declared, recording.declared.context, at_ms=0)
            if isinstance(ticks, dict):
                await publish(log, self.topics["ticks"], ticks)

        self.kafka.do(prepare)

    def worker(
        self, number: int = 0, of: int = 1, *, knobs: dict[str, Any] | None = None, **ask: Any
    ) -> Process:
        """A process that works on a share of it."""
        return self.template.start(
            self.template.folder, "worker", "--run", self.recording.run,
            "--worker", f"{number}/{of}", "--no-rollup", "--bootstrap-servers", self.kafka.address,
            "--namespace", self.name, "--json", knobs=knobs or {}, **ask,
        )  # fmt: skip

    def run_undisturbed(self, workers: int = 1, **how: Any) -> None:
        """Let workers work until the run has ended."""
        all_of_them = [self.worker(n, workers, **how) for n in range(workers)]
        for process in all_of_them:
            assert process.end() == 0, process.err

    def settle(self) -> None:
        """Wait until nothing of it is written that is not visible, or aborted, for good."""
        topics = [self.topics[stream] for stream in OWN]

        async def ends(log: KafkaLog) -> list[list[int]]:
            return [await log.end_offsets(topic) for topic in topics]

        until(
            lambda: self.kafka.do(ends) == self.kafka.do(ends, isolation=RAW),
            "every transaction is complete",
        )

    def records(self, *, isolation: str = COMMITTED) -> dict[Place, list[Record]]:
        """All its outputs, by stream and partition."""
        return {
            (stream, p): records
            for stream in OUTPUTS
            for p, records in read_all(self.kafka, self.topics[stream], isolation).items()
        }

    def outcome(self) -> Outcome:
        """What readers of committed records see, now."""
        self.settle()
        records = self.records()
        digest = EventDigest(i.symbol for i in self.recording.manifest.instruments)
        for stream in ("fills", "pnl"):
            for p in self.recording.partitions:
                for record in records.get((stream, p), []):
                    digest.read(stream, record.value.splitlines(keepends=True))
        seen = {place: [seen_of(record) for record in found] for place, found in records.items()}
        return Outcome(seen, event_digest(digest.parts()))

    def aborted(self) -> Counter[str]:
        """Records in the raw log that no reader of committed ones sees, by stream."""
        self.settle()
        counts: Counter[str] = Counter()
        for stream in (*OUTPUTS, "state"):
            raw = read_all(self.kafka, self.topics[stream], RAW)
            seen = read_all(self.kafka, self.topics[stream])
            counts[stream] = sum(map(len, raw.values())) - sum(map(len, seen.values()))
        return counts


class Outcome(NamedTuple):
    """What an execution wrote, as readers of committed records see it."""

    records: dict[Place, list[Seen]]
    event_digest: str

    @property
    def digests(self) -> dict[Place, str]:
        """The record digest, by stream and partition."""
        return {
            place: sha256(repr(records).encode()).hexdigest()
            for place, records in self.records.items()
        }

    def complaints(self, reference: Outcome) -> list[str]:
        """In what this one differs from another one; empty: not at all."""
        mine, right = self.digests, reference.digests
        found = [
            difference(place, self.records.get(place, []), reference.records.get(place, []))
            for place in sorted({*mine, *right})
            if mine.get(place) != right.get(place)
        ]
        if self.event_digest != reference.event_digest:
            found.append(f"event digest {self.event_digest}, not {reference.event_digest}")
        return found


def difference(place: Place, found: list[Seen], right: list[Seen]) -> str:
    """In what records differ from those that should be there, by their numbers."""
    numbers, wanted = Counter(map(number_of, found)), Counter(map(number_of, right))
    lost, doubled = list((wanted - numbers).elements()), list((numbers - wanted).elements())
    other = [number_of(a) for a, b in zip(found, right, strict=False) if a != b]
    return (
        f"{place[0]}/{place[1]}: {len(found)} records, not {len(right)}; {len(lost)} lost "
        f"{lost[:5]}, {len(doubled)} doubled {doubled[:5]}, the first other one: {other[:1]}"
    )


def number_of(seen: Seen) -> str:
    """`frame_seq` of a record, or where a dead letter comes from."""
    headers = dict(seen[2])
    if "frame_seq" in headers:
        return headers["frame_seq"].decode()
    return f"{headers['stream'].decode()}@{headers['offset'].decode()}"


def seen_of(record: Record) -> Seen:
    """What the record digest is over."""
    return record.key, record.value, record.headers, record.timestamp_ms


def read_all(kafka: Kafka, topic: str, isolation: str = COMMITTED) -> dict[int, list[Record]]:
    """All records of a topic, by partition."""

    async def read(log: KafkaLog) -> dict[int, list[Record]]:
        found: dict[int, list[Record]] = {}
        async for batch in read_to_end(log, topic):
            for record in batch:
                found.setdefault(record.partition, []).append(record)
        return found

    return kafka.do(read, isolation=isolation)


async def publish(log: KafkaLog, topic: str, values: dict[int, list[bytes]]) -> None:
    """Write frames, or what is none, without transactions: offsets count from 0."""
    sink = await log.sink()
    for partition, frames in values.items():
        for frame in frames:
            await sink.append(topic, partition, frame, timestamp_ms=0)
    await sink.close()
