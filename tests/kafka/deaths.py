"""How workers die: at random times, at named points, or by being taken over; and who starts them again."""

from __future__ import annotations

import signal
import time
from collections import Counter
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from tests.kafka.campaign import Execution, Outcome
from tests.kafka.crash_child import DEAD_STORED, FAILED_AT_POINT
from tests.kafka.places import Process
from tests.waiting import LIMIT_S, LOOK_S, until

POINTS = (
    "fenced", "restored", "tail-read", "opened", "begun", "output-sent", "outputs-stored",
    "state-sent", "offsets-sent", "committing", "committing-late", "committed", "dead-letter-sent",
    DEAD_STORED,
)  # fmt: skip
ONCE = frozenset({"fenced", "restored", "tail-read", "opened"})
"""Points that a task passes once in its life."""
TAKEN_OVER = "another process"
"""Words of whoever is fenced, whatever they stand in."""
_LONGER = 2.5
"""A life lasts at most so many times as long as a worker takes to open: some die before."""
_RUNNER = "streambot.processor.exactly_once"


def slow(frames: int) -> dict[str, Any]:
    """Knobs of a worker that has always a transaction under way, of so many frames."""
    return {
        f"{_RUNNER}:COMMIT_EVERY_S": 0.0,
        f"{_RUNNER}:COMMIT_BYTES": 1,
        f"{_RUNNER}:READ_RECORDS": frames,
    }


class Deaths(NamedTuple):
    """What a campaign did, and what is wrong with what came of it.

    Attributes:
        phases: how often a kill met a task in which phase.
        recoveries: seconds from a kill to the first fill that was committed by the next process.
        complaints: empty where nothing is wrong.
    """

    phases: Counter[str]
    recoveries: list[float]
    complaints: list[str]

    def checked(self, execution: Execution, reference: Outcome) -> Deaths:
        """With what is wrong with the outputs."""
        more = execution.outcome().complaints(reference)
        return self._replace(complaints=self.complaints + more)


class _Life:
    """A worker between its start and its death."""

    def __init__(self, process: Process, tasks: int, span_s: float) -> None:
        self.process = process
        self.open_s: float | None = None
        self._tasks = tasks
        self._span_s = span_s

    @property
    def age_s(self) -> float:
        return (time.monotonic_ns() - self.process.began_ns) / 1e9

    @property
    def over(self) -> bool:
        if (
            self.open_s is None
            and sum(t.is_open for t in self.process.tasks().values()) == self._tasks
        ):
            self.open_s = self.age_s
        return self.age_s >= self._span_s

    def first_fill_ns(self) -> int | None:
        return min(
            (t.first_fill_ns for t in self.process.tasks().values() if t.first_fill_ns),
            default=None,
        )


def kill_workers(
    execution: Execution, rng: np.random.Generator, *, kills: int, workers: int = 2, **how: Any
) -> Deaths:
    """Kill workers at random times, start them again at once, and let them end."""
    deaths = Deaths(Counter(), [], [])
    partitions = len(execution.recording.partitions)
    opening_s = 1.0

    def born(number: int) -> _Life:
        process = execution.worker(number, workers, knobs=slow(1), **how)
        tasks = len(range(number, partitions, workers))
        return _Life(process, tasks, float(rng.uniform(0, _LONGER * opening_s)))

    lives = [born(n) for n in range(workers)]
    killed_ns: list[int | None] = [None] * workers
    left = kills
    while left and not deaths.complaints:
        for n, life in enumerate(lives):
            if life.process.ended():
                deaths.complaints.append(f"worker {n} ended too early: {said(life.process)}")
                break
            if not left or not life.over:
                continue
            life.process.kill()
            left -= 1
            deaths.phases[phase_of(life.process)] += 1
            before, killed_ns[n] = killed_ns[n], time.monotonic_ns()
            filled = life.first_fill_ns()
            if before is not None and filled is not None:
                deaths.recoveries.append((filled - before) / 1e9)
            if life.open_s is not None:
                opening_s = (opening_s + life.open_s) / 2
            lives[n] = born(n)
        time.sleep(LOOK_S)
    for life in lives:
        life.process.kill()
    return finish(execution, deaths, workers, **how)


def phase_of(process: Process) -> str:
    """In which phase a process died: that of the task which was deepest in a transaction."""
    phases = {task.phase for task in process.tasks().values()}
    for phase in ("in a transaction", "between transactions", "opening"):
        if phase in phases:
            return phase
    return "before the fence"


