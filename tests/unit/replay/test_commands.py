"""The control stream of a run: hostile records are counted, repeats are applied once, order is kept."""

import asyncio
import contextlib

from streambot.replay.commands import TOLD, CommandStream
from streambot.streams.control import (
    AskStatus,
    Pause,
    ReplayStatus,
    Resume,
    Step,
    decode_acknowledgement,
    encode_command,
)
from streambot.streams.ports import StreamSpec, TopicPartition
from tests.unit.replay.bench import Bench, keeping_up, run_of

CONTROL, STATUS = "sb.r.control", "sb.r.status"


@contextlib.asynccontextmanager
async def streamed(bench: Bench):
    """A replay that listens to a control stream; gives (send, answers, told, stream)."""
    service = await bench.open()
    await bench.log.create([StreamSpec(name=CONTROL), StreamSpec(name=STATUS)])
    sink = await bench.log.sink()
    told: list[str] = []

    async def send(value) -> None:
        data = value if isinstance(value, bytes) else encode_command(value)
        await sink.append(CONTROL, 0, data, timestamp_ms=0)

    await send(Pause(id="old", sender="before"))  # what stood there before is not for this replay
    stream = CommandStream(
        service,
        source=await bench.log.source({TopicPartition(CONTROL, 0): "end"}),
        sink=await bench.log.sink(),
        status=STATUS,
        told=told.append,
    )
    status = await bench.log.source({TopicPartition(STATUS, 0): "beginning"})

    async def answers(count: int) -> list:
        found: list = []
        async with asyncio.timeout(5):
            while len(found) < count:
                records = await status.read(timeout_s=1)
                found += [decode_acknowledgement(r.value) for r in records]
        return found

    reading = asyncio.create_task(stream.run())
    going = asyncio.create_task(keeping_up(bench, service.run()))
    yield send, answers, told, stream
    await going
    await stream.settle()
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading


async def test_commands_are_done_and_acknowledged_in_their_order():
    bench = Bench(run_of(6))
    first = bench.command(Pause)
    async with streamed(bench) as (send, answers, told, _):
        bench.service.apply(first)
        for command in (
            bench.command(Step, count=4),
            bench.command(AskStatus),
            bench.command(Resume),
        ):
            await send(command)
            [said] = await answers(1)
            assert (said.id, said.applied) == (command.id, True)
        assert said.status is ReplayStatus.RUNNING
    assert told == []


async def test_bytes_that_are_no_command_are_counted_and_told_a_few_times():
    bench = Bench(run_of(3))
    async with streamed(bench) as (send, answers, told, stream):
        bench.ask(Pause)
        for n in range(TOLD + 20):
            await send(b'{"command":"\x1b[2J%d"}' % n if n % 2 else b"\xff\x00")
        await send(bench.command(Resume))
        assert (await answers(1))[0].applied
    assert stream.undecodable == TOLD + 20
    assert len(told) == TOLD
    assert all(text.isprintable() and "no command" in text for text in told)


async def test_a_repeat_is_answered_again_and_applied_once():
    bench = Bench(run_of(3))
    async with streamed(bench) as (send, answers, _, _stream):
        bench.ask(Pause)
        step = Step(id="s1", sender="me", number=1, count=2)
        for _ in range(3):
            await send(step)
        said = await answers(3)
        assert said[0] == said[1] == said[2]
        assert said[0].barrier == 2
        await send(Resume(id="s2", sender="me", number=2))
        assert (await answers(1))[0].barrier == 2


async def test_a_command_that_comes_behind_a_later_one_of_its_sender_is_refused():
    bench = Bench(run_of(3))
    async with streamed(bench) as (send, answers, _, _stream):
        bench.ask(Pause)
        await send(Step(id="b", sender="me", number=5))
        await send(Resume(id="a", sender="me", number=4))
        await send(Step(id="c", sender="you", number=0))
        said = {a.id: a for a in await answers(3)}
        assert not said["a"].applied
        assert "comes after command 5" in said["a"].reason
        assert (said["b"].barrier, said["c"].barrier) == (1, 2)
        await send(Resume(id="d", sender="me", number=6))
        assert (await answers(1))[0].applied


async def test_commands_of_this_process_are_acknowledged_on_the_stream_as_well():
    bench = Bench(run_of(3))
    async with streamed(bench) as (_, answers, _told, stream):
        own = stream.give(bench.command(Pause))
        assert await answers(1) == [await own]
        stream.give(bench.command(Resume))
    # The replay has ended, and nothing that was answered is missing.
    assert [a.command for a in await answers(1)] == ["resume"]
