"""One crash schedule: lives of an engine task on a simulated log, and what must hold at all times.

    python -m tests.simulation.campaign SEED [--mutant NAME]     runs one again, and tells everything

A schedule is a function of its seed: which scenario, how the ticks and the answers arrive, how bad
the weather is, how large commits are, how many processes have a go, when each crashes, is stopped
or goes on as a zombie. At the end the weather clears up, and the work must be finished.

At all times:
- what a reader of committed records sees of every output is a prefix of what the core alone says;
- what is committed is outputs, state and offsets together;
- the state seen is that of the core at its frame, and wherever nothing is under way, outputs, state
  and the group's offsets say the same;
- a process that gives up because it was fenced has a successor; none opens again without a look;
- no other failure ends a process, but a log given up after `MOST_REOPENS` failures in a row.
In the end everything has been written, and nothing twice.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from hashlib import blake2b
from random import Random
from types import MappingProxyType
from typing import NamedTuple
from unittest import mock

from streambot.domain.errors import BrokerError, FencedError
from streambot.processor import exactly_once, state_log
from streambot.processor.exactly_once import ExactlyOnceRunner
from streambot.streams.ports import StreamSpec, TopicPartition
from tests.simulation.observer import OWNER, BrokenError, Observer
from tests.simulation.scenario import ORDERS, SCHEDULES_EACH, TICKS, Scenario, scenario_of
from tests.simulation.simulated_broker import (
    TRANSACTION_TIMEOUT_S,
    OpenTransaction,
    Produced,
    SimulatedBroker,
)
from tests.simulation.simulated_log import SimulatedLog
from tests.simulation.simulated_process import (
    REQUEST_TIMEOUT_S,
    Chances,
    Crash,
    Plan,
    Process,
    Weather,
)
from tests.simulation.simulated_time import SimulatedLoop, simulate

POINTS = (
    "fenced", "restored", "tail-read", "opened", "begun", "output-sent", "dead-letter-sent",
    "outputs-stored", "state-sent", "offsets-sent", "committing", "committed",
)  # fmt: skip
PATIENCE_S = 120.0
"""Simulated seconds after which a schedule counts as hanging."""
MOST_LIVES = 12
BLIND_OPENS = 2
"""How often a process that was fenced may open again without a look whether it has a successor: where
it had another failure before it heard of that."""


class Mutant(NamedTuple):
    """Something made wrong on purpose.

    Attributes:
        runner: in the place of the runner.
        broker: in the place of the broker.
        patch: patches anything else while the schedule runs.
        chances: of the weather, where it takes other weather than usual to see it.
        suits: the scenarios that can show it.
        parts: its transactions are not whole on purpose: what follows from that is to be seen.
    """

    runner: type[ExactlyOnceRunner] = ExactlyOnceRunner
    broker: type[SimulatedBroker] = SimulatedBroker
    patch: Callable[[ExitStack], None] = lambda _: None
    chances: Mapping[str, float] = MappingProxyType({})
    suits: Callable[[Scenario], bool] = lambda _: True
    parts: bool = True


NO_MUTANT = Mutant(parts=False)


class Life:
    """A process that works on the task."""

    def __init__(self, schedule: Schedule, number: int, plan: Plan) -> None:
        self.process = Process(f"life {number}", plan, schedule.trace)
        self.log = _WatchedLog(schedule, self)
        self.runner = schedule.scenario.bench.runner(
            self.log,
            schedule.mutant.runner,
            reached=self.process.reached,
            on_committed=schedule.committed,
        )
        self.fenced = False
        self.blind_opens = 0
        self.task = asyncio.ensure_future(self._live(schedule))

    async def _live(self, schedule: Schedule) -> bool:
        process = self.process
        try:
            ended = await self.runner.run()
        except Crash:
            return False
        except FencedError as fenced:
            schedule.trace(f"{process.name} gives up: {fenced}")
            if process.dead:
                return False
            if self.runner._failures <= exactly_once.MOST_REOPENS:
                schedule.check_has_successor(self)
            return False
        except BrokerError as failure:
            schedule.trace(f"{process.name} gives up: {failure}")
            if process.dead or self.runner._failures > exactly_once.MOST_REOPENS:
                return False
            raise BrokenError(f"{process.name} did not go on: {failure}") from failure
        if process.dead:
            return False
        schedule.trace(f"{process.name} has ended: {ended}")
        return ended


class _WatchedLog(SimulatedLog):
    """Sees who was fenced, and opens again without a look whether there is a successor."""

    def __init__(self, schedule: Schedule, life: Life) -> None:
        super().__init__(schedule.broker, schedule.weather, life.process)
        self._state = schedule.scenario.bench.topics["state"]
        self._life = life

    async def call(self, what, request, limit_s=REQUEST_TIMEOUT_S):
        try:
            return await super().call(what, request, limit_s)
        except FencedError:
            self._life.fenced = True
            raise

    async def end_offsets(self, stream: str) -> list[int]:
        if stream == self._state:
            self._life.fenced = False
        return await super().end_offsets(stream)

    async def transactions(self, name: str):
        life = self._life
        life.blind_opens += life.fenced
        if life.blind_opens > BLIND_OPENS:
            raise BrokenError(f"{life.process.name} does not look for its successor")
        return await super().transactions(name)


class Schedule:
    """Everything that a seed decides."""

    def __init__(self, seed: int, mutant: Mutant = NO_MUTANT, *, verbose: bool = False) -> None:
        self.seed = seed
        self.mutant = mutant
        self.tell: Callable[[str], None] = print if verbose else lambda _: None
        self.random = Random(seed)
        self.scenario = scenario_of(seed // SCHEDULES_EACH)
        self.weather = Weather(self._chances(), Random(seed + 1))
        self.loop: SimulatedLoop | None = None  # made when it runs, so that it is closed
        self.observer: Observer | None = None
        self.broker = mutant.broker(self.weather.mark, self._look, self._decided)
        self.lives: list[Life] = []
        self._hash = blake2b(digest_size=8)
        self._broken: BaseException | None = None

    @property
    def digest(self) -> str:
        """Of everything that happened."""
        return self._hash.hexdigest()

    def run(self) -> None:
        """Run it.

        Raises:
            BrokenError, HangsError: an invariant does not hold.
        """
        with ExitStack() as stack:
            self._settings(stack)
            self.mutant.patch(stack)
            self.loop = SimulatedLoop(self._step_s)
            simulate(self.loop, self._main())

    def trace(self, what: str) -> None:
        """Something happened."""
        line = f"{self.loop.now:10.4f}  {what}"
        self._hash.update(line.encode())
        self.tell(line)

    def committed(self, committed) -> None:
        """A runner says what it made visible."""
        self.trace(f"committed {[frame.frame_seq for frame in committed.frames]}")

    def check_has_successor(self, life: Life) -> None:
        """Whoever gives up must have one."""
        observer = self.observer
        assert observer is not None
        if observer.opened_by is life.process or observer.opened_by is None:
            raise BrokenError(f"{life.process.name} gave up, and nobody has taken over")

    def _look(self, place: TopicPartition | None) -> None:
        if self.observer is not None:
            self._noted(partial(self.observer.look, place))

    def _decided(self, transaction: OpenTransaction) -> None:
        if self.observer is not None and not self.mutant.parts:
            self._noted(partial(self.observer.decided, transaction))

    def _noted(self, look: Callable[[], None]) -> None:
        """What is seen while the broker works is told by who waits for the schedule."""
        try:
            look()
        except BrokenError as broken:
            self._broken = self._broken or broken

    def _chances(self) -> Chances:
        random = self.random
        chances = Chances(
            trouble=random.choice((0.0, 0.003, 0.01, 0.03)),
            stale=random.choice((0.0, 0.0, 0.05)),
            behind=random.choice((0.0, 0.0, 0.02)),
            compact=random.choice((0.0, 0.0, 0.3)),
            latency_s=random.choice((0.0, 0.002, 0.02)),
            mark_s=random.choice((0.0, 0.01, 0.1)),
        )
        return chances._replace(**self.mutant.chances)

    def _settings(self, stack: ExitStack) -> None:
        random = self.random
        for module, name, values in (
            (exactly_once, "COMMIT_EVERY_S", (0.0, 0.01, 0.1)),
            (exactly_once, "READ_RECORDS", (1, 2, 3, 8, 16)),
            (exactly_once, "COMMIT_BYTES", (1, 4_000, 8 << 20)),
            (state_log, "FULL_EVERY", (1, 3, 64)),
            (state_log, "_FIRST_LOOK", (1, 4, 64)),
        ):
            stack.enter_context(mock.patch.object(module, name, random.choice(values)))

    def _step_s(self) -> float:
        return self.weather.latency()

    def _plan(self) -> Plan:
        random = self.random
        stops = random.random() < 0.4
        kind = random.randrange(4)
        return Plan(
            crash_at=1 + int(random.expovariate(1 / 60)) if kind < 2 else None,
            crash_point=(random.choice(POINTS), random.choice((1, 1, 1, 2, 3, 7)))
            if kind == 2
            else None,
            stop_at=1 + int(random.expovariate(1 / 40)) if stops else None,
            stop_s=random.choice((0.1, 0.7, 2.0, 5.0)) * random.random(),
            drops=random.random() < 0.5,
        )

    async def _main(self) -> None:
        random, scenario = self.random, self.scenario
        bench = scenario.bench
        setup = SimulatedLog(self.broker)
        await setup.create([StreamSpec(name=name) for name in bench.topics.values()])
        self.observer = Observer(self.broker, scenario)
        feeders = [asyncio.ensure_future(self._feed(TICKS, scenario.ticks))]
        if scenario.orders:
            feeders.append(asyncio.ensure_future(self._feed(ORDERS, scenario.orders)))
        for number in range(random.randint(1, 5)):
            self._start(number, self._plan())
            if random.random() < 0.5:
                await self._wait(random.random() * random.choice((0.05, 0.5, 3.0)))
            else:  # restarted by a supervisor
                await self._wait(PATIENCE_S, until_all_end=True)
        self._clear_up()
        while not any(self._ended(life) for life in self.lives):
            if all(life.task.done() for life in self.lives):
                self._check()
                if len(self.lives) >= MOST_LIVES:
                    raise BrokenError("nobody finishes the work")
                self._start(len(self.lives), Plan())
            await self._wait(PATIENCE_S, until_one_ends=True)
        await asyncio.gather(*feeders)
        await self._wait(PATIENCE_S, until_all_end=True)
        await asyncio.sleep(2 * TRANSACTION_TIMEOUT_S)
        if not self.broker.quiet(OWNER):
            raise BrokenError("a transaction does not end")
        self._check()
        if not all(life.task.done() for life in self.lives):
            raise BrokenError("a process does not end though all the work is done")
        self.observer.check_whole()
        self.trace(f"whole: {self.observer.seen}")

    def _start(self, number: int, plan: Plan) -> None:
        self.trace(f"life {number} starts: {plan}")
        self.lives.append(Life(self, number, plan))

    def _clear_up(self) -> None:
        """From now on nothing goes wrong any more; zombies are still there."""
        self.trace("the weather clears up")
        chances = self.weather.chances
        self.weather.chances = Chances(latency_s=chances.latency_s, mark_s=chances.mark_s)
        for life in self.lives:
            life.process.plan = life.process.plan._replace(crash_at=None, crash_point=None)

    @staticmethod
    def _ended(life: Life) -> bool:
        return life.task.done() and not life.task.cancelled() and life.task.result()

    async def _wait(
        self, seconds: float, *, until_all_end: bool = False, until_one_ends: bool = False
    ) -> None:
        living = [life.task for life in self.lives if not life.task.done()]
        when = asyncio.FIRST_COMPLETED if until_one_ends else asyncio.ALL_COMPLETED
        if not (until_all_end or until_one_ends):
            await asyncio.sleep(seconds)
        elif living:
            done, _ = await asyncio.wait(living, timeout=seconds, return_when=when)
            if not done and until_one_ends:
                raise BrokenError("nothing ends")
        self._check()

    def _check(self) -> None:
        for life in self.lives:
            if life.task.done() and not life.task.cancelled():
                life.task.result()
        if self._broken is not None:
            raise self._broken

    async def _feed(self, stream: str, values: list) -> None:
        """Write to a stream, at once or bit by bit, as somebody whom nothing disturbs."""
        random = Random(f"{self.seed} {stream}")
        place = TopicPartition(stream, 0)
        pause = random.choice((0.0, 0.0, 0.01, 0.1))
        for value in values:
            if pause and random.random() < 0.5:
                await asyncio.sleep(random.random() * pause)
            if value is None:
                self.broker.partition(place).mark()
            else:
                self.broker.store([Produced(place, -1, value, 0, None, ())], lambda _: None)


def run_schedule(seed: int, mutant: Mutant = NO_MUTANT, *, verbose: bool = False) -> str:
    """Run the schedule of a seed; returns a digest of everything that happened."""
    schedule = Schedule(seed, mutant, verbose=verbose)
    try:
        schedule.run()
    except BaseException as failure:
        failure.add_note(f"to see it: python -m tests.simulation.campaign {seed}")
        raise
    return schedule.digest


def run_schedules(seeds: range, mutant: Mutant = NO_MUTANT) -> None:
    """Run many, without the garbage collector, which would have to look at numba each time."""
    gc.collect()
    gc.freeze()
    try:
        for seed in seeds:
            run_schedule(seed, mutant)
    finally:
        gc.unfreeze()


def caught(mutant: Mutant, most: int) -> tuple[int, Exception] | None:
    """How many schedules it takes to notice a mutant, and how it is; None: `most` do not."""
    number, seed = 0, -1
    while number < most:
        seed += 1
        if not mutant.suits(scenario_of(seed // SCHEDULES_EACH)):
            continue
        number += 1
        try:
            run_schedule(seed, mutant)
        except Exception as noticed:  # noqa: BLE001  # whatever it is
            return number, noticed
    return None


def main(arguments: list[str]) -> None:
    """Run one schedule and tell everything."""
    mutant = NO_MUTANT
    if "--mutant" in arguments:
        from tests.simulation.mutants import MUTANTS

        mutant = MUTANTS[arguments[arguments.index("--mutant") + 1]]
    print(run_schedule(int(arguments[0]), mutant, verbose=True))


if __name__ == "__main__":
    main(sys.argv[1:])
