"""Bars on disk come back as they were, and a replay through them is the replay of the files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.data import timeline as timeline_module
from streambot.data.feed import Feed
from streambot.data.rows import Bars
from streambot.data.spill import Spill, pack, unpack
from streambot.data.timeline import Timeline
from streambot.domain.errors import DataError
from tests.unit.data.bar_files import (
    HOUR,
    MINUTE,
    Rows,
    collected,
    random_rows,
    stock,
    write_parquet,
)

START = 1_704_067_200 * 10**9
numbers = st.integers(1, 2**52)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**55), numbers, numbers, numbers, numbers, st.integers(-1, 2**53)
        ),
        min_size=1,
        max_size=40,
    )
)
def test_any_bars_come_back_from_their_bytes(rows) -> None:
    steps, *columns = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    bars = Bars(START + np.cumsum(steps), *columns)
    block, data = pack(bars, 17)
    assert len(data) == len(bars) * sum(block.widths)
    for back, column in zip(unpack(block, data), bars, strict=True):
        np.testing.assert_array_equal(back, column)


def test_minutes_take_about_ten_bytes() -> None:
    rows = random_rows(np.random.default_rng(1), START, 4000, MINUTE).rows
    bars = Bars(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)))
    _, data = pack(bars, 0)
    assert len(data) <= 10 * 4000


@pytest.fixture
def parts(tmp_path):
    out = []
    for number in range(4):
        rng = np.random.default_rng(number)
        rows = random_rows(rng, START + number * HOUR, 9000, MINUTE, keep=0.9)
        symbol = f"S{number}"
        path = write_parquet(tmp_path / f"{symbol}.parquet", rows.table())
        out.append((Feed(stock(symbol), path), rows))
    return out


def test_a_replay_of_many_files_goes_through_the_disk_and_changes_nothing(
    parts, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    feeds = [feed for feed, _ in parts]
    straight = collected(Timeline(feeds).windows())
    monkeypatch.setattr(timeline_module, "MOST_READERS", 3)
    spilled = Timeline(feeds)
    assert collected(spilled.windows()) == straight
    assert spilled._spill is not None
    assert collected(spilled.windows()) == straight  # and again
    tail = collected(spilled.windows(from_barrier=5000))
    assert tail.closes == straight.closes[5000:]
    assert not any(
        path.is_file() for path in (tmp_path / "cache").rglob("*") if "npz" not in path.name
    )
    # What is written down is read no more: the files may go.
    for feed in feeds:
        feed.path.unlink()
    assert collected(spilled.windows()) == straight


def test_fillers_and_rescans_reach_the_disk_too(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = int(np.datetime64("2018-11-05T03:45", "ns").astype(np.int64))
    rows = [(opened + n * 5 * MINUTE, 200, 201, 199, 200, 4) for n in range(75)]
    rows.append((opened + 10 * HOUR, 200, 200, 200, 200, 0))
    path = write_parquet(tmp_path / "A.parquet", Rows(rows).table())
    mumbai = stock("A", exchange="XBOM", timezone="Asia/Kolkata")
    straight = collected(Timeline([Feed(mumbai, path)]).windows())
    monkeypatch.setattr(timeline_module, "MOST_READERS", 0)
    spilled = Timeline([Feed(mumbai, path)])
    assert collected(spilled.windows()) == straight
    assert len(straight.ticks) == 4 * 75


def test_without_room_or_right_the_files_are_read(parts, monkeypatch, tmp_path) -> None:
    feeds = [feed for feed, _ in parts]
    straight = collected(Timeline(feeds).windows())
    monkeypatch.setattr(timeline_module, "MOST_READERS", 1)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    timeline = Timeline(feeds)
    assert collected(timeline.windows()) == straight
    assert timeline._spill is None
    assert Spill.opened(tmp_path, 10**15) is None


def test_a_disk_that_fills_up_is_named(tmp_path, monkeypatch) -> None:
    spill = Spill.opened(tmp_path, 10)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streambot.data.spill.os.write", full)
    bars = Bars(*(np.array([number], dtype=np.int64) for number in (START, 1, 1, 1, 1, 1)))
    with pytest.raises(DataError, match="No space left on device"):
        spill.append(object(), bars)
