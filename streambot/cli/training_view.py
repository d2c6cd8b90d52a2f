"""How a training goes: a bar on a terminal, else a line every ten seconds; an object an update for programs."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from streambot.cli.console import console, emit, on_terminal, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from streambot.learning.trainer import Progress

SECONDS_BETWEEN_LINES = 10.0
RATE_S = 15.0
"""A look at what is held out is part of the pace, and not all of it where the update was the one with the look."""


class Pace:
    """Steps a second, over the last `RATE_S`."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, now: float, steps: int) -> float | None:
        """The pace, now that so many steps are done in all; None the first time."""
        seen = self._seen
        seen.append((now, steps))
        while len(seen) > 2 and now - seen[1][0] >= RATE_S:
            seen.popleft()
        (at, before), *more = seen
        return (steps - before) / max(now - at, 1e-9) if more else None


class UpdateBar:
    """A bar over the updates of a training, on a terminal.

    Args:
        updates: of the whole training.
    """

    def __init__(self, updates: int) -> None:
        self._updates = updates
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    @property
    def drawn(self) -> bool:
        """True while there is one."""
        return self._bar is not None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """While this lasts a bar is drawn, on a terminal."""
        if not on_terminal(stderr=True):
            yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Progressed

        columns = (
            TextColumn("update"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.description}"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progressed(*columns, console=console(stderr=True), transient=True) as self._bar:
            self._task = self._bar.add_task("", total=self._updates)
            yield

    def update(self, done: int, words: str) -> None:
        """Where it is."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, description=words)


class TrainingView:
    """Tells a training to the person at the terminal, and to programs.

    Args:
        updates: of the whole training.
        as_json: an object for every update on stdout.
    """

    def __init__(self, updates: int, *, as_json: bool) -> None:
        self._as_json, self._updates = as_json, updates
        self._said_at = time.monotonic()
        self._pace = Pace()
        self._bar = UpdateBar(updates)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """While this lasts a bar is drawn, on a terminal."""
        with self._bar.shown():
            yield

    def __call__(self, progress: Progress) -> None:
        """An update."""
        now = time.monotonic()
        rate = self._pace(now, progress.steps)
        if self._as_json:
            emit("training", **json_of(progress), steps_per_s=rate)
        words = "  ".join(words_of(progress, rate))
        if self._bar.drawn:
            self._bar.update(progress.update, words)
        elif now - self._said_at >= SECONDS_BETWEEN_LINES or progress.update in {1, self._updates}:
            self._said_at = now
            say(f"{progress.update:>6,}/{self._updates:,}  {words}")
        if progress.curve is not None:
            for line in curve_lines(progress):
                say(line)


def words_of(progress: Progress, rate: float | None) -> list[str]:
    """What an update brought, in phrases."""
    words = [f"reward/step {progress.reward:+.3g}"]
    if progress.learnt is not None:
        stats = progress.learnt
        if progress.returns:
            words.append(f"episode {sum(progress.returns) / len(progress.returns):+.3g}")
        words += [f"entropy {stats.entropy:.2f}", f"kl {stats.kl:.4f}"]
        if stats.gate_entropy:
            words.append(f"gate {stats.gate_entropy:.2f}")
    if progress.meta is not None:
        meta = progress.meta
        words = [
            f"reward/step {meta.before:+.3g}, adapted {meta.after:+.3g}", f"rate {meta.rate:.3g}",
        ]  # fmt: skip
        if meta.gate_entropy:
            words.append(f"gate {meta.gate_entropy:.2f}")
    if rate is not None:
        words.append(f"{rate:,.0f} steps/s")
    return words


def curve_lines(progress: Progress) -> list[str]:
    """How held-out tasks are adapted to."""
    assert progress.curve is not None  # noqa: S101  # the caller has looked
    tasks = progress.curve.shape[1]
    error = progress.curve.std(axis=1, ddof=1) / tasks**0.5 if tasks > 1 else None
    means = "  ".join(f"{value:+.3g}" for value in progress.curve.mean(axis=1))
    spread = "" if error is None else f"  (standard error {error.max():.2g})"
    return [
        f"        held-out tasks, reward/step after 0 to {len(progress.curve) - 1} steps: {means}{spread}"
    ]


def json_of(progress: Progress) -> dict[str, Any]:
    """An update, for programs."""
    import msgspec

    return {
        "update": progress.update, "updates": progress.updates, "steps": progress.steps,
        "reward": progress.reward,
        "episodes": len(progress.returns),
        "episode_return": sum(progress.returns) / len(progress.returns) if progress.returns else None,
        "learnt": None if progress.learnt is None else msgspec.structs.asdict(progress.learnt),
        "meta": None if progress.meta is None else progress.meta._asdict(),
        "held_out": None if progress.curve is None else progress.curve.mean(axis=1).tolist(),
    }  # fmt: skip