def fail_workers(
    execution: Execution, points: list[tuple[str, int]], *, workers: int = 2, **how: Any
) -> Deaths:
    """Let workers end themselves at these points, each passed for the n-th time; then let them end."""
    deaths = Deaths(Counter(), [], [])
    left = list(points)

    def born(number: int) -> Process | None:
        if not left:
            return None
        return execution.worker(number, workers, knobs=slow(1), failpoint=left.pop(), **how)

    lives = [born(n) for n in range(workers)]
    while any(lives) and not deaths.complaints:
        for n, life in enumerate(lives):
            if life is not None and life.ended():
                if life.code != FAILED_AT_POINT:
                    deaths.complaints.append(f"worker {n} ended by itself: {said(life)}")
                deaths.phases[phase_of(life)] += 1
                lives[n] = born(n)
            limit_ns = LIMIT_S * 1e9
            if life is not None and time.monotonic_ns() - life.began_ns > limit_ns:
                deaths.complaints.append(f"worker {n} never reaches its point: {said(life)}")
        time.sleep(LOOK_S)
    for life in lives:
        if life is not None:
            life.kill()
    return finish(execution, deaths, workers, **how)


def finish(execution: Execution, deaths: Deaths, workers: int, **how: Any) -> Deaths:
    """Let the rest be done by workers that nobody disturbs."""
    if not deaths.complaints:
        lives = [execution.worker(n, workers, **how) for n in range(workers)]
        for n, life in enumerate(lives):
            if life.end() != 0:
                deaths.complaints.append(f"worker {n} did not end well: {said(life)}")
            elif life.summary["state"] != "complete":
                deaths.complaints.append(f"worker {n} says {life.summary['state']}")
    return deaths


def said(process: Process) -> str:
    """Exit code and last words of a process."""
    return f"{process.code}, {process.err[-600:]!r}"


def spread(seconds: list[float]) -> str:
    """Smallest, middle and largest of measured times."""
    if not seconds:
        return "none measured"
    return f"{min(seconds):.2f} / {median(seconds):.2f} / {max(seconds):.2f} s (min / median / max of {len(seconds)})"


class Takeovers(NamedTuple):
    """How workers were taken over.

    Attributes:
        seconds: from the moment a zombie woke up until it had ended.
    """

    deaths: Deaths
    seconds: list[float]


def take_over(
    execution: Execution, rng: np.random.Generator, *, stopped: list[bool],
    limit_s: float = LIMIT_S, **how: Any,
) -> Takeovers:  # fmt: skip
    """Let a successor with the same share take over, once for each item.

    Args:
        execution: what they work on.
        rng: when.
        stopped: True: the predecessor is stopped meanwhile, and goes on when the successor has got
            on; False: it works while it is taken over.
        limit_s: within that the predecessor has to end.
        how: see `Execution.worker`.
    """
    found = Takeovers(Deaths(Counter(), [], []), [])
    deaths = found.deaths
    partitions = len(execution.recording.partitions)

    def working(process: Process, commits: int) -> bool:
        tasks = process.tasks()
        going = sum(t.is_open and t.commits >= commits for t in tasks.values()) == partitions
        return going or process.ended()

    life = execution.worker(knobs=slow(1), **how)
    for stop in stopped:
        until(lambda life=life: working(life, 3), "a worker that works")
        time.sleep(float(rng.uniform(0, 0.5)))
        zombie = life
        if stop:
            zombie.send(signal.SIGSTOP)
            deaths.phases[phase_of(zombie)] += 1
        life = execution.worker(knobs=slow(1), **how)
        if stop:
            until(lambda life=life: working(life, 5), "a successor that works")
        woken = time.monotonic()
        zombie.send(signal.SIGCONT)
        try:
            code = zombie.end(limit_s)
        except AssertionError:
            deaths.complaints.append("who was taken over goes on")
            zombie.kill()
            break
        found.seconds.append(time.monotonic() - woken)
        if code != 5 or TAKEN_OVER not in zombie.err:
            deaths.complaints.append(f"who was taken over ended otherwise: {said(zombie)}")
        if life.ended():
            deaths.complaints.append(f"the successor has ended: {said(life)}")
            break
    life.kill()
    finish(execution, deaths, 1, **how)
    return found
