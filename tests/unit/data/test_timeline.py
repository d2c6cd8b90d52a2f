"""The timeline: its errors, its plan, shared charts, defects of real files, and flat memory."""

from __future__ import annotations

import gc
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streambot.data.feed import Feed
from streambot.data.timeline import Timeline
from streambot.domain.errors import ConfigError, DataError
from streambot.domain.instruments import Expiries, Instrument, InstrumentType
from streambot.domain.replay_settings import parse_moment
from streambot.domain.ticks import TickFlag
from tests.unit.data.bar_files import (
    DAY,
    HOUR,
    MINUTE,
    Rows,
    collected,
    random_rows,
    stock,
    write_parquet,
)

NEW_YORK = {"exchange": "XNYS", "timezone": "America/New_York"}
MUMBAI = {"exchange": "XBOM", "timezone": "Asia/Kolkata"}


def ns(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(np.int64))


TUESDAY = ns("2024-01-02T14:30")  # the open of New York


def bars_at(*stamps: int, price: int = 200, volume: int = 4) -> Rows:
    return Rows([(stamp, price, price + 1, price - 1, price, volume) for stamp in stamps])


def feed(folder: Path, instrument: Instrument, rows: Rows, **fields) -> Feed:
    path = write_parquet(folder / f"{instrument.symbol}.parquet", rows.table())
    return Feed(instrument, path, **fields)


def closes_of(timeline: Timeline, symbol: str) -> list[tuple[int, bool]]:
    """When decision bars of an instrument close, and which are the last of their dates."""
    number = timeline.symbols.index(symbol)
    out = []
    for window in timeline.windows():
        ticks = window.ticks
        last = (ticks.instrument == number) & (ticks.flags & TickFlag.BAR_CLOSE > 0)
        out += zip(
            window.closes[ticks.bar[last]].tolist(),
            (ticks.flags[last] & TickFlag.SESSION_CLOSE > 0).tolist(),
            strict=True,
        )
    return out


def test_the_decision_timeframe_is_the_coarsest_and_never_finer_than_the_data(tmp_path) -> None:
    fine = feed(tmp_path, stock("FINE"), random_rows(np.random.default_rng(1), TUESDAY, 60, MINUTE))
    coarse = feed(
        tmp_path, stock("COARSE"), random_rows(np.random.default_rng(2), TUESDAY, 12, 5 * MINUTE)
    )
    assert Timeline([fine, coarse]).decision_ns == 5 * MINUTE
    with pytest.raises(ConfigError, match="finer than the bars of COARSE") as error:
        Timeline([fine, coarse], decision_ns=MINUTE).plan()
    assert error.value.exit_code == 3
    assert "5m" in error.value.hint
    with pytest.raises(ConfigError, match="the coarsest is one day"):
        Timeline([fine], decision_ns=2 * DAY).plan()


def test_what_cannot_be_replayed_says_so(tmp_path) -> None:
    with pytest.raises(ConfigError, match="nothing to replay"):
        Timeline([])
    spy = feed(tmp_path, stock("SPY"), bars_at(TUESDAY, TUESDAY + MINUTE))
    with pytest.raises(ConfigError, match="SPY has two sources"):
        Timeline([spy, spy])
    with pytest.raises(DataError, match="no bars of SPY between"):
        Timeline([spy], start=TUESDAY + DAY).plan()
    with pytest.raises(ConfigError, match="not after its start"):
        Timeline([spy], start=5, end=5)
    one = feed(tmp_path, stock("ONE"), bars_at(TUESDAY))
    with pytest.raises(DataError, match="one bar has no timeframe"):
        Timeline([one]).plan()
    assert Timeline([one._replace(timeframe_ns=MINUTE)]).plan().bars == 1
    week = feed(tmp_path, stock("WEEK"), bars_at(TUESDAY, TUESDAY + 7 * DAY))
    with pytest.raises(DataError, match="the longest is a day"):
        Timeline([week]).plan()
    ticks = feed(tmp_path, stock("TICKS"), bars_at(TUESDAY, TUESDAY + 5_000, TUESDAY + 10_000))
    with pytest.raises(DataError, match="are ticks, not bars"):
        Timeline([ticks]).plan()
    long = write_parquet(tmp_path / "long.parquet", bars_at(TUESDAY, TUESDAY + MINUTE).table("SPX"))
    with pytest.raises(DataError, match="no bars of SPY in the file") as error:
        Timeline([Feed(stock("SPY"), long)])
    assert error.value.hint == "did you mean `SPX`?"


