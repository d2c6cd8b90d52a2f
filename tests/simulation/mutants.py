"""What can be done wrong in an exactly-once task, done wrong: the campaign must notice each of these.

Every mutant is one step left out or moved, as somebody might do who tidies up. Where another guard
makes one harmless, the pair of both stands here as well, under a name with a `+`.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest import mock

from streambot.domain.errors import BrokerError, DataError, FencedError, StreamError
from streambot.processor import exactly_once, outputs
from streambot.processor.exactly_once import ExactlyOnceRunner
from streambot.processor.open_task import Committed
from streambot.processor.state_log import read_task, restore_state
from streambot.streams.ports import TopicPartition, event_time_ms
from streambot.streams.sequence import SequenceGuard
from tests.simulation.campaign import Mutant
from tests.simulation.simulated_broker import SimulatedBroker
from tests.simulation.simulated_clients import SimulatedTransactions

# Commits -----------------------------------------------------------------------------------------


class InPieces(ExactlyOnceRunner):
    """Commits as the runner does, in pieces that mutants put together otherwise."""

    async def _commit(self, opened, batch, *, state_at=None) -> None:
        async with self._transaction(opened):
            await self._outputs(opened.transactions, batch)
            await self._state(opened, opened.transactions, batch, state_at)
            await self._offsets(opened.transactions, batch)
        self._done(batch)

    def _transaction(self, opened) -> _Transaction:
        return _Transaction(self, opened.transactions)

    async def _outputs(self, into, batch) -> None:
        for record in batch.records:
            await into.append(
                self._plan.topics[record.stream], 0, record.value,
                timestamp_ms=record.timestamp_ms, key=record.key, headers=record.headers,
            )  # fmt: skip
            self._reached("output-sent")
        await into.flush()
        self._reached("outputs-stored")

    async def _state(self, opened, into, batch, state_at=None) -> None:
        snapshot = batch.snapshot
        at = event_time_ms(snapshot.chain.t_hi or 0)
        stored = [
            await into.append(
                self._plan.topics["state"], 0, state.value,
                timestamp_ms=at, key=state.key, headers=state.headers,
            )
            for state in opened.writer.records(snapshot)
        ]  # fmt: skip
        await into.flush()
        if state_at is not None:
            self._opening_at = stored[-1].result()
        if state_at not in {None, stored[0].result()}:
            raise BrokerError("the state that was read is out of date")
        self._reached("state-sent")

    async def _offsets(self, into, batch) -> None:
        place = TopicPartition(self._plan.topics["ticks"], 0)
        await into.offsets(self._plan.group, {place: batch.snapshot.offset})
        self._reached("offsets-sent")

    def _done(self, batch) -> None:
        self._failures = 0
        self._on_committed(Committed(0, batch.frames, batch.records))


class _Transaction:
    def __init__(self, runner, transactions) -> None:
        self._reached = runner._reached
        self._transactions = transactions

    async def __aenter__(self) -> None:
        await self._transactions.begin()
        self._reached("begun")

    async def __aexit__(self, kind, *_) -> None:
        if kind is None:
            self._reached("committing")
            await self._transactions.commit()
            self._reached("committed")


class StateBefore(InPieces):
    """The state is written before the transaction, outside of it."""

    async def _commit(self, opened, batch, **opening) -> None:
        await self._state(opened, await self._log.sink(), batch)
        async with self._transaction(opened):
            await self._outputs(opened.transactions, batch)
            await self._offsets(opened.transactions, batch)
        self._done(batch)


class StateAfter(InPieces):
    """The state is written behind the transaction, outside of it."""

    async def _commit(self, opened, batch, **opening) -> None:
        async with self._transaction(opened):
            await self._outputs(opened.transactions, batch)
            await self._offsets(opened.transactions, batch)
        await self._state(opened, await self._log.sink(), batch)
        self._done(batch)


class StateBeforeInItsOwn(InPieces):
    """The state has a transaction of its own, before that of the outputs."""

    async def _commit(self, opened, batch, **opening) -> None:
        async with self._transaction(opened):
            await self._state(opened, opened.transactions, batch)
            await self._offsets(opened.transactions, batch)
        async with self._transaction(opened):
            await self._outputs(opened.transactions, batch)
        self._done(batch)


class StateAfterInItsOwn(InPieces):
    """The state has a transaction of its own, behind that of the outputs."""

    async def _commit(self, opened, batch, **opening) -> None:
        async with self._transaction(opened):
            await self._outputs(opened.transactions, batch)
        async with self._transaction(opened):
            await self._state(opened, opened.transactions, batch)
            await self._offsets(opened.transactions, batch)
        self._done(batch)


class OffsetsBefore(InPieces):
    """The offsets are committed before everything else."""

    async def _commit(self, opened, batch, **opening) -> None:
        async with self._transaction(opened):
            await self._offsets(opened.transactions, batch)
        async with self._transaction(opened):
            await self._outputs(opened.transactions, batch)
            await self._state(opened, opened.transactions, batch)
        self._done(batch)


class OffsetsAfter(InPieces):
    """The offsets are committed behind everything else."""

    async def _commit(self, opened, batch, **opening) -> None:
        async with self._transaction(opened):
            await self._outputs(opened.transactions, batch)
            await self._state(opened, opened.transactions, batch)
        async with self._transaction(opened):
            await self._offsets(opened.transactions, batch)
        self._done(batch)


class LateSnapshot(ExactlyOnceRunner):
    """The state is taken when it is written, not when the outputs were gathered."""

    async def _commit(self, opened, batch, **opening) -> None:
        writer = opened.writer.records

        def late(_):
            return writer(self._snapshot(opened))

        with mock.patch.object(opened.writer, "records", late):
            await super()._commit(opened, batch, **opening)


class GoesOn(ExactlyOnceRunner):
    """A commit that failed is taken for done, with the same producer."""

    async def _commit(self, opened, batch, **opening) -> None:
        try:
            await super()._commit(opened, batch, **opening)
        except FencedError:
            raise
        except BrokerError:
            self._failures = 0


class GoesOnWithTheProducer(GoesOn):
    """The same, and the producer is made to work again."""

    async def _commit(self, opened, batch, **opening) -> None:
        await super()._commit(opened, batch, **opening)
        _mend(opened.transactions)


class AsksAgain(InPieces):
    """No answer to a commit: it is asked for again, until there is one."""

    def _transaction(self, opened) -> _Transaction:
        return _UntilAnswered(self, opened.transactions)


class _UntilAnswered(_Transaction):
    async def __aexit__(self, kind, *_) -> None:
        transactions = self._transactions
        while kind is None:
            try:
                await transactions.commit()
            except FencedError:
                raise
            except BrokerError:
                began = transactions._began
                _mend(transactions)
                transactions._began = began
                if began is None:
                    break
            else:
                break


def _mend(transactions: SimulatedTransactions) -> None:
    """Make a producer forget that it failed: its numbers are those that the broker expects."""
    if transactions._failure is None or isinstance(transactions._failure, FencedError):
        return
    transactions._failure = transactions._began = None
    known = transactions._log.broker.names[transactions._name].numbers
    transactions._numbers = dict(known)


# Opening -----------------------------------------------------------------------------------------


async def _given_restore(log, topic, partition, end=None):
    early = getattr(log, "early", None)
    return await restore_state(log, topic, partition, end) if early is None else early[0]


def _restore_given(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(exactly_once, "restore_state", _given_restore))


class RestoresFirst(ExactlyOnceRunner):
    """The state is read before the predecessor is fenced."""

    async def _reopen(self):
        self._log.early = None
        self._log.early = (await restore_state(self._log, self._plan.topics["state"], 0),)
        return await super()._reopen()


class RestoresFirstAndTail(RestoresFirst):
    """And the tail is not looked at behind the fence."""

    async def _tail(self, _, restored):
        return {} if restored is None else dict(restored.written)


class NoTail(ExactlyOnceRunner):
    """The tail of the outputs is not compared with the state."""

    async def _tail(self, _, restored):
        return {} if restored is None else dict(restored.written)


class NoTailStateAfter(NoTail, StateAfterInItsOwn):
    """And the state comes in a transaction of its own."""


class NotSuppressed(ExactlyOnceRunner):
    """What is in the log already is written again."""

    def _batch(self, opened, steps):
        written, opened.written = opened.written, {}
        try:
            batch = super()._batch(opened, steps)
        finally:
            opened.written = written | opened.written
        return batch


class FromTheGroup(ExactlyOnceRunner):
    """The position comes from the group, not from the state."""

    async def _source(self, stream, offset):
        if stream == "ticks":
            place = TopicPartition(self._plan.topics["ticks"], 0)
            offset = (await self._log.committed(self._plan.group, [place])).get(place, 0)
        return await super()._source(stream, offset)


class FromTheGroupAfter(FromTheGroup, NoTail, OffsetsAfter):
    """And the offsets are committed behind everything else, and nobody compares."""


class FromTheGroupBefore(FromTheGroup, NoTail, OffsetsBefore):
    """And the offsets are committed before everything else, and nobody compares."""


class KeepsTheCore(ExactlyOnceRunner):
    """What the core has done since the last commit is kept when the task is opened again."""

    def _worker(self, core, restored):
        if self._open is not None and restored is not None and restored.core is not None:
            core = self._open.worker.core
        return super()._worker(core, restored)


class KeepsTheWriter(ExactlyOnceRunner):
    """What was written of the state is remembered beyond a transaction that failed."""

    _kept = None

    async def _commit(self, opened, batch, **opening) -> None:
        self._kept = opened.writer = self._kept or opened.writer
        await super()._commit(opened, batch, **opening)


class OrdersFromTheEnd(ExactlyOnceRunner):
    """Answers of agents outside are read from where they end now."""

    async def _source(self, stream, offset):
        if stream == "orders":
            offset = (await self._log.end_offsets(self._plan.topics[stream]))[0]
        return await super()._source(stream, offset)


class SameProducer(ExactlyOnceRunner):
    """Opened again with the same epoch: what was acknowledged is taken for visible."""

    _made: SimulatedTransactions | None = None

    async def _reopen(self):
        fence, made = self._log.transactions, self._made

        async def transactions(name):
            if made is None or isinstance(made._failure, FencedError):
                self._made = await fence(name)
            else:
                self._made = SimulatedTransactions(self._log, name, made._epoch)
                self._made._numbers = dict(self._log.broker.names[name].numbers)
            return self._made

        with mock.patch.object(self._log, "transactions", transactions):
            return await super()._reopen()


class AnyState(ExactlyOnceRunner):
    """Nobody looks whether the state that was read is the last one."""

    async def _commit(self, opened, batch, **_) -> None:
        await super()._commit(opened, batch)


# Zombies -----------------------------------------------------------------------------------------


class NeverGivesUp(ExactlyOnceRunner):
    """Who is fenced opens again, whoever has taken over."""

    async def _check_overtaken(self, fenced) -> None:
        pass


class GivesUpAtOnce(ExactlyOnceRunner):
    """Who is fenced gives up, also where nobody has taken over."""

    async def _check_overtaken(self, fenced) -> None:
        raise fenced


class AsksOnce(ExactlyOnceRunner):
    """Whether there is a successor is asked once, and no answer is the end."""

    async def _check_overtaken(self, fenced) -> None:
        task = await read_task(self._log, self._plan.topics["state"], 0)
        if task is not None and task.opens > self._opens:
            raise fenced


class Accuses(ExactlyOnceRunner):
    """State and outputs read while a successor wrote are taken for damaged."""

    async def _check_owner(self, transactions) -> None:
        pass


class AccusesAtOnce(Accuses):
    """And nobody looks a second time."""

    async def _tail(self, transactions, restored):
        try:
            return await super()._tail(transactions, restored)
        except StreamError as wrong:
            raise DataError(wrong.message) from wrong


class LooksOnce(ExactlyOnceRunner):
    """What a broker that is out of date says of the outputs is believed."""

    async def _check_owner(self, transactions) -> None:
        await super()._check_owner(transactions)
        self._failures = exactly_once.MOST_REOPENS


# What the runner stands on -----------------------------------------------------------------------


class NoFence(SimulatedBroker):
    """Requests of an older epoch are taken."""

    def _is_old(self, known, epoch) -> bool:
        return False


class FenceDoesNotWait(SimulatedBroker):
    """A name is open before what its predecessor left is complete."""

    def _must_wait(self, known) -> bool:
        return False


def _no_sequence(stack: ExitStack) -> None:
    """Every frame is taken, whatever its number."""

    def accept(self, frame) -> bool:
        self.state = self.state.after(frame)
        return True

    stack.enter_context(mock.patch.object(SequenceGuard, "accept", accept))


def _one_series(stack: ExitStack) -> None:
    """Dead letters of ticks and of orders are counted together."""
    for module in (outputs, exactly_once):
        stack.enter_context(mock.patch.object(module, "series_of", lambda stream, _: stream))


def _without_state(scenario) -> bool:
    return not scenario.resumable


def _buries_both(scenario) -> bool:
    return bool(scenario.expected.buried) and bool(scenario.expected.written["dead-letter"])


def _repeats(scenario) -> bool:
    return len(set(scenario.ticks)) < len(scenario.ticks)


ROUGH = {"trouble": 0.05}

MUTANTS = {
    "state before, outside": Mutant(StateBefore),
    "state after, outside": Mutant(StateAfter),
    "state before, in its own transaction": Mutant(StateBeforeInItsOwn),
    "state after, in its own transaction": Mutant(StateAfterInItsOwn),
    "offsets before": Mutant(OffsetsBefore),
    "offsets after": Mutant(OffsetsAfter),
    "late snapshot": Mutant(LateSnapshot),
    "goes on": Mutant(GoesOn, chances=ROUGH),
    "goes on + with the producer": Mutant(GoesOnWithTheProducer, chances=ROUGH),
    "asks again for a commit": Mutant(AsksAgain, chances=ROUGH, parts=False),
    "restores first": Mutant(RestoresFirst, patch=_restore_given, chances=ROUGH),
    "restores first + no tail": Mutant(RestoresFirstAndTail, patch=_restore_given),
    "no tail + state after": Mutant(NoTailStateAfter),
    "not suppressed": Mutant(NotSuppressed, suits=_without_state),
    "from the group": Mutant(FromTheGroup, suits=_without_state),
    "from the group + offsets after + no tail": Mutant(FromTheGroupAfter),
    "from the group + offsets before + no tail": Mutant(FromTheGroupBefore),
    "keeps the core": Mutant(KeepsTheCore, chances=ROUGH),
    "keeps the writer": Mutant(KeepsTheWriter, chances=ROUGH),
    "orders from the end": Mutant(OrdersFromTheEnd),
    "acknowledged is visible": Mutant(SameProducer, chances=ROUGH),
    "never gives up": Mutant(NeverGivesUp),
    "gives up at once": Mutant(GivesUpAtOnce),
    "asks once for a successor": Mutant(AsksOnce, chances=ROUGH),
    "accuses + at once": Mutant(AccusesAtOnce),
    "looks once": Mutant(LooksOnce, chances={"behind": 0.2}),
    "any state": Mutant(AnyState, chances={"behind": 0.2, "trouble": 0.03}),
    "no sequence": Mutant(patch=_no_sequence, suits=_repeats),
    "dead letters in one series": Mutant(patch=_one_series, suits=_buries_both),
    "log: no fence": Mutant(broker=NoFence),
    "log: fence does not wait + any state": Mutant(AnyState, FenceDoesNotWait),
}
"""To be caught."""

HARMLESS = {
    "in pieces": Mutant(InPieces),
    "no tail": Mutant(NoTail),
    "accuses": Mutant(Accuses),
    "log: fence does not wait": Mutant(broker=FenceDoesNotWait),
}
"""Not to be caught, and why:

- in pieces: nothing is wrong with it;
- no tail: state and outputs are in one transaction (`no tail + state after` has neither guard);
- accuses: what looks damaged is looked at again, behind another fence (`accuses + at once`);
- log: fence does not wait: the first record of the new state does not come to stand where the state
  that was read ended (`log: fence does not wait + any state`).
"""
