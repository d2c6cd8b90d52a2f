"""Sessions from calendars and zones, and their cache, which may lie but must not be believed."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys

import numpy as np
import pytest

from streambot.data import sessions as module
from streambot.data.sessions import exchange_sessions, session_table, zone_sessions
from streambot.data.zones import zone_table
from streambot.domain.errors import ConfigError
from tests.unit.data.bar_files import DAY, HOUR, stock

EPOCH = dt.date(1970, 1, 1)


def ns(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(np.int64))


def day(text: str) -> int:
    return (dt.date.fromisoformat(text) - EPOCH).days


def test_a_session_has_the_bounds_of_its_exchange() -> None:
    table = exchange_sessions("XNYS")
    row = int(np.searchsorted(table.dates, day("2020-12-15")))
    assert table.dates[row] == day("2020-12-15")
    assert (table.opens[row], table.closes[row]) == (ns("2020-12-15T14:30"), ns("2020-12-15T21:00"))
    half_day = int(np.searchsorted(table.dates, day("2020-11-27")))
    assert table.closes[half_day] == ns("2020-11-27T18:00")
    assert day("2020-12-25") not in table.dates
    assert table.timezone == "America/New_York"


def test_sessions_of_an_instrument_reach_beyond_its_bars_as_far_as_the_calendar_knows() -> None:
    first, last = ns("2020-12-15T15:00"), ns("2020-12-18T21:00")
    table = session_table(stock("SPY", exchange="XNYS"), first, last)
    assert table.dates[0] == day("2020-12-15")
    assert day("2022-01-15") < table.dates[-1] <= day("2022-01-22")
    mumbai = session_table(
        stock("X", exchange="XBOM"), ns("2026-07-13T04:00"), ns("2026-07-17T10:00")
    )
    assert mumbai.dates[-1] == day("2026-12-31")  # nothing is known after it, so nothing is said


def test_without_an_exchange_every_date_of_the_zone_has_24_hours() -> None:
    table = session_table(
        stock("BTC", timezone="Asia/Kolkata"),
        ns("2024-01-01T00:00"),
        ns("2024-01-02T00:00"),
        horizon_days=1,
    )
    assert table.opens[0] == ns("2023-12-31T18:30")
    assert (np.diff(table.opens) == DAY).all()
    clocks_change = zone_sessions("America/New_York", day("2024-03-09"), day("2024-03-11"))
    assert (clocks_change.closes - clocks_change.opens).tolist() == [
        24 * HOUR,
        23 * HOUR,
        24 * HOUR,
    ]
    # In Brazil midnight itself was skipped.
    skipped = zone_sessions("America/Sao_Paulo", day("2018-11-03"), day("2018-11-05"))
    assert (skipped.opens[1:] == skipped.closes[:-1]).all()
    assert (skipped.closes - skipped.opens).tolist() == [24 * HOUR, 23 * HOUR, 24 * HOUR]


def test_an_unknown_exchange_and_an_unknown_zone_are_explained(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no calendar for exchange 'XNYY'") as error:
        exchange_sessions("XNYY", cache_folder=tmp_path)
    assert "`XNYS`" in error.value.hint
    with pytest.raises(ConfigError, match="unknown time zone"):
        zone_table("Asia/Calcuta")


@pytest.mark.parametrize(
    "damage", ["truncate", "garbage", "empty", "other exchange", "unsorted", "pickle"]
)
def test_a_cache_that_does_not_read_back_is_made_again(tmp_path, damage) -> None:
    module._exchange_sessions.cache_clear()
    fresh = exchange_sessions("XNYS", cache_folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    assert module.calendars_version() in path.name
    columns = {"opens": fresh.opens, "closes": fresh.closes, "dates": fresh.dates}
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "garbage":
        path.write_bytes(b"\x00" * 5000)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other exchange":
        np.savez(path, **columns, names=np.array(["XBOM", "Asia/Kolkata"]))
    elif damage == "unsorted":
        np.savez(
            path,
            **(columns | {"opens": fresh.opens[::-1]}),
            names=np.array(["XNYS", "America/New_York"]),
        )
    else:
        np.savez(path, **columns, names=np.array([{"a": 1}], dtype=object))
    module._exchange_sessions.cache_clear()
    again = exchange_sessions("XNYS", cache_folder=tmp_path)
    np.testing.assert_array_equal(again.opens, fresh.opens)
    assert module._read(path, "XNYS") is not None
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_cache_folder_that_cannot_be_written_costs_time_and_nothing_else(tmp_path) -> None:
    module._exchange_sessions.cache_clear()
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert len(exchange_sessions("XLON", cache_folder=blocked / "sub")) > 5000


def test_a_cached_calendar_does_not_import_the_calendars(tmp_path) -> None:
    code = (
        "import sys; from streambot.data.sessions import exchange_sessions; exchange_sessions('XBOM');"
        "print('exchange_calendars' in sys.modules)"
    )
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert told == ["True\n", "False\n"]


@pytest.mark.parametrize(
    "name",
    [
        "UTC",
        "Asia/Kolkata",
        "America/New_York",
        "Europe/London",
        "Africa/Casablanca",
        "Australia/Lord_Howe",
    ],
)
def test_a_zone_table_says_what_zoneinfo_says(name, rng) -> None:
    from zoneinfo import ZoneInfo

    table = zone_table(name)
    seconds = np.sort(rng.integers(0, 4_000_000_000, 2000))
    offsets = (table.local(seconds * 10**9) - seconds * 10**9) // 10**9
    expected = [
        int(dt.datetime.fromtimestamp(int(s), ZoneInfo(name)).utcoffset().total_seconds())
        for s in seconds
    ]
    assert offsets.tolist() == expected
    back, _ = table.utc(table.local(seconds * 10**9))
    same = back == seconds * 10**9
    assert same.mean() > 0.99  # all but the hours that happen twice
    assert bool(same[0])
