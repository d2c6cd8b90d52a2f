"""How many actors a learner can use: one to three of them on this machine, and what their costs say of more.

What a step costs each process is CPU time, measured while all of them work. From these costs follows what one
machine cannot show: with cores for everybody, how many actors keep a learner busy, and what is in the way next.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import MIN_ROUNDS, Check, Row, SkippedError, format_figure, ratio
from benchmarks.learn_decode import before_learning
from benchmarks.learn_streams import ACTOR, BROKER, LEARNER, QUICK_UPDATES, UPDATES, Measured, train
from benchmarks.learn_task import BATCH, Files
from benchmarks.watched import Watched

ACTORS = (1, 2, 3)
KINDS = {"moe": "mixture", "ppo": "one network"}
FASTER = (1, 4, 16, 64)
"""Learners that are so many times as fast as one core: several that share an update, or a GPU."""


class Costs(NamedTuple):
    """CPU seconds of a step, by whoever takes part in it, and bytes.

    Attributes:
        actor, learner, broker: of their processes.
        reading: part of the learner's that is reading, decoding and the buffer, which stays with one
            process however many share the update.
        size: bytes of experience.
    """

    actor: float
    learner: float
    broker: float
    reading: float
    size: float

    def saturating(self, faster: float = 1.0) -> float:
        """Actors, each with a core of its own, that a learner uses up."""
        return self.rate(faster) * self.actor

    def rate(self, faster: float = 1.0) -> float:
        """Steps a second of a learner whose updates are so many times as fast as here."""
        return 1.0 / (self.reading + (self.learner - self.reading) / faster)

    def said(self, faster: float) -> str:
        """What that needs, as a line."""
        rate = self.rate(faster)
        return (
            f"updates {faster:g} x as fast as on one core: {format_figure(rate)} steps/s, "
            f"{ceil(self.saturating(faster))} actors ({self.saturating(faster):.2f} cores), broker "
            f"{rate * self.broker:.2f} cores and {rate * self.size / 2**20:.0f} MiB/s, reading and "
            f"decoding {100 * rate * self.reading:.0f} % of the learner's core"
        )


def rows(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """A mixture with one to three actors; the costs of a mixture and of one network."""
    updates = QUICK_UPDATES if quick else UPDATES
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        files = Files.write(Path(folder))
        files.envs()
        found = Measured()
        for _ in range(rounds):
            for actors in ACTORS:
                found.take(
                    _named(actors),
                    lambda actors=actors: train(files, "moe", updates=updates, actors=actors),  # type: ignore[misc]
                )
            found.take("one network", lambda: train(files, "ppo", updates=updates))
        if found.missing:
            raise SkippedError("; ".join(found.missing.values()))
        yield _scaling(found)
        reading, size = before_learning(files)
        for kind, name in KINDS.items():
            seen = found.seen[_named(1) if kind == "moe" else name]
            yield _model(name, seen, reading, size)


def _named(actors: int) -> str:
    return f"{actors} actor{'s' if actors > 1 else ''}"


def _scaling(found: Measured) -> Row:
    names = [_named(actors) for actors in ACTORS]
    rates = found.rates(*names)
    checks = [ratio(rates, name, names[0]) for name in names[1:]]
    for name in names:
        busy = [100.0 * w.cpu[LEARNER] / w.seconds for w in found.seen[name]]
        checks.append(Check(f"learner's core in use, {name}", busy, unit="%"))
    acting = [100.0 * w.cpu[ACTOR] / w.seconds for w in found.seen[names[0]]]
    checks.append(Check("actor's core in use, 1 actor", acting, unit="%"))
    return Row(
        "a mixture with more actors, on this machine", "samples/s", rates, checks, [found.others]
    )


def _model(name: str, seen: list[Watched], reading: float, size: float) -> Row:
    by_role = {
        role: [1e6 * w.cost(role) for w in seen] for role in (ACTOR, LEARNER, BROKER)
    }  # fmt: skip
    middle = {role: statistics.median(costs) / 1e6 for role, costs in by_role.items()}
    costs = Costs(middle[ACTOR], middle[LEARNER], middle[BROKER], reading, size)
    saturating = [w.cost(ACTOR) / w.cost(LEARNER) for w in seen]
    return Row(
        f"what a step of a {name} costs, and how many actors keep a learner busy", "", {},
        [
            *(Check(f"CPU of the {role}", some, unit="us") for role, some in by_role.items()),
            Check("actors that keep one learner busy", saturating),
        ],
        [
            (
                f"{BATCH:,} steps an update; {size:.0f} bytes a step, reading and decoding "
                f"{1e6 * reading:.2f} us of it"
            ),
            *(costs.said(faster) for faster in FASTER),
        ],
    )  # fmt: skip
