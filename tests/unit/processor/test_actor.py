"""An agent in another process mirrors the engine: the same events, whatever happens on the way."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from streambot.domain.errors import (
    AgentTimeoutError,
    DivergenceError,
    FencedError,
    StrategyError,
    VerificationError,
)
from streambot.domain.events import CLOSE, HOLD, ActionKind, OrdersThrough, SubmitOrder, buy, sell
from streambot.engine.scripts import Script
from streambot.processor import actor as actor_module
from streambot.processor import exactly_once
from streambot.streams.memory import MemoryLog
from streambot.streams.orders import decode_orders, encode_orders
from tests.unit.processor.actor_bench import Actor, run_beside
from tests.unit.processor.market import Market
from tests.unit.processor.task_bench import TaskBench, cut_frames, frames_of, in_lockstep
from tests.waiting import holds_soon


@pytest.fixture
def market() -> Market:
    return Market("ABC", bars=90)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch) -> None:
    monkeypatch.setattr(exactly_once, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr(exactly_once, "READ_RECORDS", 3)
    monkeypatch.setattr(actor_module, "READ_RECORDS", 3)
    monkeypatch.setattr(actor_module, "READ_TIMEOUT_S", 0.02)
    monkeypatch.setattr(actor_module, "END_LOOK_S", 0.01)


class Weighing:
    """Orders by what it sees of bars and account, and by what it was told of fills."""

    def __init__(self):
        self.seen = 0
        self.told = 0

    def on_fill(self, event):
        self.told += event.seq + 1

    def on_bar(self, bar, account):
        self.seen += int(bar.close * 100) + self.told
        if self.seen % 5 or account.halted:
            return HOLD
        if account.position:
            return CLOSE if account.unrealized_pnl < 0 or self.seen % 2 else HOLD
        return buy(1 + self.seen % 3) if self.seen % 2 else sell(2)


POLICIES = [Script.RANDOM, Script.SMA_CROSS, Script.BUY_HOLD, Script.FLAT, Weighing]


async def bench_of(market: Market, frames: list[bytes], log=None, **more) -> TaskBench:
    bench = TaskBench(log or MemoryLog(), market, **more)
    await bench.create(frames)
    return bench


async def inside(market: Market, frames: list[bytes], policy) -> dict[str, bytes]:
    """The lines of the same policy inside the engine task."""
    bench = await bench_of(market, frames, agent=policy)
    assert await bench.runner().run()
    found = await lines(bench)
    bench.close()
    return found


async def lines(bench: TaskBench) -> dict[str, bytes]:
    """Lines of every stream; those of an instrument in their order, which is all that counts."""
    found = {}
    for stream in ("fills", "pnl"):
        values = b"".join([value for _, value, *_ in await bench.visible(stream)])
        by_symbol = sorted(
            values.splitlines(keepends=True),
            key=lambda line: msgspec.json.decode(line)["instrument"],
        )
        found[stream] = b"".join(by_symbol)
    return found


def all_frames(market: Market, rng, *, cut: bool) -> list[bytes]:
    manifest = market.manifest(partitions=1)
    if cut:
        return cut_frames(market, manifest, 0, rng)
    return frames_of(market, manifest, 0, max_rows=int(rng.integers(8, 120)))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: getattr(p, "name", "strategy"))
@pytest.mark.parametrize("cut", [False, True], ids=["whole intervals", "cut anywhere"])
async def test_an_agent_outside_gives_the_events_of_the_same_agent_inside(market, rng, policy, cut):
    frames = all_frames(market, rng, cut=cut)
    bench = await bench_of(market, frames, agents=("me",))
    (runner,) = await run_beside(bench, Actor(bench, policy))
    found = await lines(bench)
    assert found == await inside(market, frames, policy)
    assert runner.comparison.compared == found["fills"].count(b"\n")
    assert (runner.comparison.compared > 0) == (policy is not Script.FLAT)
    bench.close()


async def test_a_strategy_outside_sees_what_it_sees_inside(market, rng):
    """The same bars, the same account, the same fills, in the same order."""
    seen: list[list] = []

    class Watching(Weighing):
        def __init__(self):
            super().__init__()
            self.calls = []
            seen.append(self.calls)

        def on_fill(self, event):
            self.calls.append(event)
            super().on_fill(event)

        def on_bar(self, bar, account):
            self.calls.append(
                (bar, account.position, account.cash, account.equity, account.entry_price,
                 account.unrealized_pnl, account.trailing_stop_price, account.distance_to_trail)
            )  # fmt: skip
            return super().on_bar(bar, account)

    frames = all_frames(market, rng, cut=True)
    await inside(market, frames, Watching)
    theirs = list(seen)
    seen.clear()
    bench = await bench_of(market, frames, agents=("me",))
    await run_beside(bench, Actor(bench, Watching))
    assert seen == theirs
    assert sum(map(len, seen)) > 200
    bench.close()


POINTS = ("fenced", "opened", "answered", "flushed")


@pytest.mark.parametrize("point", POINTS)
async def test_an_actor_that_dies_anywhere_and_starts_again_changes_nothing(market, rng, point):
    frames = all_frames(market, rng, cut=bool(rng.integers(2)))
    bench = await bench_of(market, frames, agents=("me",))
    engine = asyncio.create_task(bench.runner().run())
    actor = Actor(bench, Weighing)
    deaths = 0
    for _ in range(4):
        deaths += await actor.die({point: int(rng.integers(1, 9)) if point == "answered" else 1})
    assert deaths
    runner = actor.runner()
    assert await runner.run()
    assert await engine
    found = await lines(bench)
    assert found == await inside(market, frames, Weighing)
    assert runner.comparison.compared == found["fills"].count(b"\n")
    bench.close()


async def test_engine_and_actor_die_in_turn(market, rng):
    from tests.unit.processor.test_exactly_once import live

    frames = frames_of(market, market.manifest(partitions=1), 0, max_rows=16)
    bench = await bench_of(market, frames, agents=("me",))
    actor = Actor(bench)
    for n in range(3):
        engine = asyncio.create_task(live(bench, {"committed": 3 + n}))
        await actor.die({"answered": 6 + 3 * n})
        engine.cancel()  # it may wait for the dead
        await asyncio.gather(engine, return_exceptions=True)
    await run_beside(bench, actor)
    assert await lines(bench) == await inside(market, frames, Script.RANDOM)
    bench.close()


async def test_answers_are_on_the_log_once(market, rng):
    """What is answered is not answered again: barriers of the lines only grow."""
    frames = all_frames(market, rng, cut=False)
    bench = await bench_of(market, frames, agents=("me",))
    actor = Actor(bench)
    engine = asyncio.create_task(bench.runner().run())
    for _ in range(3):
        await actor.die({"answered": 5})
    assert await actor.runner().run()
    assert await engine
    answered = [
        line.through_barrier
        for _, value, *_ in await bench.visible("orders")
        for line in decode_orders(value, 0)
    ]
    assert answered == sorted(set(answered))
    assert answered[-1] == market.bars - 1
    bench.close()


async def test_answers_in_any_grouping_are_recognised(market, rng):
    """Another program may have written the same answers, several barriers to a line."""
    frames = all_frames(market, rng, cut=False)
    first = await bench_of(market, frames, agents=("me",))
    await run_beside(first, Actor(first))
    given = [
        line for _, value, *_ in await first.visible("orders") for line in decode_orders(value, 0)
    ]
    bench = await bench_of(market, frames, agents=("me",))
    sink = await bench.log.sink()
    for at in range(0, len(given) - 2, 3):
        group = given[at : at + 3]
        line = OrdersThrough(
            agent="me", partition=0, through_barrier=group[-1].through_barrier,
            orders=tuple(order for one in group for order in one.orders),
        )  # fmt: skip
        await sink.append(bench.topics["orders"], 0, encode_orders([line]), timestamp_ms=0)
    await sink.append(bench.topics["orders"], 0, b"no line at all", timestamp_ms=0)
    (runner,) = await run_beside(bench, Actor(bench))
    assert await lines(bench) == await lines(first)
    assert runner.sending.answers <= 3
    first.close()
    bench.close()


async def test_an_actor_that_changed_its_mind_is_told_where(market, rng):
    frames = all_frames(market, rng, cut=False)
    bench = await bench_of(market, frames, agents=("me",))
    engine = asyncio.create_task(bench.runner().run())
    assert await Actor(bench, Script.RANDOM).die({"answered": 9})
    with pytest.raises(VerificationError, match=r"me answers barrier \d+ of [ABC] with") as caught:
        await Actor(bench, Script.BUY_HOLD).runner().run()
    assert "was started again" in caught.value.message
    assert not isinstance(caught.value, DivergenceError)
    engine.cancel()
    await asyncio.gather(engine, return_exceptions=True)
    bench.close()


async def test_an_actor_that_dies_for_good_ends_the_run_by_its_name(market, rng):
    frames = all_frames(market, rng, cut=False)
    bench = await bench_of(market, frames, agents=("me",), answer_timeout_s=0.3)
    engine = asyncio.create_task(bench.runner().run())
    assert await Actor(bench).die({"answered": 5})
    with pytest.raises(AgentTimeoutError, match="from me within"):
        await engine
    bench.close()


async def test_a_second_actor_of_a_name_takes_over(market, rng):
    frames = all_frames(market, rng, cut=False)
    bench = await bench_of(market, frames[:3], agents=("me",))
    engine = asyncio.create_task(bench.runner().run())
    moved = asyncio.Event()
    first = asyncio.create_task(Actor(bench).runner(on_moved=moved.set).run())
    await asyncio.wait_for(moved.wait(), 10)
    second = Actor(bench).runner()
    task = asyncio.create_task(second.run())
    await holds_soon(lambda: second.mirror is not None)
    sink = await bench.log.sink()
    for value in frames[3:]:
        await sink.append(bench.topics["ticks"], 0, value, timestamp_ms=0)
    with pytest.raises(FencedError):
        await first
    assert await task
    assert await engine
    assert await lines(bench) == await inside(market, frames, Script.RANDOM)
    bench.close()


@pytest.mark.parametrize("changed", ["capital", "slippage"])
async def test_an_engine_by_other_rules_is_found_out(market, rng, changed):
    frames = all_frames(market, rng, cut=False)
    bench = await bench_of(market, frames, agents=("me",))
    actor = Actor(bench)
    plan = actor.plan()
    other = TaskBench(bench.log, market, agents=("me",))
    if changed == "capital":
        other.manifest = msgspec.structs.replace(bench.manifest, capital=(9_000_000,) * 3)
    else:
        slower = [msgspec.structs.replace(i, slippage_ticks=1) for i in bench.manifest.instruments]
        other.manifest = msgspec.structs.replace(bench.manifest, instruments=tuple(slower))
    engine = asyncio.create_task(other.runner().run())
    with pytest.raises(DivergenceError, match=r"[ABC], event 0: the engine's") as caught:
        await actor_module.ActorRunner(plan, bench.log, bench.executor).run()
    assert '"instrument"' in caught.value.message.split("engine: ")[1].split("\n")[0]
    assert '"instrument"' in caught.value.message.split("mirror: ")[1]
    assert caught.value.exit_code == 8
    engine.cancel()
    await asyncio.gather(engine, return_exceptions=True)
    bench.close()
    other.close()


async def test_an_engine_that_says_nothing_is_found_out(market, rng, monkeypatch):
    """It has passed where the mirror has a fill: told long before the end."""
    monkeypatch.setattr(actor_module, "LOOK_S", 0.05)
    frames = all_frames(market, rng, cut=False)
    bench = await bench_of(market, frames[:-1], agents=("me",))
    other = TaskBench(bench.log, market, agents=("you",))  # it obeys somebody who holds
    sink = await bench.log.sink()
    line = OrdersThrough(agent="you", partition=0, through_barrier=1_000)
    await sink.append(bench.topics["orders"], 0, encode_orders([line]), timestamp_ms=0)
    engine = asyncio.create_task(other.runner().run())
    with pytest.raises(DivergenceError, match="engine: nothing"):
        await asyncio.wait_for(Actor(bench).runner().run(), 20)
    engine.cancel()
    await asyncio.gather(engine, return_exceptions=True)
    bench.close()
    other.close()


async def test_a_strategy_that_fails_ends_the_actor(market, rng):
    class Failing:
        def on_bar(self, bar, account):
            raise ZeroDivisionError

    bench = await bench_of(market, all_frames(market, rng, cut=False), agents=("me",))
    with pytest.raises(StrategyError, match="ZeroDivisionError"):
        await Actor(bench, Failing).runner().run()
    bench.close()


async def test_a_stop_leaves_what_was_answered(market, rng):
    frames = all_frames(market, rng, cut=False)
    bench = await bench_of(market, frames[:-1], agents=("me",))
    runner = Actor(bench).runner()
    engine = asyncio.create_task(bench.runner().run())
    task = asyncio.create_task(runner.run())
    await holds_soon(lambda: runner.comparison.compared)
    runner.stop()
    assert not await task
    sink = await bench.log.sink()
    await sink.append(bench.topics["ticks"], 0, frames[-1], timestamp_ms=0)
    assert await Actor(bench).runner().run()
    assert await engine
    bench.close()


# Several agents --------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True], ids=["whole intervals", "cut anywhere"])
async def test_one_that_trades_beside_one_that_watches(market, rng, cut):
    """Watching changes nothing, and the watcher answers all the same."""
    frames = all_frames(market, rng, cut=cut)
    bench = await bench_of(market, frames, agents=("watcher", "me"))
    runners = await run_beside(
        bench, Actor(bench, Script.FLAT, "watcher"), Actor(bench, Weighing, "me")
    )
    found = await lines(bench)
    assert found == await inside(market, frames, Weighing)
    assert {r.comparison.compared for r in runners} == {found["fills"].count(b"\n")}
    assert runners[0].sending.orders == 0
    bench.close()


async def test_two_that_trade_share_the_slots_in_the_order_of_the_manifest(market, rng):
    """Both want the same: the second one is a duplicate, and both mirrors know it."""
    frames = all_frames(market, rng, cut=True)
    bench = await bench_of(market, frames, agents=("first", "second"))
    runners = await run_beside(
        bench, Actor(bench, Script.RANDOM, "second"), Actor(bench, Script.RANDOM, "first")
    )
    found = await lines(bench)
    events = [msgspec.json.decode(line) for line in found["fills"].splitlines()]
    twice = [event for event in events if event.get("reason") == "duplicate_order"]
    assert len(twice) == sum(runner.sending.orders for runner in runners) // 2
    without = [event for event in events if event.get("reason") != "duplicate_order"]
    alone = [
        msgspec.json.decode(line)
        for line in (await inside(market, frames, Script.RANDOM))["fills"].splitlines()
    ]
    for event in (*without, *alone):
        del event["seq"]
    assert without == alone
    assert {r.comparison.compared for r in runners} == {len(events)}
    bench.close()


async def test_two_different_ones_die_and_start_again(market, rng):
    frames = all_frames(market, rng, cut=False)
    whole = await bench_of(market, frames, agents=("a", "b"))
    await run_beside(whole, Actor(whole, Weighing, "a"), Actor(whole, Script.SMA_CROSS, "b"))
    bench = await bench_of(market, frames, agents=("a", "b"))
    a, b = Actor(bench, Weighing, "a"), Actor(bench, Script.SMA_CROSS, "b")
    engine = asyncio.create_task(bench.runner().run())
    other = asyncio.create_task(b.runner().run())
    assert await a.die({"answered": 20})
    assert await a.die({"answered": 30})
    assert await a.runner().run()
    assert await other
    assert await engine
    assert await lines(bench) == await lines(whole)
    whole.close()
    bench.close()


# Free run --------------------------------------------------------------------------------------


async def feed(bench: TaskBench, frames: list[bytes], rng) -> None:
    """Ticks that come bit by bit."""
    sink = await bench.log.sink()
    for value in frames:
        await sink.append(bench.topics["ticks"], 0, value, timestamp_ms=0)
        await asyncio.sleep(float(rng.random()) * 0.004)


async def repeated(market: Market, frames: list[bytes], free: TaskBench) -> TaskBench:
    """A run in lockstep of what a free run accepted, and of nothing else."""
    bench = await bench_of(market, frames, agents=("me",))
    sink = await bench.log.sink()
    accepted = [value for _, value, *_ in await free.visible("accepted")]
    await sink.append(bench.topics["orders"], 0, in_lockstep(accepted), timestamp_ms=0)
    assert await bench.runner().run()
    return bench


@pytest.mark.parametrize("policy", [Script.RANDOM, Script.BUY_HOLD, Weighing])
async def test_a_free_run_is_mirrored_and_repeated_in_lockstep(market, rng, policy):
    frames = all_frames(market, rng, cut=True)
    bench = await bench_of(market, [], agents=("me",), free_run=True)
    feeding = asyncio.create_task(feed(bench, frames, rng))
    (runner,) = await run_beside(bench, Actor(bench, policy))
    await feeding
    found = await lines(bench)
    assert runner.comparison.compared == found["fills"].count(b"\n") > 0
    assert b"duplicate_order" not in found["fills"]
    again = await repeated(market, frames, bench)
    assert await lines(again) == found
    bench.close()
    again.close()


async def test_a_free_run_goes_on_without_its_agent_and_with_it_again(market, rng):
    """What was decided while it was away is not sent late, and its account is the engine's."""
    frames = all_frames(market, rng, cut=True)
    bench = await bench_of(market, [], agents=("me",), free_run=True)
    actor = Actor(bench, Weighing)
    feeding = asyncio.create_task(feed(bench, frames, rng))
    engine = asyncio.create_task(bench.runner().run())
    assert await actor.die({"answered": 12})
    await asyncio.sleep(0.05)
    assert await actor.die({"answered": 12})
    runner = actor.runner()
    assert await runner.run()
    await feeding
    assert await engine
    found = await lines(bench)
    assert runner.comparison.compared == found["fills"].count(b"\n")
    again = await repeated(market, frames, bench)
    assert await lines(again) == found
    bench.close()
    again.close()


