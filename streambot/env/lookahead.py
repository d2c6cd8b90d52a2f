"""The look-ahead check: whatever the future brings, the past of an environment stays what it was.

The ticks behind a bar, the *cut*, get other prices and sizes; everything is built anew from them; and
the same actions are played in both worlds up to the cut. Every number of an observation, every mask,
reward, priced entry and account must have the same bits there, and so must every column of the
segments. A feature, reward or price that reads one bar ahead differs at the cut at the latest.

Times of future bars and flags of their ticks stay as they are: they are the calendar's. So does the
truncation at a gap, which knows that the next bar opens late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streambot.data.segment_build import Recording, build_segments
from streambot.data.timeline import Window
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.engine.ordering import SlotContext
from streambot.env.core import Core
from streambot.env.fields import observation_fields
from streambot.env.reward import TERMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streambot.data.segments import Segments
    from streambot.env.config import EnvConfig
    from streambot.market.feature_config import FeatureConfig

_SPAN = 256
"""Steps that are played up to a cut."""
_QUOTE = ("premium", "width", "expiry", "lot_size", "model")


class Build(Protocol):
    """How segments are made of ticks."""

    def __call__(self, recording: Recording, config: FeatureConfig, folder: None, /) -> Segments:
        """As `build_segments`, in memory."""
        ...


class Leak(NamedTuple):
    """A number that should not have known.

    Attributes:
        field: its name: of `observation_fields`, or `action_mask[3]`, `reward.core`,
            `quote.premium`, `account.cash`, `bars.atr`.
        symbol: of the instrument.
        bar: at whose close it stands.
        cut: the last bar whose ticks are the same; None: already the ticks as they are give another
            number than the store has.
        was, became: its value in the two worlds.
    """

    field: str
    symbol: str
    bar: int
    cut: int | None
    was: float
    became: float

    def __str__(self) -> str:
        at = f"{self.field} of {self.symbol} at the close of bar {self.bar}: {self.was:.9g}"
        if self.cut is None:
            return f"{at} in the store, {self.became:.9g} made anew from its ticks"
        behind = f"when the ticks behind bar {self.cut} are others"
        return f"{at}, and {self.became:.9g} {behind}"


class Checked(NamedTuple):
    """What was looked at, and the first leak.

    Attributes:
        leak: None: there is none.
        symbols: of the instruments that were looked at.
        instruments: how many there are.
        cuts: how many futures were altered.
        steps: how many steps were played in both worlds.
    """

    leak: Leak | None
    symbols: tuple[str, ...]
    instruments: int
    cuts: int
    steps: int


def check_lookahead(
    segments: Segments,
    config: EnvConfig,
    *,
    cuts: int = 4,
    players: int = 4,
    most_instruments: int = 4,
    seed: int = 0,
    build: Build = build_segments,
) -> Checked:
    """Alter the future behind several bars of each instrument, and look whether the past notices.

    Args:
        segments: the data of an environment.
        config: its settings.
        cuts: futures per instrument: behind the first bar of an episode, behind the last one that
            has a future, and between them.
        players: sequences of random actions, legal and illegal, that are played up to each cut.
        most_instruments: with more of them, so many spread over all.
        seed: of cuts, futures and actions.
        build: how segments are made.

    Raises:
        DataError: the data hold no episode.
    """
    count = len(segments.head.instruments)
    chosen = np.unique(np.linspace(0, count - 1, min(count, most_instruments)).round().astype(int))
    symbols = tuple(segments.head.instruments[n].symbol for n in chosen)
    done = steps = 0
    for n in chosen.tolist():
        symbol = segments.head.instruments[n].symbol
        rng = np.random.default_rng([seed, n])
        world = _World(segments, n, config, build)
        leak = world.differs_from_store()
        for cut in world.cuts(cuts, rng):
            if leak is not None:
                break
            leak, played = world.look(cut, players, rng)
            steps += played
            done += 1
        if leak is not None:
            return Checked(leak._replace(symbol=symbol), symbols, count, done, steps)
    return Checked(None, symbols, count, done, steps)


class _World:
    """One instrument of a store, built anew from its ticks."""

    def __init__(self, segments: Segments, n: int, config: EnvConfig, build: Build) -> None:
        self._stored, self._n, self._config, self._build = segments, n, config, build
        low, high = segments.rows("ticks", n)
        self._ticks = segments.ticks[low:high]
        self._bars = segments.bars_of(n)
        # Before the first session closes, its bars still say what was known of the days before.
        flags = self._ticks["flags"][: self._row(1)]
        self._knows_days = not (flags & TickFlag.SESSION_CLOSE).any()
        self.segments = self._built(self._ticks["price"], self._ticks["size"])
        edge = self._core(self.segments, 1, None).envs[0]
        self._first, self._last = int(edge["bar"]), int(edge["last_bar"])

    def cuts(self, count: int, rng: np.random.Generator) -> list[int]:
        """Bars with a future, among those of episodes."""
        last = self._last - 1
        inner = rng.integers(self._first, last + 1, max(0, count - 2))
        return (
            sorted({self._first, *inner.tolist(), last})[:count] if last > self._first else [last]
        )

    def differs_from_store(self) -> Leak | None:
        """The first number of the store that its ticks do not give."""
        rows = {
            name: slice(*self._stored.rows(name, self._n)) for name in ("bars", "window", "slow")
        }
        stored = {name: getattr(self._stored, name)[own] for name, own in rows.items()}
        return self._columns(stored, self.segments, len(self._bars) - 1, None)

    def look(self, cut: int, players: int, rng: np.random.Generator) -> tuple[Leak | None, int]:
        """Alter the future behind `cut`; the first leak, and how many steps were played."""
        other = self._altered(cut, rng)
        columns = {name: getattr(self.segments, name) for name in ("bars", "window", "slow")}
        leak = self._columns(columns, other, cut, cut)
        if leak is not None:
            return leak, 0
        start = max(self._first, cut - _SPAN)
        known, altered = (self._core(s, players, start) for s in (self.segments, other))
        steps = 0
        for bar in range(start, cut + 1):
            leak = self._compared(known, altered, bar, cut)
            if leak is not None or bar == cut:
                return leak, steps
            over = known.envs["ended"] != 0
            if over.any():
                for core in (known, altered):
                    _begin(core, np.flatnonzero(over).tolist(), bar)
                    core.reset(over)
            known.actions[:] = altered.actions[:] = _actions(known.masks, rng)
            known.step()
            altered.step()
            steps += players
        raise AssertionError("unreachable")

    def _row(self, bar: int) -> int:
        """First tick of a bar; behind the last one: all of them."""
        return int(self._bars["tick"][bar]) if bar < len(self._bars) else len(self._ticks)

    def _altered(self, cut: int, rng: np.random.Generator) -> Segments:
        row, ticks = self._row(cut + 1), self._ticks
        price, size = ticks["price"].copy(), ticks["size"].copy()
        shift = rng.choice([0.8, 1.25])
        price[row:] = np.maximum(
            1, price[row:] * shift * np.exp(rng.normal(0, 0.01, len(price) - row))
        )
        known = size[row:] >= 0
        size[row:][known] = rng.integers(0, 2 * max(1, int(size.max())), int(known.sum()))
        return self._built(price, size)

    def _built(self, price: npt.NDArray[np.int64], size: npt.NDArray[np.int64]) -> Segments:
        stored, n, ticks = self._stored, self._n, self._ticks
        head, first = stored.head, self._bars[0]
        instrument = head.instruments[n]
        context = SlotContext(stored.calendar(n))
        if instrument.is_option and self._knows_days:
            context = context._replace(
                daily_atr=float(first["daily_atr"]), daily_count=int(first["daily_count"]),
                daily_close=int(first["day_prev_close"]),
            )  # fmt: skip
        block = TickBlock(
            np.zeros(len(ticks), np.uint16), ticks["bar"].copy(), ticks["flags"].copy(),
            ticks["ts"].copy(), price.copy(), size.copy(),
        )  # fmt: skip
        window = Window(0, stored.closes, block, np.empty((0, 2), np.int64))
        recording = Recording(
            instruments=(instrument,), context={instrument.symbol: context}, windows=[window],
            source=head.source, complete=head.complete, decision_ns=head.decision_ns,
            stop_at_tick=head.stop_at_tick,
        )  # fmt: skip
        return self._build(recording, head.features, None)

    def _core(self, segments: Segments, players: int, bar: int | None) -> Core:
        core = Core(segments, self._config, players)
        _begin(core, range(players), bar)
        core.reset()
        return core

    def _columns(
        self, columns: dict[str, npt.NDArray[Any]], other: Segments, cut: int, told: int | None
    ) -> Leak | None:
        features = self._config.features
        found = []
        for names, name, column in (
            ([f"{field}[0]" for field in features.window_fields], "", "window"),
            (list(features.slow_fields), "", "slow"),
            (
                [field for field in self._bars.dtype.names or () if self._told(field)],
                "bars.",
                "bars",
            ),
        ):
            before, after = columns[column][: cut + 1], getattr(other, column)[: cut + 1]
            for k, field in enumerate(names):
                own, its = (c[field] if name else c[:, k] for c in (before, after))
                rows = np.flatnonzero(_bits(own) != _bits(its))
                if len(rows):
                    at = int(rows[0])
                    leak = Leak(name + field, "", at, told, float(own[at]), float(its[at]))
                    found.append(leak)
        return min(found, key=lambda leak: leak.bar, default=None)

    def _told(self, field: str) -> bool:
        return self._knows_days or not field.startswith(("day_", "daily_"))

    def _compared(self, known: Core, altered: Core, bar: int, cut: int) -> Leak | None:
        for field, own, its in zip(self._names(known), _shown(known), _shown(altered), strict=True):
            if own.tobytes() == its.tobytes():
                continue
            rows, *columns = np.nonzero(_bits(own) != _bits(its))
            at = (rows[0], *(column[0] for column in columns))
            name = field[int(columns[0][0])] if columns else field[0]
            return Leak(name, "", bar, cut, float(own[at]), float(its[at]))
        return None

    def _names(self, core: Core) -> Iterator[list[str]]:
        config = self._config
        yield [field.name for field in observation_fields(config.window, config.features)]
        yield [f"action_mask[{k}]" for k in range(core.masks.shape[1])]
        yield [f"reward.{term}" for term in TERMS]
        yield ["reward"]
        yield ["terminated"]
        yield ["truncated"]
        yield from ([f"quote.{field}"] for field in _QUOTE)
        yield from ([f"account.{field}"] for field in core.slots.dtype.names or ())


def _shown(core: Core) -> Iterator[npt.NDArray[Any]]:
    """What must not differ, in the order of `_World._names`; the first axis are the players."""
    yield from (core.observations, core.masks, core.terms, core.rewards)
    yield from (core.terminated, core.truncated)
    yield from (np.ascontiguousarray(core.quotes[field]) for field in _QUOTE)
    yield from (np.ascontiguousarray(core.slots[field]) for field in core.slots.dtype.names or ())


def _begin(core: Core, players: Any, bar: int | None) -> None:  # noqa: ANN401  # any numbers
    symbol = core.segments.head.instruments[0].symbol
    for i in players:
        core.ask(i, instrument=symbol, bar=bar, bars=0)


def _actions(masks: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """HOLD half of the time, else a legal action, now and then any."""
    players, size = masks.shape
    legal = (rng.random((players, size)) * masks).argmax(1)
    anything, kind = rng.integers(0, size, players), rng.random(players)
    chosen: npt.NDArray[np.int64] = np.where(kind < 0.5, 0, np.where(kind < 0.9, legal, anything))
    return chosen


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same bits as whole numbers: NaN equals itself, 0.0 and -0.0 differ."""
    whole = np.ascontiguousarray(values)
    return whole.view(f"u{whole.dtype.itemsize}")
