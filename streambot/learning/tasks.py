"""Tasks of meta-learning: instrument x timeframe x contiguous segment of bars.

    |-- support --|-- embargo --|-- query --|       bars of one instrument, in order of time

A policy adapts on the support and is judged on the query, which is later; between the two lie more
bars than an observation looks back on and a position is held, so that neither leaks into the other.
Nothing is listed: a task is a number, and its bars are read when it is played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
import numpy as np
import torch
from msgspec import Meta

from streambot.domain.errors import ConfigError, DataError
from streambot.env.settings import make_config
from streambot.env.vector_env import VectorTradingEnv
from streambot.learning.experience import Experience

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from streambot.env.config import EnvConfig
    from streambot.env.sources import Source
    from streambot.learning.experience import Acts

Bars = Annotated[int, Meta(ge=1, le=2**31)]


class TaskConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a task is.

    Attributes:
        support, query: bars that are adapted to, and judged on.
        horizon: bars that a position is reckoned to be held.
        embargo: bars between the two; None: the window of an observation and the horizon.
        accounts: how many trade each task side by side.
    """

    support: Bars = 128
    query: Bars = 128
    horizon: Annotated[int, Meta(ge=0)] = 32
    embargo: Annotated[int, Meta(ge=0)] | None = None
    accounts: Annotated[int, Meta(ge=1, le=4096)] = 8

    def gap(self, env: EnvConfig) -> int:
        """Bars of the embargo.

        Raises:
            ConfigError: it is shorter than what an observation looks back on and the horizon.
        """
        least = env.window + self.horizon
        if self.embargo is None:
            return least
        if self.embargo < least:
            raise ConfigError(
                f"an embargo of {self.embargo} bars: observations hold {env.window} and positions "
                f"are reckoned to be held for {self.horizon}",
                where="embargo",
                hint=f"{least} bars or more",
            )
        return self.embargo

    def length(self, env: EnvConfig) -> int:
        """Bars of a whole task."""
        return self.support + self.gap(env) + self.query


class Task(NamedTuple):
    """One task.

    Attributes:
        source: number of the data that it is taken from (one for each timeframe).
        instrument: symbol.
        bar: where its support begins, at the close of this bar.
        query_bar: where its query begins.
    """

    source: int
    instrument: str
    bar: int
    query_bar: int


