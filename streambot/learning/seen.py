"""Whether a policy has seen the bars that it is judged on, by what its checkpoint says of its training.

Bars count as seen where training had the same chart at the same time, at whatever timeframe: a bar
of 15 minutes is made of the prices of those of 5. Other charts at the same time are counted apart:
markets move together, so a policy has seen a part of them too.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streambot.domain.errors import UsageError
from streambot.domain.replay_settings import Moment, parse_moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streambot.data.segments import Segments
    from streambot.domain.instruments import Instrument
    from streambot.env.passage import Stretch


class Training(NamedTuple):
    """What a policy was trained on.

    Attributes:
        instruments: symbols; None: not said.
        first, last: closes of the first and the last bar, UTC ns; None: not said.
        timeframes: as people write them; empty: not said.
    """

    instruments: frozenset[str] | None
    first: int | None
    last: int | None
    timeframes: tuple[str, ...]


class Seen(NamedTuple):
    """How many bars were trained on.

    Attributes:
        bars: that are judged.
        seen: of them, trained on; None: the checkpoint does not say.
        same_time: of the rest, at times that training saw of other charts.
        by_instrument: share of the bars that were trained on, by symbol.
    """

    bars: int
    seen: int | None
    same_time: int
    by_instrument: dict[str, float]


def training_of(about: Mapping[str, str]) -> Training:
    """What the texts of a checkpoint say; what does not read counts as not said."""
    symbols = _listed(about.get("instruments", ""))
    return Training(
        frozenset(symbols) if symbols else None,
        _time(about.get("trained_from", "")),
        _time(about.get("trained_to", "")),
        _listed(about.get("timeframes", "")),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _time(text: str) -> int | None:
    try:
        return parse_moment(text).start_ns("UTC")
    except UsageError:
        return None


def behind(training: Training) -> Moment | None:
    """The first moment that training did not see, of any instrument; None: not said."""
    if training.last is None:
        return None
    # A moment counts microseconds: the next whole one.
    seconds, nanos = divmod(training.last, 10**9)
    at = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return Moment((at + dt.timedelta(microseconds=nanos // 1_000 + 1)).isoformat())


def seen_of(training: Training, segments: Segments, spans: Sequence[Stretch]) -> Seen:
    """How many of the bars of `spans` were trained on.

    The close of the first decision is none of them: nothing was traded in its bar.
    """
    instruments = segments.head.instruments
    known = training.instruments, training.first, training.last
    bars = sum(span.last - span.first for span in spans)
    if None in known:
        return Seen(bars, None, 0, {})
    charts = _charts(instruments, training)
    total = other = 0
    shares = {}
    for span in spans:
        closes = segments.bars_of(span.instrument)["close_ts"][span.first + 1 : span.last + 1]
        assert training.first is not None and training.last is not None  # noqa: S101, PT018
        inside = int(np.count_nonzero((closes >= training.first) & (closes <= training.last)))
        instrument = instruments[span.instrument]
        own = _chart(instrument) in charts
        total, other = total + inside * own, other + inside * (not own)
        shares[instrument.symbol] = inside / len(closes) if own else 0.0
    return Seen(bars, total, other, shares)


def _chart(instrument: Instrument) -> str:
    return instrument.underlying or instrument.symbol


def _charts(instruments: Sequence[Instrument], training: Training) -> set[str]:
    """The charts that were trained on, as far as these data know what an instrument trades."""
    symbols = training.instruments or frozenset()
    known = {i.symbol: _chart(i) for i in instruments}
    return {known.get(symbol, symbol) for symbol in symbols}
