"""G10 with a log: what is missing from the ticks stops the task, says where, and stays missing."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest

from streambot.domain.errors import SequenceGapError, StreamError
from streambot.streams.ports import StreamSpec, TopicPartition
from tests.simulation.observer import OWNER, Observer
from tests.simulation.scenario import TICKS, Scenario, scenario_of
from tests.simulation.simulated_broker import Produced, SimulatedBroker, Stored
from tests.simulation.simulated_log import SimulatedLog
from tests.simulation.simulated_process import Crash, Plan, Process
from tests.simulation.simulated_time import SimulatedLoop, simulate

PLACE = TopicPartition(TICKS, 0)


class Bench:
    """A log whose outputs are looked at all the time."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.observer: Observer | None = None
        self.broker = SimulatedBroker(on_stable=self._look)

    def _look(self, place) -> None:
        if self.observer is not None:
            self.observer.look(place)

    async def fill(self) -> None:
        """The whole recording."""
        topics = self.scenario.bench.topics
        await SimulatedLog(self.broker).create([StreamSpec(name=name) for name in topics.values()])
        for value in self.scenario.ticks:
            if value is None:
                self.broker.partition(PLACE).mark()
            else:
                self.broker.store([Produced(PLACE, -1, value, 0, None, ())], lambda _: None)
        self.observer = Observer(self.broker, self.scenario)

    async def live(self, plan: Plan | None = None) -> bool:
        """A life: True: it reached the end; False: it crashed."""
        process = Process("life", plan)
        runner = self.scenario.bench.runner(
            SimulatedLog(self.broker, process=process), reached=process.reached
        )
        try:
            return await runner.run()
        except Crash:
            return False

    def lose(self, offset: int) -> None:
        """A record is gone, as if it had never been."""
        self.broker.partition(PLACE).entries[offset] = Stored(None, None)


def clean_scenarios(count: int) -> list[Scenario]:
    """Scenarios with an agent inside, whose ticks are frames and nothing else."""
    found, number = [], 0
    while len(found) < count:
        scenario = scenario_of(number)
        clean = None not in scenario.ticks and len(set(scenario.ticks)) == len(scenario.ticks)
        if clean and not scenario.orders and not scenario.expected.written["dead-letter"]:
            found.append(scenario)
        number += 1
    return [scenario for scenario in found if len(scenario.ticks) > 4]


SCENARIOS = clean_scenarios(10)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: str(s.number))
def test_a_frame_that_is_gone_stops_the_task_in_every_life(scenario):
    """Whatever crashes come in between, everything in front of the gap is written, and nothing else."""
    random = Random(scenario.number)
    gone = random.randrange(len(scenario.ticks) - 1)

    async def main() -> None:
        bench = Bench(scenario)
        await bench.fill()
        bench.lose(gone)
        for _ in range(random.randrange(4)):
            with suppress(SequenceGapError):
                assert not await bench.live(Plan(crash_at=random.randrange(1, 120)))
        for _ in range(2):
            with pytest.raises(SequenceGapError, match=f"expected frame {gone}, .*{gone + 1}"):
                await bench.live()
        seen, counts = bench.observer.seen, scenario.expected.counts[gone]
        assert seen == counts
        assert bench.broker.quiet(OWNER)

    simulate(SimulatedLoop(), main())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: str(s.number))
def test_a_head_that_retention_ate_stops_a_task_that_needs_it(scenario):
    """A new task misses frame 0; one that has gone on behind what is gone does not miss anything."""
    random = Random(scenario.number)
    base = random.randrange(1, len(scenario.ticks))

    async def main() -> None:
        new = Bench(scenario)
        await new.fill()
        new.broker.partition(PLACE).truncate(base)
        with pytest.raises(SequenceGapError, match=f"expected frame 0, received {base}"):
            await new.live()
        assert not any(new.observer.seen.values())

        old = Bench(scenario)
        await old.fill()
        await old.live(Plan(crash_point=("committed", random.randrange(1, 4))))
        task = old.observer.task
        if task is None or not scenario.resumable:
            return
        old.broker.partition(PLACE).truncate(base)
        before = dict(old.observer.seen)
        if task.offset >= base:
            assert await old.live()
            old.observer.check_whole()
            return
        wrong = pytest.raises(StreamError, match=f"is not kept: it holds {base}|expected frame 0")
        for _ in range(2):
            with wrong:
                await old.live()
        assert old.observer.seen == before

    simulate(SimulatedLoop(), main())
