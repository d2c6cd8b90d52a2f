"""The replay publishes everything, on its schedule, never further ahead than the engine allows."""

import asyncio
import contextlib

import numpy as np
import pytest

from streambot.domain.errors import DataError
from streambot.domain.replay_settings import MAX_SPEED, Speed
from streambot.replay.service import MonotonicClock, Published
from streambot.streams.frame import FrameKind
from tests.unit.replay.bench import Bench, FakeClock, keeping_up, run_of
from tests.unit.replay.windows import STEP, make_window


@pytest.mark.parametrize("speed", [MAX_SPEED, Speed(100)])
async def test_every_partition_gets_all_rows_all_closes_and_an_end_with_their_totals(speed):
    bench = Bench(run_of(3), speed=speed)
    outcome = await keeping_up(bench, (await bench.open()).run())
    assert outcome.complete
    for partition in range(2):
        frames = await bench.frames(partition)
        end = frames[-1]
        assert end.kind is FrameKind.END
        assert end.totals == (len(frames) - 1, 120, 30)
        assert sum(len(f.ticks) for f in frames) == 120
        closes = np.concatenate([f.closes for f in frames])
        assert closes.tolist() == [(k + 1) * 60 * STEP for k in range(30)]


@pytest.mark.parametrize(("num", "den"), [(1, 1), (10, 1), (100, 1), (1, 2), (7, 3)])
async def test_emissions_follow_an_absolute_schedule_without_drift(num, den):
    bench = Bench(run_of(2), speed=Speed(num, den))
    await keeping_up(bench, (await bench.open()).run())
    data = [p for p in bench.published if p.late_ns is not None]
    first = data[0]
    for p in data:
        schedule = first.at - first.late_ns + (p.t_hi - first.t_hi) * den / num
        # A frame's last row is at most 20 ms of wall time before the last thing in its batch.
        assert -1 <= p.at - schedule <= 20_000_000 + 1_000_000
        assert 0 <= p.late_ns < 1_000_000
    assert data[-1].at - first.at == pytest.approx(
        (data[-1].t_hi - first.t_hi) * den / num, abs=1_000_000
    )


async def test_a_late_replay_catches_up_and_drops_nothing():
    clock = FakeClock()
    bench = Bench(run_of(2), speed=Speed(1, 1), clock=clock)
    service = await bench.open()
    stall = 500 * STEP

    def stall_once(published: Published) -> None:
        if len(bench.published) == 10:
            clock.time += stall

    bench.hook = stall_once
    await keeping_up(bench, service.run())
    late = [p.late_ns for p in bench.published if p.late_ns is not None]
    assert max(late) > stall * 0.9
    assert late[-1] < 1_000_000  # back on the schedule it had before
    assert sum(p.rows for p in bench.published) == 160


async def test_the_replay_waits_for_an_engine_that_is_too_far_behind():
    bench = Bench(run_of(20), max_frames=4)
    service = await bench.open(max_rows=8)
    task = asyncio.create_task(service.run())
    for _ in range(200):
        await asyncio.sleep(0.001)
        assert bench.backlog.frames <= 4
    assert not task.done()
    await keeping_up(bench, task)
    assert bench.backlog.frames >= 0


async def test_bytes_count_as_much_as_frames():
    bench = Bench(run_of(20), max_bytes=4_000)
    task = asyncio.create_task((await bench.open(max_rows=8)).run())
    await asyncio.sleep(0.1)
    assert 4_000 <= bench.backlog.bytes < 8_000
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("after", [1, 5, 17, 40])
async def test_a_stop_at_pace_ends_every_partition_at_a_closed_barrier(after):
    bench = Bench(run_of(3), speed=Speed(100, 1))
    service = await bench.open()

    def stop_there(published: Published) -> None:
        if len(bench.published) == after:
            service.stop()

    bench.hook = stop_there
    outcome = await keeping_up(bench, service.run())
    assert not outcome.complete
    for partition in range(2):
        frames = await bench.frames(partition)
        assert all(f.kind is FrameKind.DATA for f in frames)
        last = frames[-1]
        assert last.barrier_hi == last.barrier_lo + len(last.closes) - 1
    assert len(bench.published) < 60


@pytest.mark.parametrize("max_rows", [3, 8, 1000])
async def test_a_stop_at_full_speed_ends_every_partition_at_a_closed_barrier(max_rows):
    bench = Bench(run_of(50))
    service = await bench.open(max_rows=max_rows)

    def stop_there(published: Published) -> None:
        if len(bench.published) == 5:
            service.stop()

    bench.hook = stop_there
    outcome = await keeping_up(bench, service.run())
    assert not outcome.complete
    closed = 0
    for partition in range(2):
        frames = await bench.frames(partition)
        assert all(f.kind is FrameKind.DATA for f in frames)
        last = frames[-1]
        assert last.barrier_hi == last.barrier_lo + len(last.closes) - 1
        closed += sum(len(f.closes) for f in frames)
    assert closed < 1000


async def test_a_stop_before_a_long_wait_publishes_nothing_of_the_next_day():
    day = make_window(0, [[4, 4]], step=60 * STEP)
    night = make_window(1, [[4, 4]], step=60 * STEP, start=86_400 * STEP)
    bench = Bench([day, night], speed=Speed(100_000), clock=MonotonicClock())
    service = await bench.open()
    task = asyncio.create_task(service.run())
    await asyncio.sleep(0.2)
    service.stop()
    outcome = await keeping_up(bench, asyncio.wait_for(task, 5))
    assert not outcome.complete
    assert sum(p.rows for p in bench.published) == 8


async def test_bars_that_cannot_be_trusted_stop_the_replay():
    def broken():
        yield run_of(1)[0]
        raise DataError("row 7: high is below low")

    bench = Bench(broken())
    with pytest.raises(DataError, match="row 7"):
        await keeping_up(bench, (await bench.open()).run())


async def test_the_real_clock_is_within_ten_milliseconds_of_its_schedule():
    bench = Bench(run_of(2), speed=Speed(2_000, 1), clock=MonotonicClock())
    await keeping_up(bench, (await bench.open()).run())
    late = [p.late_ns for p in bench.published if p.late_ns is not None]
    assert min(late) >= 0
    assert np.median(late) < 10_000_000  # p99 is for the benchmark: a test machine is busy