def test_two_instruments_on_one_chart_have_ticks_of_their_own(tmp_path) -> None:
    rows = random_rows(np.random.default_rng(3), TUESDAY, 50, MINUTE)
    path = write_parquet(tmp_path / "SPY.parquet", rows.table())
    option = Instrument(
        symbol="SPY_OPT",
        type=InstrumentType.OPTION,
        underlying="SPY",
        lot_size=100,
        tick_size=Decimal("0.05"),
        expiries=Expiries(expires_after=1),
        **NEW_YORK,
    )
    other = feed(tmp_path, stock("SPYA", **NEW_YORK), rows)
    timeline = Timeline([Feed(option, path), Feed(stock("SPY", **NEW_YORK), path), other])
    assert timeline.symbols == ("SPY", "SPYA", "SPY_OPT")
    assert len(timeline._tracks) == 2
    ticks = collected(timeline.windows()).ticks
    mine = [[tick[:2] + tick[3:] for tick in ticks if tick[2] == number] for number in range(3)]
    assert mine[0] == mine[1] == mine[2]
    assert [tick[2] for tick in ticks[:6]] == [0, 1, 2, 0, 1, 2]


def test_bars_that_run_over_the_close_end_with_the_session_unless_trading_goes_on(tmp_path) -> None:
    opened = TUESDAY
    stamps = [opened + n * HOUR for n in range(7)]  # 9:30 to 15:30, the session ends at 16:00
    hourly = feed(tmp_path, stock("SPY", **NEW_YORK), bars_at(*stamps))
    assert closes_of(Timeline([hourly]), "SPY")[-2:] == [
        (opened + 6 * HOUR, False),
        (opened + 6 * HOUR + HOUR // 2, True),
    ]
    extended = feed(tmp_path, stock("EXT", **NEW_YORK), bars_at(*stamps, opened + 7 * HOUR))
    assert closes_of(Timeline([extended]), "EXT")[-2:] == [
        (opened + 7 * HOUR, False),
        (opened + 8 * HOUR, True),
    ]


def test_coarser_decisions_hang_on_the_open_and_end_at_the_close(tmp_path) -> None:
    opened = TUESDAY
    minutes = [
        opened - 10 * MINUTE,
        *(opened + n * MINUTE for n in range(0, 390, 3)),
        opened + 395 * MINUTE,
    ]
    spy = feed(tmp_path, stock("SPY", **NEW_YORK), bars_at(*minutes), timeframe_ns=MINUTE)
    hours = closes_of(Timeline([spy], decision_ns=2 * HOUR), "SPY")
    assert hours == [
        (opened, False),
        (opened + 2 * HOUR, False),
        (opened + 4 * HOUR, False),
        (opened + 6 * HOUR, False),
        (opened + 390 * MINUTE, False),
        (opened + 8 * HOUR, True),
    ]
    daily = closes_of(Timeline([spy], decision_ns=DAY), "SPY")
    assert daily == [(opened + 396 * MINUTE, True)]


def test_days_and_minutes_of_one_exchange_close_together(tmp_path) -> None:
    days = feed(
        tmp_path, stock("DAYS", **NEW_YORK), bars_at(ns("2024-01-02T05:00"), ns("2024-01-03T05:00"))
    )
    minutes = [opened + n * MINUTE for opened in (TUESDAY, TUESDAY + DAY) for n in range(390)]
    both = Timeline([days, feed(tmp_path, stock("MINUTES", **NEW_YORK), bars_at(*minutes))])
    closes = [(TUESDAY + 390 * MINUTE, True), (TUESDAY + DAY + 390 * MINUTE, True)]
    assert closes_of(both, "DAYS") == closes_of(both, "MINUTES") == closes
    block = next(both.windows()).ticks
    assert (np.diff(block.ts) >= 0).all()
    first_day = block.ts[(block.instrument == 0) & (block.bar == 0)]
    length = 390 * MINUTE
    assert (first_day - TUESDAY).tolist() == [0, length // 3, 2 * length // 3, length - 1]


def test_dates_that_the_calendar_does_not_know_are_kept_and_counted(tmp_path) -> None:
    monday = ns("2018-11-05T03:45")
    diwali = ns("2018-11-07T12:45")  # a holiday with one hour of trading in the evening
    stamps = [monday + n * 5 * MINUTE for n in range(75)] + [
        diwali + n * 5 * MINUTE for n in range(12)
    ]
    ici = feed(tmp_path, stock("ICI", **MUMBAI), bars_at(*stamps))
    timeline = Timeline([ici], decision_ns=HOUR)
    report = timeline.plan().instruments[0]
    assert (report.unknown_dates, report.unknown_date_bars, report.sessions) == (1, 12, 2)
    assert (report.outside_session, report.missing_sessions) == (0, 1)
    assert closes_of(timeline, "ICI")[-1] == (diwali + HOUR, True)
    table = timeline.trading_dates("ICI")
    assert table.opens[-1] == diwali
    assert table.closes[-1] == diwali + HOUR


def test_filler_bars_outside_the_session_are_rejected_where_the_instrument_has_volume(
    tmp_path,
) -> None:
    opened = ns("2018-11-05T03:45")
    rows = bars_at(*(opened + n * 5 * MINUTE for n in range(75))).rows
    filler = (opened + 10 * HOUR, 200, 200, 200, 200, 0)
    quiet = (opened + 100 * 5 * MINUTE, 200, 201, 200, 200, 0)  # flat it is not, so it is kept
    traded = Rows([*rows, quiet, filler])
    plan = Timeline([feed(tmp_path, stock("A", **MUMBAI), traded)]).plan()
    report = plan.instruments[0]
    assert (report.bars, report.rejected, report.outside_session) == (76, {"filler": 1}, 1)
    timeline = Timeline([feed(tmp_path, stock("A", **MUMBAI), traded)])
    assert max(tick[1] for tick in collected(timeline.windows()).ticks) < filler[0]
    # An index has no volume at all: there a bar without volume says nothing.
    index = Rows([(*row[:5], 0) for row in traded.rows])
    report = Timeline([feed(tmp_path, stock("B", **MUMBAI), index)]).plan().instruments[0]
    assert (report.bars, report.rejected, report.outside_session) == (77, {"filler": 0}, 2)


def test_true_jumps_overlaps_and_gaps_are_counted_and_kept(tmp_path) -> None:
    stamps = [TUESDAY + n * 5 * MINUTE for n in range(200)]
    rows = bars_at(*stamps).rows
    rows[100:] = [(t, 100, 101, 99, 100, v) for t, *_, v in rows[100:]]
    rows.insert(51, (stamps[50] + 2 * MINUTE, 200, 201, 199, 200, 4))
    timeline = Timeline([feed(tmp_path, stock("X"), Rows(rows))])
    report = timeline.plan().instruments[0]
    assert (report.bars, report.jumps, report.overlapping) == (201, 1, 2)
    block = next(timeline.windows()).ticks
    assert (np.diff(block.ts) > 0).all()
    with pytest.raises(DataError, match="begin before the one before them ends"):
        Timeline([feed(tmp_path, stock("X"), Rows(rows), timeframe_ns=HOUR)]).plan()


def test_two_daily_rows_of_one_date_are_refused(tmp_path) -> None:
    stamps = [ns(f"2024-01-{day:02}T05:00") for day in (2, 3, 4, 5)]
    doubled = bars_at(*stamps[:3], stamps[2] + HOUR, *stamps[3:])
    with pytest.raises(DataError, match="two daily bars for 2024-01-04"):
        Timeline([feed(tmp_path, stock("D", **NEW_YORK), doubled, timeframe_ns=DAY)]).plan()


def test_from_and_to_are_read_in_the_zone_of_each_instrument(tmp_path) -> None:
    minutes = [ns("2024-01-01T00:00") + n * HOUR for n in range(96)]
    mumbai = feed(tmp_path, stock("IN", timezone="Asia/Kolkata"), bars_at(*minutes))
    utc = feed(tmp_path, stock("UTC"), bars_at(*minutes))
    timeline = Timeline(
        [mumbai, utc], start=parse_moment("2024-01-02"), end=parse_moment("2024-01-02")
    )
    first = {
        report.symbol: (report.first_ns, report.bars) for report in timeline.plan().instruments
    }
    assert first == {"IN": (ns("2024-01-01T19:00"), 24), "UTC": (ns("2024-01-02T00:00"), 24)}
    days = feed(
        tmp_path,
        stock("US", **NEW_YORK),
        bars_at(*(ns(f"2024-01-0{d}T00:00") for d in (2, 3, 4, 5))),
    )
    cut = Timeline([days], start=parse_moment("2024-01-03"), end=parse_moment("2024-01-04"))
    assert cut.plan().bars == 2
    assert cut.plan().first_ns == ns("2024-01-03T14:30")


def test_the_plan_tells_open_from_closed_hours(tmp_path) -> None:
    stamps = [opened + n * MINUTE for opened in (TUESDAY, TUESDAY + DAY) for n in range(390)]
    timeline = Timeline([feed(tmp_path, stock("SPY", **NEW_YORK), bars_at(*stamps))])
    plan = timeline.plan()
    assert (plan.bars, plan.ticks, plan.sessions, plan.decision_ns) == (780, 3120, 2, MINUTE)
    assert plan.first_ns == TUESDAY
    assert plan.last_ns == TUESDAY + DAY + 390 * MINUTE
    assert plan.open_ns == 2 * 390 * MINUTE
    assert plan.closed_ns == DAY - 390 * MINUTE
    spans = np.concatenate([window.closed_spans for window in timeline.windows()])
    assert spans.tolist() == [[TUESDAY + 390 * MINUTE, TUESDAY + DAY]]
    assert timeline.sessions("SPY").opens[0] == TUESDAY


def test_a_symbol_that_starts_late_or_ends_early_does_not_hold_the_others_up(tmp_path) -> None:
    rng = np.random.default_rng(4)
    whole = random_rows(rng, TUESDAY, 20_000, MINUTE)
    late = random_rows(rng, TUESDAY + 18_000 * MINUTE, 500, MINUTE)
    early = random_rows(rng, TUESDAY, 100, MINUTE)
    holes = Rows(
        [
            row
            for n, row in enumerate(random_rows(rng, TUESDAY, 20_000, MINUTE).rows)
            if n < 50 or n > 19_900
        ]
    )
    parts = {"WHOLE": whole, "LATE": late, "EARLY": early, "HOLES": holes}
    table = pa.concat_tables([rows.table(name) for name, rows in parts.items()])
    table = table.sort_by([("ts", "ascending"), ("symbol", "ascending")])
    path = write_parquet(tmp_path / "all.parquet", table, group=500)
    timeline = Timeline([Feed(stock(name), path) for name in parts], window_ticks=2_000)
    windows = list(timeline.windows())
    assert sum(len(window.ticks) for window in windows) == 4 * sum(
        len(rows.rows) for rows in parts.values()
    )
    assert max(len(window.ticks) for window in windows) <= 4 * 2_000


@pytest.mark.parametrize("layout", ["wide", "long", "blocks", "csv blocks"])
def test_every_layout_gives_the_same_timeline(tmp_path, layout) -> None:
    parts = {
        name: random_rows(np.random.default_rng(n), TUESDAY + n * HOUR, 900, MINUTE, keep=0.8)
        for n, name in enumerate("CAB")
    }
    expected = collected(
        Timeline([feed(tmp_path, stock(n), rows) for n, rows in parts.items()]).windows()
    )
    if layout == "wide":
        feeds = [feed(tmp_path, stock(n), rows) for n, rows in reversed(parts.items())]
    else:
        table = pa.concat_tables([rows.table(name) for name, rows in parts.items()])
        if layout == "long":
            table = table.sort_by("ts")
        path = tmp_path / ("t.csv" if "csv" in layout else "t.parquet")
        if "csv" in layout:
            import pyarrow.csv as pa_csv

            pa_csv.write_csv(table, path)
        else:
            write_parquet(path, table, group=77)
        feeds = [Feed(stock(name), path) for name in parts]
    assert collected(Timeline(feeds, window_ticks=1000).windows()) == expected


def test_a_file_that_changes_during_the_replay_stops_it(tmp_path) -> None:
    rows = random_rows(np.random.default_rng(6), TUESDAY, 5000, MINUTE)
    spy = feed(tmp_path, stock("SPY"), rows)
    timeline = Timeline([spy])
    timeline.plan()
    write_parquet(spy.path, Rows(rows.rows[:4000]).table())
    with pytest.raises(DataError, match="changed while it was replayed|damaged"):
        list(timeline.windows())


def test_memory_does_not_grow_with_the_length_of_the_replay(tmp_path) -> None:
    """Arrow's pool and the objects alive are the same a quarter into the replay and at its end."""
    rng = np.random.default_rng(7)
    count = 400_000
    prices = 2000 + rng.integers(-3, 4, count).cumsum() % 500
    table = pa.table(
        {
            "ts": pa.array(TUESDAY + np.arange(count) * MINUTE, pa.timestamp("ns", "UTC")),
            **dict.fromkeys(("open", "high", "low", "close"), prices * 0.05),
        }
    )
    path = write_parquet(tmp_path / "L.parquet", table, group=50_000)
    timeline = Timeline([Feed(stock("L"), path)], window_ticks=40_000)
    arrow, alive = [], []
    for number, _ in enumerate(timeline.windows()):
        if number % 10 == 5:
            gc.collect()
            arrow.append(pa.total_allocated_bytes())
            alive.append(
                sum(array.nbytes for array in gc.get_objects() if isinstance(array, np.ndarray))
            )
    assert len(arrow) >= 4
    assert max(arrow[1:]) <= 1.5 * max(arrow[:1]) + 2_000_000
    assert max(alive[1:]) <= 1.5 * max(alive[:1]) + 2_000_000
