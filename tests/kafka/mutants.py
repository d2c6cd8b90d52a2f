"""What can be done wrong where exactly once is promised, done wrong: campaigns must notice each.

A mutant is a function of the class it breaks; it returns a broken subclass, or None where it breaks
something else. They run in the processes that a campaign crashes (`crash_child`), on Apache Kafka.
"""

from __future__ import annotations

import asyncio
from typing import Any

from streambot.domain.errors import BrokerError, FencedError
from streambot.streams.ports import TopicPartition, event_time_ms
from streambot.streams.sequence import SequenceGuard

WINDOW_S = 0.02
"""Between the two halves of what should be one step: few crashes are enough to meet it."""


class PlainTransactions:
    """Looks like `Transactions`, and is a producer: everything is visible as soon as it is stored."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.append, self.flush = sink.append, sink.flush

    async def begin(self) -> None: ...

    async def offsets(self, group: str, positions: Any) -> None: ...

    async def commit(self) -> None:
        await self._sink.flush()

    async def close(self) -> None:
        await asyncio.gather(self._sink.close(), return_exceptions=True)


class PlainLog:
    """A log whose transactions are none."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def transactions(self, name: str) -> PlainTransactions:
        del name
        return PlainTransactions(await self._log.sink())


def plain(kind: type) -> type:
    """No transactions, and nobody compares the tail of the outputs with the state."""

    class Plain(kind):
        def __init__(self, plan: Any, log: Any, *arguments: Any, **more: Any) -> None:
            super().__init__(plan, PlainLog(log), *arguments, **more)

        async def _tail(self, _: Any, restored: Any) -> dict[str, int]:
            return {} if restored is None else dict(restored.written)

    return Plain


def state_after(kind: type) -> type:
    """The state is written behind the transaction, outside of it."""

    class StateAfter(kind):
        _sink = None

        async def _commit(self, opened: Any, batch: Any, **_: Any) -> None:
            plan, transactions = self._plan, opened.transactions
            await transactions.begin()
            self._reached("begun")
            for record in batch.records:
                await transactions.append(
                    plan.topics[record.stream], self.partition, record.value,
                    timestamp_ms=record.timestamp_ms, key=record.key, headers=record.headers,
                )  # fmt: skip
            await transactions.flush()
            place = TopicPartition(plan.topics["ticks"], self.partition)
            await transactions.offsets(plan.group, {place: batch.snapshot.offset})
            await transactions.commit()
            self._reached("committed")
            await asyncio.sleep(WINDOW_S)
            self._sink = self._sink or await self._log.sink()
            at = event_time_ms(batch.snapshot.chain.t_hi or 0)
            for state in opened.writer.records(batch.snapshot):
                await self._sink.append(
                    plan.topics["state"], self.partition, state.value,
                    timestamp_ms=at, key=state.key, headers=state.headers,
                )  # fmt: skip
            await self._sink.flush()
            self._failures = 0

    return StateAfter


def state_after_unseen(kind: type) -> type:
    """The same, and nobody compares the tail of the outputs with the state."""

    class Unseen(state_after(kind)):
        async def _tail(self, _: Any, restored: Any) -> dict[str, int]:
            return {} if restored is None else dict(restored.written)

    return Unseen


def never_gives_up(kind: type) -> type:
    """Who is fenced opens again, whoever has taken over."""

    class NeverGivesUp(kind):
        async def _check_overtaken(self, fenced: FencedError) -> None:
            self._failures = 0

    return NeverGivesUp


def goes_on(kind: type) -> type:
    """A commit that failed is taken for done, and the next one has a new producer."""

    class GoesOn(kind):
        async def _commit(self, opened: Any, batch: Any, **more: Any) -> None:
            try:
                await super()._commit(opened, batch, **more)
            except FencedError:
                raise
            except BrokerError:
                opened.transactions = await self._another()

        async def _another(self) -> Any:
            while True:
                try:
                    return await self._log.transactions(self._plan.owner)
                except BrokerError:
                    self._log.check()
                    await asyncio.sleep(WINDOW_S)

    return GoesOn


def does_not_finish(kind: type) -> None:
    """What a transaction left without an end is left as it is."""
    from streambot.adapters.kafka.transactions import KafkaTransactions

    async def unfinished(self: Any, places: Any) -> list[Any]:
        return []

    KafkaTransactions.unfinished = unfinished


def no_sequence(kind: type) -> None:
    """Every frame is taken, whatever its number."""

    def accept(self: SequenceGuard, frame: Any) -> bool:
        self.state = self.state.after(frame)
        return True

    SequenceGuard.accept = accept


def numbered_by_commit(kind: type) -> type:
    """A record says in which commit it was written."""

    class Numbered(kind):
        _commits = 0

        async def _commit(self, opened: Any, batch: Any, **more: Any) -> None:
            self._commits += 1
            stamp = (("commit", str(self._commits).encode()),)
            records = [r._replace(headers=r.headers + stamp) for r in batch.records]
            await super()._commit(opened, batch._replace(records=records), **more)

    return Numbered


def keyed_by_hash(kind: type) -> type:
    """A record has a key that depends on the process."""

    class Keyed(kind):
        async def _commit(self, opened: Any, batch: Any, **more: Any) -> None:
            records = [r._replace(key=str(hash(r.stream)).encode()) for r in batch.records]
            await super()._commit(opened, batch._replace(records=records), **more)

    return Keyed


def forgets_open_rows(kind: type) -> None:
    """A replay that goes on begins the open interval again."""
    from streambot.wiring import publishing

    right = publishing.resume_point

    def wrong(*arguments: Any) -> Any:
        point = right(*arguments)
        return point._replace(position=point.position._replace(rows=0))

    publishing.resume_point = wrong


def plain_replay(kind: type) -> None:
    """A replay without transactions: nothing fences the one before."""
    from streambot.wiring import publishing, tasks

    async def replay_sink(log: Any, *_: Any) -> Any:
        return tasks.CommittingSink(PlainTransactions(await log.sink()))

    publishing.replay_sink = replay_sink


MUTANTS = {
    "plain": plain,
    "state after": state_after,
    "state after, unseen": state_after_unseen,
    "never gives up": never_gives_up,
    "goes on": goes_on,
    "does not finish": does_not_finish,
    "no sequence": no_sequence,
    "numbered by commit": numbered_by_commit,
    "keyed by hash": keyed_by_hash,
    "forgets open rows": forgets_open_rows,
    "plain replay": plain_replay,
}
