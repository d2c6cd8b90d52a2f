"""`streams.ports.Log` of one process on a simulated broker: slow, lossy, and at times out of date.

Every call is a request that travels, is worked off, and is answered. What may happen to it is drawn
from the seed of the schedule (`Weather`): it takes long; it is lost on the way there, or its answer
on the way back, so that the caller gets the same error whether it took effect or not; it is sent
again by the client; it arrives long after the caller gave up. The process may crash or be stopped
for a while at any of these moments (`Process`); what it had sent by then may arrive all the same.

Not simulated: a client that sends a request to end a transaction twice by itself, is answered in
time, and whose first copy overtakes nothing but arrives in the next transaction. The adapter to
Kafka cannot see that; `test_a_copy_of_a_commit_that_comes_late_is_noticed` shows what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from streambot.domain.errors import BrokerError, StreamError, TopicError
from streambot.streams.memory import _NAME
from streambot.streams.ports import Start, StreamSpec, TopicPartition
from tests.simulation.simulated_broker import Partition, SimulatedBroker
from tests.simulation.simulated_clients import (
    SimulatedSink,
    SimulatedSource,
    SimulatedTransactions,
)
from tests.simulation.simulated_process import REQUEST_TIMEOUT_S, Process, Weather

FENCE_TIMEOUT_S = 2.0


class SimulatedLog:
    """The log as one process has it."""

    def __init__(
        self,
        broker: SimulatedBroker,
        weather: Weather | None = None,
        process: Process | None = None,
    ) -> None:
        self.broker = broker
        self.weather = weather or Weather()
        self.process = process or Process("somebody")
        self._open: dict[SimulatedSink | SimulatedSource | SimulatedTransactions, None] = {}
        self.closed = False

    # Requests -----------------------------------------------------------------------------------

    async def call(
        self, what: str, request: Callable[[Callable[[Any], None]], None],
        limit_s: float = REQUEST_TIMEOUT_S,
    ) -> Any:  # fmt: skip
        """Send a request, and wait for the answer as long as it may take.

        Raises:
            BrokerError: no answer came: it may have taken effect, or not, or may still do so.
        """
        process, loop = self.process, asyncio.get_running_loop()
        process.moment(what)
        await process.awake()
        fate = self.weather.fate()
        answer: asyncio.Future[Any] = loop.create_future()
        process.pending[answer] = None
        for copy, after in enumerate(fate.arrives, 1):
            last = fate.answered and copy == len(fate.arrives)
            reply = partial(self._reply, what, answer, fate.back) if last else self._unheard
            loop.call_later(after, self._arrives, what, request, reply)
        breaks = limit_s if fate.breaks is None else min(fate.breaks, limit_s)
        timer = loop.call_later(breaks, self._give_up, what, answer)
        try:
            found = await answer
        finally:
            timer.cancel()
            process.pending.pop(answer, None)
        await process.awake()
        process.moment(f"{what} answered")
        if isinstance(found, Exception):
            raise found
        return found

    async def pause(self, what: str) -> None:
        """An await point without a request."""
        self.process.moment(what)
        await self.process.awake()
        await asyncio.sleep(self.weather.latency() * 0.1)
        await self.process.awake()

    def _arrives(self, what: str, request: Callable, reply: Callable) -> None:
        if self.process.dead and self.process.plan.drops:
            return
        self.process.trace(f"{self.process.name}: {what} arrives")
        try:
            request(reply)
        except (BrokerError, StreamError, TopicError) as refused:
            reply(refused)

    def _reply(self, what: str, answer: asyncio.Future[Any], back: float, found: Any) -> None:
        asyncio.get_running_loop().call_later(back, self._answered, what, answer, found)

    def _answered(self, what: str, answer: asyncio.Future[Any], found: Any) -> None:
        if not answer.done():
            if isinstance(found, Exception):
                self.process.trace(f"{self.process.name}: {what}: {found}")
            answer.set_result(found)

    def _give_up(self, what: str, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            self.process.trace(f"{self.process.name}: {what}: no answer")
            answer.set_result(BrokerError(f"no answer: {what}"))

    @staticmethod
    def _unheard(found: Any) -> None:
        del found

    # Log ----------------------------------------------------------------------------------------

    async def create(self, streams: Sequence[StreamSpec]) -> list[str]:
        self.check_open()
        created = []
        for spec in streams:
            if not _NAME.fullmatch(spec.name) or spec.partitions < 1:
                raise TopicError(f"cannot create stream {spec.name!r}")
            known = self.broker.partitions.get(spec.name)
            if known is None:
                self.broker.partitions[spec.name] = [
                    Partition(TopicPartition(spec.name, p)) for p in range(spec.partitions)
                ]
                created.append(spec.name)
            elif len(known) != spec.partitions:
                raise TopicError(f"has {len(known)} partitions", where=spec.name)
        return created

    async def delete(self, streams: Sequence[str]) -> None:
        self.check_open()
        for name in streams:
            for part in self.broker.partitions.pop(name, ()):
                part.wake()

    async def streams(self) -> dict[str, int]:
        self.check_open()
        return {name: len(parts) for name, parts in sorted(self.broker.partitions.items())}

    async def sink(self) -> SimulatedSink:
        self.check_open()
        sink = SimulatedSink(self)
        self._open[sink] = None
        return sink

    async def transactions(self, name: str) -> SimulatedTransactions:
        self.check_open()
        epoch = await self.call("fence", partial(self.broker.fence, name), FENCE_TIMEOUT_S)
        made = SimulatedTransactions(self, name, epoch)
        self._open[made] = None
        return made

    async def committed(
        self, group: str, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        self.check_open()
        wanted = list(places)

        def look(reply) -> None:
            known = self.broker.groups.get(group, {})
            reply({place: known[place] for place in wanted if place in known})

        return await self.call("committed", look)

    async def source(
        self, starts: Mapping[TopicPartition, Start], *, rest_ms: int = 0
    ) -> SimulatedSource:
        del rest_ms
        self.check_open()
        if not starts:
            raise TopicError("a source needs at least one partition")

        def resolve(reply) -> None:
            reply({TopicPartition(*p): self.resolve(p, start) for p, start in starts.items()})

        source = SimulatedSource(self, await self.call("source", resolve))
        self._open[source] = None
        return source

    def resolve(self, place: TopicPartition, start: Start) -> int:
        """Offset of a start, at the broker."""
        part = self.broker.partition(TopicPartition(*place))
        if start == "end":
            return part.stable
        offset = part.base if start == "beginning" else int(start)
        if not part.base <= offset <= part.stable:
            raise StreamError(
                f"offset {offset} is not kept: it holds {part.base} to {part.stable}",
                where=f"{part.place.stream}/{part.place.partition}",
            )
        return offset

    async def beginning_offsets(self, stream: str) -> list[int]:
        self.check_open()
        return await self.call(
            f"beginning of {stream}", lambda reply: reply([p.base for p in self._parts(stream)])
        )

    async def end_offsets(self, stream: str) -> list[int]:
        self.check_open()

        return await self.call(
            f"end of {stream}", lambda reply: reply(self.weather.ends(self._parts(stream)))
        )

    async def offset_at(self, stream: str, partition: int, timestamp_ms: int) -> int:
        self.check_open()
        part = self.broker.partition(TopicPartition(stream, partition))
        records, _ = part.visible(part.base, part.stable, len(part.entries))
        return next((r.offset for r in records if r.timestamp_ms >= timestamp_ms), part.stable)

    async def close(self) -> None:
        if self.closed:
            return
        for user in list(self._open):
            await user.close()
        self.closed = True

    def check_open(self) -> None:
        """Raise behind `close`."""
        if self.closed:
            raise BrokerError("the log is closed")

    def forget(self, user: object) -> None:
        """A user was closed."""
        self._open.pop(user, None)  # type: ignore[call-overload]

    def _parts(self, stream: str) -> list[Partition]:
        self.broker.partition(TopicPartition(stream, 0))
        return self.broker.partitions[stream]
