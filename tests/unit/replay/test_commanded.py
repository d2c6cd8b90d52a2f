"""A replay under command: every command takes effect at one closed barrier of all partitions."""

import asyncio
import itertools
import time

import numpy as np
import pytest

from streambot.domain.errors import DataError, UsageError
from streambot.domain.replay_settings import MAX_SPEED, Gaps, Moment, Speed, parse_speed
from streambot.replay.clock import MonotonicClock
from streambot.streams.control import (
    AskStatus,
    Pause,
    ReplayStatus,
    Resume,
    Seek,
    SetSpeed,
    Step,
)
from streambot.streams.frame import FrameKind
from tests.unit.replay.bench import Bench, FakeClock, barriers_closed, keeping_up, run_of
from tests.unit.replay.windows import STEP, make_window

MINUTE = 60 * STEP
SPEEDS = [MAX_SPEED, Speed(1), Speed(100), Speed(100_000)]


async def pass_by(n: int = 50) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def check_meeting(bench: Bench, acknowledgement) -> None:
    """When it was answered, every partition had closed the same barriers, and not begun the next."""
    for partition, count in enumerate(bench.noted[acknowledgement.at]):
        frames = (await bench.frames(partition))[:count]
        data = [f for f in frames if f.kind is FrameKind.DATA]
        assert barriers_closed(data) == acknowledgement.barrier
        if data and acknowledgement.event_time is not None:
            assert acknowledgement.event_time == data[-1].t_hi


def after(count: int, bench: Bench, kind, **fields) -> dict:
    """Give a command behind the publication number `count`; the future is in the dict."""
    asked: dict = {}

    def hook(_published) -> None:
        if len(bench.published) == count:
            asked["answer"] = bench.ask(kind, **fields)

    bench.hook = hook
    return asked


@pytest.mark.parametrize("speed", SPEEDS, ids=str)
@pytest.mark.parametrize("max_rows", [1, 7, 8_192])
@pytest.mark.parametrize("count", [1, 2, 9])
async def test_a_pause_meets_at_one_barrier_and_nothing_more_comes(speed, max_rows, count):
    bench = Bench(run_of(6), speed=speed, partitions=3, instruments=4)
    service = await bench.open(max_rows=max_rows)
    asked = after(count, bench, Pause)
    task = asyncio.create_task(keeping_up(bench, service.run()))
    while "answer" not in asked:
        await pass_by(1)
    paused = await asyncio.wait_for(asked["answer"], 5)
    assert (paused.applied, paused.status) == (True, ReplayStatus.PAUSED)
    published = len(bench.published)
    await pass_by(200)
    assert len(bench.published) == published
    await check_meeting(bench, paused)
    resumed = await bench.ask(Resume)
    assert resumed.barrier == paused.barrier
    assert (await task).complete
    for partition in range(3):
        end = (await bench.frames(partition))[-1]
        assert end.totals.barriers == 60


@pytest.mark.parametrize("speed", SPEEDS, ids=str)
@pytest.mark.parametrize("count", [1, 3, 13, 40])
async def test_a_step_publishes_so_many_barriers_and_is_paused(speed, count):
    bench = Bench(run_of(6), speed=speed)
    service = await bench.open(max_rows=5)
    paused = bench.ask(Pause)  # before the start: nothing is published at all
    task = asyncio.create_task(keeping_up(bench, service.run()))
    assert (await paused).barrier == 0
    assert bench.published == []
    for n in (1, 2):
        stepped = await asyncio.wait_for(bench.ask(Step, count=count), 5)
        expected = min(n * count, 60)
        assert (stepped.barrier, stepped.status) == (
            expected, ReplayStatus.PAUSED if n * count <= 60 else ReplayStatus.COMPLETE,
        )  # fmt: skip
        await check_meeting(bench, stepped)
        assert stepped.reason == ("" if n * count <= 60 else f"{60 - count} of {count} barriers")
    if not task.done():
        await bench.ask(Resume)
    assert (await task).complete


async def test_steps_that_are_given_together_are_all_done_and_other_commands_end_a_long_one():
    bench = Bench(run_of(6))
    service = await bench.open()
    futures = [bench.ask(Pause), *(bench.ask(Step) for _ in range(3))]
    task = asyncio.create_task(keeping_up(bench, service.run()))
    answers = [await future for future in futures]
    assert [a.barrier for a in answers] == [0, 1, 2, 3]
    long = bench.ask(Step, count=1_000)
    ended = bench.ask(Pause)
    stepped, paused = await long, await ended
    assert paused.status is ReplayStatus.PAUSED
    assert 3 < stepped.barrier == paused.barrier < 60
    assert stepped.reason == f"{paused.barrier - 3} of 1,000 barriers"
    await check_meeting(bench, paused)
    await bench.ask(Resume)
    assert (await task).complete


