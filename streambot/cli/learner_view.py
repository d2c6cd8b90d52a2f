"""How a training over streams goes: a bar on a terminal, else a line every ten seconds; JSON for programs."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from streambot.cli.console import emit, say, warn
from streambot.cli.human import percent
from streambot.cli.training_view import Pace, UpdateBar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streambot.learning.board import Board
    from streambot.learning.declaration import Training
    from streambot.learning.learner.progress import Learnt
    from streambot.wiring.places import Place

SECONDS_BETWEEN_LINES = 10.0
_ODD = {
    "foreign": "fragments of another training, or of other observations, are left",
    "broken": "records that are no fragments are left",
    "stale": "fragments came too late and are dropped: actors are slower than the lag allows",
}
"""What is said once, when it first happens."""


class LearnerView:
    """Tells a training to the person at the terminal, to programs, and to TensorBoard.

    Args:
        updates: of the whole training.
        as_json: an object for every update on stdout.
    """

    def __init__(self, updates: int, *, as_json: bool) -> None:
        self._as_json, self._updates = as_json, updates
        self._said_at = time.monotonic()
        self._pace = Pace()
        self._bar = UpdateBar(updates)
        self._board: Board | None = None
        self._told: set[str] = set()
        self._look = ""

    @contextlib.contextmanager
    def shown(self, board: Path, from_step: int) -> Iterator[None]:
        """While this lasts a bar is drawn, on a terminal, and TensorBoard is written."""
        from streambot.learning.board import Board

        with Board(board, from_step=from_step) as self._board, self._bar.shown():
            yield

    def opened(self, training: Training, place: Place) -> None:
        """See `wiring.stream_training.Watching`."""
        say(f"training {training.training} on {place.shown}; {place.delivery}", style="dim")
        if training.growing:
            say(
                "the recording is still written: actors look for more of it as they go", style="dim"
            )
        say(
            f"watch: streambot tail experience --run {training.training}; another actor: "
            f"streambot actor --run {training.training}", style="dim",
        )  # fmt: skip

    def warned(self, message: str) -> None:
        """See `wiring.stream_training.Watching`."""
        warn(message)

    def learnt(self, learnt: Learnt, restarts: int) -> None:
        """See `wiring.stream_training.Watching`."""
        now = time.monotonic()
        rate = self._pace(now, learnt.steps)
        if self._board is not None:
            self._board.write(scalars_of(learnt, rate), learnt.steps)
        if self._as_json:
            emit("training", **learnt.said(), restarts=restarts, steps_per_s=rate)
        for name, words in _ODD.items():
            if learnt.counts.get(name) and name not in self._told:
                self._told.add(name)
                warn(f"{learnt.counts[name]:,} {words}")
        if learnt.look is not None:
            self._look = f"held out {percent(learnt.look.gain, 2)}"
        words = "  ".join([*words_of(learnt, rate), *([self._look] if self._look else [])])
        last = learnt.update in {1, self._updates}
        if self._bar.drawn:
            self._bar.update(learnt.update, words)
        elif last or learnt.look is not None or now - self._said_at >= SECONDS_BETWEEN_LINES:
            self._said_at = now
            say(f"{learnt.update:>6,}/{self._updates:,}  {words}")


def words_of(learnt: Learnt, rate: float | None) -> list[str]:
    """What an update brought, in phrases."""
    words = [f"reward/step {learnt.reward:+.3g}"]
    if learnt.episode_return is not None:
        words.append(f"episode {learnt.episode_return:+.3g}")
    for name, short, form in (
        ("entropy", "entropy", ".2f"), ("kl", "kl", ".4f"), ("gate_entropy", "gate", ".2f"),
    ):  # fmt: skip
        if name in learnt.measured:
            words.append(f"{short} {learnt.measured[name]:{form}}")
    words += [f"lag {learnt.lag:g}", f"actors {learnt.actors}"]
    if rate is not None:
        words.append(f"{rate:,.0f} steps/s")
    return words


def scalars_of(learnt: Learnt, rate: float | None) -> dict[str, float]:
    """The figures of an update, for TensorBoard."""
    found: dict[str, Any] = {
        "reward/step": learnt.reward, "reward/episode": learnt.episode_return,
        "stream/lag": learnt.lag, "stream/worst_lag": learnt.worst_lag,
        "stream/waiting": learnt.waiting, "stream/actors": learnt.actors,
        "stream/stale": learnt.counts.get("stale", 0), "stream/steps_per_s": rate,
        "held-out/gain": None if learnt.look is None else learnt.look.gain,
        **{f"update/{name}": value for name, value in learnt.measured.items()},
    }  # fmt: skip
    return {name: float(value) for name, value in found.items() if value is not None}
