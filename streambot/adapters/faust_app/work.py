"""What the agents of the Faust app do: count records, write what follows, and notice the end."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka.errors import KafkaError

from streambot.adapters.faust_app.outputs import Outputs
from streambot.adapters.faust_app.settings import INPUTS, OUTPUTS, RollupSettings
from streambot.adapters.kafka.detect import detect_profile
from streambot.adapters.kafka.failures import told
from streambot.adapters.kafka.log import KafkaLog
from streambot.adapters.kafka.profile import APACHE
from streambot.domain.errors import DecodeError, StreambotError, TopicError
from streambot.processor.task_head import read_head
from streambot.report.rollup import Rollup
from streambot.streams.dead_letter import read_burial
from streambot.streams.ports import Record
from streambot.streams.reading import read_last

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.report.alerts import RollupLine

TICK_S = 0.5
_LOOK_AGAIN_S = 0.05
_HEADS_S = 5.0
Place = tuple[str, int]


class RollupWork:
    """State and outputs of one process of a roll-up.

    Attributes:
        settings: of the roll-up.
        profile: kind of broker, once it is open.
        core: what was counted.
        positions: offset of the next record to count, by topic and partition.
        failed: set at the first failure, which is `failure`.
        done: set once the run's last barrier is rolled up and stored.
    """

    def __init__(self, settings: RollupSettings) -> None:
        self.settings = settings
        self.profile = settings.profile or APACHE
        self.core = Rollup(settings.run)
        self.positions: dict[Place, int] = {}
        self.failed = asyncio.Event()
        self.failure: Exception | None = None
        self.done = asyncio.Event()
        self.generation = -1
        self.active = False
        self.joined = asyncio.Event()
        self._ended = False
        self._ends: dict[Place, int] | None = None
        self._state: str | None = None
        self._next_heads = 0.0
        self._looked = -1
        self._opened = asyncio.Event()
        self._looking = asyncio.Lock()
        self._log: KafkaLog | None = None
        self._all: KafkaLog | None = None
        self._outputs: Outputs | None = None
        self._topics = {stream: settings.topic(stream) for stream in (*INPUTS, *OUTPUTS)}

    async def open(self) -> None:
        """Connect, check the streams of the run, make the two that a roll-up writes.

        Raises:
            BrokerError: nobody answers there.
            TopicError: a stream of the run is missing, or has other partitions.
        """
        settings = self.settings
        if settings.profile is None:
            self.profile = await detect_profile(settings.servers, settings.security)
        self._log = await KafkaLog.open(
            settings.servers, profile=self.profile, security=settings.security
        )
        streams = await self._log.streams()
        for stream in INPUTS:
            found = streams.get(self._topics[stream])
            if found != settings.run.partitions:
                raise TopicError(
                    "does not exist"
                    if found is None
                    else f"has {found} partitions, the run has {settings.run.partitions}",
                    where=self._topics[stream],
                    hint="is the run on that broker?",
                )
        state = settings.topic("state")
        self._state = state if state in streams else None
        await self._log.create(settings.outputs())
        self._outputs = Outputs(self._log, self._topics, settings.folder, settings.told)
        self._opened.set()

    async def close(self) -> None:
        """Let go of the broker. A second call does nothing."""
        logs, self._log, self._all = (self._all, self._log), None, None
        for log in logs:
            if log is not None:
                await log.close()

    def assigned(self, generation: int, *, active: bool) -> None:
        """The group has a new generation; `active`: all partitions are this process's."""
        self.generation = generation
        self.active = active
        self.joined.set()

    def fail(self, failure: Exception) -> None:
        """The roll-up cannot go on. The first failure counts."""
        if self.failure is None:
            if isinstance(failure, KafkaError):
                failure = told(failure, self.settings.servers)
            self.failure = failure
            self.failed.set()

    async def marks(self, message: Any) -> None:  # noqa: ANN401  # of Faust
        """Count a record of `pnl`."""
        await self._count(
            message, lambda where: self.core.marks(message.partition, message.value, where)
        )

    async def fills(self, message: Any) -> None:  # noqa: ANN401
        """Count a record of `fills`."""
        await self._count(message, lambda where: self.core.fills(message.value, where))

    async def dead_letter(self, message: Any) -> None:  # noqa: ANN401
        """Count a dead letter."""
        await self._count(message, lambda _: self._buried(message))

    async def watch(self) -> None:
        """Return once the roll-up has failed, or the broker is lost: Faust would wait for it."""
        while self.failure is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self.failed.wait()
            if self._log is not None:
                try:
                    self._log.check()
                except StreambotError as failure:
                    self.fail(failure)

    async def tick(self) -> None:
        """Look at the clock, and at the end of the run; to be called now and then."""
        if not self.active or self.failure is not None:
            return
        try:
            await self._tick()
        except Exception as failure:  # noqa: BLE001  # told to whoever runs the roll-up
            self.fail(failure)

    def end(self) -> None:
        """The run is complete, and everything it wrote is stored."""
        self._ended = True

    async def ends(self) -> dict[Place, int]:
        """Offset of the last record of every input there is now, by topic and partition.

        Waits while a transaction is open, or committed and not yet marked so in every partition: a
        broker says that it is committed before its records can be read.
        """
        await self._opened.wait()
        assert self._log is not None  # noqa: S101  # open
        if self._all is None and self.profile.isolation == "read_committed":
            profile = msgspec.structs.replace(self.profile, isolation="read_uncommitted")
            settings = self.settings
            self._all = await KafkaLog.open(
                settings.servers, profile=profile, security=settings.security
            )
        for stream in INPUTS:
            while not await self._all_visible(self._topics[stream]):  # noqa: ASYNC110  # not told
                await asyncio.sleep(_LOOK_AGAIN_S)
        places = [
            (self._topics[stream], partition)
            for stream in INPUTS
            for partition in range(self.settings.run.partitions)
        ]
        lasts = await asyncio.gather(*(read_last(self._log, *place) for place in places))
        return {
            place: last.offset
            for place, last in zip(places, lasts, strict=True)
            if last is not None
        }

    async def _all_visible(self, topic: str) -> bool:
        if self._all is None or self._log is None:
            return True
        return await self._all.end_offsets(topic) == await self._log.end_offsets(topic)

    def has_counted(self, ends: dict[Place, int]) -> bool:
        """Whether everything up to those offsets was counted."""
        return all(self.positions.get(place, 0) > offset for place, offset in ends.items())

    async def flush(self) -> None:
        """Wait until everything that follows from what was counted is stored."""
        if self._outputs is not None:
            await self._outputs.flush()

    async def _tick(self) -> None:
        await self._ready()
        self._put(self.core.look(time.monotonic_ns()))
        if self.core.finished:
            return
        if not self._ended:
            self._ended = await self._run_ended()
        if self._ended:
            if self._ends is None:
                self._ends = await self.ends()
            if self.has_counted(self._ends):
                self._put(self.core.finish())
                await self.flush()
                self.done.set()

    async def _run_ended(self) -> bool:
        """Whether the run is complete: its folder says so, or the states of all its tasks do."""
        asked = self.settings.ended
        if asked is not None and await asyncio.to_thread(asked):
            return True
        now = time.monotonic()
        if self._state is None or self._log is None or now < self._next_heads:
            return False
        self._next_heads = now + _HEADS_S
        # A task's state becomes visible together with its outputs.
        partitions = range(self.settings.run.partitions)
        heads = await asyncio.gather(*(read_head(self._log, self._state, p) for p in partitions))
        return all(head is not None and head.ended for head in heads)

    async def _count(self, message: Any, read: Callable[[str], list[RollupLine]]) -> None:  # noqa: ANN401
        if self.failure is not None:
            return
        try:
            await self._ready()
            place = (message.topic, message.partition)
            # What was under way before a rebalance comes again behind it, in order.
            if message.generation_id != self.generation or not self.active:
                return
            if message.offset >= self.positions.get(place, 0):
                lines = read(f"{message.topic}/{message.partition}/{message.offset}")
                self.positions[place] = message.offset + 1
                self._put(lines)
            await self._write()
        except Exception as failure:  # noqa: BLE001  # told to whoever runs the roll-up
            self.fail(failure)

    async def _ready(self) -> None:
        """Before anything is written in a generation: what the ones before it have written."""
        if self._looked == self.generation:
            return
        async with self._looking:
            while self._looked != self.generation:
                generation = self.generation
                assert self._outputs is not None  # noqa: S101  # open
                lag = await self._outputs.look()
                self.core.go_on(lag.seq, lag.since)
                self._looked = generation

    def _put(self, lines: list[RollupLine]) -> None:
        assert self._outputs is not None  # noqa: S101  # open
        self._outputs.put(lines)

    async def _write(self) -> None:
        assert self._outputs is not None  # noqa: S101  # open
        await self._outputs.write()

    def _buried(self, message: Any) -> list[RollupLine]:  # noqa: ANN401
        milliseconds = round(message.timestamp * 1_000)
        record = Record(
            message.topic, message.partition, message.offset, milliseconds, message.key,
            message.value or b"", tuple(message.headers or ()),
        )  # fmt: skip
        try:
            burial = read_burial(record)
            source, reason = (burial.stream, burial.partition, burial.offset), burial.reason
        except DecodeError as cause:
            source, reason = (message.topic, message.partition, message.offset), cause.reason
        return self.core.dead_letter(message.partition, source, reason, milliseconds * 1_000_000)
