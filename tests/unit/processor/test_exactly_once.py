"""The exactly-once task: opened and opened again, its outputs are those of one undisturbed life."""

from __future__ import annotations

import asyncio

import pytest

from streambot.domain.errors import (
    AgentTimeoutError,
    FencedError,
    SequenceGapError,
    StrategyError,
    StreamError,
)
from streambot.domain.events import CLOSE, HOLD, OrdersThrough, buy
from streambot.processor import exactly_once, task_opening
from streambot.processor.state_log import TASK_KEY, restore_state
from streambot.streams.memory import MemoryLog
from streambot.streams.orders import decode_orders, encode_orders
from tests.unit.processor.market import Market
from tests.unit.processor.task_bench import TaskBench, cut_frames, frames_of, in_lockstep


class Crash(BaseException):
    """The process is gone: nothing is caught, nothing is cleaned up."""


async def whole(market: Market, frames: list[bytes], **kinds) -> TaskBench:
    """The undisturbed life of a task."""
    bench = TaskBench(MemoryLog(), market, **kinds)
    await bench.create(frames)
    assert await bench.runner().run()
    bench.close()
    return bench


@pytest.fixture
def market() -> Market:
    return Market("ABC", bars=90)


@pytest.fixture(autouse=True)
def _small_commits(monkeypatch) -> None:
    monkeypatch.setattr(exactly_once, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr(exactly_once, "READ_RECORDS", 3)
    monkeypatch.setattr(task_opening, "SUCCESSOR_OPENS_S", 0.05)


def small_frames(market: Market) -> list[bytes]:
    return frames_of(market, market.manifest(partitions=1), 0, max_rows=16)


async def live(bench: TaskBench, points: dict[str, int]) -> bool:
    """Run until a point is reached for the n-th time (then crash), or to the end (True)."""

    def reached(point: str) -> None:
        points[point] = points.get(point, 0) - 1
        if points[point] == 0:
            raise Crash(point)

    try:
        return await bench.runner(reached=reached).run()
    except Crash:
        return False


OPENING = ("fenced", "restored", "tail-read", "opened")
POINTS = (
    *OPENING, "begun", "output-sent", "outputs-stored",
    "state-sent", "offsets-sent", "committing", "committed",
)  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("cut", [False, True], ids=["whole intervals", "cut anywhere"])
async def test_a_crash_at_any_point_changes_nothing(market, rng, point, cut):
    manifest = market.manifest(partitions=1)
    frames = cut_frames(market, manifest, 0, rng) if cut else small_frames(market)
    undisturbed = await whole(market, frames)
    bench = TaskBench(MemoryLog(), market)
    await bench.create(frames)
    for _ in range(4):
        often = 1 if point in OPENING else int(rng.integers(1, 5))
        assert not await live(bench, {point: often})
    assert await live(bench, {})
    assert await bench.digests() == await undisturbed.digests()
    bench.close()


async def test_a_strategy_without_state_starts_again_and_writes_nothing_twice(market):
    class Forgetful:
        def __init__(self):
            self.seen = 0

        def on_bar(self, bar, account):
            self.seen += 1
            if self.seen % 7:
                return HOLD
            return CLOSE if account.position else buy(1)

    frames = small_frames(market)
    undisturbed = await whole(market, frames, agent=Forgetful)
    bench = TaskBench(MemoryLog(), market, agent=Forgetful)
    await bench.create(frames)
    assert not await live(bench, {"committed": 4})
    assert not await live(bench, {"committed": 3})
    assert await live(bench, {})
    assert await bench.digests() == await undisturbed.digests()
    assert len(await bench.visible("fills")) > 3
    bench.close()


async def test_a_zombie_stops_when_its_successor_is_there(market):
    frames = small_frames(market)
    undisturbed = await whole(market, frames)
    bench = TaskBench(MemoryLog(), market)
    await bench.create(frames)
    successor = bench.runner()
    taken_over = []

    async def overtake(core, restored) -> None:
        if not taken_over:
            taken_over.append(await successor.run())

    zombie = bench.runner(on_opened=overtake)
    with pytest.raises(FencedError):
        await zombie.run()
    assert taken_over == [True]
    assert await bench.digests() == await undisturbed.digests()
    bench.close()


async def test_a_fence_without_a_successor_is_a_transaction_that_timed_out(market):
    """The coordinator fences a producer too slow for it; then nobody else has the task."""
    frames = small_frames(market)
    undisturbed = await whole(market, frames)
    bench = TaskBench(MemoryLog(), market)
    await bench.create(frames)
    fences = []

    def reached(point: str) -> None:
        if point == "outputs-stored" and len(fences) < 3:
            fences.append(point)
            raise FencedError("timed out")

    runner = bench.runner(reached=reached)
    assert await runner.run()
    assert runner.reopened == 3
    assert await bench.digests() == await undisturbed.digests()
    bench.close()


async def test_a_missing_frame_stops_the_task_behind_what_was_good(market):
    frames = small_frames(market)
    bench = TaskBench(MemoryLog(), market)
    await bench.create(frames[:3] + frames[4:])
    with pytest.raises(SequenceGapError, match="expected frame 3, received 4"):
        await bench.runner().run()
    restored = await restore_state(bench.log, bench.topics["state"], 0)
    assert restored is not None
    assert restored.chain.frame_seq == 3
    bench.close()


async def test_outputs_of_somebody_else_are_noticed(market):
    frames = small_frames(market)
    bench = TaskBench(MemoryLog(), market)
    await bench.create(frames)
    assert not await live(bench, {"committed": 3})
    sink = await bench.log.sink()
    await sink.append(
        bench.topics["fills"], 0, b"{}\n", timestamp_ms=0, headers=(("frame_seq", b"999"),)
    )
    with pytest.raises(StreamError, match="somebody else wrote|outputs end at"):
        await bench.runner().run()
    bench.close()


async def test_a_strategy_that_fails_stops_the_task(market):
    class Failing:
        def on_bar(self, bar, account):
            raise ZeroDivisionError

    bench = TaskBench(MemoryLog(), market, agent=Failing)
    await bench.create(small_frames(market))
    with pytest.raises(StrategyError, match="ZeroDivisionError"):
        await bench.runner().run()
    bench.close()


async def test_a_task_that_has_ended_has_nothing_left_to_do(market):
    bench = await whole(market, small_frames(market))
    again = TaskBench(bench.log, market)
    before = await bench.digests()
    assert await again.runner().run()
    assert await again.digests() == before
    again.close()


async def test_the_state_is_found_in_a_few_records_of_the_end(market, monkeypatch):
    """Restoring does not read the whole stream: a slot is never further back than `FULL_EVERY`."""
    bench = await whole(market, small_frames(market))
    records = await bench.visible("state")
    commits = sum(key == TASK_KEY for key, *_ in records)
    assert commits > 20
    restored = await restore_state(bench.log, bench.topics["state"], 0)
    assert restored is not None
    assert restored.core is not None
    assert restored.ended
    assert [slot.symbol for slot in restored.core.slots] == ["A", "B", "C"]


# Agents outside --------------------------------------------------------------------------------


async def answers_of(market: Market, frames: list[bytes]) -> list[OrdersThrough]:
    """What the co-located agent answers, line by line."""
    bench = await whole(market, frames)
    return [
        line for _, value, *_ in await bench.visible("orders") for line in decode_orders(value, 0)
    ]


@pytest.mark.parametrize("regroup", [1, 3, 1_000])
async def test_an_agent_outside_gives_the_fills_of_the_same_agent_inside(market, rng, regroup):
    manifest = market.manifest(partitions=1)
    frames = cut_frames(market, manifest, 0, rng)
    inside = await whole(market, frames)
    lines = await answers_of(market, frames)
    bench = TaskBench(MemoryLog(), market, agents=("me",))
    await bench.create(frames)
    sink = await bench.log.sink()
    for at in range(0, len(lines), regroup):
        group = lines[at : at + regroup]
        line = OrdersThrough(
            agent="me", partition=0, through_barrier=group[-1].through_barrier,
            orders=tuple(order for one in group for order in one.orders),
        )  # fmt: skip
        await sink.append(bench.topics["orders"], 0, encode_orders([line]), timestamp_ms=0)
        if regroup == 3:  # restarted agents answer again
            await sink.append(bench.topics["orders"], 0, encode_orders([line]), timestamp_ms=0)
    assert not await live(bench, {"committed": 3})
    assert await live(bench, {})
    for stream in ("fills", "pnl"):
        theirs = [value for _, value, *_ in await inside.visible(stream)]
        ours = [value for _, value, *_ in await bench.visible(stream)]
        assert b"".join(ours) == b"".join(theirs)
    bench.close()


async def test_an_agent_that_does_not_answer_is_named(market):
    frames = small_frames(market)
    bench = TaskBench(MemoryLog(), market, agents=("you", "me"), answer_timeout_s=0.1)
    await bench.create(frames)
    sink = await bench.log.sink()
    line = OrdersThrough(agent="you", partition=0, through_barrier=1_000)
    await sink.append(bench.topics["orders"], 0, encode_orders([line]), timestamp_ms=0)
    with pytest.raises(AgentTimeoutError, match="from me within"):
        await bench.runner().run()
    bench.close()


async def test_a_free_run_is_repeated_from_what_it_accepted(market, rng):
    """Orders come whenever they come; the accepted ones in lockstep give the same fills."""
    manifest = market.manifest(partitions=1)
    frames = cut_frames(market, manifest, 0, rng)
    lines = await answers_of(market, frames)
    free = TaskBench(MemoryLog(), market, agents=("me",), free_run=True)
    await free.create(frames[:2])
    sink = await free.log.sink()

    waiting, rest = list(lines), frames[2:]
    task = asyncio.create_task(free.runner().run())
    for value in rest:
        await sink.append(free.topics["ticks"], 0, value, timestamp_ms=0)
        if waiting and rng.random() < 0.7:
            line = waiting.pop(0)
            as_me = OrdersThrough(
                agent="me", partition=0, through_barrier=line.through_barrier, orders=line.orders
            )
            await sink.append(free.topics["orders"], 0, encode_orders([as_me]), timestamp_ms=0)
        await asyncio.sleep(0.002)
    assert await task
    accepted = [value for _, value, *_ in await free.visible("accepted")]
    assert accepted
    again = TaskBench(MemoryLog(), market, agents=("me",))
    await again.create(frames)
    sink = await again.log.sink()
    await sink.append(again.topics["orders"], 0, in_lockstep(accepted), timestamp_ms=0)
    assert await again.runner().run()
    for stream in ("fills", "pnl"):
        theirs = [value for _, value, *_ in await free.visible(stream)]
        ours = [value for _, value, *_ in await again.visible(stream)]
        assert b"".join(ours) == b"".join(theirs)
    free.close()
    again.close()
