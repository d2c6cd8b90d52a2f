"""The campaign can fail: every step of the exactly-once task, left out or moved, is noticed."""

from __future__ import annotations

import asyncio
from functools import partial
from unittest import mock

import pytest

from streambot.domain.errors import DataError, StreamError
from tests.simulation.campaign import Mutant, caught, run_schedule
from tests.simulation.mutants import HARMLESS, MUTANTS
from tests.simulation.observer import Observer
from tests.simulation.simulated_broker import SimulatedBroker

WITHIN = 1_000
"""Schedules, half of what runs on every change."""
HARMLESS_FOR = 100


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name):
    found = caught(MUTANTS[name], WITHIN)
    assert found is not None
    schedules, noticed = found
    print(f"{name}: in schedule {schedules}: {noticed}")


@pytest.mark.parametrize("name", HARMLESS)
def test_a_mutant_behind_another_guard_does_no_harm(name):
    """Without the other guard it is caught: see the mutants with a `+`."""
    assert caught(HARMLESS[name], HARMLESS_FOR) is None


class LateCopies(SimulatedBroker):
    """The client has sent every request to commit twice, and the first copy comes last.

    The first version of the protocol cannot tell it from a request to commit the next transaction.
    """

    hits = 0

    def end(self, name, epoch, commit, reply) -> None:
        super().end(name, epoch, commit, reply)
        if commit:
            delay = 3 * self._mark_s()
            asyncio.get_running_loop().call_later(delay, self._copy, name, epoch)

    def _copy(self, name: str, epoch: int) -> None:
        known = self.names[name]
        open_now = known.transaction is not None and known.transaction.ending is None
        LateCopies.hits += open_now and known.epoch == epoch
        super().end(name, epoch, True, lambda _: None)


def test_a_copy_of_a_commit_that_comes_late_is_noticed():
    """What a client repeats by itself, and in time, no caller can see. It may commit a part of the
    next transaction. Then the run goes on or stops, but never writes anything wrong."""
    chances = {"mark_s": 0.2, "latency_s": 0.02}
    mutant = Mutant(broker=LateCopies, chances=chances)
    stopped = 0
    LateCopies.hits = 0
    with mock.patch.object(Observer, "_compare"):
        for seed in range(200):
            try:
                run_schedule(seed, mutant)
            except (StreamError, DataError):
                stopped += 1
    assert LateCopies.hits > 100
    assert 0 < stopped < 100


def test_the_campaign_notices_a_schedule_that_hangs():
    """A broker that never completes a transaction holds everybody up: that is told, not suffered."""

    class Silent(SimulatedBroker):
        def _mark(self, known, transaction, place) -> None:
            again = partial(self._mark, known, transaction, place)
            asyncio.get_running_loop().call_later(1.0, again)

    with pytest.raises(AssertionError, match="nobody finishes|nothing ends|no end|not end"):
        run_schedule(1, Mutant(broker=Silent))
