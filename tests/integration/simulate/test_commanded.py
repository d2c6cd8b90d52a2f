"""Whole simulations under command: one digest, and runs that a seek started are like straight ones."""

import asyncio
import json

import pytest

from streambot.streams.control import Pause, Resume, Seek, SetSpeed, Step
from streambot.wiring import run_simulation
from streambot.wiring.controlling import ReplayControls
from tests.integration.simulate.bars import Told, run, settings, write_bars
from tests.waiting import holds_soon

EMBEDDED = pytest.param("embedded", marks=pytest.mark.integration)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("commanded")
    write_bars(made / "bars.parquet")
    return made


@pytest.fixture(scope="module")
def reference(folder):
    return run(folder, run="reference").digest


class Pilot:
    """Gives commands to whichever run goes; remembers the runs that seeks have ended."""

    def __init__(self) -> None:
        self.left: list = []
        self.controls = ReplayControls(
            lambda summary, successor: self.left.append((summary, successor))
        )
        self.count = 0

    async def give(self, kind, **fields):
        """The acknowledgement; waits until a run goes."""
        while True:
            self.count += 1
            answer = self.controls.apply(
                kind(id=f"p{self.count}", sender="pilot", number=self.count, **fields)
            )
            if answer is not None:
                return await answer
            await asyncio.sleep(0.01)

    async def until(self, holds) -> None:
        await holds_soon(holds, 60)


def fly(folder, plan, told=None, **flags):
    """A simulation beside `plan(pilot)`; returns summary and pilot."""
    pilot = Pilot()

    async def both():
        flying = asyncio.create_task(plan(pilot))
        try:
            summary = await run_simulation(
                settings(folder, **flags), observer=told, cwd=folder, controls=pilot.controls
            )
        finally:
            flying.cancel()
        return summary

    return asyncio.run(both()), pilot


@pytest.mark.parametrize("broker", ["in-process", EMBEDDED])
@pytest.mark.parametrize("number", range(4))
def test_random_commands_leave_the_digest_alone(folder, reference, rng, broker, number):
    del number
    speeds = ("max", "20000x", "60000x", "200000x")
    given = []
    for _ in range(int(rng.integers(4, 12))):
        kind = (Pause, Resume, Step, SetSpeed)[int(rng.integers(4))]
        fields = {}
        if kind is Step:
            fields["count"] = int(rng.integers(1, 90))
        elif kind is SetSpeed:
            fields["speed"] = str(rng.choice(speeds))
        given.append((float(rng.random() * 0.08), kind, fields))
    print(given)

    async def plan(pilot):
        for wait, kind, fields in given:
            await pilot.give(kind, **fields)
            await asyncio.sleep(wait)
        while True:
            await pilot.give(Resume)
            await asyncio.sleep(0.05)

    summary, pilot = fly(
        folder, plan, broker=broker, speed="20000x", partitions=str(int(rng.integers(1, 6)))
    )
    assert summary.state == "complete"
    assert summary.digest == reference
    assert pilot.left == []


@pytest.mark.parametrize("broker", ["in-process", EMBEDDED])
def test_every_run_that_a_seek_started_is_like_a_straight_one_from_there(folder, broker):
    times = ("2020-12-02T15:00Z", "2020-12-01T17:00Z", "2020-12-02T16:30Z")

    async def plan(pilot):
        for n, time in enumerate(times):
            while len(pilot.left) < n or (await pilot.give(Pause)).barrier < 5:
                await pilot.give(Step, count=7)
            assert (await pilot.give(Seek, time=time)).successor == f"{name}.s{n + 1}"
            await pilot.until(lambda n=n: len(pilot.left) > n)

    name = f"sought-{broker}"
    told = Told()
    summary, pilot = fly(folder, plan, told, run=name, broker=broker, speed="20000x")
    assert [successor for _, successor in pilot.left] == [f"{name}.s{n}" for n in (1, 2, 3)]
    assert [left.stopped_by for left, _ in pilot.left] == ["seek"] * 3
    assert all(left.state == "complete" for left, _ in pilot.left)
    assert (summary.run, summary.state, summary.stopped_by) == (f"{name}.s3", "complete", None)
    assert len(told.plans) == 4
    assert told.warnings == []
    assert summary.digest == run(folder, **{"from": times[-1]}).digest
    parents = {}
    for number in ("", ".s1", ".s2", ".s3"):
        record = json.loads((folder / "runs" / f"{name}{number}" / "run.json").read_text())
        assert record["state"] == "complete"
        parents[record["run"]] = record["manifest"]["parent"]
    assert parents == {
        name: None, f"{name}.s1": name, f"{name}.s2": f"{name}.s1", f"{name}.s3": f"{name}.s2",
    }  # fmt: skip


def test_what_a_seek_has_ended_has_the_fills_of_the_run_up_to_there(folder, reference):
    del reference  # its files are what is compared with

    async def plan(pilot):
        await pilot.give(Pause)
        await pilot.give(Step, count=100)
        await pilot.give(Seek, time="2020-12-02T17:00Z")

    summary, pilot = fly(folder, plan, run="cut", speed="20000x")
    [(left, successor)] = pilot.left
    assert (summary.run, successor, left.barriers) == ("cut.s1", "cut.s1", 100)
    ours, theirs = (
        (folder / "runs" / run / "fills.ndjson").read_bytes().splitlines()
        for run in ("cut", "reference")
    )
    assert len(ours) == left.fills + sum(left.rejected.values()) > 10
    assert sorted(ours) == sorted(
        line for line in theirs if json.loads(line)["barrier"] < left.barriers
    )


def test_a_run_that_a_seek_started_can_be_resumed(folder):
    """Its manifest names its parent, and is the same again."""
    from streambot.wiring import StopRequest

    stop, told = StopRequest(), Told()
    told.at_record = lambda _: stop.request() if len(told.plans) == 2 else None

    async def go():
        pilot = Pilot()

        async def plan():
            await pilot.give(Pause)
            await pilot.give(Seek, time="2020-12-01T20:00Z")

        flying = asyncio.create_task(plan())
        ended = await run_simulation(
            settings(folder, run="again", speed="20000x"), observer=told, stop=stop, cwd=folder,
            controls=pilot.controls,
        )  # fmt: skip
        await flying
        return ended

    part = asyncio.run(go())
    assert (part.run, part.state) == ("again.s1", "interrupted")
    whole = run(folder, resume="again.s1", speed="max")
    assert whole.digest == run(folder, **{"from": "2020-12-01T20:00Z"}).digest
