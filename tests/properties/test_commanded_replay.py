"""Whatever commands a replay gets, and whenever: the events are those of the undisturbed run."""

import asyncio
from typing import NamedTuple

import numpy as np
import pytest

from streambot.domain.replay_settings import MAX_SPEED, Speed
from streambot.engine.scripts import Script
from streambot.processor.close_rows import CloseRows
from streambot.processor.journal import event_digest
from streambot.processor.task import TaskCore
from streambot.streams.control import Pause, ReplayStatus, Resume, Seek, SetSpeed, Step
from streambot.streams.frame import FrameKind
from tests.unit.processor.market import MINUTE, Market
from tests.unit.replay.bench import Bench, barriers_closed, keeping_up

BARS = 90
SPEEDS = ("max", "0.5x", "60x", "2400x", "100000x")
SEQUENCES = 100


class Given(NamedTuple):
    """A command, behind so many publications, or as soon as the replay is paused."""

    at: int
    kind: type
    fields: dict


def random_commands(rng: np.random.Generator) -> list[Given]:
    kinds = (Pause, Resume, Step, SetSpeed)
    given, at = [], 0
    for _ in range(int(rng.integers(1, 25))):
        at += int(rng.integers(0, 30)) if rng.random() < 0.7 else 0
        kind = kinds[int(rng.integers(len(kinds)))]
        fields: dict = {}
        if kind is Step:
            fields["count"] = int(rng.integers(1, 8))
        elif kind is SetSpeed:
            fields["speed"] = str(rng.choice(SPEEDS))
        given.append(Given(at, kind, fields))
    return given


async def drive(bench: Bench, given: list[Given]) -> list:
    """Give the commands in their order; go on at the end. Returns the acknowledgements."""
    service = bench.service
    answers = []
    waiting = list(given)
    while service.status in {ReplayStatus.RUNNING, ReplayStatus.PAUSED, ReplayStatus.STEPPING}:
        await asyncio.sleep(0)
        idle = service.status is ReplayStatus.PAUSED and all(a.done() for a in answers)
        while waiting and (idle or len(bench.published) >= waiting[0].at):
            _, kind, fields = waiting.pop(0)
            answers.append(bench.ask(kind, **fields))
            idle = False
        if idle:
            answers.append(bench.ask(Resume))
    return [await answer for answer in answers]


def digest_of(frames: list[list], manifest) -> str:
    """Event digest of what the log holds."""
    cores = [TaskCore(manifest, p, {}, Script.RANDOM) for p in range(len(frames))]
    for core, of_partition in zip(cores, frames, strict=True):
        closes = CloseRows()
        for frame in of_partition:
            if frame.kind is FrameKind.DATA:
                core.step(closes.settle(frame))
        core.finish()
    return event_digest({k: v for core in cores for k, v in core.digest.parts().items()})


def bench_of(manifest, windows, speed: Speed, **more) -> Bench:
    return Bench(
        windows, instruments=len(manifest.instruments), partitions=manifest.partitions,
        owner=manifest.partition_of, run=manifest.run_id, speed=speed, **more,
    )  # fmt: skip


UNDISTURBED: dict[int, str] = {}


async def undisturbed(seed: int) -> str:
    if seed not in UNDISTURBED:
        market = Market(bars=BARS, seed=seed, missing=0.2)
        manifest = market.manifest(partitions=1, max_gap_ns=3 * MINUTE)
        bench = bench_of(manifest, market.windows(1_000), MAX_SPEED)
        assert await keeping_up(bench, (await bench.open()).run()) == (True, None)
        UNDISTURBED[seed] = digest_of([await bench.frames(0)], manifest)
    return UNDISTURBED[seed]


async def check(bench: Bench, answers: list, frames: list[list]) -> None:
    """Each command was done at one closed barrier; paused means that nothing is published."""
    last = None
    steps = [answer for answer in answers if answer.command == "step"]
    for answer in sorted(answers, key=lambda a: a.at):
        if not answer.applied:
            continue
        counts = bench.noted[answer.at]
        if answer.status is not ReplayStatus.COMPLETE and "already" not in answer.reason:
            for count, of_partition in zip(counts, frames, strict=True):
                assert barriers_closed(of_partition[:count]) == answer.barrier
        paused = last is not None and last.status is ReplayStatus.PAUSED
        # Only a step that was not answered yet may have published something.
        if paused and not any(s.at > last.at and s.number <= answer.number for s in steps):
            assert counts == bench.noted[last.at]
        last = answer


@pytest.mark.parametrize("number", range(SEQUENCES))
async def test_any_sequence_of_commands_over_any_framing_gives_the_same_events(number, rng):
    seed = int(rng.integers(1, 4))
    partitions = int(rng.integers(1, 6))
    max_rows = int(rng.choice([1, 3, 17, 200, 8_192]))
    max_barriers = int(rng.choice([1, 2, 7, 65_535]))
    per_window = int(rng.choice([1, 7, 40, 1_000]))
    speed = Speed(60) if rng.random() < 0.5 else MAX_SPEED
    given = random_commands(rng)
    print(seed, partitions, max_rows, max_barriers, per_window, speed, given)
    market = Market(bars=BARS, seed=seed, missing=0.2)
    manifest = market.manifest(partitions=partitions, max_gap_ns=3 * MINUTE)
    bench = bench_of(manifest, market.windows(per_window), speed)
    service = await bench.open(max_rows=max_rows, max_barriers=max_barriers)
    driver = asyncio.create_task(drive(bench, given))
    outcome = await asyncio.wait_for(keeping_up(bench, service.run()), 60)
    assert outcome == (True, None)
    frames = [await bench.frames(p) for p in range(partitions)]
    for of_partition in frames:
        assert of_partition[-1].totals.barriers == BARS
    await check(bench, await driver, frames)
    assert digest_of(frames, manifest) == await undisturbed(seed)


@pytest.mark.parametrize("number", range(20))
async def test_what_a_seek_ends_has_the_events_of_the_bars_up_to_there(number, rng):
    """A replay that ends at a seek is a replay of a shorter market: gapless, with its own totals."""
    seed, partitions = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    market = Market(bars=BARS, seed=seed, missing=0.2)
    manifest = market.manifest(partitions=partitions, max_gap_ns=3 * MINUTE)
    speed = Speed(60) if rng.random() < 0.5 else MAX_SPEED
    max_rows = int(rng.choice([3, 40]))
    bench = bench_of(
        manifest, market.windows(30), speed, successor=lambda _: "next",
    )  # fmt: skip
    given = [g for g in random_commands(rng)[:4] if g.kind is not SetSpeed] + [
        Given(int(rng.integers(1, 40)), Seek, {"time": "2020-12-02"})
    ]
    print(seed, partitions, max_rows, speed, given)
    service = await bench.open(max_rows=max_rows)
    driver = asyncio.create_task(drive(bench, given))
    outcome = await asyncio.wait_for(keeping_up(bench, service.run()), 60)
    assert str(outcome.seek) == "2020-12-02"
    reached = (await driver)[-1].barrier
    frames = [await bench.frames(p) for p in range(partitions)]
    assert {f[-1].totals.barriers for f in frames} == {reached}
    straight = bench_of(manifest, market.windows(reached), MAX_SPEED)
    straight.windows = iter([next(straight.windows)] if reached else [])
    await keeping_up(straight, (await straight.open()).run())
    expected = [await straight.frames(p) for p in range(partitions)]
    assert digest_of(frames, manifest) == digest_of(expected, manifest)
