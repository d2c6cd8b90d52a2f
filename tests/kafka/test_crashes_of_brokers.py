"""A broker that is killed, or stopped and started, under a replay and two workers: they ride it out."""

from __future__ import annotations

import time

import pytest

from tests.kafka.campaign import (
    NAMESPACE,
    Execution,
    Market,
    Recording,
    declared,
    replay,
    resumed,
    tell,
)
from tests.kafka.deaths import said, slow, spread
from tests.kafka.places import Kafka, Process, Template
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

KILLS, STOPS = 3, 3
TRIES = 5
IMPATIENT = {"streambot.adapters.kafka.transactions:REQUEST_TIMEOUT_S": 1.0}
PACE = "500x"
"""For longer than the campaign takes: at its end the rest is published at once."""
WORKERS = 2
RECONNECT_S = 30.0


class WrongLogError(Exception):
    """Somebody has found the log to be wrong."""


class Crew:
    """A replay and the workers of its run, started again where they end."""

    def __init__(
        self, template: Template, kafka: Kafka, market: Market, run: str,
        *, knobs: dict[str, float] | None = None, **how,
    ) -> None:  # fmt: skip
        self._template, self._kafka, self._market, self._run = template, kafka, market, run
        self._how = how
        self._knobs = knobs or {}
        self.restarts: list[str] = []
        self.replay = replay(template, kafka, market, run, "--speed", PACE, **how)
        until(lambda: declared(kafka, run), "the declaration of the run")
        self.recording = Recording(kafka, run)
        self.execution = Execution(self.recording, f"{run}-live", template)
        self.workers = [self._work(n) for n in range(WORKERS)]

    def _work(self, number: int) -> Process:
        return self.execution.worker(number, WORKERS, knobs=slow(4) | self._knobs, **self._how)

    @property
    def members(self) -> list[Process]:
        return [self.replay, *self.workers]

    def look_after(self) -> None:
        """Start again who has lost the broker for good."""
        for member in self.members:
            if member.ended() and member.code not in {0, 5}:
                raise WrongLogError(said(member))
        if self.replay.ended() and self.replay.code != 0:
            self.restarts.append(f"replay: {said(self.replay)}")
            self.replay = resumed(
                self._template, self._market.folder, self._run, "--speed", PACE, **self._how
            )
        for n, worker in enumerate(self.workers):
            if worker.ended() and worker.code != 0:
                self.restarts.append(f"worker {n}: {said(worker)}")
                self.workers[n] = self._work(n)

    def going(self, since_ns: int = 0) -> list[float]:
        """Seconds until everybody has committed something, none of them in the middle of nothing."""
        found: dict[int, float] = {}

        def everybody() -> bool:
            self.look_after()
            for n, member in enumerate(self.members):
                last = max((t.last_commit_ns for t in member.tasks().values()), default=0)
                if last > since_ns:
                    found.setdefault(n, (last - since_ns) / 1e9)
            return len(found) == len(self.members)

        until(everybody, "a commit of everybody")
        return list(found.values())

    def end(self) -> None:
        """Publish the rest at once, and wait for everybody."""
        faster = self._template.start(
            self._market.folder, "replay", "speed", "max", "--run", self._run,
            env={"STREAMBOT_NAMESPACE": NAMESPACE},
        )  # fmt: skip
        assert faster.end() == 0, said(faster)

        def all_ended() -> bool:
            self.look_after()
            return all(member.ended() and member.code == 0 for member in self.members)

        until(all_ended, "the end of everybody")


def disturb(crew: Crew, kafka: Kafka, rng, kinds: list[str]) -> list[float]:
    """Kill or stop the broker and start it again, once for each item; then let everybody end.

    Returns:
        Seconds from a broker that answers again to the next commit, of everybody each time.
    """
    seconds = []
    crew.going()
    for kind in kinds:
        time.sleep(float(rng.uniform(0, 1.0)))
        (kafka.kill if kind == "kill" else kafka.stop)()
        time.sleep(float(rng.uniform(0, 1.0)))
        kafka.start()
        seconds += crew.going(time.monotonic_ns())
    crew.end()
    return seconds


def complaints(crew: Crew, processes: Template, simulated: str) -> list[str]:
    """What is wrong with the run: its ticks, or what came of them."""
    crew.recording.check()
    undisturbed = Execution(crew.recording, f"{crew.recording.run}-again", processes)
    undisturbed.run_undisturbed()
    reference = undisturbed.outcome()
    found = crew.execution.outcome().complaints(reference)
    if reference.event_digest != simulated:
        found.append("the ticks are not those of a replay that nobody disturbed")
    return found


def disturbed(kafka_home, tmp_path, market, processes, simulated, rng, kinds: list[str]) -> None:
    kafka = Kafka(kafka_home, tmp_path / "broker")
    kafka.start()
    crew = Crew(processes, kafka, market, f"rough{len(kinds)}")
    try:
        seconds = disturb(crew, kafka, rng, kinds)
        reopened = [member.summary["reopened"] for member in crew.members]
        tell(
            f"the broker {', '.join(kinds)}: next commit {spread(seconds)} behind its return; "
            f"opened again {reopened} times (replay, workers); processes started again: "
            f"{crew.restarts or 'none'}; aborted records {dict(crew.execution.aborted())}"
        )
        assert complaints(crew, processes, simulated) == []
        assert max(seconds) <= RECONNECT_S
    finally:
        for member in crew.members:
            member.kill()
        kafka.close()


def test_killed_and_stopped(kafka_home, tmp_path, market, processes, simulated, rng):
    """G5."""
    kinds = ["kill"] * KILLS + ["stop"] * STOPS
    rng.shuffle(kinds)
    disturbed(kafka_home, tmp_path, market, processes, simulated, rng, [str(k) for k in kinds])


def test_kills_show_a_commit_that_failed_and_is_taken_for_done(
    kafka_home, tmp_path, market, processes, simulated, rng
):
    """G5 notices the records that are lost then.

    A kill shows it only where a commit under way fails, so these workers wait for one less long
    than a broker takes to come back; and there are several tries.
    """
    kafka = Kafka(kafka_home, tmp_path / "broker")
    kafka.start()
    found: list[str] = []
    try:
        for attempt in range(TRIES):
            found = _complaints_of_a_mutant(
                Crew(
                    processes, kafka, market, f"goes-on-{attempt}",
                    knobs=IMPATIENT, mutant="goes on",
                ),
                kafka, processes, simulated, rng,
            )  # fmt: skip
            if found:
                break
        assert found, "the campaign does not see what is wrong"
        tell(f"the broker killed, mutant `goes on`: {found[0][:150]}")
    finally:
        kafka.close()


def _complaints_of_a_mutant(crew, kafka, processes, simulated, rng) -> list[str]:
    try:
        disturb(crew, kafka, rng, ["kill", "kill"])
        return complaints(crew, processes, simulated)
    except WrongLogError as wrong:
        return [str(wrong)]
    finally:
        for member in crew.members:
            member.kill()


@pytest.mark.nightly
@pytest.mark.parametrize("night", range(7))
def test_killed_and_stopped_all_night(
    kafka_home, tmp_path, market, processes, simulated, rng, night
):
    """G5, 21 kills and 21 stops."""
    kinds = ["kill"] * KILLS + ["stop"] * STOPS
    rng.shuffle(kinds)
    disturbed(kafka_home, tmp_path, market, processes, simulated, rng, [str(k) for k in kinds])
