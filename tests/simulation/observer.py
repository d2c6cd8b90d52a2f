"""A reader of committed records that knows what they must be."""

from __future__ import annotations

from typing import Any

from streambot.processor.outputs import DEAD_LETTER, WRITTEN
from streambot.processor.state_log import TASK_KEY
from streambot.streams.ports import TopicPartition
from tests.simulation.scenario import TICKS, Scenario, decoded_task, is_of_orders
from tests.simulation.simulated_broker import OpenTransaction, SimulatedBroker

OWNER = "sb.engine.run.0"


class BrokenError(AssertionError):
    """An invariant does not hold."""


class Observer:
    """Reads what is committed, as it becomes final, and compares it with what the core says."""

    def __init__(self, broker: SimulatedBroker, scenario: Scenario) -> None:
        self._broker = broker
        self._expected = scenario.expected
        self._topics = scenario.bench.topics
        self._resumable = scenario.resumable
        self._streams = {topic: stream for stream, topic in self._topics.items()}
        self._at = dict.fromkeys(self._topics, 0)
        self.seen = dict.fromkeys(WRITTEN, 0)
        self.numbers: dict[str, int] = {}
        self.buried: list[tuple[int, bytes]] = []
        self.slots: dict[bytes, bytes] = {}
        self.task: Any = None
        self.opened_by: object = None
        self.opens = 0

    def look(self, place: TopicPartition | None) -> None:
        """More of a partition is final."""
        stream = None if place is None else self._streams[place.stream]
        if stream in self.seen and (stream != "orders" or self._ours):
            self._look_at_output(stream)
        elif stream == "state":
            self._look_at_state()
        if self._broker.quiet(OWNER):
            self._compare()

    @property
    def _ours(self) -> bool:
        return not self._expected.buried and bool(self._expected.written["orders"])

    def _new(self, stream: str) -> list:
        part = self._broker.partition(TopicPartition(self._topics[stream], 0))
        at = self._at[stream]
        found, self._at[stream] = part.visible(at, part.stable, 1 << 30)
        return [(record, part.entries[record.offset].transaction) for record in found]

    def _look_at_output(self, stream: str) -> None:
        expected = self._expected.written[stream]
        for record, _ in self._new(stream):
            headers = dict(record.headers)
            if stream == DEAD_LETTER and is_of_orders(record.headers):
                self._look_at_buried(int(headers["offset"]), record.value)
                continue
            seen = self.seen[stream]
            if seen >= len(expected):
                raise BrokenError(f"{stream}: a record too many: {record}")
            if expected[seen] != (record.key, record.value, record.headers, record.timestamp_ms):
                raise BrokenError(f"{stream}: record {seen} is\n{record}\nnot\n{expected[seen]}")
            self.seen[stream] = seen + 1
            self.numbers[stream] = int(headers["offset" if stream == DEAD_LETTER else "frame_seq"])

    def _look_at_buried(self, offset: int, value: bytes) -> None:
        if self.buried and offset <= self.buried[-1][0]:
            raise BrokenError(f"a record of the orders was buried again: {offset}")
        self.buried.append((offset, value))

    def _look_at_state(self) -> None:
        for record, transaction in self._new("state"):
            if record.key != TASK_KEY:
                self.slots[record.key] = record.value
                continue
            self.task = task = decoded_task(record.value)
            expected = self._expected.slots[task.chain.frame_seq]
            if self._resumable and self.slots != expected:
                wrong = [key for key, value in expected.items() if self.slots.get(key) != value]
                raise BrokenError(f"at frame {task.chain.frame_seq} the state of {wrong} is wrong")
            if task.opens < self.opens:
                raise BrokenError(f"opened {task.opens} times, but {self.opens} before")
            if task.opens > self.opens:
                self.opens = task.opens
                self.opened_by = None if transaction is None else transaction.who

    def _compare(self) -> None:
        """Nothing is under way: outputs, state and offsets belong together."""
        task = self.task
        if task is None:
            if any(self.seen.values()):
                raise BrokenError(f"outputs without a state: {self.seen}")
            return
        if not self._resumable:
            return
        counts = {s: n for s, n in self._expected.counts[task.offset].items() if s != "orders"}
        if any(self.seen[stream] != count for stream, count in counts.items()):
            raise BrokenError(f"the state is at {task.offset}: {counts}, outputs at {self.seen}")
        group = self._broker.groups.get(OWNER, {}).get(TopicPartition(TICKS, 0))
        if group != task.offset:
            raise BrokenError(f"the state is at {task.offset}, the group at {group}")

    def decided(self, transaction: OpenTransaction) -> None:
        """What is committed must be outputs, state and offsets together."""
        state = TopicPartition(self._topics["state"], 0)
        if transaction.ending and not (transaction.groups and state in transaction.places):
            raise BrokenError("a part of a transaction was committed")

    def check_whole(self) -> None:
        """Everything was written."""
        for stream, expected in self._expected.written.items():
            ours = stream != "orders" or self._ours
            if ours and self.seen[stream] != len(expected):
                raise BrokenError(f"{stream}: {self.seen[stream]} of {len(expected)} records")
        buried = [value for _, value in self.buried]
        if buried != self._expected.buried:
            raise BrokenError(
                f"{len(buried)} records of the orders were buried, not {len(self._expected.buried)}"
            )
        if self.task is None or (self._resumable and not self.task.ended):
            raise BrokenError("the state does not say that the end was reached")
