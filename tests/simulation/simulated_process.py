"""Processes that crash and stop, and what may happen to a request: drawn from the seed of a schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from streambot.streams.ports import TopicPartition
from tests.simulation.simulated_broker import Partition

REQUEST_TIMEOUT_S = 1.0


class Crash(BaseException):
    """The process is gone: nothing is caught, and nothing it still does has an effect."""


class Chances(NamedTuple):
    """What may go wrong, as probabilities of a single request.

    Attributes:
        trouble: a request is slow, lost, repeated or late.
        stale: a reader sees nothing new for a while.
        behind: a leader of the past answers some of those who ask where partitions end, for a while.
        compact: keys written again are forgotten when somebody asks for ends.
        latency_s: most a request usually takes.
        mark_s: most a mark of a transaction usually takes.
    """

    trouble: float = 0.0
    stale: float = 0.0
    behind: float = 0.0
    compact: float = 0.0
    latency_s: float = 0.0
    mark_s: float = 0.0


class Fate(NamedTuple):
    """What becomes of a request.

    Attributes:
        arrives: after so many seconds; twice where it is sent again; never where it is lost.
        answered: the last copy's answer comes back; False: it is lost.
        back: seconds the answer takes.
        breaks: the caller gets an error after so many seconds, whatever happens; None: it does not.
    """

    arrives: tuple[float, ...]
    answered: bool = True
    back: float = 0.0
    breaks: float | None = None


class Weather:
    """Draws what happens, from the seed of a schedule."""

    def __init__(self, chances: Chances | None = None, random: Random | None = None) -> None:
        self.chances = chances or Chances()
        self.random = random or Random(0)
        self._past: dict[TopicPartition, int] = {}
        self._past_until = 0.0

    def ends(self, parts: list[Partition]) -> list[int]:
        """Where partitions end, as who is asked knows."""
        random, now = self.random, asyncio.get_running_loop().time()
        if now >= self._past_until:
            self._past = {}
            if random.random() < self.chances.behind:
                self._past_until = now + random.random() * 1.5
        if now < self._past_until:
            for part in parts:
                self._past.setdefault(part.place, part.stable)
        if random.random() < self.chances.compact and parts[0].place.stream.endswith("state"):
            for part in parts:
                part.compact()
            self._past = {}  # a leader of the past has not forgotten what its successor has
        asked = self._past if random.random() < 0.7 else {}
        return [asked.get(part.place, part.stable) for part in parts]

    def latency(self) -> float:
        """Seconds that a message usually takes."""
        return self.random.random() * self.chances.latency_s

    def mark(self) -> float:
        """Seconds that a mark of a transaction takes."""
        random = self.random
        if random.random() < self.chances.trouble * 3:
            return random.random() * 0.8
        return random.random() * self.chances.mark_s

    def fate(self) -> Fate:
        """What becomes of the next request."""
        random = self.random
        there, back = self.latency(), self.latency()
        if random.random() >= self.chances.trouble:
            return Fate((there,), back=back)
        kind = random.randrange(5)
        soon = random.random() * 0.2
        if kind == 0:  # lost on the way there
            return Fate((), breaks=soon)
        if kind == 1:  # took effect, but nobody hears of it
            return Fate((there,), answered=False, breaks=there + soon)
        if kind == 2:  # late: the caller has given up long ago, or nearly
            late = random.random() * random.choice((0.1, 0.5, 3.0))
            return Fate((late,), back=back, breaks=random.choice((None, soon)))
        if kind == 3:  # sent again by the client
            return Fate((there, there + soon), back=back)
        return Fate((random.random() * REQUEST_TIMEOUT_S * 0.9,), back=back)  # slow


class Plan(NamedTuple):
    """When a process crashes, or is stopped for a while.

    Attributes:
        crash_at: number of the await point at which it crashes.
        crash_point: name, and the how manieth time, at which it does.
        stop_at: number of the await point at which it is stopped.
        stop_s: for how long.
        drops: what it had sent and did not arrive by the crash never will.
    """

    crash_at: int | None = None
    crash_point: tuple[str, int] | None = None
    stop_at: int | None = None
    stop_s: float = 0.0
    drops: bool = False


class Process:
    """A process of an engine task, as the broker and the operating system see it.

    Attributes:
        name: for the trace.
        dead: it crashed.
        moments: await points so far.
    """

    def __init__(
        self,
        name: str,
        plan: Plan | None = None,
        trace: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.plan = plan or Plan()
        self.trace = trace
        self.dead = False
        self.moments = 0
        self.stopped_until = 0.0
        self._points: dict[str, int] = {}
        self.pending: dict[asyncio.Future[Any], None] = {}

    def moment(self, what: str) -> None:
        """The process is somewhere: it may crash or be stopped there."""
        if self.dead:
            raise Crash
        self.moments += 1
        if self.moments == self.plan.stop_at:
            self.trace(f"{self.name} is stopped for {self.plan.stop_s:.3f} s: {what}")
            self.stopped_until = asyncio.get_running_loop().time() + self.plan.stop_s
        if self.moments == self.plan.crash_at:
            self._crash(what)

    def reached(self, point: str) -> None:
        """The runner says where it is."""
        if self.dead:
            raise Crash
        self._points[point] = self._points.get(point, 0) + 1
        if self.plan.crash_point == (point, self._points[point]):
            self._crash(point)

    async def awake(self) -> None:
        """Wait while the process is stopped."""
        left = self.stopped_until - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)
        if self.dead:
            raise Crash

    def _crash(self, what: str) -> None:
        self.trace(f"{self.name} crashes: {what}")
        self.kill()
        raise Crash(what)

    def kill(self) -> None:
        """Everything that waits for an answer in it ends, and does no more harm."""
        self.dead = True
        for answer in list(self.pending):
            if not answer.done():
                answer.set_exception(Crash())
                answer.exception()  # perhaps nobody waits for it any more
        self.pending.clear()
