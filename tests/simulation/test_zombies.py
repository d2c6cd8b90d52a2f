"""Single moments of the fight for a task, too rare to wait for in a campaign."""

from __future__ import annotations

import pytest

from streambot.domain.errors import BrokerError, FencedError
from streambot.processor.exactly_once import ExactlyOnceRunner
from streambot.streams.ports import StreamSpec
from tests.simulation.observer import OWNER
from tests.simulation.scenario import scenario_of
from tests.simulation.simulated_broker import SimulatedBroker
from tests.simulation.simulated_log import SimulatedLog
from tests.simulation.simulated_time import SimulatedLoop, simulate


class FirstCommitUnanswered(SimulatedLog):
    """The first commit takes effect, but nobody hears of it."""

    unanswered = True

    async def call(self, what, request, *more):
        found = await super().call(what, request, *more)
        if what == "commit" and self.unanswered:
            self.unanswered = False
            raise BrokerError("no answer")
        return found


class FirstCommitRefused(FirstCommitUnanswered):
    """The client asks again, and meanwhile somebody who is gone by now has fenced it."""

    async def call(self, what, request, *more):
        try:
            return await super().call(what, request, *more)
        except BrokerError as lost:
            self.broker.fence(OWNER, lambda _: None)
            raise FencedError("another process took over") from lost


class TakesItselfForAnother(ExactlyOnceRunner):
    """An opening of its own that was committed, whatever it was told, is somebody else's."""

    async def _check_overtaken(self, fenced) -> None:
        self._opens = self._open.opens if self._open is not None else 0
        self._opening_at = None
        await super()._check_overtaken(fenced)


@pytest.mark.parametrize("opening", [FirstCommitUnanswered, FirstCommitRefused])
@pytest.mark.parametrize(
    ("kind", "ends"), [(ExactlyOnceRunner, True), (TakesItselfForAnother, False)]
)
def test_nobody_takes_himself_for_his_successor(opening, kind, ends):
    """The opening was committed, but it was not said so; then a request of a process that is gone
    fences the task. The state says that somebody opened it: it was itself."""
    scenario = scenario_of(3)
    broker = SimulatedBroker()
    restored = []

    def reached(point: str) -> None:
        if point == "restored":
            restored.append(point)
            if len(restored) == 2 and opening is FirstCommitUnanswered:
                broker.fence(OWNER, lambda _: None)

    async def life() -> bool:
        log = opening(broker)
        await log.create([StreamSpec(name=name) for name in scenario.bench.topics.values()])
        sink = await log.sink()
        for value in scenario.ticks:
            await sink.append(scenario.bench.topics["ticks"], 0, value or b"", timestamp_ms=0)
        runner = scenario.bench.runner(log, kind, reached=reached)
        try:
            return await runner.run()
        except FencedError:
            return False

    assert simulate(SimulatedLoop(), life()) is ends
