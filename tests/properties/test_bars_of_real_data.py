"""Real minutes become ticks and bars again: the same bars, and the same decision bars as the replay's."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from streambot.data.feed import Feed
from streambot.data.sessions import exchange_sessions, zone_sessions
from streambot.data.timeline import Timeline
from streambot.domain.bundled import bundled_path
from streambot.domain.registry import bundled_registry
from streambot.domain.ticks import TickFlag
from streambot.market.bars import DAY, SOURCE, BarBuilder, TradingDates

MINUTE = 60 * 10**9
SPY = bundled_path("replay") / "bars" / "spy_1m_2020.parquet"


def new_york_dates(first_ns: int, last_ns: int) -> TradingDates:
    sessions = exchange_sessions("XNYS").between(first_ns - DAY, last_ns + DAY)
    days = zone_sessions("America/New_York", int(sessions.dates[0]), int(sessions.dates[-1]))
    midnights = days.opens[np.searchsorted(days.dates, sessions.dates)]
    return TradingDates(midnights, sessions.opens, sessions.closes)


@pytest.mark.parametrize("minutes", [1, 5, 15, 60])
def test_bundled_minutes_of_spy(minutes):
    instrument = bundled_registry()["SPY"]
    table = pq.read_table(SPY)
    stamps = (
        table["ts"].cast("int64").to_numpy()
        * {"us": 1000, "ns": 1, "ms": 10**6}[table.schema.field("ts").type.unit]
    )
    builder = BarBuilder(
        [SOURCE, minutes * MINUTE, DAY], [new_york_dates(int(stamps[0]), int(stamps[-1]))]
    )
    parts, decisions = [], 0
    timeline = Timeline([Feed(instrument, SPY, timeframe_ns=MINUTE)], decision_ns=minutes * MINUTE)
    for window in timeline.windows():
        parts.append(builder.update(window.ticks))
        decisions += int(((window.ticks.flags & int(TickFlag.BAR_CLOSE)) != 0).sum())
    bars = np.concatenate([*parts, builder.flush()])
    tick = float(instrument.tick_size)
    source = bars[bars["timeframe"] == SOURCE]
    assert source["start"].tolist() == stamps.tolist()
    assert (source["end"] - source["start"] == MINUTE).all()
    for name in ("open", "high", "low", "close"):
        assert np.array_equal(
            source[name], np.round(table[name].to_numpy() / tick).astype(np.int64)
        )
    assert np.array_equal(source["volume"], table["volume"].to_numpy().astype(np.int64))
    coarse = bars[bars["timeframe"] == minutes * MINUTE]
    assert len(coarse) == decisions
    assert coarse["volume"].sum() == source["volume"].sum()
    daily = bars[bars["timeframe"] == DAY]
    assert len(daily) == 4
    assert daily["high"].max() == source["high"].max()