@pytest.mark.parametrize("speed", SPEEDS, ids=str)
@pytest.mark.parametrize("max_rows", [2, 8_192])
@pytest.mark.parametrize("count", [1, 6, 15])
async def test_a_seek_ends_every_partition_with_the_totals_of_what_was_published(
    speed, max_rows, count
):
    bench = Bench(run_of(8), speed=speed, successor=lambda moment: f"to-{moment}")
    service = await bench.open(max_rows=max_rows)
    asked = after(count, bench, Seek, time="2020-12-15T10:30")
    outcome = await asyncio.wait_for(keeping_up(bench, service.run()), 10)
    assert outcome == (True, Moment("2020-12-15T10:30"))
    sought = asked["answer"].result()
    assert (sought.applied, sought.status) == (True, ReplayStatus.SOUGHT)
    assert sought.successor == "to-2020-12-15T10:30"
    await check_meeting(bench, sought)
    for partition in range(2):
        frames = await bench.frames(partition)
        end = frames.pop()
        assert end.kind is FrameKind.END
        assert end.totals == (len(frames), sum(len(f.ticks) for f in frames), sought.barrier)
        assert barriers_closed(frames) == sought.barrier
    if max_rows == 2:
        assert sought.barrier < 80
    assert not (await bench.ask(Resume)).applied


async def test_a_seek_that_leads_nowhere_is_refused_and_disturbs_nobody():
    def nowhere(moment):
        raise UsageError(f"there is nothing behind {moment}", hint="earlier")

    for successor, words in (
        (nowhere, "nothing behind 2030-01-01; earlier"),
        (None, "cannot seek"),
    ):
        bench = Bench(run_of(2), speed=Speed(1), successor=successor)
        service = await bench.open()
        asked = after(3, bench, Seek, time="2030-01-01")
        assert (await keeping_up(bench, service.run())) == (True, None)
        refused = asked["answer"].result()
        assert not refused.applied
        assert words in refused.reason
        assert all(p.late_ns is not None for p in bench.published if p.rows)


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in SPEEDS for b in SPEEDS if a != b])
async def test_the_speed_changes_both_ways_while_it_runs_and_while_it_is_paused(first, second):
    for paused in (False, True):
        bench = Bench(run_of(6), speed=first)
        service = await bench.open(max_rows=6)
        if paused:
            bench.ask(Pause)
            bench.ask(Step, count=3)
            asked = {"answer": bench.ask(SetSpeed, speed=str(second))}
            bench.ask(Resume)
        else:
            asked = after(9, bench, SetSpeed, speed=str(second))
        assert (await asyncio.wait_for(keeping_up(bench, service.run()), 10)).complete
        changed = asked["answer"].result()
        assert (changed.applied, changed.speed) == (True, str(second))
        await check_meeting(bench, changed)
        assert service.speed == second
        later = bench.published[sum(bench.noted[changed.at]) :]
        assert all((p.late_ns is None) == second.is_max for p in later if p.rows)
        assert sum(p.rows for p in bench.published) == 480


async def test_a_command_that_changes_nothing_disturbs_nothing():
    """Neither a question nor a refusal nor the same speed again moves a frame or the schedule."""

    async def times(command=None, **fields):
        bench = Bench(run_of(3), speed=Speed(50), clock=FakeClock())
        service = await bench.open()
        asked = after(11, bench, command, **fields) if command else {}
        await keeping_up(bench, service.run())
        return [(p.at, p.frame_seq, p.rows, p.late_ns) for p in bench.published], asked

    undisturbed, _ = await times()
    for command, fields in ((AskStatus, {}), (Resume, {}), (SetSpeed, {"speed": "50"})):
        seen, asked = await times(command, **fields)
        assert seen == undisturbed
        assert asked["answer"].done()


async def test_a_question_is_answered_in_every_status():
    bench = Bench(run_of(1), speed=Speed(1))
    service = await bench.open()
    assert (await bench.ask(AskStatus)).status is ReplayStatus.RUNNING
    bench.ask(Pause)
    task = asyncio.create_task(keeping_up(bench, service.run()))
    await pass_by()
    asked = await bench.ask(AskStatus)
    assert (asked.status, asked.barrier, asked.event_time) == (ReplayStatus.PAUSED, 0, None)
    await bench.ask(Step, count=2)
    asked = await bench.ask(AskStatus)
    assert (asked.barrier, asked.event_time) == (2, 2 * MINUTE)
    await bench.ask(Resume)
    await task
    assert (await bench.ask(AskStatus)).status is ReplayStatus.COMPLETE


async def test_the_same_id_is_applied_once():
    bench = Bench(run_of(1))
    service = await bench.open()
    bench.ask(Pause)
    step = bench.command(Step)
    first, second = service.apply(step), service.apply(step)
    task = asyncio.create_task(keeping_up(bench, service.run()))
    assert (await first) == (await second)
    assert (await first).barrier == 1
    assert (await service.apply(step)) == (await first)
    assert (await bench.ask(AskStatus)).barrier == 1
    await bench.ask(Resume)
    await task


