"""What a run trades and where its bars come from; and what a scan of those bars found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from streambot.domain.instruments import Instrument


class Feed(NamedTuple):
    """Bars of one instrument.

    Attributes:
        instrument: what is traded; its chart is in `path`.
        path: a Parquet or CSV file; stamps are the bars' opens.
        symbol: name in the file's symbol column; None: the instrument's chart, or the only one.
        timeframe_ns: length of a bar; None: the most common step of the data.
        timezone: zone of stamps that carry none; None: the instrument's.
        quote_side: `bid` or `ask`, for files of quotes.
        columns: the file's names of the parts of a bar, where they are no usual ones.
        time_format: `strptime` pattern of stamps that two conventions could write.
    """

    instrument: Instrument
    path: Path
    symbol: str | None = None
    timeframe_ns: int | None = None
    timezone: str | None = None
    quote_side: str = "bid"
    columns: Mapping[str, str] | None = None
    time_format: str | None = None


class FeedReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan of an instrument's bars found. Every count is of bars, unless it says otherwise.

    Attributes:
        symbol: of the instrument.
        source: the file, and the name in it where it has several.
        bars: that replay.
        first_ns, last_ns: open of the first bar and close of the last, UTC ns; 0 without bars.
        timeframe_ns: length of a bar; inferred where `timeframe_inferred`.
        sessions: trading dates with bars.
        rounded: a price was off the tick grid and went to the nearest tick.
        volume_rounded: the volume was between two steps.
        newest_first: the file was read from its end.
        outside_session: opened outside the bounds of a session that the calendar knows; kept.
        unknown_dates: trading dates that the calendar does not know; kept: data wins.
        unknown_date_bars: bars on those dates.
        missing_sessions: sessions of the calendar, between first and last bar, without any bar.
        zero_volume, no_volume: bars that traded nothing; bars without a volume.
        overlapping: began before the bar before them ended, which is cut there.
        crossed: bid above ask at the close.
        jumps: open or close more than 15 % from the price before; kept.
        rejected: rows that do not replay, by reason (`filler`: flat and without volume, outside the
            session of an instrument that has volume).
    """

    symbol: str
    source: str
    bars: int
    first_ns: int
    last_ns: int
    timeframe_ns: int
    timeframe_inferred: bool
    sessions: int
    rounded: int
    volume_rounded: int
    newest_first: bool
    outside_session: int
    unknown_dates: int
    unknown_date_bars: int
    missing_sessions: int
    zero_volume: int
    no_volume: int
    overlapping: int
    crossed: int
    jumps: int
    rejected: dict[str, int]