class TaskPool:
    """All tasks that some data hold, by number; tasks overlap, and there are very many.

    Args:
        sources: the data, one for each timeframe.
        settings: of the environment, as `make_config` takes them.
        tasks: what a task is.
        instruments: symbols to take tasks from; None: all.

    Raises:
        ConfigError: an instrument that is not in the data, a short embargo.
        DataError: an instrument has too few bars for one task.

    Attributes:
        envs: of each source, for `Arena`; config: of the environment.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: Mapping[str, Any],
        tasks: TaskConfig,
        *,
        instruments: Sequence[str] | None = None,
    ) -> None:
        self.sources, self.tasks = tuple(sources), tasks
        if not self.sources:
            raise ConfigError("no data: there are no tasks")
        self.settings = dict(settings) | {"episode_bars": max(tasks.support, tasks.query)}
        self.config = make_config(self.settings)
        self._length, self._gap = tasks.length(self.config), tasks.gap(self.config)
        self._symbols: list[list[str]] = []
        self._first: list[np.ndarray] = []
        self._before: list[np.ndarray] = []
        for source in self.sources:
            self._look(source, instruments)

    def _look(self, source: Source, wanted: Sequence[str] | None) -> None:
        with_starts = VectorTradingEnv(source, 1, **self.settings | {"episode_bars": 1}).core
        symbols = [i.symbol for i in with_starts.segments.head.instruments]
        missing = sorted(set(wanted or ()) - set(symbols))
        if missing:
            raise ConfigError(
                f"no instrument `{missing[0]}` in the data",
                hint=f"there are {', '.join(symbols[:8])}",
            )
        taken = [n for n, symbol in enumerate(symbols) if wanted is None or symbol in set(wanted)]
        starts = with_starts.starts
        counts = starts.last_bar[taken] - starts.first[taken] - self._length + 1
        short = [n for n, count in zip(taken, counts.tolist(), strict=True) if count < 1]
        if short or not taken:
            listed = ", ".join(
                f"{symbols[n]} ({starts.last_bar[n] - starts.first[n]:,})" for n in short[:3]
            )
            tasks = self.tasks
            raise DataError(
                f"too few bars for one task: {listed or 'no instrument'}",
                hint=f"a task needs {tasks.support} bars of support, {self._gap} of embargo and "
                f"{tasks.query} of query, {self._length} together",
            )
        self._symbols.append([symbols[n] for n in taken])
        self._first.append(starts.first[taken])
        self._before.append(np.concatenate([[0], np.cumsum(counts)]))

    def __len__(self) -> int:
        """How many tasks there are."""
        return sum(int(before[-1]) for before in self._before)

    @property
    def instruments(self) -> tuple[str, ...]:
        """Symbols, of the first source."""
        return tuple(self._symbols[0])

    def at(self, source: int, number: int) -> Task:
        """A task of a source, by its number there."""
        before = self._before[source]
        n = int(np.searchsorted(before, number, "right")) - 1
        bar = int(self._first[source][n] + number - before[n])
        return Task(source, self._symbols[source][n], bar, bar + self.tasks.support + self._gap)

    def draw(self, count: int, draws: np.random.Generator) -> list[Task]:
        """Some tasks: as many of every source, of every instrument of it equally often.

        Args:
            count: a multiple of the number of sources.
            draws: chance.

        Raises:
            ConfigError: the tasks cannot be shared out equally.
        """
        each, left = divmod(count, len(self.sources))
        if left or not each:
            raise ConfigError(
                f"{count} tasks cannot be shared equally by {len(self.sources)} timeframes",
                where="tasks",
                hint=f"a multiple of {len(self.sources)}",
            )
        drawn = []
        for source, before in enumerate(self._before):
            of = draws.integers(len(before) - 1, size=each)
            numbers = before[of] + draws.integers(np.diff(before)[of])
            drawn += [self.at(source, int(number)) for number in numbers]
        return drawn


class Arena:
    """Plays tasks: the accounts of a batch of tasks step together.

    Args:
        pool: where the tasks come from.
        count: tasks of a batch.
        seed: of the environments; what is played is named, so nothing is drawn of it.

    Raises:
        ConfigError: the tasks cannot be shared out equally.
    """

    def __init__(self, pool: TaskPool, count: int, *, seed: int = 0) -> None:
        self._pool, self._count = pool, count
        pool.draw(count, np.random.default_rng(seed))  # refused here, not at the first batch
        each = count // len(pool.sources) * pool.tasks.accounts
        self._envs = [
            VectorTradingEnv(source, each, autoreset_mode="Disabled", copy=False, **pool.settings)
            for source in pool.sources
        ]
        for env in self._envs:
            env.reset(seed=seed)

    def play(
        self,
        tasks: Sequence[Task],
        act: Acts,
        draws: np.random.Generator,
        *,
        query: bool,
        device: torch.device,
    ) -> Experience:
        """Trade the support or the query of every task.

        An account whose episode ends early begins again at the first bar, for the steps that are
        left: every account has as many steps.

        Args:
            tasks: as many of each source as the others, in order of the sources.
            act: actions and their log-probabilities [tasks, accounts], of observations
                [tasks, accounts, F], masks [tasks, accounts, A] and numbers in [0, 1).
            draws: chance of the actions.
            query: the query; False: the support.
            device: where observations are looked at.

        Returns:
            [T, tasks x accounts], the accounts of a task side by side.
        """
        config, accounts = self._pool.tasks, self._pool.tasks.accounts
        steps = config.query if query else config.support
        first = [task.query_bar if query else task.bar for task in tasks]
        everybody = np.ones(len(tasks) * accounts, np.bool_)
        self._begin(tasks, first, steps, everybody)
        kept = Experience(
            steps, len(everybody), self._envs[0].core.observations.shape[1],
            self._envs[0].core.masks.shape[1],
        )  # fmt: skip
        shape = (len(tasks), accounts)
        episode = np.arange(len(everybody))
        for t in range(steps):
            kept.obs[t], kept.mask[t], kept.episode[t] = *self._seen(), episode
            action, log_prob = act(
                torch.from_numpy(kept.obs[t]).to(device).view(*shape, -1),
                torch.from_numpy(kept.mask[t]).to(device).view(*shape, -1),
                torch.from_numpy(draws.random(shape, np.float32)).to(device),
            )
            kept.action[t] = action.flatten().cpu().numpy()
            kept.log_prob[t] = log_prob.flatten().cpu().numpy()
            self._step(kept, t)
            over = kept.over[t]
            if t + 1 < steps and over.any():
                self._begin(tasks, first, steps - 1 - t, over)
            episode = episode + len(everybody) * over
        return kept

    def _begin(
        self, tasks: Sequence[Task], first: Sequence[int], bars: int, where: np.ndarray
    ) -> None:
        """Begin the tasks' episodes where `where` is true, [tasks x accounts]."""
        accounts, low = self._pool.tasks.accounts, 0
        for source, env in enumerate(self._envs):
            mine = where[low : low + env.num_envs]
            low += env.num_envs
            own = [k for k, task in enumerate(tasks) if task.source == source]
            for place, k in enumerate(own):
                chosen = np.zeros(env.num_envs, np.bool_)
                span = slice(place * accounts, (place + 1) * accounts)
                chosen[span] = mine[span]
                if chosen.any():
                    env.reset(
                        options={
                            "reset_mask": chosen, "instrument": tasks[k].instrument,
                            "bar": first[k], "bars": bars,
                        }
                    )  # fmt: skip

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        cores = [env.core for env in self._envs]
        return (
            np.concatenate([core.observations for core in cores]),
            np.concatenate([core.masks for core in cores]),
        )

    def _step(self, kept: Experience, t: int) -> None:
        low = 0
        for env in self._envs:
            own = slice(low, low + env.num_envs)
            low += env.num_envs
            obs, reward, terminated, truncated, _ = env.step(kept.action[t, own])
            kept.reached[t, own], kept.reward[t, own] = obs, reward
            kept.terminated[t, own], kept.over[t, own] = terminated, terminated | truncated