@pytest.mark.parametrize("speed", [MAX_SPEED, Speed(1)], ids=str)
async def test_a_stop_works_while_paused_and_answers_everybody(speed):
    bench = Bench(run_of(4), speed=speed)
    service = await bench.open()
    bench.ask(Pause)
    task = asyncio.create_task(keeping_up(bench, service.run()))
    await bench.ask(Step, count=7)
    service.stop()
    late = bench.ask(Resume)
    assert await asyncio.wait_for(task, 5) == (False, None)
    assert not (await late).applied
    assert (await late).status is ReplayStatus.STOPPED
    for partition in range(2):
        assert barriers_closed(await bench.frames(partition)) == 7


async def test_a_replay_that_fails_leaves_nobody_waiting():
    def broken():
        yield run_of(1)[0]
        raise DataError("row 7: high is below low")

    bench = Bench(broken())
    service = await bench.open()
    bench.ask(Pause)
    long = bench.ask(Step, count=50)
    with pytest.raises(DataError, match="row 7"):
        await keeping_up(bench, service.run())
    assert "failed" in (await long).reason
    assert "failed" in (await bench.ask(Pause)).reason


async def test_a_paused_replay_costs_no_processor_time():
    bench = Bench(run_of(50), clock=MonotonicClock())
    service = await bench.open()
    paused = bench.ask(Pause)
    task = asyncio.create_task(service.run())
    await paused
    await asyncio.sleep(0.05)
    before = time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - before < 0.1
    service.stop()
    await task


class JitteryClock(FakeClock):
    """Overshoots every wait, by up to 5 ms, and stalls when it is told to."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)

    async def wait_until(self, due: int, wake: asyncio.Event) -> None:
        await super().wait_until(due, wake)
        self.time += int(self.rng.integers(0, 5_000_000))


@pytest.mark.parametrize("seed", range(8))
async def test_after_pauses_changes_of_speed_and_stalls_no_emission_drifts(seed):
    """Every frame is where its stretch's absolute schedule has it, however many were before it."""
    rng = np.random.default_rng(seed)
    clock = JitteryClock(seed)
    bench = Bench(run_of(60), speed=Speed(60), clock=clock)
    service = await bench.open()
    asked: list = []
    stalled_at: list[int] = []

    def hook(_published) -> None:
        n = len(bench.published)
        if n % 211 == 0 and n < 1_000:
            clock.time += int(rng.integers(1, 3 * 10**9))
            stalled_at.append(n)
        elif n % 300 == 0 and n < 1_300:
            speed = Speed(int(rng.choice([7, 45, 60, 200])))
            asked.extend(
                (bench.ask(Pause), bench.ask(SetSpeed, speed=str(speed)), bench.ask(Resume))
            )

    bench.hook = hook
    assert (await keeping_up(bench, service.run())).complete
    stretches = [
        (sum(bench.noted[done.result().at]), parse_speed(done.result().speed)) for done in asked
    ]
    assert len(stretches) == 12
    assert len(stalled_at) >= 3
    starts = [(0, Speed(60)), *stretches, (len(bench.published), Speed(60))]
    compared = 0
    for (begin, speed), (end, _) in itertools.pairwise(starts):
        frames = [p for p in bench.published[begin:end] if p.late_ns is not None]
        if len(frames) < 3:
            continue
        # The anchor is not ours to see: the earliest emission of all, relative to market time.
        offsets = [p.at - p.t_hi * speed.denominator // speed.numerator for p in frames]
        errors = np.array(offsets) - min(offsets)
        late = np.flatnonzero(errors >= 27_000_000)  # 20 ms of a frame, 5 of the clock, its looks
        stalls = [bench.published[n].at for n in stalled_at if begin < n < end]
        for n in late.tolist():
            # Only a stall makes frames late, and none of them waits until they have caught up.
            assert any(stall <= frames[n].at <= stall + 4 * 10**9 for stall in stalls)
            assert frames[n].at - frames[n - 1].at < 6_000_000 or frames[n].at in stalls
        compared += len(frames) - len(late)
    assert compared > 1_000
    assert bench.published[-3].late_ns < 6_000_000


async def test_a_night_that_was_half_waited_out_does_not_begin_again():
    day = make_window(0, [[4, 4]], step=MINUTE)
    night = make_window(1, [[4, 4]], step=MINUTE, start=3_600 * STEP)
    clock = FakeClock()
    bench = Bench([day, night], speed=Speed(60), clock=clock, gaps=Gaps(None))
    service = await bench.open()
    half = 30 * STEP
    waits = 0

    async def wait_until(due: int, wake: asyncio.Event) -> None:
        nonlocal waits
        await asyncio.sleep(0)
        if due - clock.time > half and not waits:
            waits += 1
            clock.time += half
            bench.ask(Pause)
            bench.ask(Resume)
            return
        clock.time = max(clock.time, due)

    clock.wait_until = wait_until
    await keeping_up(bench, service.run())
    assert waits == 1
    data = [p for p in bench.published if p.rows]
    market = data[-1].t_hi - data[0].t_hi
    assert (data[-1].at - data[0].at) / (market / 60) == pytest.approx(1, rel=0.002)
    assert all(p.late_ns is not None for p in data)  # nobody was inside an interval
