"""Where episodes may begin: which bars of which instruments, for those drawn and those asked for."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from streambot.domain.errors import ConfigError, DataError
from streambot.domain.replay_settings import parse_moment

if TYPE_CHECKING:
    from streambot.data.segments import Segments
    from streambot.domain.replay_settings import Moment
    from streambot.env.config import EnvConfig

_NEVER = 1 << 62


class Asked(NamedTuple):
    """An episode that was named; -1 where nothing was said.

    Attributes:
        instrument: its number. bar: where it begins. bars: its length, 0: to the end of the data.
    """

    instrument: int = -1
    bar: int = -1
    bars: int = -1


class Starts:
    """Bars at whose close an episode may begin.

    Args:
        segments: the data.
        config: settings.
        nowhere: the engine runs elsewhere, and nothing is drawn or asked for.

    Raises:
        DataError: an instrument has too few bars for one episode.

    Attributes:
        first: first bar to draw of each instrument, with `lookback` before it, int64.
        last_bar: last bar of an episode of each instrument, int64.
        before: how many starts the instruments before have; the last is their total, int64.
    """

    def __init__(self, segments: Segments, config: EnvConfig, *, nowhere: bool = False) -> None:
        self._segments, self._config = segments, config
        none = np.zeros(len(segments.head.instruments), np.int64)
        self._lowest = self.first = none
        self.last_bar, self.before = none + _NEVER, np.append(none, 0)
        if not nowhere:
            self._look()

    @property
    def total(self) -> int:
        """How many episodes there are to draw from."""
        return int(self.before[-1])

    def _look(self) -> None:
        config, segments = self._config, self._segments
        first, last_bar, counts, short, lowest, longest = [], [], [], [], [], []
        need = config.episode_bars or 1
        for n, instrument in enumerate(segments.head.instruments):
            closes = segments.bars_of(n)["close_ts"]
            low, high = rows_between(closes, config.start, config.end, instrument.timezone)
            lowest.append(low)
            begin = max(low, config.lookback)
            starts = high - need - begin  # the first step ends at the bar behind the first
            if starts < 1:
                short.append(
                    f"{instrument.symbol} has {max(0, high - low):,} bars for episodes, with "
                    f"{low:,} before them"
                )
            longest.append(high - begin - 1)
            first.append(begin)
            last_bar.append(high - 1)
            counts.append(starts if config.episode_bars else 1)
        if short:
            fits = f"N, here {min(longest):,} at most" if min(longest) > 0 else "N"
            more = f" (and {len(short) - 3:,} more instruments)" if len(short) > 3 else ""
            raise DataError(
                f"{'; '.join(short[:3])}{more}: an episode needs {config.lookback:,} to look back on "
                f"and {need + 1:,} of its own",
                hint=f"shorten `episode_bars` (--set episode_bars={fits}) or `lookback`, or leave "
                "out what is too short",
            )
        self.first, self._lowest = np.array(first, np.int64), np.array(lowest, np.int64)
        self.last_bar = np.array(last_bar, np.int64)
        self.before = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def find(self, instrument: str | None, bar: int | None, bars: int | None) -> Asked:
        """The episode that is named.

        Args:
            instrument: its symbol; None: the only one.
            bar: number of the bar at whose close it begins; None: the first with `lookback`.
            bars: its length; None: the setting's; 0: to the end of the data.

        Raises:
            ConfigError: no such instrument, more than one and none named, or no whole number.
            DataError: the instrument has no such bars.
        """
        longest = self._config.episode_bars or 0
        length = longest if bars is None else whole("bars", bars)
        if instrument is None and bar is None:
            if longest and not 0 < length <= longest:
                raise DataError(
                    f"an episode of {length or 'all'} bars that is drawn: they have {longest} at most",
                    hint="say where it begins, with `bar` or `start`",
                )
            return Asked(bars=-1 if bars is None else length)
        n = self._number(instrument)
        first, last = int(self._lowest[n]), int(self.last_bar[n])
        at = int(self.first[n]) if bar is None else whole("bar", bar)
        if not first <= at < last or at + length > last or length < 0:
            raise DataError(
                f"no episode of {length or 'any'} bars begins at bar {at} of "
                f"{self._segments.head.instruments[n].symbol}: it has bars {first} to {last}",
                hint="`bars` is the episode's length, 0 to the end of the data; or begin sooner",
            )
        return Asked(n, at, -1 if bars is None else length)

    def bar_at(self, instrument: str | None, moment: str) -> int:
        """Number of the first bar of an instrument that closes at or after a time.

        Args:
            moment: `2020-12-15T10:30`, in the instrument's zone.

        Raises:
            UsageError: it is no time.
            ConfigError: no such instrument.
        """
        n = self._number(instrument)
        ts = parse_moment(str(moment)).start_ns(self._segments.head.instruments[n].timezone)
        return int(np.searchsorted(self._segments.bars_of(n)["close_ts"], ts))

    def _number(self, instrument: str | None) -> int:
        instruments = self._segments.head.instruments
        if instrument is None:
            if len(instruments) > 1:
                raise ConfigError(
                    "an episode that is named needs its instrument",
                    hint=f"one of {', '.join(i.symbol for i in instruments[:8])}",
                )
            return 0
        n = self._segments.number(instrument)
        if n is None:
            raise ConfigError(
                f"no instrument `{instrument}` in the data",
                hint=f"there are {', '.join(i.symbol for i in instruments[:8])}",
            )
        return n


def rows_between(
    closes: npt.NDArray[np.int64], start: Moment | None, end: Moment | None, zone: str
) -> tuple[int, int]:
    """First bar of [start, end), by its close, and the one behind the last.

    Args:
        closes: of an instrument's bars, UTC ns, int64 [n].
        start, end: see `EnvConfig`; None: all there are.
        zone: of the instrument.
    """
    low, high = 0, len(closes)
    if start is not None:
        low = int(np.searchsorted(closes, start.start_ns(zone)))
    if end is not None:
        high = int(np.searchsorted(closes, end.end_ns(zone), "right"))
    return low, high


def whole(name: str, value: object) -> int:
    """A whole number that a person gave.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ConfigError(f"must be a whole number, not {value!r}", where=name)
    return index(value)