async def test_two_agents_of_a_free_run(market, rng):
    """Whoever comes first has the slot; each mirror knows what was taken of the other."""
    frames = all_frames(market, rng, cut=True)
    bench = await bench_of(market, [], agents=("a", "b"), free_run=True)
    feeding = asyncio.create_task(feed(bench, frames, rng))
    runners = await run_beside(bench, Actor(bench, Weighing, "a"), Actor(bench, Script.RANDOM, "b"))
    await feeding
    found = await lines(bench)
    assert {r.comparison.compared for r in runners} == {found["fills"].count(b"\n")}
    again = await repeated(market, frames, bench)
    assert await lines(again) == found
    bench.close()
    again.close()


async def test_an_agent_ahead_of_the_engine_does_not_look_ahead(market, rng):
    """An order for barrier k fills behind it, although it was there before the ticks were."""
    frames = all_frames(market, rng, cut=True)
    bench = await bench_of(market, [], agents=("me",), free_run=True)
    sink = await bench.log.sink()
    asked = dict.fromkeys(range(10, 80, 10), "A")
    orders = tuple(
        SubmitOrder(
            instrument=symbol, barrier=barrier, quantity=1 if barrier % 20 else 0,
            action=ActionKind.BUY_LONG if barrier % 20 else ActionKind.CLOSE, trail_width_ticks=5,
        )
        for barrier, symbol in asked.items()
    )  # fmt: skip
    line = OrdersThrough(agent="me", partition=0, through_barrier=89, orders=orders)
    await sink.append(bench.topics["orders"], 0, encode_orders([line]), timestamp_ms=0)
    feeding = asyncio.create_task(feed(bench, frames, rng))
    assert await bench.runner().run()
    await feeding
    fills = [msgspec.json.decode(line) for line in (await lines(bench))["fills"].splitlines()]
    closes = market_closes(market)
    taken = [
        order
        for _, value, *_ in await bench.visible("accepted")
        for one in decode_orders(value, 0)
        for order in one.orders
    ]
    assert all(order.barrier >= barrier for order, barrier in zip(taken, asked, strict=True))
    assert len(fills) == len(asked)
    for fill, barrier in zip(fills, asked, strict=True):
        assert fill["barrier"] >= barrier
        assert fill["ts_event"] >= closes[barrier]
    bench.close()


def market_closes(market: Market) -> list[int]:
    return [int(close) for window in market.windows() for close in window.closes]
